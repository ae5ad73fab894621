"""Where a network looks: cells and transformers' canvases in image pixels, exactly; ``pixel_maps`` draws there.

Pixel i has its centre at i and reaches from i - 1/2 to i + 1/2. Arithmetic after Araujo, Norris and Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill 2019.
Legend: h x w cells of a layer, H x W image pixels.
"""

from itertools import pairwise
from typing import NamedTuple

from torch import nn

from progressive_attention.maps.stage_graph import Size, Steps, Window, steps_of
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.network.question_network import QuestionNetwork
from progressive_attention.network.spatial_transformer import SpatialTransformerNetwork


class Field(NamedTuple):
    """A layer along one image axis: cell i sees the pixels low + i stride to high + i stride, both included.

    ``whole``: global parts (squeeze-and-excite) also see the whole image; stride 0 is a layer of one global cell only.
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

    def through(self, window: Window) -> "Field":
        """The field behind one more convolution or pooling."""
        high = self.high + (window.dilation * (window.kernel - 1) - window.before) * self.stride
        return Field(self.stride * window.stride, self.low - window.before * self.stride, high, self.whole)


GLOBAL = Field(0, 0, 0, True)
Both = tuple[Field, Field]  # rows, columns
Paths = tuple[Steps, ...]  # the steps of the stages between two attended layers


def union(fields: list[Field]) -> Field:
    """What several branches see together; raises ValueError if their cells don't lie on one grid."""
    strides, lows, highs, _ = zip(*[field for field in fields if field.stride] or [GLOBAL], strict=True)
    if len(set(strides)) > 1:
        raise ValueError(f"branches of different strides can't be joined: {sorted(set(strides))}")
    return Field(strides[0], min(lows), max(highs), any(field.whole for field in fields))


def behind(steps: Steps, field: Field, axis: int) -> Field:
    """The field behind a stage's steps along an axis (0: rows, 1: columns), following every branch."""
    fields = [field]
    for step in steps:
        inputs = [fields[i] for i in step.inputs]
        if step.does == "collapse":
            after = GLOBAL
        else:
            after = union(inputs) if step.does == "join" else inputs[0].through(step.does[axis])
        fields.append(after._replace(whole=after.whole or step.whole))
    return fields[-1]


class Read(NamedTuple):
    """What is known behind a stage: its ``steps``, the ``fields`` of its cells, and how many there are (h, w)."""

    steps: Steps
    fields: Both
    size: Size


def read(stage: nn.Module, before: Read) -> Read:
    """A stage as it goes on from what is known before it; raises ValueError, which says what else to take."""
    try:
        steps, size = steps_of(stage, before.size)
        rows, columns = before.fields
        return Read(steps, (behind(steps, rows, 0), behind(steps, columns, 1)), size)
    except ValueError as error:
        remedy = "choose a backbone whose layers are all known, such as resnet18, vgg16 or convnext_tiny"
        raise ValueError(f"{error}; so there are no maps on the image: {remedy}") from error


def image_of(size: Size) -> Read:
    """What is known of an image of (h, w) pixels itself."""
    return Read((), (Field(), Field()), size)


class Canvas(NamedTuple):
    """What a transformer samples: ``size`` (h, w) cells, and their ``field`` on the canvas before it, or the image."""

    field: Both
    size: tuple[int, int]


class Geometry(NamedTuple):
    """Where a network looks in images of H x W pixels: its maps' fields and the paths between them, or canvases."""

    fields: list[Both]
    image_size: tuple[int, int]
    canvases: tuple[Canvas, ...] = ()
    paths: tuple[Paths, ...] = ()


def geometry(model: QuestionNetwork, image_size: Size | None = None) -> Geometry:
    """Where a network looks in images of (H, W) pixels, by default of its own size; ValueError where it is unknown."""
    side = model.config.image_size
    if image_size is not None and (not isinstance(image_size, tuple | list) or len(image_size) != 2):
        raise ValueError(f"image_size must be (height, width) in pixels, e.g. ({side}, {side}), got {image_size!r}")
    size = image_size or (side, side)
    if isinstance(model, ProgressiveAttentionNetwork):
        fields, paths = layers_of(model, size)
        return Geometry(fields, size, paths=paths)
    if size != (side, side):
        raise ValueError(f"this network takes images of {side} x {side} pixels only, got image_size {image_size}")
    if model.config.network == "pooled":
        return Geometry(layers_of(model, size)[0], size)
    return Geometry([], size, canvases(model) if isinstance(model, SpatialTransformerNetwork) else ())


def layers_of(model: QuestionNetwork, image_size: Size) -> tuple[list[Both], tuple[Paths, ...]]:
    """Fields of the attended stages on the image, and the paths between them; of no transformer, which moves cells."""
    reads = [image_of(image_size)]
    for stage in model.stages:
        reads.append(read(stage, reads[-1]))
    steps, fields = [each.steps for each in reads[1:]], [each.fields for each in reads[1:]]
    paths = tuple(tuple(steps[start + 1 : end + 1]) for start, end in pairwise(model.attended))
    return [fields[i] for i in model.attended], paths


def canvases(model: SpatialTransformerNetwork) -> tuple[Canvas, ...]:
    """Each transformer's canvas; raises ValueError for one behind global pooling."""
    side = model.config.image_size
    known, sampled = image_of((side, side)), []
    for i, stage in enumerate(model.stages[: model.attended[-1] + 1]):
        if i in model.attended:
            sampled.append(Canvas(known.fields, known.size))
            known = image_of(known.size)
        known = read(stage, known)
    if any(not field.stride for canvas in sampled for field in canvas.field):
        raise ValueError("where a transformer behind global pooling looks is unknown; attend at earlier stages only")
    return tuple(sampled)
