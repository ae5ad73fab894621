"""Trained networks by name, folder or repository of the Hub; ``network_folder`` tells what is in one."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progressive_attention.saved.network_folder import (
    FORMAT,
    SHIPPED,
    describe,
    filled,
    find,
    read_config,
    save,
    shipped,
)

if TYPE_CHECKING:
    import torch

    from progressive_attention.network.question_network import QuestionNetwork

__all__ = ["FORMAT", "SHIPPED", "Trained", "describe", "find", "load", "save", "shipped"]


@dataclass(frozen=True)
class Trained:
    """A network with the words it knows; ``about`` is the whole config.json."""

    model: "QuestionNetwork"
    query_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    about: dict[str, Any]


def load(name_or_folder: str | Path, device: "torch.device | str" = "cpu") -> Trained:
    """The trained network in evaluation mode; raises ValueError where there is none, or it is broken."""
    from progressive_attention.network.build import from_config  # only now: names and cards of networks cost no torch

    folder = find(name_or_folder)
    config, about = read_config(folder)
    model = filled(partial(from_config, config), folder)
    return Trained(model.to(device), tuple(about["query_names"]), tuple(about["attribute_names"]), about)
