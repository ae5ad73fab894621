"""Import photographs with questions, check them, and export them.

examples:
  pan data import csv birds.csv --out birds
  pan data check birds
"""

import argparse

from progressive_attention.commands import arguments as shared
from progressive_attention.commands import data_check, data_export, data_import

ACTIONS = {"import": data_import, "check": data_check, "export": data_export}


def add_options(parser: shared.Parser) -> None:
    """The actions of ``pan data``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, module in ACTIONS.items():
        shared.add_command(actions, name, module.__doc__, module.add_options, module.run)


def run(arguments: argparse.Namespace) -> int | None:
    """Run the action."""
    return ACTIONS[arguments.action].run(arguments)
