"""The picture and the table of docs/growth.md, from the report that `pan bench --suite growth` writes.

A report is {"about": ..., "records": [...]} as `measure.write_report` leaves it; of its suites only growth is read.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from progressive_attention.bench.measure import three_digits
from progressive_attention.pages.plots import MARKERS, OKABE_ITO, finish, label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
UNITS = {"time": "s", "memory": "MiB", "GPU memory": "MiB"}
COLOURS = {"time": OKABE_ITO[0], "memory": OKABE_ITO[1], "GPU memory": OKABE_ITO[2]}


class Line(NamedTuple):
    """One series along an axis: (at, median, smallest, largest) in ascending order, and the exponent at its end."""

    axis: str
    series: str
    quantity: str  # "time" [s], "memory" or "GPU memory" [MiB]
    points: list[tuple[float, float, float, float]]
    exponent: float | None = None  # not yet known where the suite was interrupted


def lines_of(report: Mapping[str, Any]) -> list[Line]:
    """All series of a report, those of one axis together. Raises ValueError for a report without any."""
    points: dict[tuple[str, str, str], list[tuple[float, float, float, float]]] = {}
    exponents: dict[tuple[str, str, str], float] = {}
    for record in report["records"]:
        if record["suite"] == "growth":
            details = record["details"]
            key = details["axis"], details["series"], details["quantity"]
            if record["unit"] == "exponent":
                exponents[key] = record["value"]
            else:
                points.setdefault(key, []).append((details["at"], record["value"], record["low"], record["high"]))
    if not points:
        raise ValueError("expected a report with records of the suite growth, got none; run pan bench --suite growth")
    return [Line(*key, sorted(found), exponents.get(key)) for key, found in points.items()]


def growth_table(report: Mapping[str, Any]) -> str:
    """Markdown: of each series its ends, the time and memory there, and the exponents."""
    lines = {(line.axis, line.series, line.quantity): line for line in lines_of(report)}
    quantities = [name for name in UNITS if any(name == quantity for *_, quantity in lines)]
    head = ["axis", "measured", "from", "to", *(word for name in quantities for word in (name, "exponent"))]
    rows = [head, ["---", "---", *["--:"] * (len(head) - 2)]]
    for axis, series in dict.fromkeys((axis, series) for axis, series, _ in lines):
        found = [lines[axis, series, name] for name in quantities]
        ends = [f"{found[0].points[i][0]:,.0f}" for i in (0, -1)]
        told = [cell for line in found for cell in (between(line), power(line))]
        rows.append([axis, series, *ends, *told])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def between(line: Line) -> str:
    """A series' value at its two ends: "0.059 to 0.91 s"."""
    low, high = (three_digits(line.points[i][1]) for i in (0, -1))
    return f"{low} to {high} {UNITS[line.quantity]}"


def power(line: Line) -> str:
    """The exponent with two decimals, a dash where there is none."""
    return "–" if line.exponent is None else f"{round(line.exponent, 2) + 0.0:.2f}"  # never -0.00


def growth_figure(report: Mapping[str, Any], path: Path | None = None) -> bytes:
    """Time and memory along each axis, both logarithmic, as PNG; dotted: in proportion to the axis."""
    lines = lines_of(report)
    axes = list(dict.fromkeys(line.axis for line in lines))
    quantities = [name for name in UNITS if any(line.quantity == name for line in lines)]
    columns, bands = min(COLUMNS, len(axes)), math.ceil(len(axes) / COLUMNS)
    wide, high, left, gap, top = 330, 220, 70, 74, 64  # pixels; of one panel, beside it, below it, above all
    band = len(quantities) * (high + gap) + 24
    width, height = columns * (wide + left) + 20, bands * band + top
    figure = new_figure(width, height, 110)
    style: dict[str, Any] = {"va": "top", "parse_math": False}
    title = "PAN[H]+CTX in training: each axis by itself, each point a process of its own"
    figure.text(left / width, 1 - 10 / height, title, fontsize=12, weight="bold", **style)
    figure.text(left / width, 1 - 34 / height, report["about"]["hardware"], fontsize=8, color="#555555", **style)
    for i, axis in enumerate(axes):
        for k, quantity in enumerate(quantities):
            x = i % COLUMNS * (wide + left) + left
            y = top + i // COLUMNS * band + k * (high + gap) + 18
            panel = figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))
            draw(panel, [line for line in lines if (line.axis, line.quantity) == (axis, quantity)])
            panel.set_xlabel(axis, fontsize=9, parse_math=False)
            where = "beyond the imports " if quantity == "memory" else ""
            label(panel, f"{quantity} {where}[{UNITS[quantity]}]", fontsize=9, loc="left")
    return finish(figure, path)


def draw(panel: "Axes", lines: list[Line]) -> None:
    """One quantity along one axis: medians, from smallest to largest, and a dotted line through the last as if ∝ n."""
    for i, line in enumerate(lines):
        at, value, low, high = zip(*line.points, strict=True)
        errors = [
            [v - bound for v, bound in zip(value, low, strict=True)],
            [b - v for v, b in zip(value, high, strict=True)],
        ]
        name = line.series + ("" if line.exponent is None else f", ends ∝ n^{power(line)}")
        look: dict[str, Any] = {"color": COLOURS[line.quantity], "marker": MARKERS[i], "ls": ("-", "--", "-.")[i % 3]}
        panel.errorbar(at, value, errors, label=name, markersize=5, linewidth=1.6, capsize=2, **look)
    at, end = [point[0] for point in lines[-1].points], max(line.points[-1][1] for line in lines)
    panel.plot(at, [end * one / at[-1] for one in at], ":", color="#888888", linewidth=1.2, label="as if ∝ n")
    panel.set(xscale="log", yscale="log")
    # Whole decades, and room for the legend above: else what hardly grows would look steep.
    panel.set_ylim(
        10 ** math.floor(math.log10(min(point[2] for line in lines for point in line.points))),
        10 ** math.ceil(math.log10(1.01 * max(point[3] for line in lines for point in line.points)) + 1),
    )
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    for text in panel.legend(fontsize=7.5, frameon=False, loc="upper left").get_texts():
        text.set_parse_math(False)
