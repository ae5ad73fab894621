"""The notebooks: run from scratch they show what they show, and what they hold is small and names no machine."""

import re

import nbformat
import pytest
from nbformat import NotebookNode
from run_notebooks import NOTEBOOKS, executed

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
MEASURED = "measured"  # the tag of cells whose figures come from a training, which other machines round otherwise


def printed(cell: NotebookNode) -> str:
    """What a cell printed, without figures if they come from a training."""
    text = "".join(output.get("text", "") for output in cell.outputs)
    return re.sub(r"[a-z ]*\d[\d.%]*[a-z ]*", "#", text) if MEASURED in cell.metadata.get("tags", []) else text


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["ask-and-look", "equations-by-hand", "own-photographs"]


@notebooks
def test_they_are_small_and_name_no_machine(path) -> None:
    assert path.stat().st_size < 400_000
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in cells)
    for cell in cells:
        assert cell.execution_count is not None, cell.source
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result"), output
            assert not re.search(r"(^|[\s'\"])/\w|[A-Z]:\\|\x1b", output.get("text", "")), output.text


@pytest.mark.slow
@notebooks
def test_run_from_scratch_they_show_the_same(path) -> None:
    before, after = nbformat.read(path, as_version=4), executed(path)
    for old, new in zip(before.cells, after.cells, strict=True):
        if old.cell_type == "code":
            assert printed(new) == printed(old), old.source
            assert [one.output_type for one in new.outputs] == [one.output_type for one in old.outputs], old.source
