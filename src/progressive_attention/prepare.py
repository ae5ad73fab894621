"""A named network on a named data set, ready to train: what ``pan train`` and ``pan reproduce`` have in common."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch

from progressive_attention import weights
from progressive_attention.config import Recipe
from progressive_attention.data.questions import QuestionSet
from progressive_attention.models import from_config, model_config
from progressive_attention.objectives import objective
from progressive_attention.training import Progress, training


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
) -> Generator[Progress, None, None]:
    """The training of a fresh network, its weights drawn from ``seed``; ``changes`` are ModelConfig's fields.

    ``data`` and ``protocol`` are written into config.json. Raises ValueError as ``training`` does.
    """
    torch.manual_seed(seed)
    config = model_config(
        model,
        len(train.query_names),
        len(train.attribute_names),
        image_size=train.images.shape[1],
        **{"soft_reduction": "mean" if protocol == "authors" else "sum", **(changes or {})},
    )
    sizes = {"images": len(train.images), "questions": len(train)}
    about = weights.describe(
        config, train.query_names, train.attribute_names, name=model, data=data, protocol=protocol, **sizes
    )
    network = from_config(config)
    loss = objective(recipe, network)
    return training(network, train, validation, recipe, out, about, seed=seed, device=device, loss=loss)
