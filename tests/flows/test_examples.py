"""The programs in examples/ run as they stand, here for a few steps, and learn in as many as they say."""

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A program as Python runs it, its folder first on the path."""
    monkeypatch.syspath_prepend(EXAMPLES)
    for module in (name, "shapes"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return importlib.import_module(name)


def test_shapes_are_where_their_masks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    data = example("shapes", monkeypatch).Shapes(5, seed=3)
    for i in range(len(data)):
        image, query, attribute, masks = data[i]
        assert query.tolist() == [0, 1, 2]
        assert masks.sum((1, 2)).tolist() == [169, 113, 69]  # 13 x 13; a disc of radius 6; a cross 3 thick
        assert (masks.sum(0) <= 1).all()
        for colour, mask in zip(attribute.tolist(), masks, strict=True):
            assert image[:, mask].mean(1).argmax() == colour
        assert (data[i][0] == image).all()


def test_the_plain_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = example("plain_loop", monkeypatch).main(steps=2, questions=8)
    assert set(figures) == {"accuracy", "tpr", "pointing", "best_iou"}
    assert all(0 <= value <= 1 for value in figures.values())


def test_the_plain_loop_is_short() -> None:
    assert len((EXAMPLES / "plain_loop.py").read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
def test_the_plain_loop_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far better than the third of a guess, and than attention spread over the picture (1.7 to 4.1 % on the shape)."""
    figures = example("plain_loop", monkeypatch).main()
    assert figures["accuracy"] > 0.9
    assert figures["tpr"] > 0.2


def test_lightning_trains_and_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    program = example("lightning_module", monkeypatch)
    logged = program.main(steps=2, questions=8, default_root_dir=tmp_path, num_sanity_val_steps=0, **options)
    assert set(logged) == {"accuracy", "tpr", "pointing"}
    assert all(0 <= value <= 1 and math.isfinite(value) for value in logged.values())
