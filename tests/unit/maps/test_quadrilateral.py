"""Where spatial transformers look: by hand, against clipped polygons, and against coordinates sampled on their way."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BY_TEXT, build, every_model, pictures
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention.maps.pixel_maps import covered, pixel_maps, quadrilateral, region_map
from progressive_attention.maps.receptive_field import Canvas, Field, Geometry, geometry
from progressive_attention.maps.stage_graph import Window
from progressive_attention.network.question_network import Prediction

ON_IMAGE = Field(), Field()


def affine(*rows: list[float]) -> torch.Tensor:
    """(1, 1, 2, 3)."""
    return torch.tensor([[rows]], dtype=torch.float64)


def looking(transform: torch.Tensor, size: tuple[int, int]) -> tuple[Prediction, Geometry]:
    """One transformer of the image itself."""
    where = Geometry([], size, (Canvas(ON_IMAGE, size),))
    return Prediction(torch.zeros(*transform.shape[:2], 2), [], [], (transform,)), where


def region(*rows: list[float], size: tuple[int, int] = (10, 20)) -> torch.Tensor:
    """(H, W)."""
    return region_map(*looking(affine(*rows), size))[0, 0]


IDENTITY = [1.0, 0, 0], [0, 1.0, 0]


def test_identity_is_the_whole_image():
    corners = quadrilateral(*looking(affine(*IDENTITY), (10, 20)))[0, 0]
    assert corners.tolist() == [[-0.5, -0.5], [19.5, -0.5], [19.5, 9.5], [-0.5, 9.5]]
    assert_close(region(*IDENTITY), torch.full((10, 20), 1 / 200, dtype=torch.float64))


def test_zoomed_in_it_is_denser():
    expected = torch.zeros(10, 20, dtype=torch.float64)
    expected[2:8, 5:15] = 1 / 50  # 5 x 10 pixels, rows 2 and 7 by half
    expected[[2, 7]] /= 2
    assert_close(region([0.5, 0, 0], [0, 0.5, 0]), expected)


def test_shifted_half_lies_outside():
    expected = torch.zeros(10, 20, dtype=torch.float64)
    expected[:, 10:] = 1 / 200
    assert_close(region([1, 0, 1], [0, 1, 0]), expected)
    assert_close(region([1, 0, 9], [0, 1, 0]), torch.zeros(10, 20, dtype=torch.float64))


def test_turned_by_45_degrees_it_stands_on_its_corner():
    turn = 0.5 * math.sqrt(0.5)
    prediction, where = looking(affine([turn, -turn, 0], [turn, turn, 0]), (20, 20))
    far = 10 * math.sqrt(0.5)  # half of the diagonal of 10 x 10 pixels
    top, right, bottom, left = [9.5, 9.5 - far], [9.5 + far, 9.5], [9.5, 9.5 + far], [9.5 - far, 9.5]
    expected = torch.tensor([top, right, bottom, left], dtype=torch.float64)
    assert_close(quadrilateral(prediction, where)[0, 0], expected)
    pixels = region_map(prediction, where)[0, 0]
    assert_close(pixels, pixels.flip(0))
    assert_close(pixels, pixels.T)
    assert_close(pixels.sum(), torch.tensor(1.0, dtype=torch.float64))
    for i, j in product(range(20), repeat=2):
        distance = abs(i - 9.5) + abs(j - 9.5)  # of the pixel's centre; its corners lie up to one farther or nearer
        if distance < far - 1:
            assert pixels[i, j].item() == pytest.approx(1 / 100)
        elif distance > far + 1:
            assert pixels[i, j].item() == pytest.approx(0, abs=1e-15)


def test_of_no_area_it_is_the_pixel_of_its_centre():
    expected = torch.zeros(10, 20, dtype=torch.float64)
    expected[7, 15] = 1
    assert_close(region([0, 0, 0.57], [0, 0, 0.5]), expected)  # a point at (15.2, 7.0)
    assert_close(region([0.5, 0, 0.57], [0, 0, 0.5]), expected)  # a line
    assert_close(region([1e-3, 0, 0.57], [0, 1e-3, 0.5]), expected, atol=1e-9, rtol=0)  # and almost one
    assert not region([0, 0, 1.2], [0, 0, 0.5]).any()  # outside


def clipped(corners: list[tuple[float, float]], axis: int, bound: float, above: bool) -> list[tuple[float, float]]:
    """The part of a convex polygon on one side of a line along an axis (Sutherland and Hodgman)."""
    kept = []
    for one, other in zip(corners, corners[1:] + corners[:1], strict=True):
        inside = [(point[axis] >= bound) == above for point in (one, other)]
        if inside[0]:
            kept.append(one)
        if inside[0] != inside[1]:
            share = (bound - one[axis]) / (other[axis] - one[axis])
            kept.append((one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])))
    return kept


def area(corners: list[tuple[float, float]]) -> float:
    """The shoelace formula; positive clockwise, as y points down."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True)) / 2


def slow_covered(corners: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    pixels = torch.zeros(size, dtype=torch.float64)
    for i, j in product(*map(range, size)):
        left = [tuple(corner) for corner in corners.tolist()]
        for axis, middle in ((0, j), (1, i)):
            left = clipped(clipped(left, axis, middle - 0.5, True), axis, middle + 0.5, False)
        pixels[i, j] = area(left) if left else 0
    return pixels


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-12, 12), min_size=6, max_size=6), st.booleans())
def test_covered_is_the_clipped_polygon(values, whole):
    if whole:
        values = [float(round(value)) / 2 for value in values]  # edges along pixels, corners on corners
    x, y, *edges = values
    start, across, down = (torch.tensor(pair, dtype=torch.float64) for pair in ((x, y), edges[:2], edges[2:]))
    corners = torch.stack([start, start + across, start + across + down, start + down])
    assert_close(covered(corners[None], (6, 9))[0], slow_covered(corners, (6, 9)), rtol=0, atol=1e-11)


def test_geometry_of_the_papers_network_by_hand():
    stage = Field(2, 0, 3), Field(2, 0, 3)  # 3 x 3 convolution, 2 x 2 pooling
    assert Field().through(Window(3)).through(Window(2, stride=2)) == stage[0]
    expected = (Canvas(ON_IMAGE, (62, 62)), Canvas(stage, (30, 30)), Canvas(stage, (14, 14)), Canvas(stage, (6, 6)))
    assert geometry(build("stn-m")) == Geometry([], (62, 62), expected)
    assert geometry(build("stn-s")) == Geometry([], (62, 62), expected[:1])
    two = geometry(build("stn-m", attend_at=("pool2", "pool4")))
    assert two.canvases == (Canvas(stage, (30, 30)), Canvas((Field(4, 0, 9), Field(4, 0, 9)), (6, 6)))
    assert geometry(build("film")) == geometry(build("concat")) == Geometry([], (62, 62))
    assert geometry(build("pooled", attend_at=(0,))) == geometry(build("san"))._replace(paths=())


@pytest.mark.parametrize("attended", [(0, 1, 2, 3), (1, 3), (0, 2), (2,)])
def test_it_is_where_sampled_coordinates_come_from(attended):
    """Push each pixel's own x and y through stages that only average, and through torch's own sampling."""
    generator = torch.Generator().manual_seed(len(attended))
    x, y = torch.meshgrid(*[torch.arange(62, dtype=torch.float64)] * 2, indexing="xy")
    features, transforms = torch.stack([x, y]).expand(3, 2, 62, 62), []
    for i in range(attended[-1] + 1):
        if i in attended:
            # Shrunk by more than they turn and shift: nothing outside is sampled.
            noise = torch.rand(3, 2, 3, generator=generator, dtype=torch.float64) - 0.5
            transforms.append(0.8 * torch.eye(2, 3, dtype=torch.float64) * noise.sign()[:, :1] + 0.12 * noise)
            features = F.grid_sample(
                features, F.affine_grid(transforms[-1], list(features.shape), False), align_corners=False
            )
            sampled = features
        features = F.avg_pool2d(F.avg_pool2d(features, 3, 1), 2)
    prediction = Prediction(torch.zeros(3, 1, 2), [], [], tuple(t[:, None] for t in transforms))
    corners = quadrilateral(prediction, geometry(build("stn-m", attend_at=attended)))[:, 0]
    side = sampled.shape[-1]
    for m, i, j in product(range(3), range(side), range(side)):
        across, down = corners[m, 1] - corners[m, 0], corners[m, 3] - corners[m, 0]
        expected = corners[m, 0] + (j + 0.5) / side * across + (i + 0.5) / side * down
        assert_close(sampled[m, :, i, j], expected)
    assert_close(corners[:, 2], corners[:, 1] + corners[:, 3] - corners[:, 0])


@every_model
@torch.no_grad()
def test_maps_that_there_are(name):
    model = build(name).eval()
    maps = pixel_maps(model(pictures(2), torch.tensor([[0, 1], [2, -1]])), geometry(model))
    expected = {"film": [], "concat": [], "stn-s": ["last", "accumulated"], "stn-m": ["last", "accumulated"]}
    assert list(maps) == expected.get(name.removesuffix(BY_TEXT), ["last", "accumulated", "activation", "flow"])
    for pixels in maps.values():
        assert (pixels.shape, pixels.dtype) == ((2, 2, 62, 62), torch.float64)
        assert pixels.min() >= 0
        assert not pixels[1, 1].any()
        total = pixels.sum((-2, -1))[[0, 0, 1], [0, 1, 0]]
        assert (total <= 1 + 1e-9).all()
        assert (total > (0.3 if name.startswith("stn") else 1 - 1e-9)).all()


def test_a_transformer_behind_global_pooling_is_refused():
    model = build("stn-m", attend_at=(0, 1))
    model.stages[0] = nn.Sequential(nn.Conv2d(3, 32, 3), nn.AdaptiveAvgPool2d(1))
    message = "^where a transformer behind global pooling looks is unknown; attend at earlier stages only$"
    with pytest.raises(ValueError, match=message):
        geometry(model)
