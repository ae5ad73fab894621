"""Ask a trained network about one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from progressive_attention.data.images import Fit, open_picture, to_rgb
from progressive_attention.data.questions import ABSENT
from progressive_attention.evaluation.absence import detector
from progressive_attention.evaluation.ask import as_tensor, pick_device
from progressive_attention.maps.pixel_maps import as_values, pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.maps.shown_maps import shown_map
from progressive_attention.metrics.pointing import highest_point, smallest_box
from progressive_attention.predict.text_queries import Encode, check_reads_vectors, knowing
from progressive_attention.saved import load

Picture = str | Path | Image.Image | np.ndarray
"""A path, a PIL image, or (H, W, 3) uint8."""


@dataclass(frozen=True)
class Answer:
    """What the network said about one question, and where it looked.

    ``attribute`` is the most likely, but never "absent" where ``found`` says that. ``probabilities`` sum to one
    (``likelihood`` "softmax"), or each is that of its own ("bernoulli").
    ``image`` (H, W, 3) uint8 is the picture as the network saw it, ``size`` the (width, height) of the picture given,
    upright; None where that is ``image`` itself. ``layers``: each attended layer's attention on the pixels of
    ``image``, (H, W) float64 in [0, 1], NaN where a layer has no cell; ``maps``: the named attention maps, each summing
    to one, or less where a spatial transformer looks outside. Networks without such layers or maps have none.
    ``cells``: of each layer, how many pixels high and wide a cell is; maps are exact, a picture of one may be smooth.
    ``presence``: how surely the asked object is there, in the units of the network's score (``absence``), and ``found``
    whether that reaches its threshold; both None where `pan absence` has set none.
    """

    query: str
    attribute: str
    probability: float
    probabilities: dict[str, float]
    image: np.ndarray
    layers: list[np.ndarray]
    maps: dict[str, np.ndarray]
    likelihood: str = "softmax"
    presence: float | None = None
    found: bool | None = None
    size: tuple[int, int] | None = None
    cells: Sequence[tuple[int, int]] = ()

    @property
    def shown(self) -> np.ndarray | None:
        """The map to show first, (H, W), as ``shown_map`` chooses it; None where there is no map."""
        shown = shown_map(self.maps, self.likelihood)
        return shown[1] if shown else None

    @property
    def point(self) -> tuple[float, float] | None:
        """Where it points: x and y of the highest cell's centre, in pixels of the picture given, always on one of them.

        Of equal cells the first in row order. None where there is no map, or a spatial transformer looks outside.
        """
        if self.shown is None or not self.shown.any():
            return None
        x, y = highest_point(self.shown[None])[0]
        given, size = self.in_picture(np.array([x, y, x, y]))
        x, y = np.clip(given[:2], 0.5, size - 0.5).tolist()
        return x, y

    def box(self, share: float = 0.9) -> tuple[int, int, int, int] | None:
        """The box x0, y0, x1, y1 around the fewest pixels with this ``share`` of the map, by ``smallest_box``.

        In pixels of the picture given, rounded outwards, half open, as ``picture.crop`` takes it. None as for
        ``point``. Raises ValueError for a share outside (0, 1].
        """
        if self.shown is None or not self.shown.any():
            return None
        given, size = self.in_picture(smallest_box(self.shown[None], share)[0])
        low = np.clip(np.floor(given[:2]), 0, size - 1)
        x0, y0, x1, y1 = map(int, (*low, *np.clip(np.ceil(given[2:]), low + 1, size)))
        return x0, y0, x1, y1

    def in_picture(self, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A box (4,) of ``image``'s pixels in those of the picture given, and that one's width and height (2,)."""
        width, height = self.size or (self.image.shape[1], self.image.shape[0])
        return Fit.into(len(self.image), width, height).unplaced(box, width, height), np.array([width, height])

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Attributes and their probabilities, the most likely first, without "absent" where ``found`` says that."""
        shown = [pair for pair in self.probabilities.items() if self.found is None or pair[0] != ABSENT]
        return sorted(shown, key=lambda pair: -pair[1])

    @property
    def denied(self) -> bool:
        """Whether it says that what it is asked for is not there."""
        return self.found is False or self.attribute == ABSENT


class Predictor:
    """A trained network that answers: ``Predictor("mref-pan").ask("picture.png", "7").attribute``.

    ``weights`` is a shipped name or a run's folder; ``encode`` as in ``text_queries.knowing``. Raises ValueError for
    weights that are missing or broken, and for an encoder that the network does not need.
    """

    def __init__(self, weights: str | Path, device: str | None = None, encode: Encode | None = None) -> None:
        self.device, self.encode = pick_device(device), encode
        self.trained = load(weights, self.device)
        check_reads_vectors(self.trained, encode)
        self.geometry = geometry(self.trained.model)
        self.detector = detector(self.trained, self.geometry)

    @property
    def side(self) -> int:
        """Pictures are fitted into a square of this many pixels."""
        return self.trained.model.config.image_size

    def ask(self, image: Picture, query: str | int) -> Answer:
        """One question about one picture."""
        return self.ask_all(image, [query])[0]

    @torch.inference_mode()
    def ask_all(self, image: Picture, queries: list[str] | list[int] | list[str | int]) -> list[Answer]:
        """Several questions about one picture, which shares its trunk. ValueError for a word it can't be asked."""
        if not queries:
            raise ValueError(f"no query given; this network knows: {', '.join(self.trained.query_names)}")
        trained = knowing(self.trained, [str(query) for query in queries], self.encode)
        picture = upright(image)
        pixels = Fit.into(self.side, *picture.size).image(picture)
        ids = torch.tensor([[trained.query_names.index(str(query)) for query in queries]], device=self.device)
        prediction = trained.model(as_tensor(pixels[None], self.device), ids)
        probability = prediction.log_prob[0].double().exp().tolist()
        presence, found = [None] * len(queries), [None] * len(queries)
        if self.detector:
            presence = self.detector.score(prediction)[0].tolist()
            found = [value >= self.detector.threshold for value in presence]
        maps = {name: drawn[0].cpu().numpy() for name, drawn in pixel_maps(prediction, self.geometry).items()}
        layers = []
        for attention, field in zip(prediction.attention, self.geometry.fields, strict=True):
            value = as_values(attention[0], field, pixels.shape[:2])
            known = as_values(torch.ones_like(attention[0, 0]), field, pixels.shape[:2])
            layers.append((value / known).cpu().numpy())  # 0 / 0 outside all cells is the promised NaN
        answers = []
        for k, query in enumerate(queries):
            each = dict(zip(self.trained.attribute_names, probability[k], strict=True))
            best = max(each, key=lambda name: (name != ABSENT or self.detector is None, each[name]))
            answer = Answer(
                query=str(query),
                attribute=best,
                probability=each[best],
                probabilities=each,
                image=pixels.copy(),
                layers=[layer[k] for layer in layers],
                maps={name: drawn[k] for name, drawn in maps.items()},
                likelihood=prediction.likelihood,
                presence=presence[k],
                found=found[k],
                size=picture.size,
                cells=[(rows.stride, columns.stride) for rows, columns in self.geometry.fields],
            )
            answers.append(answer)
        return answers

    def fitted(self, image: Picture) -> np.ndarray:
        """The picture as the network sees it: (side, side, 3) uint8, its shape kept, the rest black."""
        picture = upright(image)
        return Fit.into(self.side, *picture.size).image(picture)


def upright(image: Picture) -> Image.Image:
    """The picture as RGB, turned as its camera says; raises ValueError for what is none."""
    if not isinstance(image, Picture):
        kind = type(image).__name__
        raise ValueError(f"an image must be a path, a PIL image, or an array (H, W, 3) uint8; got {kind}")
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"an image array must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        image = Image.fromarray(image)
    try:
        return to_rgb(ImageOps.exif_transpose(image)) if isinstance(image, Image.Image) else open_picture(image)
    except (OSError, SyntaxError) as error:  # Pillow may have read no further than the header until now
        raise ValueError(f"the picture can't be read ({error}); it may be truncated") from error
