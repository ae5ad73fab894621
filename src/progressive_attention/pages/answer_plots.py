"""Pictures of answers: one answer with its attention, one scene asked of several networks, contact sheets.

Legend: H x W image pixels, L attended layers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from progressive_attention.data.images import BoxMasks
from progressive_attention.files import read_json
from progressive_attention.maps.shown_maps import attended_image, largest_of, light, over_image, shown_map, smoothed
from progressive_attention.metrics.pointing import highest_point
from progressive_attention.pages.figures import BLACK, RIGHT, WRONG, Tile, grid, shortened

if TYPE_CHECKING:  # drawing needs no torch
    from progressive_attention.data.questions import QuestionSet
    from progressive_attention.predict.predictor import Answer, Predictor

RANKED = 3  # attributes shown where several may be true
SOURCE, KEPT = "where the answer came from", "what the network kept"


class Scene(NamedTuple):
    """A question about an image (H, W, 3) uint8, with several networks' answers.

    ``mask`` (H, W) bool is the target's, None if unknown; ``truth`` are the attributes that are true; ``answers`` are
    by the network's name: of ``Predictor.ask``, or what else a figure shows.
    """

    image: np.ndarray
    mask: np.ndarray | None
    query: str
    truth: Sequence[str]
    answers: Mapping[str, Any]


class Panel(NamedTuple):
    """A map (H, W) as it is looked at, smooth, and the largest value of its cells, in words."""

    title: str
    values: np.ndarray
    largest: str


def scene_of(questions: "QuestionSet", row: int, predictors: Mapping[str, "Predictor"]) -> Scene:
    """One question of a set, asked of networks."""
    image = np.array(questions.images[questions.image[row]])
    query, truth = questions.words(row)
    answers = {name: predictor.ask(image, query) for name, predictor in predictors.items()}
    return Scene(image, target_of(questions, row), query, truth, answers)


def target_of(questions: "QuestionSet", row: int) -> np.ndarray | None:
    """The asked object's mask (H, W) bool, or that of its box; None where neither is known."""
    boxes = None if questions.box is None else BoxMasks(questions.box, questions.images.shape[1])
    masks = boxes if questions.masks is None else questions.masks
    return None if masks is None else masks[np.array([row])][0]


def point_of(answer: "Answer") -> np.ndarray | None:
    """Centre (x, y) of the highest cell of the map shown first, in pixels; None without one, or if not found."""
    shown = shown_map(answer.maps, answer.likelihood)
    if shown is None or answer.found is False or not shown[1].any():
        return None
    return highest_point(shown[1][None])[0]


def panels_of(answer: "Answer") -> list[Panel]:
    """The maps to show: the one shown first, the gates, the choice; nothing of a network without attention.

    Of a network of one layer the first alone, which is that layer's.
    """
    shown = shown_map(answer.maps, answer.likelihood)
    if shown is None:
        return []
    first = SOURCE if shown[0] == "flow" and answer.found is not False else "where the network looked"
    cell = answer.cells[0] if answer.cells else (1, 1)  # a transformer's region has none
    panels = [Panel(first, smoothed(shown[1], cell), largest_of(shown[1]))]
    if len(answer.layers) > 1:
        titles = [*(f"gate {i}" for i in range(1, len(answer.layers))), "choice"]
        for title, exact, smooth in zip(titles, answer.layers, smooth_layers(answer), strict=True):
            panels.append(Panel(title, smooth, largest_of(exact)))
    return panels


def smooth_layers(answer: "Answer") -> list[np.ndarray]:
    """Each layer's attention (H, W) to look at; as it is where nothing says how large its cells are."""
    cells = answer.cells or [(1, 1)] * len(answer.layers)
    return [smoothed(layer, cell) for layer, cell in zip(answer.layers, cells, strict=True)]


def tiles_of(answer: "Answer") -> list[Tile]:
    """The answer's maps over its image: the first as light, with its highest point; the layers with their largest."""
    image, panels = answer.image, panels_of(answer)
    first = [Tile(over_image(image, light(each.values)), each.title, point=point_of(answer)) for each in panels[:1]]
    return first + [Tile(over_image(image, each.values), f"{each.title}, {each.largest}") for each in panels[1:]]


def answer_figure(answer: "Answer", path: Path | None = None) -> bytes:
    """One answer: the image, where the answer came from, what of the image was kept; below them the layers.

    A ring marks the first map's highest point. A network without attention has the image alone, which says so.
    """
    title, tiles, legend = f"{answer.query}? {answer_text(answer)}", tiles_of(answer), None
    above, layers = [Tile(answer.image, "the image; this network has no attention map")], tiles[1:]
    if panels := panels_of(answer):
        kept = Tile(attended_image(answer.image, panels[0].values), KEPT)
        above = [Tile(answer.image, "the image"), tiles[0], kept]
        legend = [] if tiles[0].point is None else ["ring: its highest point"]
        legend += ["hatched: no cell"] if layers and np.isnan(answer.layers).any() else []
    across = math.ceil(len(layers) / math.ceil(len(layers) / 4)) if layers else 1
    rows = [above, *in_rows(layers, across)]
    return grid(rows, 240, shortened(title, 18 * max(map(len, rows))), legend, path)


def in_rows(tiles: Sequence[Tile], across: int) -> list[Sequence[Tile]]:
    """Tiles in rows of so many."""
    return [tiles[i : i + across] for i in range(0, len(tiles), across)]


def most_likely(answer: "Answer") -> list[tuple[str, float]]:
    """The answer and its probability; where several attributes may be true, the most likely ones."""
    return answer.ranked[:RANKED] if answer.likelihood == "bernoulli" else [(answer.attribute, answer.probability)]


def answer_text(answer: "Answer") -> str:
    """What the network answers, in words; or "not found"."""
    words = ", ".join(f"{word} ({100 * probability:.1f} %)" for word, probability in most_likely(answer))
    return f"not found; if it is there, {words}" if answer.found is False else words


def attention_row(scene: Scene) -> bytes:
    """One scene, its target outlined; then of each network the answer, right or wrong, and its maps as ``panels_of``.

    A network without attention has the image instead.
    """
    outlined = scene.mask is not None and scene.mask.any()
    question = [(f"{scene.query}?", BLACK), (", ".join(scene.truth), BLACK)]
    row = [Tile(scene.image, "target outlined" if outlined else "the image", question)]
    for name, answer in scene.answers.items():
        right = answer.attribute in scene.truth
        verdict = f"{answer.attribute} {'✓ right' if right else '✗ wrong'}"
        first, *others = tiles_of(answer) or [Tile(scene.image, "no attention map")]
        row += [first._replace(heading=[(name, BLACK), (verdict, RIGHT if right else WRONG)]), *others]
    return grid([[tile._replace(mask=scene.mask) for tile in row]], 200)


def contact_sheet(
    images: Sequence[np.ndarray], captions: Sequence[str], path: Path | None = None, title: str = ""
) -> bytes:
    """Images (H, W, 3) uint8 of one size in a grid, each with its caption ("7? red")."""
    side = images[0].shape[1]
    side *= max(1, round(150 / side))
    tiles = [Tile(image, shortened(caption)) for image, caption in zip(images, captions, strict=True)]
    return grid(in_rows(tiles, math.ceil(math.sqrt(1.6 * len(tiles)))), side, title, path=path)


def attention_pictures(run: Path, questions: "QuestionSet", count: int = 3) -> Callable[[int], dict[str, bytes]]:
    """What draws, after an epoch that is the best so far, the network's answers about ``count`` images, as PNG files.

    It is asked the first question of each. To be given to ``TensorBoardLog``.
    """
    from progressive_attention.predict.predictor import Predictor

    _, rows = np.unique(questions.image, return_index=True)

    def draw(epoch: int) -> dict[str, bytes]:
        if read_json(run / "config.json")["best"]["epoch"] != epoch:
            return {}
        predictors = {"": Predictor(run, "cpu")}
        scenes = [scene_of(questions, row, predictors) for row in rows[:count].tolist()]
        return {f"attention/{i}": answer_figure(scene.answers[""]) for i, scene in enumerate(scenes, 1)}

    return draw
