"""How far results part: distances by hand, and the page's table by the measured figures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import drift  # noqa: E402

SEEDS = drift.SEEDS


def results(weights: float, answers: list[int], probability: float) -> dict[str, np.ndarray]:
    """What a process measured: gradients (3, 4), three answers by seed, one question to the shipped network."""
    arrays = {f"gradient {seed}": np.array([3.0, 4.0]) for seed in SEEDS}
    arrays |= {f"weights {seed}": np.array([3.0, 4.0 + weights * seed]) for seed in SEEDS}
    arrays |= {f"answers {seed}": np.array(answers) for seed in SEEDS}
    return {**arrays, "truth": np.array([0, 1, 1]), "shipped": np.array([[probability, 1 - probability]])}


def test_compared_by_hand() -> None:
    base, other = results(0, [0, 1, 2], 0.75), results(0.5, [0, 2, 0], 0.25)
    same = drift.compared(base, base)
    assert (same["gradient"], same["weights"], same["answers"]) == (0, 0, [0, 0, 0])
    assert (same["shipped_answers"], same["shipped_probability"]) == (0, 0)
    assert same["accuracy"] == pytest.approx([200 / 3] * 3)
    apart = drift.compared(base, other)
    assert apart["gradient"] == 0
    assert apart["weights"] == pytest.approx(0.5 * max(SEEDS) / 5)
    assert apart["answers"] == [2, 2, 2]
    assert apart["accuracy"] == pytest.approx([100 / 3] * 3)
    assert (apart["shipped_answers"], apart["shipped_probability"]) == (1, 0.5)


def test_the_page_says_what_was_measured() -> None:
    found = json.loads((ROOT / "benchmarks/measured/drift.json").read_text())
    page = (ROOT / "docs/trust.md").read_text()
    told = [line for line in page.splitlines() if line.startswith("|")]
    start = next(i for i, line in enumerate(told) if line.startswith("| setting "))
    rows = drift.rows(found)
    assert told[start + 2 : start + 2 + len(rows)] == rows
    assert list(found["settings"]) == list(drift.SETTINGS)
    sizes = found["sizes"]
    assert f"{sizes['hidden']} hidden units in its scorers on {sizes['images']:,} images" in page
    assert f"{sizes['test']:,} test questions" in page
    assert f"asked {sizes['asked']:,} test questions" in page


def test_the_same_again_is_the_same() -> None:
    found = json.loads((ROOT / "benchmarks/measured/drift.json").read_text())
    again = found["settings"]["the same again"]
    assert [again[name] for name in ("gradient", "weights", "shipped_answers", "shipped_probability")] == [0, 0, 0, 0]
    assert again["accuracy"] == found["base"]["accuracy"]


@pytest.mark.slow
def test_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images, one seed: the arrays are there, and the same twice."""
    for name, size in {"IMAGES": 24, "TEST": 20, "ASKED": 10, "SEEDS": (1,)}.items():
        monkeypatch.setattr(drift, name, size)
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    for name in ("one", "other"):
        drift.measure(tmp_path / f"{name}.npz", bf16=False)
    one, other = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("one", "other"))
    apart = drift.compared(one, other)
    assert (apart["gradient"], apart["weights"], apart["answers"], apart["shipped_probability"]) == (0, 0, [0], 0)
    assert np.allclose(one["shipped"].sum(1), 1)
