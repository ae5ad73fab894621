"""Starting up: each command imports what it needs, and no more; so it answers soon."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "src/progressive_attention/assets/examples/mref.png"
PHOTOGRAPHS = ROOT / "examples/photographs/photographs.csv"
OURS = "progressive_attention"
PREDICT = ("predict", "--weights", "mref-pan", str(EXAMPLE), "--query", "7", "--device", "cpu")
TELL = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"


def run(code: str, folder: Path) -> str:
    """What a new Python process prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


def imported(code: str, folder: Path) -> set[str]:
    """The modules that a new Python process has imported after some code."""
    return set(json.loads(run(code + TELL, folder).splitlines()[-1]))


def imported_by(folder: Path, *arguments: str) -> set[str]:
    """The modules that ``pan`` has imported when it ends."""
    code = f"from {OURS}.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
    return imported(code, folder)


def packages(modules: set[str]) -> set[str]:
    """Those not of Python's own library, nor imported at any start (as some installations have it)."""
    at_start = {name.split(".")[0] for name in imported("", ROOT)}
    return {name.split(".")[0] for name in modules} - {*sys.stdlib_module_names, *at_start}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))


def test_the_package_alone_imports_next_to_nothing(tmp_path: Path) -> None:
    modules = imported(f"import {OURS}", tmp_path)
    assert {name for name in modules if name.startswith(OURS)} == {OURS}
    assert packages(modules) == {OURS}
    assert "importlib.metadata" not in modules  # which reads the version


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("predict", "--help"),
        ("serve", "--help"),
        ("paint",),
        ("train", "--data", "mref", "--epochs", "0", "--out", "r"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_help_and_mistakes_need_the_standard_library_and_msgspec_only(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert packages(imported_by(tmp_path, *arguments)) <= {OURS, "msgspec", "typing_extensions"}


def test_list_needs_no_torch(tmp_path: Path) -> None:
    modules = imported_by(tmp_path, "list")
    assert f"{OURS}.saved.network_folder" in modules
    assert not packages(modules) & {"torch", "matplotlib", "pyarrow", "rich"}


def test_render_needs_no_torch(tmp_path: Path) -> None:
    modules = imported_by(tmp_path, "render", "mref", "--count", "1", "--out", "sheet.png")
    assert "matplotlib" in modules
    assert not packages(modules) & {"torch", "pyarrow"}


def test_data_needs_no_torch(tmp_path: Path) -> None:
    modules = imported_by(tmp_path, "data", "import", "csv", str(PHOTOGRAPHS), "--out", "photographs")
    assert "pyarrow" in modules
    assert not packages(modules) & {"torch", "matplotlib", "joblib"}


def test_predict_needs_nothing_of_training(tmp_path: Path) -> None:
    modules = imported_by(tmp_path, *PREDICT, "--json", "--out", "figures")
    assert (tmp_path / "figures/mref-7.png").is_file()
    needed = {"PIL", "matplotlib", "numpy", "safetensors", "torch"}
    assert needed <= packages(modules)
    unneeded = {"filelock", "huggingface_hub", "joblib", "pyarrow", "rich", "scipy", "sklearn", "timm"}
    assert not packages(modules - imported("import torch", tmp_path)) & {*unneeded, "torchvision"}
    assert not modules & {"matplotlib.pyplot", "torch._dynamo", "torch._inductor", "triton"}
    assert not modules & {f"{OURS}.{name}" for name in ("training", "data.manifest")}


def test_predictor_draws_nothing(tmp_path: Path) -> None:
    code = f"import {OURS} as p; p.Predictor('mref-pan', 'cpu').ask({str(EXAMPLE)!r}, '7')"
    assert not packages(imported(code, tmp_path)) & {"matplotlib", "pyarrow", "rich"}


def test_torch_is_not_searched_for_garbage(tmp_path: Path) -> None:
    code = f"import gc\nfrom {OURS}.cli import import_torch\nimport_torch()\nonce = gc.get_freeze_count()\n"
    code += "x = [[] for _ in range(9)]\nimport_torch()\nprint(gc.isenabled(), once, gc.get_freeze_count() - once)"
    enabled, frozen, more = run(code, tmp_path).split()
    assert enabled == "True"
    assert int(frozen) > 100_000
    assert int(more) <= 0  # what others made in the meantime is searched as ever
