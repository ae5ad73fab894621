"""Trained networks on disk: weights.safetensors with config.json beside it, never a pickle.

``config.json`` holds the model's configuration, the names of queries and attributes, and how it was trained.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progressive_attention.config import ModelConfig
from progressive_attention.files import read_json, write_json, write_tensors

if TYPE_CHECKING:
    import torch

    from progressive_attention.prediction import QuestionNetwork

SHIPPED = Path(__file__).parent / "assets" / "weights"
FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """A network with the words it knows; ``about`` is the whole config.json."""

    model: "QuestionNetwork"
    query_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    about: dict[str, Any]


def describe(
    config: ModelConfig, query_names: tuple[str, ...], attribute_names: tuple[str, ...], **about: Any
) -> dict[str, Any]:
    """The content of config.json; further keywords (model name, data, recipe, scores) are kept as given."""
    names = {"query_names": list(query_names), "attribute_names": list(attribute_names)}
    return {"format": FORMAT, **about, **names, "model": asdict(config)}


def save(folder: Path, tensors: "dict[str, torch.Tensor]", about: dict[str, Any]) -> None:
    """Write weights, then config: a folder with a config is complete."""
    write_tensors(folder / "weights.safetensors", tensors)
    write_json(folder / "config.json", about)


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
    # Only now, so that names and cards of networks cost no torch.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from progressive_attention.models import from_config

    folder = find(name_or_folder)
    about = read_json(folder / "config.json")
    try:
        config = ModelConfig(**about["model"])
        queries, attributes = tuple(about["query_names"]), tuple(about["attribute_names"])
        if (len(queries), len(attributes)) != (config.num_queries, config.num_attributes):
            raise ValueError("its names and the model's sizes differ")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a model: {error}") from error
    model = from_config(config)
    path = folder / "weights.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; train again or copy the whole folder") from error
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} does not hold this model's weights ({reason}); it may be truncated") from error
    return Trained(model.to(device).eval(), queries, attributes, about)
