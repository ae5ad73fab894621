"""Where a network looks: cells and transformers' canvases in image pixels, exactly; ``image_maps`` draws there.

Pixel i has its centre at i and reaches from i - 1/2 to i + 1/2. Arithmetic after Araujo, Norris and Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill 2019.
Legend: h x w cells of a layer, H x W image pixels.
"""

from typing import Any, NamedTuple

from torch import fx, nn

from progressive_attention.baselines import SpatialTransformerNetwork
from progressive_attention.models import ProgressiveAttentionNetwork
from progressive_attention.prediction import QuestionNetwork


class Field(NamedTuple):
    """A layer along one image axis: cell i sees the pixels low + i stride to high + i stride, both included.

    ``whole`` tells that global parts (squeeze-and-excite) also see the whole image; stride 0 is a layer of one global
    cell only.
    """

    stride: int = 1
    low: int = 0
    high: int = 0
    whole: bool = False

    @property
    def size(self) -> int:
        """Pixels that a cell sees."""
        return self.high - self.low + 1

    def centre(self, cell: int) -> float:
        """Pixel coordinate of a cell's centre."""
        return (self.low + self.high) / 2 + cell * self.stride

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "Field":
        """The field behind one more convolution or pooling."""
        high = self.high + (dilation * (kernel - 1) - padding) * self.stride
        return Field(self.stride * stride, self.low - padding * self.stride, high, self.whole)


GLOBAL = Field(0, 0, 0, True)
# Layers that move nothing in space. Anything in no list is refused: a guess would misplace every map.
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid),
    *(nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Mish, nn.PReLU),
)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
POINTWISE = (*ACTIVATIONS, *NORMS, nn.Identity, nn.Dropout, nn.Dropout2d)
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
POINTWISE_FUNCTIONS = (
    *(
        "add",
        "iadd",
        "sub",
        "mul",
        "imul",
        "truediv",
        "div",
        "neg",
        "pow",
        "contiguous",
        "clone",
        "to",
        "float",
        "type_as",
    ),
    *("expand_as", "relu", "relu_", "relu6", "silu", "gelu", "sigmoid", "hardswish", "hardsigmoid", "leaky_relu"),
    *("tanh", "batch_norm", "dropout", "addcmul"),
)
REDUCTIONS = ("mean", "sum", "amax", "max", "norm")
SPLITS = ("split", "chunk", "tensor_split")
# Networks such as ConvNeXt turn features to N, H, W, C for layers that act on each location alone, and back.
FIRST, LAST = (0, 1, 2, 3), (0, 2, 3, 1)
OF_LOCATIONS = (*ACTIVATIONS, nn.LayerNorm, nn.Linear, nn.Identity, nn.Dropout)
ADAPTIVE_FUNCTIONS = ("adaptive_avg_pool2d", "adaptive_max_pool2d")


class Tracer(fx.Tracer):
    """Sees through composite modules, stops at those whose geometry is known."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, POINTWISE + WINDOWS + ADAPTIVE + OF_LOCATIONS)


def union(fields: list[Field]) -> Field:
    """What several branches see together; raises ValueError if their cells don't lie on one grid."""
    local = [field for field in fields if field.stride] or [GLOBAL]
    if len({field.stride for field in local}) > 1:
        raise ValueError(f"branches of different strides can't be joined: {sorted({f.stride for f in local})}")
    low, high = min(field.low for field in local), max(field.high for field in local)
    return Field(local[0].stride, low, high, any(field.whole for field in fields))


def one_axis(value: Any, axis: int) -> int:
    """A layer's setting along an axis; torch keeps one number for both, or one for each."""
    return value[axis] if isinstance(value, tuple | list) else value


def through_layer(layer: nn.Module, field: Field, axis: int) -> Field:
    """The field behind one layer; raises ValueError for a layer whose geometry is unknown."""
    if isinstance(layer, nn.GroupNorm) or type(layer) is nn.LayerNorm:  # subclasses of LayerNorm are per location
        return field._replace(whole=True)
    if isinstance(layer, POINTWISE) or not field.stride:
        return field
    if isinstance(layer, ADAPTIVE):
        return to_one_cell(layer.output_size)
    # A forward of its own may pad as it likes, and a circle has no first pixel.
    plain = any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in WINDOWS)
    if not plain or getattr(layer, "padding_mode", "") == "circular":
        raise unknown(layer)
    kernel, stride = one_axis(layer.kernel_size, axis), one_axis(layer.stride, axis)
    dilation = one_axis(getattr(layer, "dilation", 1), axis)
    if layer.padding == "same":
        padding = dilation * (kernel - 1) // 2
    else:
        padding = 0 if layer.padding == "valid" else one_axis(layer.padding, axis)
    return field.through(kernel, stride, padding, dilation)


def unknown(layer: nn.Module) -> ValueError:
    """The refusal of a layer."""
    return ValueError(
        f"the receptive field of {type(layer).__name__} is unknown; expected convolutions, poolings and layers "
        "that act on each location alone"
    )


def at_location(layer: nn.Module, field: Field, order: tuple[int, ...]) -> Field:
    """The field behind one layer of features (N, H, W, C); raises ValueError for one that may join locations, as a
    linear layer does where the last axis is another one.
    """
    if order != LAST or not isinstance(layer, OF_LOCATIONS) or len(getattr(layer, "normalized_shape", "1")) > 1:
        raise unknown(layer)
    return field


def to_one_cell(size: Any) -> Field:
    """The field behind adaptive pooling; raises ValueError for a grid, whose cells are of uneven size."""
    if size not in (1, (1, 1), [1, 1]):
        raise ValueError(f"adaptive pooling to {size} cells has fields of uneven size; only pooling to 1 is known")
    return GLOBAL


def through_function(node: fx.Node, name: str, inputs: list[Field], order: tuple[int, ...]) -> Field:
    """The field behind a function or method of features whose axes are these of N, C, H, W.

    Raises ValueError if its geometry is unknown.
    """
    # The dimensions or the output's size; joining takes 0 if it is left out, which are the images of a batch.
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = {order[d % 4] for d in (given if isinstance(given, tuple | list) else (given,)) if isinstance(d, int)}
    if (
        name in (*POINTWISE_FUNCTIONS, "permute")
        or (name == "cat" and dims == {1})
        or (name in REDUCTIONS and dims == {1})
    ):
        return union(inputs)
    if name in REDUCTIONS and dims == {2, 3}:
        return GLOBAL
    if name in ADAPTIVE_FUNCTIONS and order == FIRST:
        return to_one_cell(given)
    if (name in SPLITS or name == "getitem") and of_channels(node, name, order):
        return inputs[0]
    raise ValueError(f"the receptive field of {name}({', '.join(map(str, node.args))}) is unknown")


def of_channels(node: fx.Node, name: str, order: tuple[int, ...]) -> bool:
    """Whether the channels are split, or an index takes some of them, or one of the parts into which they were."""
    given, key, dim, *_ = *node.args, node.kwargs.get("dim", 0)
    if name in SPLITS:
        return isinstance(dim, int) and order[dim % 4] == 1
    if isinstance(key, int) and isinstance(given, fx.Node):
        return getattr(given.target, "__name__", given.target) in SPLITS
    return isinstance(key, tuple) and all(
        one == slice(None) or (order[axis] == 1 and isinstance(one, slice)) for axis, one in enumerate(key)
    )


def turned(node: fx.Node, order: tuple[int, ...]) -> tuple[int, ...]:
    """Which axis of N, C, H, W each axis is behind a step, from those before it."""
    if getattr(node.target, "__name__", node.target) != "permute":
        return order
    dims = node.kwargs.get("dims", node.args[1] if len(node.args) == 2 else node.args[1:])
    return tuple(order[axis] for axis in dims)  # type: ignore[union-attr] (numbers)


def through_stage(stage: nn.Module, field: Field, axis: int) -> Field:
    """The field behind a stage along an axis (0: rows, 1: columns), following every branch of its graph."""
    root = nn.Sequential(stage)  # so that a stage may be a single layer
    try:
        graph = Tracer().trace(root)
    except Exception as error:  # torch.fx raises whatever the traced code runs into
        raise ValueError(f"the receptive field of {type(stage).__name__} can't be traced: {error}") from error
    layers = dict(root.named_modules())
    fields: dict[fx.Node, Field] = {}
    orders: dict[fx.Node, tuple[int, ...]] = {}
    for node in graph.nodes:
        inputs = [fields[n] for n in node.all_input_nodes if n in fields]
        before = {orders[n] for n in node.all_input_nodes if n in fields}
        order = before.pop() if len(before) == 1 else FIRST
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "placeholder":
            fields[node], orders[node] = field, FIRST
        elif before:
            raise ValueError(f"{name} joins features whose axes stand in different orders")
        elif node.op == "output" and isinstance(node.args[0], fx.Node) and inputs and order == FIRST:
            return inputs[0]
        elif node.op == "call_module" and len(inputs) == 1:
            layer = layers[str(node.target)]
            fields[node] = (
                through_layer(layer, inputs[0], axis) if order == FIRST else at_location(layer, inputs[0], order)
            )
            orders[node] = order
        elif node.op in ("call_function", "call_method") and inputs and not of_shape(node, name):
            orders[node] = turned(node, order)
            fields[node] = through_function(node, name, inputs, order)
    raise ValueError(f"the receptive field of {type(stage).__name__} is unknown: it must give one map of features")


def through_axes(stage: nn.Module, fields: tuple[Field, Field]) -> tuple[Field, Field]:
    """The fields behind a stage along both axes, rows and columns; raises ValueError, which tells what else to take."""
    try:
        return through_stage(stage, fields[0], 0), through_stage(stage, fields[1], 1)
    except ValueError as error:
        raise ValueError(
            f"{error}; so there are no maps on the image: choose a backbone whose layers are all known, "
            "such as resnet18, vgg16 or convnext_tiny"
        ) from error


def of_shape(node: fx.Node, name: str) -> bool:
    """Whether a step reads only the features' shape or kind, as dropping whole paths does for its dice."""
    attributes = ("shape", "ndim", "dtype", "device")
    return name in ("size", "dim", "new_empty") or (name == "getattr" and node.args[1] in attributes)


class Canvas(NamedTuple):
    """What a spatial transformer samples, ``size`` (h, w) cells, and so its output too.

    ``field`` (rows, columns): its cells on the canvas of the transformer before it; of the first, on the image.
    """

    field: tuple[Field, Field]
    size: tuple[int, int]


class Geometry(NamedTuple):
    """Where a network looks in images of H x W pixels: each attended layer's field, (rows, columns), or canvases."""

    fields: list[tuple[Field, Field]]
    image_size: tuple[int, int]
    canvases: tuple[Canvas, ...] = ()


def geometry(model: QuestionNetwork, image_size: tuple[int, int] | None = None) -> Geometry:
    """Where a network looks in its images of ``image_size`` (H, W), unless told ``config.image_size`` squared.

    Raises ValueError where that can't be known exactly.
    """
    side = model.config.image_size
    if image_size is not None and (not isinstance(image_size, tuple | list) or len(image_size) != 2):
        raise ValueError(f"image_size must be (height, width) in pixels, e.g. ({side}, {side}), got {image_size!r}")
    if isinstance(model, ProgressiveAttentionNetwork):
        return Geometry(fields_of_layers(model), image_size or (side, side))
    if image_size not in (None, (side, side)):
        raise ValueError(f"this network takes images of {side} x {side} pixels only, got image_size {image_size}")
    return Geometry([], (side, side), canvases(model) if isinstance(model, SpatialTransformerNetwork) else ())


def fields_of_layers(model: ProgressiveAttentionNetwork) -> list[tuple[Field, Field]]:
    """Fields of the attended layers on the image."""
    both, fields = (Field(), Field()), []
    for i, stage in enumerate(model.stages):
        both = through_axes(stage, both)
        if str(i) in model.scorers:
            fields.append(both)
    return fields


def canvases(model: SpatialTransformerNetwork) -> tuple[Canvas, ...]:
    """Each transformer's canvas; raises ValueError for one behind global pooling."""
    side = model.config.image_size
    sizes = [(side, side), *((height, width) for _, height, width in model.sizes)]
    both, found = (Field(), Field()), []
    for i, stage in enumerate(model.stages[: model.attended[-1] + 1]):
        if i in model.attended:
            found.append(Canvas(both, sizes[i]))
            both = Field(), Field()
        both = through_axes(stage, both)
    if any(not field.stride for canvas in found for field in canvas.field):
        raise ValueError("where a transformer behind global pooling looks is unknown; attend at earlier stages only")
    return tuple(found)
