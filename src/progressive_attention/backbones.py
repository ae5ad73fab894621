"""Networks as ordered stages, each ending where attention may be attached.

Legend: N images or rows, C channels, H x W cells.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

PROBE = 96  # pixels a side of the image on which a network's cut into stages is checked


class Backbone(nn.Module):
    """Ordered, named stages; ``norm(channels)`` builds what follows a stage's gate (nothing in pretrained networks).

    ``names`` and ``channels`` have one entry a stage; stage i maps (N, C_{i-1}, H, W) -> (N, C_i, H', W').
    """

    def __init__(
        self,
        stages: list[nn.Module],
        names: list[str],
        channels: list[int],
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.names = names
        self.channels = channels
        self.norm = norm or (lambda channels: nn.Identity())

    def index(self, stage: int | str) -> int:
        """Position of a stage given by index or name; raises ValueError naming the stages there are."""
        if isinstance(stage, str) and stage in self.names:
            return self.names.index(stage)
        if isinstance(stage, int) and 0 <= stage < len(self.names):
            return stage
        known = ", ".join(f"{i} or {name!r}" for i, name in enumerate(self.names))
        raise ValueError(f"this backbone has no stage {stage!r}; attend_at takes: {known}")

    def positions(self, stages: Sequence[int | str]) -> list[int]:
        """Positions of several stages; raises ValueError unless they are in order, each once."""
        found = [self.index(stage) for stage in stages]
        if found != sorted(set(found)):
            raise ValueError(f"attend_at must name stages in order, each once; got {tuple(stages)}")
        return found

    def until(self, last: int) -> tuple[nn.ModuleList, nn.ModuleList]:
        """The stages up to and with position ``last``, and a fresh norm for each."""
        norms = (self.norm(channels) for channels in self.channels[: last + 1])
        return nn.ModuleList(list(self.stages)[: last + 1]), nn.ModuleList(norms)

    @torch.no_grad()
    def map_sizes(self, side: int) -> list[tuple[int, int, int]]:
        """(C, H, W) behind every stage for images of ``side`` x ``side`` pixels; ValueError if they are too small."""
        features, sizes, was_training = torch.zeros(1, 3, side, side), [], self.training
        self.eval()  # black pixels may not enter the running averages of batch norms
        try:
            for stage in self.stages:
                features = stage(features)
                sizes.append((features.shape[1], features.shape[2], features.shape[3]))
        except RuntimeError as error:
            raise ValueError(f"images of {side} x {side} pixels are too small for this backbone: {error}") from error
        finally:
            self.train(was_training)
        return sizes


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


def timm_backbone(name: str, pretrained: bool = False) -> Backbone:
    """Any timm network that is a chain of stages; VGG's stages end at its poolings, pool1 to pool5.

    Other stages have timm's names, e.g. ResNet's act1 (its stem, before the pooling), layer1 ... layer4.
    Raises ValueError where timm is missing, does not know the name, or the network is no chain of stages.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"backbone {name!r} comes from timm, which is not installed; pip install 'progressive-attention[backbones]'"
        ) from error
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:4]}*")[:8]) or "see timm.list_models()"
        raise ValueError(f"unknown backbone {name!r}; known: conv-stack, or a timm network, e.g. {near}")
    network = timm.create_model(name, pretrained=pretrained).eval()
    features = getattr(network, "features", None)
    if isinstance(features, nn.Sequential) and any(isinstance(layer, nn.MaxPool2d) for layer in flat(features)):
        stages, ends = split_at_pooling(features)
        names = [f"pool{i + 1}" for i in range(len(stages))]
    else:
        stages, ends = split_at_timm_stages(name, network)
        names = ends
    maps = chain_outputs(name, network, stages, ends)
    network.train()  # as any new module
    return Backbone(stages, names, [features.shape[1] for features in maps])


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
    import timm
    from timm.models import FeatureListNet

    try:
        chain = timm.create_model(name, features_only=True)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise ValueError(f"backbone {name!r} is not a chain of stages: timm gives no feature stages for it") from error
    if not isinstance(chain, FeatureListNet):
        raise ValueError(
            f"backbone {name!r} is not a chain of stages (timm reads its features by {type(chain).__name__}); "
            "choose one such as resnet18 or vgg16"
        )
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


def chain_outputs(name: str, network: nn.Module, stages: list[nn.Module], ends: list[str]) -> list[torch.Tensor]:
    """Each stage's output for a small image; raises ValueError unless the whole network has the same at these modules.

    The stages may share the network's modules, and both ways must agree: so a network whose forward does more than
    run its stages in order (a residual past a stage, say) is refused, not silently changed.
    """
    inside: dict[str, torch.Tensor] = {}

    def keep(end: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        return lambda module, inputs, output: inside.__setitem__(end, output.clone())  # ReLUs in place follow

    hooks = [network.get_submodule(end).register_forward_hook(keep(end)) for end in ends]
    maps = [torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))]
    try:
        with torch.no_grad():
            network(maps[0])
            for hook in hooks:
                hook.remove()
            for stage in stages:
                maps.append(stage(maps[-1].clone()))
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:  # fixed sizes, lists passed on
        raise ValueError(
            f"backbone {name!r} can't be run as a chain of stages on {PROBE} px images ({error}); choose e.g. resnet18"
        ) from error
    for end, chained in zip(ends, maps[1:], strict=True):
        if (
            end not in inside
            or inside[end].shape != chained.shape
            or not torch.allclose(inside[end], chained, atol=1e-4)
        ):
            raise ValueError(f"backbone {name!r} is not a chain of stages: run in a row they differ from it at {end}")
    return maps[1:]


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "conv-stack": conv_stack,
    # What the papers leave open, for the protocol study.
    "conv-stack-padded": partial(conv_stack, padding=1),
    "conv-stack-norm-first": partial(conv_stack, norm_first=True),
}


def build_backbone(name: str) -> Backbone:
    """The papers' network by ``"conv-stack"``, else timm's network of that name (random weights)."""
    return BACKBONES[name]() if name in BACKBONES else timm_backbone(name)
