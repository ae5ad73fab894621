"""The walks of docs/extending.md that need a process of their own: a new row is listed, trained and in the table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks, commands

PAGE = ROOT / "docs" / "extending.md"


@pytest.mark.slow
def test_a_new_model_row_is_listed_trained_and_in_the_table(tmp_path: Path) -> None:
    code, experiment = (
        next(block.code for block in blocks(PAGE, language) if "pan-late" in block.code)
        for language in ("python", "toml")
    )
    assert len(code.splitlines()) <= 30
    (tmp_path / "my_row.py").write_text(code, encoding="utf-8")
    (tmp_path / "my_row.toml").write_text(experiment, encoding="utf-8")
    said = [commands(block.code) for block in blocks(PAGE, "bash")]
    mine = [command.split()[1:] for few in said for command in few if command.startswith("python my_row.py")]
    assert [words[1] for words in mine] == ["list", "train", "reproduce"]
    printed = [run(tmp_path, *words) for words in mine]
    assert "pan-late" in printed[0]
    assert json.loads((tmp_path / "runs/late/config.json").read_text())["model"]["attend_at"] == [2, 3]
    pages = sorted((tmp_path / "runs/my-row").glob("*.md"))
    assert any("PAN, late" in page.read_text(encoding="utf-8") for page in pages), pages


def run(folder: Path, *words: str) -> str:
    """What a new process of Python prints; fails where it ends otherwise than well."""
    environment = {**os.environ, "PAN_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
