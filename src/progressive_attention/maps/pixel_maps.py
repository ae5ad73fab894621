"""Attention maps drawn on image pixels: each cell's value or mass where its receptive field is; transformers' regions.

Pixel i has its centre at i and reaches from i - 1/2 to i + 1/2.
Legend: B images, K queries, h x w cells of a layer, H x W image pixels, M parallelograms.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor

from progressive_attention.maps.receptive_field import Field, Geometry, Paths
from progressive_attention.maps.stage_graph import Size, Step, Steps
from progressive_attention.network.question_network import Prediction

POWER = 4  # of the magnitude, in the flow map
TINY = 1e-290  # below this, sums in float64 lose their digits


def kept(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function whose tensors are computed once for the same arguments, and not to be changed by who asks."""

    @lru_cache(maxsize=256)
    def once(*arguments: Any) -> Tensor:
        with torch.inference_mode(False):  # so that a training may use them, too
            return make(*arguments)

    @wraps(make)
    def given(*arguments: Any) -> Tensor:
        # While a network is exported tensors stand for no values.
        return make(*arguments) if torch.compiler.is_exporting() else once(*arguments)

    return given


@kept
def coverage(field: Field, cells: int, pixels: int) -> Tensor:
    """Share of each pixel that lies in each stride cell: (pixels, cells) float64 in [0, 1], rows sum to at most one.

    A cell's stride cell is centred where its field is and ``stride`` wide; a single global cell is the whole image.
    """
    if not field.stride:
        return torch.ones(pixels, cells, dtype=torch.float64)
    pixel = torch.arange(pixels, dtype=torch.float64)[:, None]
    centre = field.centre(0) + field.stride * torch.arange(cells, dtype=torch.float64)
    right = torch.minimum(pixel + 0.5, centre + field.stride / 2)
    left = torch.maximum(pixel - 0.5, centre - field.stride / 2)
    return (right - left).clamp(min=0)


def cells_inside(field: Field, cells: int, pixels: int) -> int:
    """How many of the cells lie on the image at least in part; as numbers, which torch.export need not trace."""
    reach = field.stride / 2 + 0.5
    return sum(not field.stride or -reach < field.centre(i) < pixels - 1 + reach for i in range(cells))


def as_values(cells: Tensor, field: tuple[Field, Field], image_size: Size) -> Tensor:
    """Each pixel gets its cell's value, zero outside all cells: (..., h, w) -> (..., H, W) float64."""
    rows = coverage(field[0], cells.shape[-2], image_size[0]).to(cells.device)
    columns = coverage(field[1], cells.shape[-1], image_size[1]).to(cells.device)
    return rows @ cells.double() @ columns.T


def as_density(cells: Tensor, field: tuple[Field, Field], image_size: Size) -> Tensor:
    """Each cell's mass spread evenly over its stride cell's part inside the image: (..., h, w) -> (..., H, W) float64.

    Mass is conserved. Raises ValueError for a layer with cells wholly outside the image, whose mass has no place.
    """
    (h, w), (height, width) = cells.shape[-2:], image_size
    if lost := h * w - cells_inside(field[0], h, height) * cells_inside(field[1], w, width):
        where = f"wholly outside the image of {height} x {width} pixels, so their attention has no place there"
        raise ValueError(
            f"{lost} of the layer's {h} x {w} cells lie {where}; pad each layer by at most half its kernel"
        )
    inside_rows = coverage(field[0], h, height).sum(0).to(cells.device)
    inside_columns = coverage(field[1], w, width).sum(0).to(cells.device)
    return as_values(cells.double() / (inside_rows[:, None] * inside_columns), field, image_size)


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
    """Product over layers of the magnitude behind each gate, normalised: (B, K, H, W) float64. Figure 6 b."""
    layers = zip(prediction.attention, prediction.magnitude, geometry.fields, strict=True)
    attended = [as_values(a.double() * m.double(), f, geometry.image_size) for a, m, f in layers]
    return normalised(torch.stack([a / a.amax((-2, -1), keepdim=True).clamp(min=1e-300) for a in attended]).prod(0))


def flow_map(prediction: Prediction, geometry: Geometry) -> Tensor:
    """Where the attended energy came from, layer by layer: (B, K, H, W) float64, each map sums to one. Ours.

    The last map's probabilities are handed down to the cells that each cell saw, in proportion to what passed their
    gates: the attention times the fourth power of the magnitude (chosen in ``docs/attention-maps.md``).
    """
    share = prediction.attention[-1].double()
    below = list(zip(prediction.attention[:-1], prediction.magnitude[:-1], geometry.paths, strict=True))
    for attention, magnitude, paths in reversed(below):
        strength = magnitude.double() / magnitude.double().amax((-2, -1), keepdim=True).clamp(min=TINY)
        share = handed_down(share, attention.double() * strength**POWER, paths)
    return as_density(share, geometry.fields[0], geometry.image_size)


def handed_down(share: Tensor, passed: Tensor, paths: Paths) -> Tensor:
    """R^l(p) = w(p) Σ_c κ(p, c) R(c) / Σ_p' κ(p', c) w(p'): shares R (..., h', w'), w = ``passed`` (..., h, w) -> as w.

    κ(p, c) is the chance that a walk from cell c down the ``paths`` ends at p. Mass is conserved: where nothing passed
    below a cell, its share is spread by κ alone.
    """
    reach = Reach(paths, (passed.shape[-2], passed.shape[-1]), passed.device)
    below, cells = reach.up(passed), reach.up(torch.ones_like(passed))
    known = below > TINY
    kept = reach.down(torch.where(known, share / torch.where(known, below, 1), 0))
    return passed * kept + reach.down(torch.where(known, 0, share / cells))


class Reach:
    """κ of ``handed_down`` as a linear map from the cells (h, w) below to those above, and its transpose.

    A walk goes to any cell of a window alike, and at a join into any branch alike. Each axis of a step is a matrix.
    """

    def __init__(self, paths: Paths, size: Size, device: torch.device) -> None:
        self.stages: list[tuple[Steps, list[Size], list[tuple[Tensor, Tensor]]]] = []
        for steps in paths:
            sizes, matrices = [size], []
            for step in steps:
                rows, columns = (reads(step, axis, sizes[step.inputs[0]][axis]).to(device) for axis in (0, 1))
                matrices.append((rows, columns))
                sizes.append((rows.shape[0], columns.shape[0]))
            self.stages.append((steps, sizes, matrices))
            size = sizes[-1]

    def up(self, cells: Tensor) -> Tensor:
        """Sum over p of κ(p, c) times its value: (..., h, w) -> (..., h', w')."""
        for steps, _, matrices in self.stages:
            maps = [cells]
            for step, (rows, columns) in zip(steps, matrices, strict=True):
                given = maps[step.inputs[0]]
                if len(step.inputs) > 1:
                    given = torch.stack([maps[i] for i in step.inputs]).mean(0)
                maps.append(rows @ given @ columns.T)
            cells = maps[-1]
        return cells

    def down(self, cells: Tensor) -> Tensor:
        """Sum over c of κ(p, c) times its value: (..., h', w') -> (..., h, w)."""
        for steps, sizes, matrices in reversed(self.stages):
            maps = [cells.new_zeros(*cells.shape[:-2], *size) for size in sizes[:-1]] + [cells]
            for step, (rows, columns) in zip(reversed(steps), reversed(matrices), strict=True):
                part = rows.T @ maps.pop() @ columns / len(step.inputs)
                for i in step.inputs:
                    maps[i] = maps[i] + part
            cells = maps[0]
        return cells


@kept
def reads(step: Step, axis: int, cells: int) -> Tensor:
    """How much each place behind a step reads of each cell along an axis: (places, cells) float64."""
    if step.does == "join":
        return torch.eye(cells, dtype=torch.float64)
    if step.does == "collapse":
        return torch.full((1, cells), 1 / cells, dtype=torch.float64)
    window = step.does[axis]
    reach, places = window.dilation * (window.kernel - 1), window.places(cells)
    offset = torch.arange(cells) + window.before - window.stride * torch.arange(places)[:, None]
    return ((offset >= 0) & (offset <= reach) & (offset % window.dilation == 0)).double() / window.kernel


def quadrilateral(prediction: Prediction, geometry: Geometry) -> Tensor:
    """Corners, x before y, of the parallelogram of the image that reaches the last transformer's whole output.

    (B, K, 4, 2) float64 in pixels, from the output's top left clockwise. Exact: all moves of coordinates are affine.
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


def covered(corners: Tensor, image_size: Size) -> Tensor:
    """Area of each pixel inside a polygon, exact, negative if it runs anticlockwise: (M, n, 2) -> (M, H, W) float64.

    By Green's theorem the area left of x and above y is the sum over edges of the integral of min(edge, x) down to y;
    pixels are its differences.
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


PIXEL_MAPS = {"last": last_map, "accumulated": accumulated_map, "activation": activation_map, "flow": flow_map}


def pixel_maps(prediction: Prediction, geometry: Geometry) -> dict[str, Tensor]:
    """The attention maps by name, (B, K, H, W) float64 each; zero where nothing was asked.

    Networks that score locations have all of ``PIXEL_MAPS``, each of sum one; spatial transformers ``region_map`` as
    last and as accumulated map; others none. Raises ValueError for another network's geometry, where that shows.
    """
    given, known = len(prediction.attention), len(geometry.fields)
    if given != known or len(prediction.transform) != len(geometry.canvases):
        has = f"{given} attended layers and {len(prediction.transform)} transformers"
        got = f"{known} and {len(geometry.canvases)}; take geometry(model) of the model that predicted"
        raise ValueError(f"the prediction has {has}, this geometry {got}")
    if prediction.transform:
        region = region_map(prediction, geometry)
        return {"last": region, "accumulated": region}
    if not prediction.attention:
        return {}
    return {name: draw(prediction, geometry) for name, draw in PIXEL_MAPS.items()}
