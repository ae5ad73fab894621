"""Networks by the names of ``config.MODELS``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progressive_attention.config import ALIASES, MODELS, ModelConfig, backbone_of, one_of
from progressive_attention.network.backbone import BACKBONES, Backbone, build_backbone
from progressive_attention.network.no_attention import ConcatenationNetwork, FiLMNetwork
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.network.question_network import QuestionNetwork
from progressive_attention.network.spatial_transformer import SpatialTransformerNetwork
from progressive_attention.network.timm_chain import check_known, feature_chain, is_vgg

NETWORKS = {
    "pan": ProgressiveAttentionNetwork,
    "stn": SpatialTransformerNetwork,
    "film": FiLMNetwork,
    "concat": ConcatenationNetwork,
    "pooled": ConcatenationNetwork,
}


def usual_stages(backbone: str) -> tuple[int | str, ...]:
    """Where attention goes by default: VGG's pool3, pool4 and pool5 as in the papers (2018, section 4.2), of others
    the last three stages, of the papers' small network and your own all. Raises ValueError for an unknown network.
    """
    if backbone in BACKBONES:
        return tuple(range(len(outline(backbone).names)))
    check_known(backbone)
    if is_vgg(backbone):
        return "pool3", "pool4", "pool5"
    return tuple(feature_chain(backbone).feature_info.module_name()[-3:])


def recipe_on(backbone: str) -> str:
    """The recipe for photographs on a timm network: for a VGG the papers' ``photographs``, else ``finetuning``."""
    return "photographs" if is_vgg(backbone) else "finetuning"


def outline(backbone: str) -> Backbone:
    """A backbone to read its stages from: nothing is drawn from torch's global generator for it."""
    with torch.random.fork_rng(devices=()):
        return build_backbone(backbone)


def model_config(name: str, num_queries: int, num_attributes: int, **changes: object) -> ModelConfig:
    """The configuration of a named model (``MODELS``, ``ALIASES``) on its own backbone, or on another by changes.

    Its own is the papers' ConvStack, of ``pan`` the same with padded convolutions. A change ``attend_at`` (default: the
    backbone's ``usual_stages``) names the stages of PAN; SAN, HAN and cross-attention take the last of them, STN-S the
    first. Local context has δ = 2 on a VGG, else 1 (2018, section 4). Raises ValueError.
    """
    name = ALIASES.get(name, name)
    row = dict(MODELS[one_of("model", name, {**MODELS, **ALIASES})])
    only = row.pop("only", None)
    for key in ("gate_price", "title"):  # the recipe's, and the tables'
        row.pop(key, None)
    backbone = str(changes.get("backbone", backbone_of(name)))
    if "radius" in row and is_vgg(backbone):
        row["radius"] = 2
    options: dict[str, Any] = {**row, **changes}
    if "attend_at" not in options:
        options["attend_at"] = usual_stages(backbone)
    config = ModelConfig(num_queries, num_attributes, **options)
    if only is None:
        return config
    if len(config.attend_at) > 1 and "attend_at" in changes:  # else the networks themselves check it
        outline(backbone).positions(config.attend_at)
    return replace(config, attend_at=config.attend_at[-1:] if only == "last" else config.attend_at[:1])


def build_model(
    name: str,
    *,
    num_queries: int,
    num_attributes: int,
    backbone_weights: str | Path | None = None,
    query_vectors: Tensor | None = None,
    **changes: object,
) -> QuestionNetwork:
    """A model by name, e.g. ``build_model("pan", num_queries=10, num_attributes=5)``; raises ValueError.

    ``changes`` are ModelConfig's fields, e.g. ``backbone="vgg16", attend_at=("pool3", "pool4", "pool5"), radius=2``;
    ``backbone_weights`` as in ``build_backbone``. ``query_vectors`` (num_queries, D): what queries are asked by, if
    given; they never learn.
    """
    if query_vectors is not None:
        changes["query_size"] = query_vectors.shape[-1]
    elif changes.get("query_size"):
        raise ValueError(f"query_size {changes['query_size']} needs query_vectors (num_queries, query_size)")
    return from_config(model_config(name, num_queries, num_attributes, **changes), backbone_weights, query_vectors)


def from_config(
    config: ModelConfig, backbone_weights: str | Path | None = None, query_vectors: Tensor | None = None
) -> QuestionNetwork:
    """The network that a config describes, with fresh weights from torch's global generator, channels last in memory.

    ``backbone_weights`` as in ``build_backbone``. ``query_vectors`` (num_queries, query_size) are zeros unless given,
    to be loaded with the weights. Raises ValueError.
    """
    network = NETWORKS[config.network](config, build_backbone(config.backbone, backbone_weights))
    network = network.to(memory_format=torch.channels_last)
    if query_vectors is None:
        return network
    if len(query_vectors) != config.num_queries:
        raise ValueError(f"expected a vector for each of {config.num_queries} queries, got {len(query_vectors)}")
    return network.asked_by(query_vectors)
