"""timm's networks as backbones: chains of stages, cut where attention may be attached.

Legend: N images, C channels, H x W cells.
"""

from collections import OrderedDict
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from progressive_attention.network.backbone import BACKBONES, Backbone, first_line
from progressive_attention.network.pretrained import fill, pixels

PROBE = 96  # pixels a side of the image on which a network's cut into stages is checked
BROKEN = (RuntimeError, AssertionError, AttributeError, TypeError)  # what networks raise that can't be cut or run so


class Standardise(nn.Module):
    """Pixels in [0, 1] as a pretrained network knows them: less its mean, divided by its deviation, of each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Not among the weights: they follow from the network's name.
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, H, W)."""
        return (image - self.mean) / self.std


def check_known(name: str) -> None:
    """Raises ValueError, naming those that are known, where timm is missing or does not know the network."""
    near = get_close_matches(name, BACKBONES, 1)
    ours = ", ".join(BACKBONES) + (f" (did you mean {near[0]}?)" if near else "")
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"backbone {name!r} is none of {ours}, and others come from timm, which is not installed; "
            "pip install 'progressive-attention[backbones]'"
        ) from error
    if not timm.is_model(name) or ("." in name and not timm.is_model_pretrained(name)):  # behind a dot: whose weights
        near = ", ".join(get_close_matches(name.split(".")[0], timm.list_models(), 8)) or "those of timm.list_models()"
        raise ValueError(f"unknown backbone {name!r}; known: {ours}, or a timm network, e.g. {near}")


def timm_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """Any timm network that is a chain of stages; VGG's stages end at its poolings, pool1 to pool5.

    Other stages have timm's names, e.g. ResNet's act1 (its stem, before the pooling), layer1 ... layer4. The first
    begins with ``Standardise``. ``weights`` as in ``build_backbone``, else random ones. New layers read features
    through a batch norm: the VGG authors' own weights give thousands, at which gates would hear no query. Raises
    ValueError where timm is missing, does not know the name, or the network is no chain of stages, and for weights that
    are not its own.
    """
    check_known(name)
    import timm

    # Nothing of a VGG's head is used, so its 120 million parameters are made few.
    head: dict[str, Any] = {"mlp_ratio": 1 / 4096} if is_vgg(name) else {}
    network = timm.create_model(name, num_classes=0, **head).eval()
    features = getattr(network, "features", None)
    if isinstance(features, nn.Sequential) and is_flat(features):
        cuts = [i + 1 for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
        stages: list[nn.Module] = [features[start:end] for start, end in pairwise([0, *cuts])]
        ends = [f"features.{cut - 1}" for cut in cuts]
        names = [f"pool{i + 1}" for i in range(len(stages))]
    else:
        stages, ends = split_at_timm_stages(name, network)
        names = ends
    maps = chain_outputs(name, network, stages, ends)
    if weights is not None:
        fill(used_by(stages, network), weights, name)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.keeps_statistics = True  # type: ignore[assignment] (read by QuestionNetwork.train)
    layers = stages[0].named_children()  # which keep their names
    stages[0] = nn.Sequential(OrderedDict([("standardise", Standardise(*pixels(name))), *layers]))
    network.train()  # as any new module
    head_norm = partial(nn.BatchNorm2d, affine=False)  # linear layers follow, which scale and shift by themselves
    channels = [features.shape[1] for features in maps]
    return Backbone(stages, names, channels, head_norm=head_norm, pretrained=weights is not None)


def is_vgg(name: str) -> bool:
    """Whether a network is one of the VGG family, by its timm name."""
    return name.startswith("vgg")


def used_by(stages: list[nn.Module], network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of the stages by their names in the network, without counters that nothing needs."""
    used = {id(tensor) for stage in stages for tensor in stage.state_dict(keep_vars=True).values()}
    tensors = network.state_dict(keep_vars=True).items()
    return {name: t for name, t in tensors if id(t) in used and not name.endswith("num_batches_tracked")}


def is_flat(chain: nn.Sequential) -> bool:
    """Whether a chain has plain layers only, a max pooling among them, as VGG's, and no blocks, as DenseNet's."""
    layers = list(chain)
    return not any(list(layer.children()) for layer in layers) and any(isinstance(x, nn.MaxPool2d) for x in layers)


def split_at_timm_stages(name: str, network: nn.Module) -> tuple[list[nn.Module], list[str]]:
    """Cut a network where timm's feature_info says that its stages end; raises ValueError for other networks."""
    chain = feature_chain(name)
    if getattr(network, "output_fmt", "NCHW") != "NCHW":
        raise ValueError(f"backbone {name!r} has maps of {network.output_fmt}, not of N, C, H, W; choose e.g. resnet18")
    if hasattr(chain, "blocks"):  # EfficientNet and MobileNet, which timm does not take apart
        paths = ["conv_stem", "bn1", *(f"blocks.{i}" for i in range(len(chain.blocks)))]
    else:
        flattened = {path.replace(".", "_"): path for path, _ in network.named_modules()}
        paths = [flattened[key] for key in chain]
    ends = list(chain.feature_info.module_name())
    stages: list[list[nn.Module]] = [[]]
    for path in paths:
        stages[-1].append(network.get_submodule(path))
        if path in ends:
            stages.append([])
    return [nn.Sequential(*layers) for layers in stages[:-1]], ends


def feature_chain(name: str) -> Any:
    """timm's cut of a network into stages, without weights; raises ValueError for a network that is no chain."""
    import timm
    from timm.models import FeatureListNet

    try:
        with torch.device("meta"):
            chain = timm.create_model(name, features_only=True)
    except BROKEN as error:
        raise ValueError(f"backbone {name!r} is not a chain of stages: timm gives no feature stages for it") from error
    if not isinstance(chain, FeatureListNet) and not (hasattr(chain, "conv_stem") and hasattr(chain, "blocks")):
        raise ValueError(
            f"backbone {name!r} is not a chain of stages (timm reads its features by {type(chain).__name__}); "
            "choose one such as efficientnet_lite0, resnet18 or vgg16"
        )
    return chain


def chain_outputs(name: str, network: nn.Module, stages: list[nn.Module], ends: list[str]) -> list[Tensor]:
    """Each stage's output for a small image; raises ValueError unless the whole network has the same at these modules.

    So a network whose forward does more than run its stages in order (a residual past a stage, say) is rejected, not
    silently changed.
    """
    inside: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        inside[module] = output.clone()  # ReLUs in place follow

    modules = [network.get_submodule(end) for end in ends]
    hooks = [module.register_forward_hook(keep) for module in modules]
    image = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0), device="cpu")  # on any device
    maps = [image.to(next(network.parameters()).device)]
    try:
        with torch.no_grad():
            network(maps[0])
            for hook in hooks:
                hook.remove()
            for stage in stages:
                maps.append(stage(maps[-1].clone()))
    except BROKEN as error:  # fixed sizes, lists passed on
        raise ValueError(
            f"backbone {name!r} can't be run as a chain of stages on {PROBE} px images ({first_line(error)}); "
            "choose e.g. resnet18"
        ) from error
    for end, module, chained in zip(ends, modules, maps[1:], strict=True):
        whole = inside.get(module, chained.new_empty(0))
        # Beside the largest, for there are networks whose random weights leave features of 1e-13.
        if whole.shape != chained.shape or not (whole - chained).abs().max() <= 1e-4 * whole.abs().max():
            raise ValueError(f"backbone {name!r} is not a chain of stages: run in a row they differ from it at {end}")
    return maps[1:]
