"""A trained network's folder: weights.safetensors with config.json beside it, never a pickle.

``config.json`` holds the model's configuration, the names of queries and attributes, how it was trained, and what was
measured. Reading it needs no torch.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progressive_attention.config import ModelConfig
from progressive_attention.files import read_json, write_json, write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

SHIPPED = Path(__file__).parent / "assets" / "weights"
FORMAT = 1


def describe(
    config: ModelConfig, query_names: tuple[str, ...], attribute_names: tuple[str, ...], **about: Any
) -> dict[str, Any]:
    """The content of config.json; further keywords (model name, data, recipe, scores) are kept as given."""
    names = {"query_names": list(query_names), "attribute_names": list(attribute_names)}
    return {"format": FORMAT, **about, **names, "model": asdict(config)}


def save(folder: Path, tensors: "dict[str, Tensor]", about: dict[str, Any]) -> None:
    """Write weights, then config: a folder with a config is complete."""
    write_tensors(folder / "weights.safetensors", tensors)
    write_json(folder / "config.json", about)


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The model's configuration, and all of config.json; raises ValueError where it describes no model."""
    about = read_json(folder / "config.json")
    try:
        config = ModelConfig(**about["model"])
        if (len(about["query_names"]), len(about["attribute_names"])) != (config.num_queries, config.num_attributes):
            raise ValueError("its names and the model's sizes differ")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a model: {error}") from error
    return config, about


def fill(model: "nn.Module", folder: Path) -> None:
    """Load a folder's weights; raises ValueError where they are missing, broken or another model's."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "weights.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; train again or copy the whole folder") from error
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} does not hold this model's weights ({reason}); it may be truncated") from error
