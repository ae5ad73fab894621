"""A trained network's folder: weights.safetensors with config.json beside it, never a pickle.

``config.json`` holds the model's configuration, the names of queries and attributes, how it was trained, and what was
measured. Finding it and reading it needs no torch; huggingface_hub is imported for the Hub itself only.
"""

import re
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from progressive_attention.config import ModelConfig, checked
from progressive_attention.files import read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    import torch
    from torch import Tensor, nn

    from progressive_attention.network.question_network import QuestionNetwork

    Network = TypeVar("Network", bound=nn.Module)


class Outside(NamedTuple):
    """A pretrained network that lies outside the package: a module that it needs, and the extra that installs it."""

    module: str
    extra: str


SHIPPED = Path(__file__).parents[1] / "assets" / "weights"
CLONE = Path(__file__).parents[3]  # a clone's root, where this is run from one
OUTSIDE = {"photographs-pan": Outside(module="timm", extra="photographs")}  # in weights/ of the clone
FORMAT = 1
FILES = ["config.json", "weights.safetensors"]
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name


@dataclass(frozen=True)
class Trained:
    """A network with the words it knows; ``about`` is the whole config.json."""

    model: "QuestionNetwork"
    query_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    about: dict[str, Any]


def load(name_or_folder: str | Path, device: "torch.device | str" = "cpu") -> Trained:
    """The trained network that ``find`` finds, in evaluation mode; ValueError where it is missing or broken."""
    from progressive_attention.network.build import from_config  # only now: names and cards of networks cost no torch

    folder = find(name_or_folder)
    config, about = read_config(folder)
    model = filled(lambda: from_config(config), folder)
    return Trained(model.to(device), tuple(about["query_names"]), tuple(about["attribute_names"]), about)


def shipped() -> list[str]:
    """Names of the trained networks in this package."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/config.json"))


def pretrained() -> dict[str, Path]:
    """Folders of the networks known by name: those in this package and, in a clone, those of its folder weights."""
    folders = {name: SHIPPED / name for name in shipped()}
    if (CLONE / "pyproject.toml").is_file():
        outside = {name: CLONE / "weights" / name for name in OUTSIDE}
        folders |= {name: folder for name, folder in outside.items() if (folder / FILES[0]).is_file()}
    return folders


def missing(name: str) -> str:
    """What to install before the pretrained network of that name can answer; empty where nothing is missing."""
    if name not in OUTSIDE or find_spec(OUTSIDE[name].module):
        return ""
    module, extra = OUTSIDE[name]
    return f"{name} needs {module}, which is not installed; pip install 'progressive-attention[{extra}]'"


def find(name_or_folder: str | Path, **download: Any) -> Path:
    """The folder of a pretrained name, of a run, or of a repository ``owner/name`` of the Hub, downloaded if need be.

    ``a/b`` is no repository where a folder ``a`` is: a path's typing error must not go to the Hub. ``download`` are
    keywords of ``huggingface_hub.snapshot_download``. Raises ValueError naming what is known, or what to install.
    """
    name, folder, folders = str(name_or_folder), Path(name_or_folder), pretrained()
    if name in folders:
        if reason := missing(name):
            raise ValueError(reason)
        return folders[name]
    if (folder / FILES[0]).is_file():
        return folder
    if name in OUTSIDE:
        raise ValueError(
            f"{name} does not come with the package; it is weights/{name} in the project's repository: run pan in a "
            "clone of that, or copy the folder and give --weights FOLDER"
        )
    if folder.exists() or folder.parent.is_dir() or not REPOSITORY.fullmatch(name):
        known = f"a repository owner/name of the Hub, or one of: {', '.join(folders) or 'none shipped'}"
        expected = f"a folder with {' and '.join(FILES)} (what `pan train --out` writes), {known}"
        raise ValueError(f"no trained weights at {name!r}: expected {expected}")
    hub = hugging_face(f"{name!r} is no folder here, and to ask the Hub for it: ")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=FILES, **download))
    except Exception as error:  # whatever goes wrong between here and there
        reason = str(error).partition("\n")[0] or type(error).__name__
        failed = f"can't be downloaded from the Hub ({reason}); check its name, or give the path of a folder"
        raise ValueError(f"{name!r} is no folder here, and {failed}") from error


def hugging_face(why: str = "") -> Any:
    """The package huggingface_hub; raises ValueError, which begins with ``why``, where it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(f"{why}huggingface_hub is not installed; pip install 'progressive-attention[hub]'") from error
    return huggingface_hub


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
        for what, count in (("query_names", config.num_queries), ("attribute_names", config.num_attributes)):
            words = checked(what, about[what], tuple)
            if not all(isinstance(word, str) for word in words) or not len(set(words)) == len(words) == count:
                raise ValueError(f"{what} must be {count} words, as in the model, each once; got {words}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a model: {error}") from error
    return config, about


def filled(build: "Callable[[], Network]", folder: Path) -> "Network":
    """What ``build`` makes, in evaluation mode, with a folder's weights; raises ValueError where these don't fit."""
    from safetensors import SafetensorError

    path = folder / "weights.safetensors"
    try:
        model = build()
    except ValueError as error:
        remedy = "a backbone of your own must be registered first, in progressive_attention.network.backbone.BACKBONES"
        raise ValueError(f"the network in {folder} can't be built: {error}; {remedy}") from error
    try:
        tensors, _ = read_tensors(path)
        model.load_state_dict(tensors)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; train again or copy the whole folder") from error
    except (SafetensorError, RuntimeError, ValueError) as error:
        reason = f"{str(error).splitlines()[-1].strip()}); it may be truncated or damaged: copy it again"
        raise ValueError(f"{path} does not hold this model's weights ({reason}") from error
    return model.eval()
