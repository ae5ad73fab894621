"""What a wrong command prints, that the tests of the command line share."""

import pytest

from progressive_attention.cli import main


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong command prints, which must end with exit code 2."""
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's way
        code = stop.code
    error = capsys.readouterr().err.strip()
    assert code == 2, error
    assert "\n" not in error
    return error
