"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub`` of ``ProgressiveAttentionNetwork``: their work.

A folder holds what ``pan train`` writes, and a model card; huggingface_hub is needed only for the Hub itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch

from progressive_attention.files import digest_of, write_text
from progressive_attention.network.backbone import build_backbone, first_line
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.saved.model_card import model_card
from progressive_attention.saved.network_folder import describe, filled, find, hugging_face, read_config, save

OF_WEIGHTS = ("test", "best", "epoch", "absence", "seconds", "command")  # what config.json says of these very weights
Network = TypeVar("Network", bound=ProgressiveAttentionNetwork)


def load_pretrained(kind: type[Network], name_or_folder: str | Path, **download: Any) -> Network:
    """A trained network in evaluation mode; ``download`` are keywords of ``huggingface_hub.snapshot_download``."""
    folder = find(name_or_folder, **download)
    config, about = read_config(folder)
    if config.network != "pan":
        got = f"a network of kind {config.network!r}, and {kind.__name__} is of kind 'pan'"
        raise ValueError(f"{str(name_or_folder)!r} holds {got}; progressive_attention.saved.load takes any kind")
    model = filled(lambda: kind(config, build_backbone(config.backbone)), folder)
    model.to(memory_format=torch.channels_last)
    model.about, model.about_digest = about, digest(model)
    return model


def save_pretrained(
    model: ProgressiveAttentionNetwork,
    folder: Path,
    query_names: Sequence[str] | None = None,
    attribute_names: Sequence[str] | None = None,
    results: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Write README.md, weights.safetensors and config.json; raises ValueError for names missing or that don't fit.

    config.json says what the network came with, where that is still true, and what is given.
    """
    about = dict(model.about or {})
    if model.about_digest != digest(model):
        about = {key: value for key, value in about.items() if key not in OF_WEIGHTS}
    queries = tuple(about.get("query_names", ()) if query_names is None else query_names)
    attributes = tuple(about.get("attribute_names", ()) if attribute_names is None else attribute_names)
    config = model.config
    if (len(queries), len(attributes)) != (config.num_queries, config.num_attributes):
        got = f"{len(queries)} and {len(attributes)} names; give query_names and attribute_names, in the order of ids"
        has = f"{config.num_queries} queries and {config.num_attributes} attributes"
        raise ValueError(f"this network has {has}, got {got}")
    about |= describe(config, queries, attributes)
    if results is not None:
        about["test"] = {key: value for key, value in results.items() if key != "precision_recall"}  # long curves
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_text(folder / "README.md", model_card(about, name or folder.resolve().name, parameters))
    save(folder, model.state_dict(), about)
    _, model.about = read_config(folder)  # JSON has lists where a config has tuples
    model.about_digest = digest(model)


def push_to_hub(
    model: ProgressiveAttentionNetwork,
    repository: str,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    commit_message: str,
    saved: Mapping[str, Any],
) -> str:
    """Upload what ``save_pretrained`` writes with the keywords ``saved``; returns its address. Raises ValueError."""
    hub = hugging_face()
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, **{"name": repository, **saved})
        try:
            api = hub.HfApi(token=token)
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, revision=revision, commit_message=commit_message)
        except Exception as error:  # whatever goes wrong between here and there
            remedy = "log in (`hf auth login`) or give a token that may write there"
            raise ValueError(f"{repository!r} can't be uploaded ({first_line(error)}); {remedy}") from error
    return str(address)


def digest(model: ProgressiveAttentionNetwork) -> str:
    """Of the weights as they are now."""
    return digest_of({name: tensor.cpu() for name, tensor in model.state_dict().items()}, {})
