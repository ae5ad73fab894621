"""The papers' Visual Genome figure: photographs, what each network attends to, and the attributes it ranks first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from progressive_attention.maps.shown_maps import COLOUR_MAP, attended_image, light, over_image, shown_map
from progressive_attention.pages.figures import WIDTH, blank, rescaled, save
from progressive_attention.pages.plots import RANKED, RIGHT, WRONG, bare
from progressive_attention.predict.predictor import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAST = 2  # layers drawn
LINE = 0.11  # inches: a line of type


class Asked(NamedTuple):
    """A question about a photograph (H, W, 3) uint8, with its box (4,) x0 y0 x1 y1 in pixels, NaN if unknown."""

    image: np.ndarray
    box: np.ndarray
    query: str
    truth: Sequence[str]
    answers: Mapping[str, Answer]  # by the network's name


def so_far(layers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each layer's attention times that of all before it: L x (H, W), zero where a layer has no cell. PAN, Figure 7."""
    return list(np.cumprod([np.nan_to_num(layer) for layer in layers], 0))


def attribute_figure(questions: Sequence[Asked], folder: Path, name: str) -> None:
    """Write ``folder``/``name``.png and .svg: a block of each question; networks side by side.

    Of each network the attended image (the photograph lit by the accumulated attention, with the true box), the
    accumulated maps of the last LAST layers, each rescaled to [0, 1], and the likeliest attributes; those that hold
    are marked. PAN 2018, Figure 7; HAttNet 2016, Figure 8. Before them, which is ours, the map of ``shown_map`` over
    the photograph. Raises ValueError for no questions.
    """
    if not questions:
        raise ValueError("expected at least one question to draw")
    shown = {network: min(LAST, len(answer.layers)) for network, answer in questions[0].answers.items()}
    gap, between = 0.05, 0.22  # in sides of a picture
    starts, x = {}, 1.0
    for network, layers in shown.items():
        starts[network] = x + between
        x = starts[network] + (layers + 2) * (1 + gap) - gap
    line = LINE * x / WIDTH  # type keeps its size, however large the pictures are
    head, text = 3 * line, (RANKED + 1.6) * line
    height = head + len(questions) * (1 + text)
    figure = blank(WIDTH, WIDTH * height / x)

    def place(left: float, top: float) -> "Axes":
        axes = figure.add_axes((left / x, 1 - (top + 1) / height, 1 / x, 1 / height))
        bare(axes)
        return axes

    def write(left: float, top: float, words: str, **style: Any) -> None:
        style = {"fontsize": 6, "va": "center", "parse_math": False, **style}
        figure.text(left / x, 1 - top / height, words, **style)

    write(0, 2.4 * line, "question", fontsize=6)
    for network, start in starts.items():
        write(start, 0.9 * line, network, weight="bold", fontsize=7)
        titles = ["came from", "attended", *(["last map"] if shown[network] == 1 else ["map before", "last map"])]
        for i, title in enumerate(titles):
            write(start + i * (1 + gap) + 0.5, 2.4 * line, title, ha="center", fontsize=5.5)
    for k, asked in enumerate(questions):
        top = head + k * (1 + text)
        draw_box(picture := place(0, top), asked.image, asked.box)
        picture.set_gid(f"question-{k}")
        write(0, top + 1 + 0.8 * line, f"{asked.query}?", weight="bold")
        for i, word in enumerate(asked.truth[:RANKED]):
            write(0, top + 1 + (1.8 + i) * line, word)
        for network, answer in asked.answers.items():
            maps = so_far(answer.layers)
            if first := shown_map(answer.maps):
                draw_box(place(starts[network], top), over_image(asked.image, light(first[1])), asked.box)
            attended = attended_image(asked.image, maps[-1])
            draw_box(place(starts[network] + 1 + gap, top), attended, asked.box)
            for i, values in enumerate(maps[-shown[network] :], 2):
                axes = place(starts[network] + i * (1 + gap), top)
                axes.imshow(rescaled(values), cmap=COLOUR_MAP, vmin=0, vmax=1)
            for i, (word, probability) in enumerate(answer.ranked[:RANKED]):
                holds = word in asked.truth
                said = f"{word} {probability:.0%} {'✓' if holds else '✗'}"
                write(starts[network], top + 1 + (0.8 + i) * line, said, color=RIGHT if holds else WRONG)
    save(figure, folder, name)


def draw_box(axes: "Axes", image: np.ndarray, box: np.ndarray) -> None:
    """A picture with a box, white on black so that it shows on any ground."""
    from matplotlib.patches import Rectangle

    axes.imshow(image)
    if not np.isnan(box).any():
        x0, y0, x1, y1 = box
        for colour, width in (("black", 2.0), ("white", 0.9)):
            axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=colour, lw=width))
