"""Trained networks by name or folder; ``network_folder`` tells what is in one."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progressive_attention.network_folder import FORMAT, SHIPPED, describe, fill, read_config, save

if TYPE_CHECKING:
    import torch

    from progressive_attention.prediction import QuestionNetwork

__all__ = ["FORMAT", "SHIPPED", "Trained", "describe", "find", "load", "save", "shipped"]


@dataclass(frozen=True)
class Trained:
    """A network with the words it knows; ``about`` is the whole config.json."""

    model: "QuestionNetwork"
    query_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    about: dict[str, Any]


def shipped() -> list[str]:
    """Names of the trained networks in this package."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/config.json"))


def find(name_or_folder: str | Path) -> Path:
    """Folder of a shipped name or of a run; raises ValueError naming what is known."""
    folder = Path(name_or_folder)
    if str(name_or_folder) in shipped():
        return SHIPPED / str(name_or_folder)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"no trained weights at {str(name_or_folder)!r}: expected a folder with config.json and "
            f"weights.safetensors (what `pan train --out` writes), or one of: {', '.join(shipped()) or 'none shipped'}"
        )
    return folder


def load(name_or_folder: str | Path, device: "torch.device | str" = "cpu") -> Trained:
    """The trained network in evaluation mode; raises ValueError for a folder that is incomplete or broken."""
    from progressive_attention.models import from_config  # only now: names and cards of networks cost no torch

    folder = find(name_or_folder)
    config, about = read_config(folder)
    model = from_config(config)
    fill(model, folder)
    return Trained(model.to(device).eval(), tuple(about["query_names"]), tuple(about["attribute_names"]), about)
