"""Where a layer looks: its cells in image pixels, exactly, and attention maps drawn there.

Pixel i has its centre at i and reaches from i - 1/2 to i + 1/2. Arithmetic after Araujo, Norris and Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill 2019.
Legend: B images, K queries, h x w cells of a layer, H x W image pixels.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from progressive_attention.models import Prediction, ProgressiveAttentionNetwork


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
    *("add", "iadd", "sub", "mul", "imul", "truediv", "div", "neg", "contiguous", "clone", "to", "float", "type_as"),
    *("expand_as", "relu", "relu_", "relu6", "silu", "gelu", "sigmoid", "hardswish", "hardsigmoid", "leaky_relu"),
    *("tanh", "batch_norm", "dropout"),
)
REDUCTIONS = ("mean", "sum", "amax", "max")
ADAPTIVE_FUNCTIONS = ("adaptive_avg_pool2d", "adaptive_max_pool2d")


class Tracer(fx.Tracer):
    """Sees through composite modules, stops at those whose geometry is known."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, POINTWISE + WINDOWS + ADAPTIVE)


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
    window = next((kind for kind in WINDOWS if isinstance(layer, kind)), None)
    if window is None or type(layer).forward is not window.forward:  # a forward of its own may pad as it likes
        raise ValueError(
            f"the receptive field of {type(layer).__name__} is unknown; expected convolutions, poolings and layers "
            "that act on each location alone"
        )
    kernel, stride = one_axis(layer.kernel_size, axis), one_axis(layer.stride, axis)
    dilation = one_axis(getattr(layer, "dilation", 1), axis)
    if layer.padding == "same":
        padding = dilation * (kernel - 1) // 2
    else:
        padding = 0 if layer.padding == "valid" else one_axis(layer.padding, axis)
    return field.through(kernel, stride, padding, dilation)


def to_one_cell(size: Any) -> Field:
    """The field behind adaptive pooling; raises ValueError for a grid, whose cells are of uneven size."""
    if size not in (1, (1, 1), [1, 1]):
        raise ValueError(f"adaptive pooling to {size} cells has fields of uneven size; only pooling to 1 is known")
    return GLOBAL


def through_function(node: fx.Node, name: str, inputs: list[Field]) -> Field:
    """The field behind a function or method of features; raises ValueError if its geometry is unknown."""
    # Where "dim" or "output_size" may stand; joining takes 0 if it is left out, which are the images of a batch.
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("output_size"))
    dims = {d % 4 for d in (given if isinstance(given, tuple | list) else (given,)) if isinstance(d, int)}
    if name in POINTWISE_FUNCTIONS or (name == "cat" and dims == {1}) or (name in REDUCTIONS and dims == {1}):
        return union(inputs)
    if name in REDUCTIONS and dims == {2, 3}:
        return GLOBAL
    if name in ADAPTIVE_FUNCTIONS:
        return to_one_cell(given)
    raise ValueError(f"the receptive field of {name}({', '.join(map(str, node.args))}) is unknown")


def through_stage(stage: nn.Module, field: Field, axis: int) -> Field:
    """The field behind a stage along an axis (0: rows, 1: columns), following every branch of its graph."""
    root = nn.Sequential(stage)  # so that a stage may be a single layer
    try:
        graph = Tracer().trace(root)
    except Exception as error:  # torch.fx raises whatever the traced code runs into
        raise ValueError(f"the receptive field of {type(stage).__name__} can't be traced: {error}") from error
    layers = dict(root.named_modules())
    fields: dict[fx.Node, Field] = {}
    for node in graph.nodes:
        inputs = [fields[n] for n in node.all_input_nodes if n in fields]
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "placeholder":
            fields[node] = field
        elif node.op == "output" and isinstance(node.args[0], fx.Node) and inputs:
            return inputs[0]
        elif node.op == "call_module" and len(inputs) == 1:
            fields[node] = through_layer(layers[str(node.target)], inputs[0], axis)
        elif node.op in ("call_function", "call_method") and inputs and not of_shape(node, name):
            fields[node] = through_function(node, name, inputs)
    raise ValueError(f"the receptive field of {type(stage).__name__} is unknown: it must give one map of features")


def of_shape(node: fx.Node, name: str) -> bool:
    """Whether a step reads only the features' shape or kind."""
    attributes = ("shape", "ndim", "dtype", "device")
    return name in ("_assert", "size", "dim") or (name == "getattr" and node.args[1] in attributes)


class Geometry(NamedTuple):
    """Fields of the attended layers, (rows, columns) each, for images of H x W pixels."""

    fields: list[tuple[Field, Field]]
    image_size: tuple[int, int]


def geometry(model: ProgressiveAttentionNetwork, image_size: tuple[int, int] | None = None) -> Geometry:
    """Where the model's attended layers lie in its images; raises ValueError where that can't be known exactly."""
    rows, columns = Field(), Field()
    fields = []
    for i, stage in enumerate(model.stages):
        rows, columns = through_stage(stage, rows, 0), through_stage(stage, columns, 1)
        if str(i) in model.scorers:
            fields.append((rows, columns))
    side = model.config.image_size
    return Geometry(fields, image_size or (side, side))


def coverage(field: Field, cells: int, pixels: int) -> Tensor:
    """Share of each pixel that lies in each stride cell: (pixels, cells) float64 in [0, 1], rows sum to at most one.

    A cell's stride cell is centred where its field is and ``stride`` wide; so they tile the image without overlap.
    A single global cell is the whole image.
    """
    if not field.stride:
        return torch.ones(pixels, cells, dtype=torch.float64)
    pixel = torch.arange(pixels, dtype=torch.float64)[:, None]
    centre = field.centre(0) + field.stride * torch.arange(cells, dtype=torch.float64)
    right = torch.minimum(pixel + 0.5, centre + field.stride / 2)
    left = torch.maximum(pixel - 0.5, centre - field.stride / 2)
    return (right - left).clamp(min=0)


def as_values(cells: Tensor, field: tuple[Field, Field], image_size: tuple[int, int]) -> Tensor:
    """Each pixel gets its cell's value, zero outside all cells: (..., h, w) -> (..., H, W) float64."""
    rows = coverage(field[0], cells.shape[-2], image_size[0]).to(cells.device)
    columns = coverage(field[1], cells.shape[-1], image_size[1]).to(cells.device)
    return rows @ cells.double() @ columns.T


def as_density(cells: Tensor, field: tuple[Field, Field], image_size: tuple[int, int]) -> Tensor:
    """Each cell's mass spread evenly over its stride cell's part inside the image: (..., h, w) -> (..., H, W) float64.

    Mass is conserved. Raises ValueError for a layer with cells wholly outside the image, whose mass has no place.
    """
    inside_rows = coverage(field[0], cells.shape[-2], image_size[0]).sum(0).to(cells.device)
    inside_columns = coverage(field[1], cells.shape[-1], image_size[1]).sum(0).to(cells.device)
    area = inside_rows[:, None] * inside_columns
    if lost := int((area == 0).sum()):
        raise ValueError(
            f"{lost} of the layer's {cells.shape[-2]} x {cells.shape[-1]} cells lie wholly outside the image of "
            f"{image_size[0]} x {image_size[1]} pixels, so their attention has no place there; "
            "pad each layer by at most half its kernel"
        )
    return as_values(cells.double() / area, field, image_size)


def normalised(pixels: Tensor) -> Tensor:
    """Maps (..., H, W) >= 0 divided by their sums; a map of zeros stays zero."""
    return pixels / pixels.sum((-2, -1), keepdim=True).clamp(min=torch.finfo(pixels.dtype).tiny)


def last_map(prediction: Prediction, geometry: Geometry) -> Tensor:
    """The last layer's probabilities on image pixels: (B, K, H, W) float64, each map sums to one."""
    return as_density(prediction.attention[-1], geometry.fields[-1], geometry.image_size)


def accumulated_map(prediction: Prediction, geometry: Geometry) -> Tensor:
    """Product of all layers' attention at each pixel, normalised: (B, K, H, W) float64."""
    layers = zip(prediction.attention, geometry.fields, strict=True)
    return normalised(torch.stack([as_values(a, f, geometry.image_size) for a, f in layers]).prod(0))


def activation_map(prediction: Prediction, geometry: Geometry) -> Tensor:
    """Product over layers of the attended features' magnitude at each pixel, normalised: (B, K, H, W) float64.

    The magnitude after a gate is the attention times that before it (the paper's Figure 6 b).
    """
    layers = zip(prediction.attention, prediction.magnitude, geometry.fields, strict=True)
    attended = [as_values(a.double() * m.double(), f, geometry.image_size) for a, m, f in layers]
    return normalised(torch.stack([a / a.amax((-2, -1), keepdim=True).clamp(min=1e-300) for a in attended]).prod(0))


PIXEL_MAPS = {"last": last_map, "accumulated": accumulated_map, "activation": activation_map}


def pixel_maps(prediction: Prediction, geometry: Geometry) -> dict[str, Tensor]:
    """The three attention maps by name, (B, K, H, W) float64 each, sum one (or zero where nothing was asked)."""
    return {name: draw(prediction, geometry) for name, draw in PIXEL_MAPS.items()}
