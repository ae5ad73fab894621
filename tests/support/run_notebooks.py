"""Run the notebooks of docs/notebooks again and keep what they show: `make notebooks`.

Progress and warnings, on stderr, are not kept; nor is anything that tells when, where or how fast a cell ran.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook run in its own folder, with this interpreter; raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = kept(cell.outputs)
    notebook.metadata.pop("language_info", None)
    return notebook


def kept(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """A cell's outputs without stderr, what was printed in one piece, and pictures without the text beside them."""
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    others = [output for output in outputs if output.output_type != "stream"]
    for output in others:
        if "image/png" in output.data:
            output.data = {"image/png": output.data["image/png"]}
    return [nbformat.v4.new_output("stream", name="stdout", text=printed)] * bool(printed) + others


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(executed(path), path)
        print(path.name)
