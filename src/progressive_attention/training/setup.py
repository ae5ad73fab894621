"""A named network on a named data set, ready to train: what ``pan train`` and ``pan reproduce`` have in common."""

from collections.abc import Collection, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from progressive_attention.config import Recipe
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.network.build import from_config, model_config
from progressive_attention.saved import describe
from progressive_attention.training.loop import Progress, training
from progressive_attention.training.objectives import objective


def prepared(
    model: str,
    train: QuestionSet,
    validation: QuestionSet,
    recipe: Recipe,
    out: Path,
    *,
    data: str,
    protocol: str,
    seed: int,
    device: torch.device,
    changes: Mapping[str, Any] | None = None,
    backbone_weights: str | Path | None = None,
    query_vectors: Tensor | None = None,
    keep_epochs: Collection[int] = (),
) -> Generator[Progress, None, None]:
    """The training of a fresh network, its weights drawn from ``seed``; ``changes`` are ModelConfig's fields.

    ``backbone_weights`` as in ``backbones.build_backbone``, ``query_vectors`` as in ``build_model``, ``keep_epochs`` as
    in ``training``. ``data`` and ``protocol`` are written into config.json. Raises ValueError as ``training`` does, and
    for a network that can't take the images or has no maps on them.
    """
    torch.manual_seed(seed)
    choices = {
        "image_size": train.images.shape[1],
        "likelihood": train.likelihood,
        "soft_reduction": "mean" if protocol == "authors" else "sum",
        "query_size": 0 if query_vectors is None else query_vectors.shape[1],
        **(changes or {}),
    }
    words = train.query_names, train.attribute_names
    config = model_config(model, len(words[0]), len(words[1]), **choices)
    network = from_config(config, backbone_weights, query_vectors)
    # Before long work: it must answer on these images, and have maps on them, without which it can't be measured.
    geometry(network)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *train.images.shape[1:3]), torch.zeros(1, dtype=torch.int64))
    if isinstance(train.attribute, Labels):
        start_at_shares(network, train.attribute)
    sizes = {"images": len(train.images), "questions": len(train)}
    about = describe(config, *words, name=model, data=data, protocol=protocol, **sizes)
    loss = objective(recipe, network)
    return training(
        network, train, validation, recipe, out, about, seed=seed, device=device, loss=loss, keep_epochs=keep_epochs
    )


def start_at_shares(network: nn.Module, labels: Labels) -> None:
    """Let the classifier's bias be each attribute's log-odds among the labels, where a network that knows nothing is.

    Otherwise the first steps go into learning that most attributes are true of few objects. Lin et al., "Focal Loss
    for Dense Object Detection", ICCV 2017, section 4.1.
    """
    true, known = labels.totals
    odds = np.log((true + 0.5) / (known - true + 0.5))
    with torch.no_grad():
        network.get_submodule("classifier").bias.copy_(torch.from_numpy(odds))  # type: ignore[operator]
