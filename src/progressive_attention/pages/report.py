"""A report in one HTML file: figures beside the papers', accuracy by scale, attention scene by scene.

Everything is inside the file (style sheet, pictures), and it asks the network for nothing. All text is escaped.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.table import Table

from progressive_attention.config import STYLES
from progressive_attention.files import write_text
from progressive_attention.pages.plots import (
    RANKED,
    Answered,
    Scene,
    answer_figure,
    attention_row,
    truths_of,
)
from progressive_attention.pages.run_plots import ScaleSeries, scale_curve
from progressive_attention.reproduce import published

STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --ground: #ffffff; --soft: #5a5a5a; --line: #d0d0d0;
  --right: #0060a0; --wrong: #b84a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --ground: #161616; --soft: #a8a8a8; --line: #444444;
  --right: #56b4e9; --wrong: #f09050; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: var(--text); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
.claim { font-size: 1.15rem; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.numbers td, .numbers thead th { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.results tbody tr:first-child td { font-weight: 600; }
figure { margin: 1.2rem 0; } img { display: block; max-width: 100%; height: auto; background: #ffffff; }
.scene img { min-width: 44rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 1rem; } .pair figure { flex: 1 1 20rem; max-width: 29rem; }
.right { color: var(--right); font-weight: 600; } .wrong { color: var(--wrong); font-weight: 600; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 1rem; }
@media (max-width: 34rem) { table { font-size: .75rem; } th, td { padding: .3rem .2rem; } }
@media print { :root { --text: #000000; --ground: #ffffff; --soft: #444444; --line: #aaaaaa; --right: #0060a0;
  --wrong: #b84a00; } body { max-width: none; padding: 0; font-size: 10pt; } .wide { overflow: visible; }
  .scene img { min-width: 0; } figure, tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""

MAPS = {
    "flow": "where the answer came from: the last layer's probabilities, handed down through the gates to the first",
    "last": "the last layer's probabilities, each spread over its own cell of the image",
    "accumulated": "product of all layers' attention at each pixel",
    "activation": "product of the attended features' magnitudes, layer by layer",
}
READING = (
    "First comes the map of where the answer came from, with a ring around its highest point; then the gates, and the "
    "last layer’s choice. Each map is coloured from 0 (grey) to its own largest value (yellow). Hatched: no cell of "
    "that layer."
)


@dataclass(frozen=True)
class Network:
    """One network's results: ``summary`` as ``evaluation.summarise`` gives it; ``training`` is label -> text."""

    name: str
    summary: Mapping[str, Any]
    training: Mapping[str, str]


@dataclass(frozen=True)
class Report:
    """All that the report shows. ``data`` is the set's name; ``facts`` (hardware, command, versions) label -> text.

    ``scenes`` are test scenes with the networks' answers, ``chosen`` says how they were chosen; ``asked`` names the
    shipped network, whose ``answers`` are shown, with ``asked_about`` the picture's name.
    """

    data: str
    networks: Sequence[Network]
    facts: Mapping[str, str]
    scenes: Sequence[Scene] = ()
    chosen: str = ""
    asked: str = ""
    asked_about: str = ""
    answers: Sequence[Answered] = ()


def percent(share: float | None, digits: int = 1) -> str:
    """A share in 0..1 as per cent, a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def headline(networks: Sequence[Network]) -> str:
    """What came out, in a sentence: the first network beside the others."""
    first, *others = networks
    count = first.summary["count"]
    text = f"{first.name} answers {percent(first.summary['accuracy'])} of {count:,} new questions rightly"
    if not others:
        return text + "."
    return text + ", " + " and ".join(f"{one.name} {percent(one.summary['accuracy'])}" for one in others) + "."


def write_report(path: Path, report: Report) -> None:
    """Write the report, whole or not at all."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The whole HTML page."""
    if not report.networks:
        raise ValueError("a report needs at least one network's results, got none")
    title = f"Progressive attention on {report.data.upper()}"
    parts = [
        f"<h1>{escape(title)}</h1>\n<p class='claim'>{escape(headline(report.networks))}</p>",
        results_section(report),
        curve_section(report),
        scenes_section(report),
        answers_section(report),
        facts_section(report),
    ]
    return page(title, parts)


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A whole page of HTML parts, empty ones left out; ``style`` follows the common style sheet."""
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def picture(png: bytes, alt: str, caption: str = "", kind: str = "") -> str:
    """A figure; ``caption`` is HTML already, ``alt`` is not."""
    image = f"<img src='data:image/png;base64,{b64encode(png).decode()}' alt='{escape(alt)}'>"
    below = f"<figcaption>{caption}</figcaption>\n" if caption else ""
    return f"<figure class='{kind}'>\n{below}<div class='wide'>{image}</div>\n</figure>"


def measures(report: Report) -> list[tuple[str, list[str]]]:
    """Lines of the results table: a label, then here and papers for each network in turn."""
    papers = published.TABLE_1.get(report.data, {})
    theirs = [papers.get(one.name) for one in report.networks]
    ours = [one.summary for one in report.networks]
    nothing = [""] * len(ours)

    def line(label: str, here: list[str], published: list[str]) -> tuple[str, list[str]]:
        return label, [cell for pair in zip(here, published, strict=True) for cell in pair]

    chance = f" (chance {papers['uniform'].accuracy:.0f} %)" if papers else ""
    ends = [one["accuracy_ci95"] for one in ours]
    maps = measured_maps(ours)
    ratios = [line(f"TPR, {name} map", [percent(one[f"tpr_{name}"]) for one in ours], nothing) for name in maps]
    uniform = [f"{papers['uniform'].tpr:.2f} %" if papers else "–"] * len(ours)
    return [
        line(
            f"accuracy{chance}",
            [percent(one["accuracy"]) for one in ours],
            [f"{row.accuracy:.2f} %" if row else "–" for row in theirs],
        ),
        line("95 % interval", [f"{100 * low:.1f} – {100 * high:.1f}" for low, high in ends], nothing),
        *ratios,
        *[line("TPR, papers' own map", nothing, [f"{row.tpr:.2f} %" if row else "–" for row in theirs])] * bool(papers),
        line("TPR, uniform map", [percent(one["tpr_uniform"]) for one in ours], uniform),
    ]


def measured_maps(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The maps whose true-positive ratios all the summaries have; those of older versions lack some."""
    return [name for name in MAPS if all(f"tpr_{name}" in summary for summary in summaries)]


def maps_list(names: Sequence[str]) -> str:
    """What these maps are, in HTML."""
    meanings = "".join(f"<dt>{name}</dt><dd>{escape(MAPS[name])}</dd>" for name in names)
    return f"<dl class='soft'>{meanings}</dl>"


def table_title(report: Report) -> str:
    """The set and the number of questions."""
    return f"{title_of(report.data)}, {report.networks[0].summary['count']:,} test questions"


def title_of(data: str) -> str:
    """A data set's name in headings."""
    return data.upper() if data in STYLES else data


def terminal_table(report: Report) -> Table:
    """Ours beside the papers', for the terminal."""
    table = Table("measure", title=table_title(report))
    for one in report.networks:
        table.add_column(one.name, justify="right")
        table.add_column("papers", justify="right", style="dim")
    for label, cells in measures(report):
        table.add_row(label, *cells)
    return table


def results_section(report: Report) -> str:
    """Accuracy and true-positive ratios; where the papers used this data set, ours beside theirs."""
    beside = report.data in published.TABLE_1
    width = 2 if beside else 1
    names = "".join(f"<th scope='colgroup' colspan='{width}'>{escape(one.name)}</th>" for one in report.networks)
    head = f"<tr><th></th>{names}</tr>"
    if beside:
        head += (
            "\n<tr><th></th>" + "<th scope='col'>here</th><th scope='col'>papers</th>" * len(report.networks) + "</tr>"
        )
    lines = measures(report)
    if not beside:
        lines = [(label, cells[::2]) for label, cells in lines if set(cells[::2]) != {"–"}]
    budget = (
        "<p class='soft'>Not the same budget: the papers trained on 30,000 images until 50 epochs brought no "
        "improvement (their 2016 code: at most 300 epochs); what was done here is told at the end. "
        f"Published values: {escape(published.SOURCE)}.</p>\n"
    )
    theirs = "The papers don’t say how the map they measured is made; here each of these is measured:"
    maps = (
        "<p class='soft'>TPR, the true-positive ratio, is the share of the attention that lies on the asked object. "
        f"{theirs if beside else 'It is measured on these maps:'}</p>\n"
        + maps_list(measured_maps([one.summary for one in report.networks]))
    )
    title = f"{'Ours beside the papers’' if beside else 'Measured'}: {table_title(report)}"
    table = numbers_table(head, lines, "results")
    return f"<h2>{escape(title)}</h2>\n{table}{budget * beside}{maps * any('TPR' in label for label, _ in lines)}"


def numbers_table(head: str, lines: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table of lines, a label and its cells each; ``head`` is HTML already."""
    rows = "\n".join(
        f"<tr><th scope='row'>{escape(label)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for label, cells in lines
    )
    return (
        f"<div class='wide'><table class='numbers {kind}'>\n"
        f"<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody></table></div>\n"
    )


def curve_section(report: Report, width: int = 1000) -> str:
    """Accuracy by scale, if scales are known, ``width`` pixels wide."""
    first = report.networks[0].summary
    if not any(first.get("count_by_scale", {}).values()):
        return ""
    series = [
        ScaleSeries(
            *(one.name, one.summary["accuracy_by_scale"], one.summary["accuracy_by_scale_ci95"]),
            published.accuracy_by_scale(report.data, one.name),
        )
        for one in report.networks
    ]
    alt = "; ".join(
        f"{one.name}: " + ", ".join(f"scale {name} {percent(value)}" for name, value in one.accuracy.items())
        for one in series
    )
    title = f"{title_of(report.data)}: accuracy by scale"
    png = scale_curve(series, title=title, count=first["count_by_scale"], width=width)
    caption = "Bars are 95 % intervals; n is the number of test questions."
    if report.data in published.TABLE_1 and report.data != "mbg":
        caption += " By scale the papers publish MBG only; dashed is their accuracy over all scales."
    return "<h2>Small and large</h2>\n" + picture(png, alt, caption)


def scenes_section(report: Report) -> str:
    """Test scenes with every layer's attention, right and wrong answers marked."""
    if not report.scenes:
        return ""
    figures = []
    for i, scene in enumerate(report.scenes, 1):
        said = "; ".join(f"{escape(name)}: {verdict(answer, scene)}" for name, answer in scene.answers.items())
        question = f"{i}. {question_of(report.data, scene)}"
        caption = f"<b>{escape(question)}</b> {said}"
        figures.append(picture(attention_row(scene), f"Attention for: {question}", caption, "scene"))
    outlined = "The target is outlined. " * any(scene.mask is not None for scene in report.scenes)
    return (
        f"<h2>Where the network{'s look' if len(report.networks) > 1 else ' looks'}</h2>\n"
        f"<p class='soft'>{outlined}{READING} {escape(report.chosen)}</p>\n" + "\n".join(figures)
    )


def question_of(data: str, scene: Scene) -> str:
    """The question and what is true."""
    asked = f"What colour is the {scene.query}?" if data in STYLES else f"{scene.query}: what is it like?"
    return f"{asked} {', '.join(truths_of(scene)).capitalize() or 'Nothing that is listed'}."


def verdict(answer: Answered, scene: Scene) -> str:
    """The answer, right or wrong, and its probability, in HTML; where several attributes may hold, the likeliest."""
    said = [(answer.attribute, answer.probability)]
    if answer.likelihood == "bernoulli":
        said = answer.ranked[:RANKED]
    told = []
    for attribute, probability in said:
        kind, mark = ("right", "✓ right") if attribute in truths_of(scene) else ("wrong", "✗ wrong")
        told.append(f"<span class='{kind}'>{escape(attribute)} {mark}</span> ({percent(probability)})")
    return ", ".join(told)


def answers_section(report: Report) -> str:
    """Answers of the network that ships."""
    if not report.answers:
        return ""
    figures = [
        picture(
            answer_figure(answer),
            f"query {answer.query}, answer {answer.attribute}, where it came from, and each layer's attention",
        )
        for answer in report.answers
    ]
    return (
        f"<h2>The network that ships, asked about {escape(report.asked_about)}</h2>\n"
        f"<p class='soft'>{escape(report.asked)}; nothing was trained for this.</p>\n"
        "<div class='pair'>\n" + "\n".join(figures) + "\n</div>"
    )


def facts_section(report: Report) -> str:
    """What was trained and where, so that it can be done again."""
    labels = list(dict.fromkeys(label for one in report.networks for label in one.training))
    head = "".join(f"<th scope='col'>{escape(one.name)}</th>" for one in report.networks)
    lines = [(label, [one.training.get(label, "–") for one in report.networks]) for label in labels]
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in report.facts.items())
    table = numbers_table(f"<tr><th></th>{head}</tr>", lines)
    return f"<h2>What was trained here</h2>\n{table}<dl>{facts}</dl>"
