"""What we say of our types is enough for a user whose checker is strict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "support"


def complaints(folder: Path, code: str) -> list[str]:
    """What pyright, strict, has to say of a program: the lines' numbers, from 1, and its words."""
    (folder / "user.py").write_text(code, encoding="utf-8")
    settings = {"typeCheckingMode": "strict", "include": ["user.py"], "extraPaths": [str(TESTS.parents[1] / "src")]}
    (folder / "pyrightconfig.json").write_text(json.dumps({**settings, "reportUnnecessaryTypeIgnoreComment": True}))
    command = ["pyright", "-p", str(folder), "--pythonpath", sys.executable, "--outputjson"]
    found = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    told = json.loads(found.stdout)
    assert told["summary"]["filesAnalyzed"] == 1
    return [f"{one['range']['start']['line'] + 1}: {one['message']}" for one in told["generalDiagnostics"]]


@pytest.mark.slow  # pyright reads all of torch
def test_a_strict_checker_takes_a_users_program(tmp_path: Path) -> None:
    code = (TESTS / "typed_user.py").read_text(encoding="utf-8")
    lines = len(code.splitlines())
    wrong = "\nlate: int = Predictor('mref-san').ask('a.png', '7').attribute\nPredictor('mref-san').ask(7, '7')\n"
    found = complaints(tmp_path, code + wrong)
    assert [line.split(":")[0] for line in found] == [str(lines + 2), str(lines + 3)], "\n".join(found)
