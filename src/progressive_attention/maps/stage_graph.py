"""A stage of a network read as steps: which windows its cells look through, and where its branches join.

``receptive_field`` follows the steps along one axis, ``pixel_maps`` along every path.
Legend: N images, C channels, H x W cells.
"""

from typing import Any, Literal, NamedTuple

from torch import fx, nn


class Window(NamedTuple):
    """What a convolution or a pooling reads along one axis: ``kernel`` cells ``dilation`` apart, every ``stride``.

    ``before`` and ``after`` count the cells of padding. With ``ceil`` a last window may reach beyond these.
    """

    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    ceil: bool = False

    def places(self, cells: int) -> int:
        """How many places of the window there are over so many cells, as torch counts them."""
        free = self.before + cells + self.after - self.dilation * (self.kernel - 1) - 1
        places = (-(-free // self.stride) if self.ceil else free // self.stride) + 1
        if self.ceil and (places - 1) * self.stride >= cells + self.before:  # none starts in the padding
            places -= 1
        return places


class Step(NamedTuple):
    """One step of a stage: windows (rows, columns), a join of branches, or a collapse of all cells into one.

    ``inputs`` are the maps it reads: 0 is what enters the stage, i what step i gave, counted from 1. A join's are those
    of its local branches. ``whole`` marks a step that also reads the whole image: a norm over all cells, or a branch of
    one global cell (squeeze-and-excite).
    """

    does: tuple[Window, Window] | Literal["join", "collapse"]
    inputs: tuple[int, ...]
    whole: bool = False


Steps = tuple[Step, ...]
Size = tuple[int, int]
Axes = tuple[int, ...]  # which of N, C, H, W each axis of a map is
# Layers that move nothing in space. Anything in no list is rejected: a guess would misplace every map.
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid),
    *(nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Mish, nn.PReLU),
)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
POINTWISE = (*ACTIVATIONS, *NORMS, nn.Identity, nn.Dropout, nn.Dropout2d)
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
POINTWISE_FUNCTIONS = (
    *("add", "iadd", "sub", "mul", "imul", "truediv", "div", "neg", "pow"),
    *("contiguous", "clone", "to", "float", "type_as", "permute"),
    *("expand_as", "relu", "relu_", "relu6", "silu", "gelu", "sigmoid", "hardswish", "hardsigmoid", "leaky_relu"),
    *("tanh", "batch_norm", "dropout", "addcmul"),
)
REDUCTIONS = ("mean", "sum", "amax", "max", "norm")
SPLITS = ("split", "chunk", "tensor_split")
# Networks such as ConvNeXt turn features to N, H, W, C for layers that act on each location alone, and back.
FIRST, LAST = (0, 1, 2, 3), (0, 2, 3, 1)
OF_LOCATIONS = (*ACTIVATIONS, nn.LayerNorm, nn.Linear, nn.Identity, nn.Dropout)
ADAPTIVE_FUNCTIONS = ("adaptive_avg_pool2d", "adaptive_max_pool2d")
SAME = ("Conv2dSame", "MaxPool2dSame", "AvgPool2dSame")  # timm's, padded as TensorFlow does, by the size of the map


class Tracer(fx.Tracer):
    """Sees through composite modules, stops at those whose geometry is known."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, POINTWISE + WINDOWS + ADAPTIVE + OF_LOCATIONS)


def one_axis(value: Any, axis: int) -> int:
    """A layer's setting along an axis; torch keeps one number for both, or one for each."""
    return value[axis] if isinstance(value, tuple | list) else value


def window(layer: nn.Module, axis: int, cells: int) -> Window:
    """The window of a convolution or a pooling along an axis of so many cells; ValueError for unknown geometry."""
    same = type(layer).__module__.startswith("timm.layers.") and type(layer).__name__ in SAME
    # A forward of its own may pad as it likes, and a circle has no first pixel.
    plain = any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in WINDOWS)
    if not (plain or same) or getattr(layer, "padding_mode", "") == "circular":
        raise unknown(layer)
    kernel, stride = one_axis(layer.kernel_size, axis), one_axis(layer.stride, axis)
    dilation, ceil = one_axis(getattr(layer, "dilation", 1), axis), getattr(layer, "ceil_mode", False)
    if same or layer.padding == "same":
        padding = max(0, (-(-cells // stride) - 1) * stride + dilation * (kernel - 1) + 1 - cells)
        before, after = padding // 2, padding - padding // 2
    else:
        before = after = 0 if layer.padding == "valid" else one_axis(layer.padding, axis)
    return Window(kernel, stride, before, after, dilation, ceil)


def unknown(layer: nn.Module) -> ValueError:
    """What rejects a layer."""
    expected = "convolutions, poolings and layers that act on each location alone"
    return ValueError(f"the receptive field of {type(layer).__name__} is unknown; expected {expected}")


def name_of(node: fx.Node) -> str:
    """What a node calls."""
    return getattr(node.target, "__name__", str(node.target))


def of_channels(node: fx.Node, order: Axes) -> bool:
    """Whether the channels are split, or an index takes some of them, or one of the parts into which they were."""
    given, key, dim, *_ = *node.args, node.kwargs.get("dim", 0)
    if name_of(node) in SPLITS:
        return isinstance(dim, int) and order[dim % 4] == 1
    if isinstance(key, int) and isinstance(given, fx.Node):
        return name_of(given) in SPLITS
    return isinstance(key, tuple) and all(
        part == slice(None) or (order[axis] == 1 and isinstance(part, slice)) for axis, part in enumerate(key)
    )


def turned(node: fx.Node, order: Axes) -> Axes:
    """The axes behind a function, from those before it."""
    if name_of(node) != "permute":
        return order
    dims = node.kwargs.get("dims", node.args[1] if len(node.args) == 2 else node.args[1:])
    return tuple(order[axis] for axis in dims)  # type: ignore[union-attr] (numbers)


def of_shape(node: fx.Node) -> bool:
    """Whether a node reads only the features' shape or kind, as dropping whole paths does for its dice."""
    attributes = ("shape", "ndim", "dtype", "device")
    return name_of(node) in ("size", "dim", "new_empty") or (name_of(node) == "getattr" and node.args[1] in attributes)


class Reader:
    """Reads the graph of a stage, node by node, into ``steps``; raises ValueError for what it does not know.

    ``size``: (h, w) cells of the map that enters the stage.
    """

    def __init__(self, size: Size) -> None:
        self.steps: list[Step] = []
        self.is_global = [False]  # whether each map is a single global cell
        self.sizes = [size]

    def add(self, does: Any, inputs: tuple[int, ...], whole: bool = False) -> int:
        """The number of the map that one more step gives."""
        self.steps.append(Step(does, inputs, whole))
        self.sizes.append(size_behind(does, self.sizes[inputs[0]]))
        self.is_global.append(does == "collapse" or all(self.is_global[i] for i in inputs))
        return len(self.steps)

    def join(self, inputs: list[int]) -> int:
        """The map in which branches meet; those of one global cell bring no place."""
        local = [i for i in inputs if not self.is_global[i]]
        if len(inputs) == 1 or not local:
            return inputs[0]
        return self.add("join", tuple(local), whole=len(local) < len(inputs))

    def collapse(self, inputs: list[int], size: Any = 1) -> int:
        """The map of one global cell; raises ValueError for adaptive pooling to a grid of cells of uneven size."""
        if size not in (1, (1, 1), [1, 1]):
            raise ValueError(f"adaptive pooling to {size} cells has fields of uneven size; only pooling to 1 is known")
        return self.add("collapse", tuple(inputs))

    def layer(self, layer: nn.Module, at: int, order: Axes) -> int:
        """The map behind a layer."""
        if order != FIRST:  # a linear layer joins locations where the last axis is another one
            if order != LAST or not isinstance(layer, OF_LOCATIONS) or len(getattr(layer, "normalized_shape", "1")) > 1:
                raise unknown(layer)
            return at
        if isinstance(layer, nn.GroupNorm) or type(layer) is nn.LayerNorm:  # subclasses of LayerNorm are per location
            return self.add("join", (at,), whole=True)
        if isinstance(layer, POINTWISE) or self.is_global[at]:
            return at
        if isinstance(layer, ADAPTIVE):
            return self.collapse([at], layer.output_size)
        height, width = self.sizes[at]
        return self.add((window(layer, 0, height), window(layer, 1, width)), (at,))

    def function(self, node: fx.Node, inputs: list[int], order: Axes) -> int:
        """The map behind a function or method."""
        # The dimensions or the output's size; joining takes 0 if it is left out, which are the images of a batch.
        given, name = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim"), name_of(node)
        dims = {order[d % 4] for d in (given if isinstance(given, tuple | list) else (given,)) if isinstance(d, int)}
        if name in POINTWISE_FUNCTIONS or (name in ("cat", *REDUCTIONS) and dims == {1}):
            return self.join(inputs)
        if name in REDUCTIONS and dims == {2, 3}:
            return self.collapse(inputs)
        if name in ADAPTIVE_FUNCTIONS and order == FIRST:
            return self.collapse(inputs, given)
        if name in (*SPLITS, "getitem") and of_channels(node, order):
            return inputs[0]
        raise ValueError(f"the receptive field of {name}({', '.join(map(str, node.args))}) is unknown")


def size_behind(does: Any, size: Size) -> Size:
    """(h, w) cells behind a step."""
    if does == "collapse":
        return 1, 1
    return size if does == "join" else (does[0].places(size[0]), does[1].places(size[1]))


def steps_of(stage: nn.Module, size: Size) -> tuple[Steps, Size]:
    """A stage's steps on a map of ``size`` (h, w) cells, and the size of its output, which the last step gives.

    No steps where it moves nothing. Raises ValueError.
    """
    root = nn.Sequential(stage)  # so that a stage may be a single layer
    try:
        graph = Tracer().trace(root)
    except Exception as error:  # torch.fx raises whatever the traced code runs into
        raise ValueError(f"the receptive field of {type(stage).__name__} can't be traced: {error}") from error
    reader, layers = Reader(size), dict(root.named_modules())
    maps: dict[fx.Node, tuple[int, Axes]] = {}
    for node in graph.nodes:
        before = [maps[each] for each in node.all_input_nodes if each in maps]
        inputs, orders = [at for at, _ in before], {order for _, order in before}
        if len(orders) > 1:
            raise ValueError(f"{name_of(node)} joins features whose axes are in different orders")
        order = next(iter(orders), FIRST)
        if node.op == "placeholder":
            maps[node] = 0, FIRST
        elif node.op == "output" and isinstance(node.args[0], fx.Node) and inputs and order == FIRST:
            return tuple(reader.steps[: inputs[0]]), reader.sizes[inputs[0]]
        elif node.op == "call_module" and len(inputs) == 1:
            maps[node] = reader.layer(layers[str(node.target)], inputs[0], order), order
        elif node.op in ("call_function", "call_method") and inputs and not of_shape(node):
            maps[node] = reader.function(node, inputs, order), turned(node, order)
    raise ValueError(f"the receptive field of {type(stage).__name__} is unknown: it must give one map of features")
