"""Networks as ordered stages, each ending where attention may be attached.

Legend: N images or rows, C channels, H x W cells.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from progressive_attention.network.pretrained import fill, pixels, weights_file
from progressive_attention.saved.network_folder import first_line

# How torch complains of branches that differ by a cell where they join, and of maps that can't be cut into windows.
MISFIT = re.compile("[Ss]izes? of tensor|invalid for input of size")
PROBE = 96  # pixels a side of the image on which a network's cut into stages is checked


class Backbone(nn.Module):
    """Ordered, named stages; ``norm(channels)`` builds what follows a stage's gate (nothing in pretrained networks).

    ``names`` and ``channels`` have one entry a stage; stage i maps (N, C_{i-1}, H, W) -> (N, C_i, H', W').
    ``head_norm(channels)`` builds what new layers beside the stages read features through. ``pretrained`` tells that
    the weights are no random ones.
    """

    def __init__(
        self,
        stages: list[nn.Module],
        names: list[str],
        channels: list[int],
        norm: Callable[[int], nn.Module] | None = None,
        head_norm: Callable[[int], nn.Module] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.names = names
        self.channels = channels
        self.norm = norm or nn.Identity
        self.head_norm = head_norm or nn.Identity
        self.query_std = 1.0 if head_norm else 0.1  # beside normalised features a smaller query is not heard at first
        self.pretrained = pretrained

    def index(self, stage: int | str, option: str = "attend_at") -> int:
        """Position of a stage given by index or name; raises ValueError naming the stages that ``option`` takes."""
        if isinstance(stage, str) and stage in self.names:
            return self.names.index(stage)
        if isinstance(stage, int) and not isinstance(stage, bool) and 0 <= stage < len(self.names):
            return stage
        known = ", ".join(f"{i} or {name!r}" for i, name in enumerate(self.names))
        raise ValueError(f"this backbone has no stage {stage!r}; {option} takes: {known}")

    def positions(self, stages: Sequence[int | str]) -> list[int]:
        """Positions of several stages; raises ValueError unless they are in order, each once."""
        found = [self.index(stage) for stage in stages]
        if found != sorted(set(found)):
            raise ValueError(f"attend_at must name stages in order, each once; got {tuple(stages)}")
        return found

    def until(self, last: int) -> tuple[nn.ModuleList, nn.ModuleList]:
        """The stages up to and with position ``last``, and a fresh norm for each; what follows is a new layer."""
        norms = [self.norm(channels) for channels in self.channels[: last + 1]]
        if isinstance(norms[-1], nn.Identity):
            norms[-1] = self.head_norm(self.channels[last])
        return nn.ModuleList(list(self.stages)[: last + 1]), nn.ModuleList(norms)

    @torch.no_grad()
    def map_sizes(self, side: int) -> list[tuple[int, int, int]]:
        """(C, H, W) behind every stage for images of ``side`` x ``side`` pixels; ValueError if they don't fit."""
        image, sizes, was_training = torch.zeros(1, 3, side, side), [], self.training
        self.eval()  # black pixels may not enter the running averages of batch norms
        try:
            features = image
            for stage in self.stages:
                features = staged(stage, features, image)
                sizes.append((features.shape[1], features.shape[2], features.shape[3]))
        finally:
            self.train(was_training)
        return sizes


def staged(stage: Callable[[Tensor], Tensor], features: Tensor, given: Tensor) -> Tensor:
    """One stage's output; raises ValueError where the images ``given``, or their features, are of no size for it."""
    try:
        return stage(features)
    except RuntimeError as error:
        got = f"{given.shape[2]} x {given.shape[3]} {'pixels' if given.shape[1] == 3 else 'cells of a stage'}"
        if "input size" in str(error):  # how torch's convolutions and poolings complain of too few pixels
            raise ValueError(
                f"image is too small for this network: got {got}, of which "
                f"{features.shape[2]} x {features.shape[3]} cells are left before a stage that needs more; "
                "enlarge it, or attend at an earlier stage"
            ) from error
        if MISFIT.search(str(error)):
            raise ValueError(
                f"images of {got} don't fit this backbone ({first_line(error)}); try a multiple of 32, or another "
                "backbone such as resnet18"
            ) from error
        raise


def conv_stack(channels: int = 32, depth: int = 4, padding: int = 0, norm_first: bool = False) -> Backbone:
    """The papers' CNN for MREF: 3x3 convolution without padding, ReLU, 2x2 max pooling, four times.

    100 px images give maps of 49, 23, 10 and 4 cells a side. Batch norm after each gate as in the 2016 code, or
    with ``norm_first`` before it, inside of the stage.
    """
    norm = partial(nn.BatchNorm2d, eps=0.01, momentum=0.5)
    stages: list[nn.Module] = []
    for i in range(depth):
        # ReLU after pooling: both keep order, so the result is the same for a quarter of the work.
        layers = [nn.Conv2d(channels if i else 3, channels, 3, padding=padding), nn.MaxPool2d(2)]
        stages.append(nn.Sequential(*layers, *[norm(channels)] * norm_first, nn.ReLU()))
    return Backbone(stages, [f"pool{i + 1}" for i in range(depth)], [channels] * depth, None if norm_first else norm)


class Standardise(nn.Module):
    """Pixels in [0, 1] as a pretrained network knows them: less its mean, divided by its deviation, of each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Not among the weights, because the network's name tells them.
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, H, W)."""
        return (image - self.mean) / self.std


def check_known(name: str) -> None:
    """Raises ValueError, with the names that there are, where timm is missing or does not know the network."""
    near = get_close_matches(name, BACKBONES, 1)
    own = ", ".join(BACKBONES) + (f" (did you mean {near[0]}?)" if near else "")
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"backbone {name!r} is none of {own}, and others come from timm, which is not installed; "
            "pip install 'progressive-attention[backbones]'"
        ) from error
    if not timm.is_model(name) or ("." in name and not timm.is_model_pretrained(name)):  # behind a dot: whose weights
        near = ", ".join(get_close_matches(name.split(".")[0], timm.list_models(), 8)) or "those of timm.list_models()"
        raise ValueError(f"unknown backbone {name!r}; known: {own}, or a timm network, e.g. {near}")


def timm_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """Any timm network that is a chain of stages; VGG's stages end at its poolings, pool1 to pool5.

    Other stages have timm's names, e.g. ResNet's act1 (its stem, before the pooling), layer1 ... layer4. The first
    begins with ``Standardise``. ``weights`` as in ``build_backbone``, else random ones. Raises ValueError where timm is
    missing, does not know the name, or the network is no chain of stages, and for weights that are not its own.

    New layers read features through a batch norm: the VGG authors' own weights give thousands, at which gates would be
    shut or wide open from the start and no query heard. What the stages pass on to each other stays as it was.
    """
    check_known(name)
    import timm

    # Nothing of a VGG's head is used, so its 120 million parameters are made few.
    head: dict[str, Any] = {"mlp_ratio": 1 / 4096} if is_vgg(name) else {}
    network = timm.create_model(name, num_classes=0, **head).eval()
    features = getattr(network, "features", None)
    if isinstance(features, nn.Sequential) and any(isinstance(layer, nn.MaxPool2d) for layer in flat(features)):
        stages, ends = split_at_pooling(features)
        names = [f"pool{i + 1}" for i in range(len(stages))]
    else:
        stages, ends = split_at_timm_stages(name, network)
        names = ends
    maps = chain_outputs(name, network, stages, ends)
    if weights is not None:
        fill(used_by(stages, network), weights_file(weights, name))
    layers = stages[0].named_children()  # which keep their names
    stages[0] = nn.Sequential(OrderedDict([("standardise", Standardise(*pixels(name))), *layers]))
    network.train()  # as any new module
    head_norm = partial(nn.BatchNorm2d, affine=False)  # linear layers follow, which scale and shift by themselves
    channels = [features.shape[1] for features in maps]
    return Backbone(stages, names, channels, head_norm=head_norm, pretrained=weights is not None)


def is_vgg(name: str) -> bool:
    """Whether a network is one of the VGG family, by its timm name."""
    return name.startswith("vgg")


def usual_stages(name: str) -> tuple[int | str, ...]:
    """Where attention goes unless told: VGG's pool3, pool4 and pool5 as in the papers (2018, section 4.2), of others
    the last three stages, of the papers' small network and your own all. Raises ValueError for an unknown network.
    """
    if name in BACKBONES:
        return tuple(range(len(outline(name).names)))
    check_known(name)
    return ("pool3", "pool4", "pool5") if is_vgg(name) else tuple(feature_chain(name).feature_info.module_name()[-3:])


def outline(name: str) -> Backbone:
    """A backbone to read its stages from: nothing is drawn from torch's global generator for it."""
    with torch.random.fork_rng(devices=()):
        return build_backbone(name)


def used_by(stages: list[nn.Module], network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of the stages by their names in the network, but for counters that nothing needs."""
    used = {id(tensor) for stage in stages for tensor in stage.state_dict(keep_vars=True).values()}
    own = network.state_dict(keep_vars=True)
    return {name: own[name] for name in own if id(own[name]) in used and not name.endswith("num_batches_tracked")}


def flat(chain: nn.Sequential) -> list[nn.Module]:
    """The layers of a chain of plain layers, as VGG's; none if it holds composite blocks, as DenseNet's."""
    return [] if any(list(layer.children()) for layer in chain) else list(chain)


def split_at_pooling(features: nn.Sequential) -> tuple[list[nn.Module], list[str]]:
    """A flat chain cut behind every max pooling, with each cut's module name; what follows the last is left out."""
    ends = [i + 1 for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    stages: list[nn.Module] = [features[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return stages, [f"features.{end - 1}" for end in ends]


def split_at_timm_stages(name: str, network: nn.Module) -> tuple[list[nn.Module], list[str]]:
    """Cut a network where timm's feature_info says that its stages end; raises ValueError for other networks."""
    chain = feature_chain(name)
    if getattr(network, "output_fmt", "NCHW") != "NCHW":
        raise ValueError(f"backbone {name!r} has maps of {network.output_fmt}, not of N, C, H, W; choose e.g. resnet18")
    own = {path.replace(".", "_"): module for path, module in network.named_modules()}  # timm flattens paths so
    stages: list[nn.Module] = []
    layers: list[nn.Module] = []
    for key in chain:
        layers.append(own[key])
        if key in chain.return_layers:
            stages.append(nn.Sequential(*layers))
            layers = []
    return stages, list(chain.feature_info.module_name())


def feature_chain(name: str) -> Any:
    """timm's cut of a network into stages, without weights; raises ValueError for a network that is no chain."""
    import timm
    from timm.models import FeatureListNet

    try:
        with torch.device("meta"):
            chain = timm.create_model(name, features_only=True)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise ValueError(f"backbone {name!r} is not a chain of stages: timm gives no feature stages for it") from error
    if not isinstance(chain, FeatureListNet):
        raise ValueError(
            f"backbone {name!r} is not a chain of stages (timm reads its features by {type(chain).__name__}); "
            "choose one such as resnet18 or vgg16"
        )
    return chain


def chain_outputs(name: str, network: nn.Module, stages: list[nn.Module], ends: list[str]) -> list[torch.Tensor]:
    """Each stage's output for a small image; raises ValueError unless the whole network has the same at these modules.

    The stages may share the network's modules, and both ways must agree: so a network whose forward does more than
    run its stages in order (a residual past a stage, say) is refused, not silently changed.
    """
    inside: dict[str, torch.Tensor] = {}

    def keep(end: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        return lambda module, inputs, output: inside.__setitem__(end, output.clone())  # ReLUs in place follow

    hooks = [network.get_submodule(end).register_forward_hook(keep(end)) for end in ends]
    image = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0), device="cpu")  # on any device
    maps = [image.to(next(network.parameters()).device)]
    try:
        with torch.no_grad():
            network(maps[0])
            for hook in hooks:
                hook.remove()
            for stage in stages:
                maps.append(stage(maps[-1].clone()))
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:  # fixed sizes, lists passed on
        raise ValueError(
            f"backbone {name!r} can't be run as a chain of stages on {PROBE} px images ({first_line(error)}); "
            "choose e.g. resnet18"
        ) from error
    for end, chained in zip(ends, maps[1:], strict=True):
        own = inside.get(end, chained.new_empty(0))
        # Beside the largest, for there are networks whose random weights leave features of 1e-13.
        if own.shape != chained.shape or not (own - chained).abs().max() <= 1e-4 * own.abs().max():
            raise ValueError(f"backbone {name!r} is not a chain of stages: run in a row they differ from it at {end}")
    return maps[1:]


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "conv-stack": conv_stack,
    # What the papers leave open, for the protocol study.
    "conv-stack-padded": partial(conv_stack, padding=1),
    "conv-stack-norm-first": partial(conv_stack, norm_first=True),
}


def build_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """A network of ``BACKBONES``, such as the papers' ``"conv-stack"``, else timm's of that name.

    ``weights``: the path of a .safetensors file with timm's names of tensors (of VGG and ResNet torchvision's are the
    same), or a name that timm knows, such as vgg16.tv_in1k; else they are random, from torch's global generator. Raises
    ValueError.
    """
    if name not in BACKBONES:
        return timm_backbone(name, weights)
    if weights is not None:
        raise ValueError(f"backbone {name!r} has no pretrained weights, got {str(weights)!r}; choose e.g. vgg16")
    return BACKBONES[name]()
