"""Progressive attention for visual attribute prediction.

Ask an image a question about one object; get the attribute and the attention that led to it, layer by layer.
Public names are imported on first use, so that ``import progressive_attention`` alone costs no ``import torch``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from progressive_attention.config import ModelConfig, Recipe
    from progressive_attention.data.sources import load_questions
    from progressive_attention.evaluation.evaluate import evaluate
    from progressive_attention.maps.pixel_maps import pixel_maps
    from progressive_attention.maps.receptive_field import Geometry
    from progressive_attention.network.build import build_model
    from progressive_attention.network.pan import ProgressiveAttentionNetwork
    from progressive_attention.network.question_network import Prediction
    from progressive_attention.predict.predictor import Answer, Predictor
    from progressive_attention.training.loop import fit

    __version__: str

HOMES = {  # public name -> the module it lives in
    "Answer": "predict.predictor",
    "Geometry": "maps.receptive_field",
    "ModelConfig": "config",
    "Prediction": "network.question_network",
    "Predictor": "predict.predictor",
    "ProgressiveAttentionNetwork": "network.pan",
    "Recipe": "config",
    "build_model": "network.build",
    "evaluate": "evaluation.evaluate",
    "fit": "training.loop",
    "load_questions": "data.sources",
    "pixel_maps": "maps.pixel_maps",
}

__all__ = [
    "Answer",
    "Geometry",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "ProgressiveAttentionNetwork",
    "Recipe",
    "__version__",
    "build_model",
    "evaluate",
    "fit",
    "load_questions",
    "pixel_maps",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562) and keep it."""
    if name == "__version__":
        from importlib.metadata import version  # only now: it takes as long as all else that an import needs

        value = version("progressive-attention")
    elif name in HOMES:
        value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
