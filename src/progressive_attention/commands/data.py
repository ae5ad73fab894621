"""Import photographs with questions, and check them.

examples:
  pan data import csv birds.csv --out birds
  pan data check birds
"""

from progressive_attention.commands import arguments as shared
from progressive_attention.commands import data_check, data_import


def add_options(parser: shared.Parser) -> None:
    """The actions of ``pan data``; each sets its own ``run``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    shared.add_command(actions, "import", data_import.__doc__, data_import.add_options, data_import.run)
    shared.add_command(actions, "check", data_check.__doc__, data_check.add_options, data_check.run)


run = data_check.run  # never asked for: an action sets its own
