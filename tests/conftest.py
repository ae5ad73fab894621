"""What several files of tests share: fixtures, and no deadline for property tests, which machines may run slowly."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings

if TYPE_CHECKING:
    from progressive_attention.data.questions import QuestionSet

settings.register_profile("untimed", deadline=None)
# Mutation tests ask only whether an example fails: of `make mutants`, where a survivor runs all tests of its function.
settings.register_profile("mutants", deadline=None, max_examples=25, phases=[Phase.explicit, Phase.generate])
settings.load_profile("untimed")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell has it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def photograph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``write_photographs`` makes; only to be read."""
    from tiny_photographs import write_photographs  # only now, since it imports torch, which some files never need

    out = tmp_path_factory.mktemp("photographs") / "set"
    write_photographs(out)
    return out


@pytest.fixture
def photograph_sets(photograph_folder: Path) -> "tuple[QuestionSet, QuestionSet]":
    """Its training and validation set, opened anew for each test, as by each process."""
    from tiny_photographs import photographs

    return photographs(photograph_folder)


MAY_SKIP = ("Chromium", "CUDA")  # what a machine may lack


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the commands in documents that were not executed, and count skips. In CI, a skip is a failure, unless
    Chromium or a GPU is missing.
    """
    passed = [pair for report in terminalreporter.stats.get("passed", []) for pair in report.user_properties]
    for command in sorted({str(value) for name, value in passed if name == "not executed"}):
        terminalreporter.write_line(f"not executed: {command}")
    reasons = [str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", [])]
    wrong = [reason for reason in reasons if not any(word in reason for word in MAY_SKIP)]
    excused = len(reasons) - len(wrong)
    terminalreporter.write_line(f"skipped: {excused} without Chromium or a GPU, {len(wrong)} for other reasons")
    if wrong and os.environ.get("CI"):
        terminalreporter.write_line(f"in CI, every test must run; skipped: {sorted(set(wrong))}", red=True)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
