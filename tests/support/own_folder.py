"""Fixtures that tests of the command line share; a test's file imports them by name."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, or writes elsewhere than in its own folder."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two scenes of the user's own, each with one question."""
    images, names = np.zeros((2, 100, 100, 3), np.uint8), np.array(["red", "green", "blue", "yellow", "white"])
    np.savez(tmp_path / "scenes.npz", images=images, query=np.array([7, 3]), attribute=[0, 1], attribute_names=names)
    return tmp_path / "scenes.npz"
