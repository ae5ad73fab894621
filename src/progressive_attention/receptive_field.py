"""Where a network looks: cells and transformers' canvases in image pixels, exactly, and attention maps drawn there.

Pixel i has its centre at i and reaches from i - 1/2 to i + 1/2. Arithmetic after Araujo, Norris and Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill 2019.
Legend: B images, K queries, h x w cells of a layer, H x W image pixels, M parallelograms.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from progressive_attention.baselines import SpatialTransformerNetwork
from progressive_attention.models import ProgressiveAttentionNetwork
from progressive_attention.prediction import Prediction, QuestionNetwork


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
    window = next(kind for kind in WINDOWS if isinstance(layer, kind))  # ``Tracer`` stops at no other
    if type(layer).forward is not window.forward:  # a forward of its own may pad as it likes
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
    # The dimensions or the output's size; joining takes 0 if it is left out, which are the images of a batch.
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
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
    return name in ("size", "dim") or (name == "getattr" and node.args[1] in attributes)


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
    """Where a network looks in its images; raises ValueError where that can't be known exactly."""
    side = model.config.image_size
    if isinstance(model, ProgressiveAttentionNetwork):
        return Geometry(fields_of_layers(model), image_size or (side, side))
    if image_size not in (None, (side, side)):
        raise ValueError(f"this network takes images of {side} x {side} pixels only, got image_size {image_size}")
    return Geometry([], (side, side), canvases(model) if isinstance(model, SpatialTransformerNetwork) else ())


def fields_of_layers(model: ProgressiveAttentionNetwork) -> list[tuple[Field, Field]]:
    """Fields of the attended layers on the image."""
    rows, columns = Field(), Field()
    fields = []
    for i, stage in enumerate(model.stages):
        rows, columns = through_stage(stage, rows, 0), through_stage(stage, columns, 1)
        if str(i) in model.scorers:
            fields.append((rows, columns))
    return fields


def canvases(model: SpatialTransformerNetwork) -> tuple[Canvas, ...]:
    """Each transformer's canvas; raises ValueError for one behind global pooling."""
    side = model.config.image_size
    sizes = [(side, side), *((height, width) for _, height, width in model.sizes)]
    rows, columns = Field(), Field()
    found = []
    for i, stage in enumerate(model.stages[: model.attended[-1] + 1]):
        if i in model.attended:
            found.append(Canvas((rows, columns), sizes[i]))
            rows, columns = Field(), Field()
        rows, columns = through_stage(stage, rows, 0), through_stage(stage, columns, 1)
    if any(not field.stride for canvas in found for field in canvas.field):
        raise ValueError("where a transformer behind global pooling looks is unknown; attend at earlier stages only")
    return tuple(found)


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


def quadrilateral(prediction: Prediction, geometry: Geometry) -> Tensor:
    """Corners, x before y, of the parallelogram of the image that reaches the last transformer's whole output.

    (B, K, 4, 2) float64 in pixels, from the output's top left clockwise. Every transformer, and every stage between two
    of them, moves coordinates affinely, so composing them is exact.
    """
    height, width = geometry.canvases[-1].size
    like = {"dtype": torch.float64, "device": prediction.logit.device}
    corners = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], **like) - 0.5
    for transform, canvas in zip(reversed(prediction.transform), reversed(geometry.canvases), strict=True):
        affine, (rows, columns), size = transform.double(), canvas.field, torch.tensor(canvas.size[::-1], **like)
        corners = (2 * corners + 1) / size - 1  # of cells; the transformer's coordinates run from -1 to 1
        corners = corners @ affine[..., :2].mT + affine[..., None, :, 2]
        corners = ((corners + 1) * size - 1) / 2
        stride = torch.tensor([columns.stride, rows.stride], **like)
        corners = torch.tensor([columns.centre(0), rows.centre(0)], **like) + stride * corners
    return corners


def covered(corners: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Area of each pixel inside a polygon, exact, negative if it runs anticlockwise: (M, n, 2) -> (M, H, W) float64.

    By Green's theorem the area left of x and above y is the sum over edges of the integral of min(edge, x) down to y;
    pixels are its differences. Clockwise as one sees it, y pointing down.
    """
    x, y = (torch.arange(pixels + 1, device=corners.device) - 0.5 for pixels in reversed(image_size))
    area = corners.new_zeros(corners.shape[0], len(y), len(x))
    for start, end in zip(corners.unbind(1), corners.roll(-1, 1).unbind(1), strict=True):
        (x0, y0), (x1, y1) = start[..., None, None].unbind(1), end[..., None, None].unbind(1)
        above0, above1 = torch.minimum(y0, y[:, None]), torch.minimum(y1, y[:, None])  # the edge's part above y
        slope = (x1 - x0) / torch.where((y1 - y0).abs() < 1e-99, 1, y1 - y0)  # no part of a level edge has a height
        ends = x0 + (above0 - y0) * slope, x0 + (above1 - y0) * slope
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        reached = x.clamp(low, high)
        left = torch.where(low == high, (x > low).double(), (reached - low) / (high - low))  # share of it left of x
        area += (above1 - above0) * (left * (low + reached) / 2 + (1 - left) * x)
    return area.diff(dim=1).diff(dim=2)


def region_map(prediction: Prediction, geometry: Geometry) -> Tensor:
    """What spatial transformers attend to, a uniform density over ``quadrilateral``: (B, K, H, W) float64 >= 0.

    Each map sums to the share of the region that lies inside the image. One of no area (below a millionth of a pixel)
    lies in the pixel of its centre. Zero where nothing was asked, which is where a transform is all zeros.
    """
    corners = quadrilateral(prediction, geometry).flatten(0, 1)
    parts = [corners] if torch.compiler.is_exporting() else corners.split(16)  # few fit the cache
    pixels = torch.cat([covered(few, geometry.image_size) for few in parts])
    across, down = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    area = (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0])[:, None, None]
    column, row = (corners.mean(1) + 0.5).floor()[..., None, None].unbind(1)
    height, width = geometry.image_size
    down, across = torch.arange(height, device=row.device)[:, None], torch.arange(width, device=row.device)
    density = torch.where(area.abs() < 1e-6, ((down == row) & (across == column)).double(), pixels / area)
    asked = (prediction.transform[-1] != 0).any(-1).any(-1)
    return density.clamp(min=0).unflatten(0, asked.shape) * asked[..., None, None]


PIXEL_MAPS = {"last": last_map, "accumulated": accumulated_map, "activation": activation_map}


def pixel_maps(prediction: Prediction, geometry: Geometry) -> dict[str, Tensor]:
    """The attention maps that there are by name, (B, K, H, W) float64 each; zero where nothing was asked.

    Networks that score locations have all of ``PIXEL_MAPS``, each of sum one. Spatial transformers have ``region_map``
    as last and as accumulated map, of sum at most one. Others have none.
    """
    if prediction.transform:
        region = region_map(prediction, geometry)
        return {"last": region, "accumulated": region}
    if not prediction.attention:
        return {}
    return {name: draw(prediction, geometry) for name, draw in PIXEL_MAPS.items()}
