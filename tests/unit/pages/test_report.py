"""The report: one file that holds everything, says what was measured, and trusts no text."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from test_plots import BINS, answer_of, scene_of

from progressive_attention.pages.report import Network, Report, headline, measures, render, terminal_table, write_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced; keeps text, attributes and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    @property
    def pictures(self) -> list[bytes]:
        sources = [value for name, value in self.attributes if name == "src" and value]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]


def network_of(name: str, accuracy: float = 0.9137, **training: str) -> Network:
    summary = {
        "count": 1234,
        "accuracy": accuracy,
        "accuracy_ci95": [accuracy - 0.0211, accuracy + 0.012],
        "accuracy_by_scale": dict.fromkeys(BINS, accuracy),
        "accuracy_by_scale_ci95": dict.fromkeys(BINS, (accuracy - 0.05, accuracy + 0.05)),
        "count_by_scale": dict.fromkeys(BINS, 246),
        "tpr_last": 0.2291,
        "tpr_accumulated": 0.2022,
        "tpr_activation": 0.4243,
        "tpr_uniform": 0.0236,
    }
    return Network(name, summary, {"training images": "17,500", "training time": "231 s", **training})


def report_of(**changes) -> Report:
    fields = {
        "data": "mref",
        "networks": [network_of("pan-hard-ctx"), network_of("san", 0.6042)],
        "facts": {"command": "pan quickstart", "hardware": "two cores"},
        "scenes": [scene_of(), scene_of(truth="blue")],
        "chosen": "The first two.",
        "asked": "mref-pan",
        "asked_about": "mref.png",
        "answers": [answer_of()],
    }
    return Report(**{**fields, **changes})


def test_page_says_what_was_measured_and_published():
    page = Page(render(report_of()))
    ours = ["91.4 %", "89.3 – 92.6", "60.4 %", "58.3 – 61.6", "22.9 %", "20.2 %", "42.4 %", "2.4 %", "1,234"]
    papers = ["98.53 %", "62.36 %", "82.94 %", "13.83 %", "2.34 %", "30,000 images", "300 epochs", "BMVC 2018, Table 1"]
    told = ["17,500", "231 s", "two cores", "pan quickstart", "✓ right", "✗ wrong", "The first two."]
    assert [text for text in ours + papers + told if text not in page.text] == []


def test_page_is_one_file():
    html = render(report_of())
    assert not re.search(r"https?:|url\(|@import|<script|<link|//\w", re.sub(r"base64,[\w+/=]+", "", html))
    assert "default-src 'none'" in html
    assert "width=device-width" in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_pictures_open():
    pictures = Page(render(report_of())).pictures
    assert len(pictures) == 1 + 2 + 1  # curve, scenes, answer
    for png in pictures:
        with Image.open(io.BytesIO(png)) as picture:
            picture.load()
            assert picture.width > 500


def test_every_picture_is_described():
    alts = [value for name, value in Page(render(report_of())).attributes if name == "alt"]
    assert len(alts) == 4
    assert all(alts)
    assert "scale 0.5-1.0 91.4 %" in str(alts[0])


def test_text_is_escaped():
    evil = "<script>alert('&\"')</script>"
    network = network_of(evil, **{evil: evil})
    scene = scene_of(query=evil, truth=evil, answers={evil: answer_of(attribute=evil)})
    report = report_of(
        **{"networks": [network], "facts": {evil: evil}, "scenes": [scene], "chosen": evil, "data": evil},
        **{"asked": evil, "asked_about": evil, "answers": [answer_of(query=evil)]},
    )
    html = render(report)
    assert "<script" not in html.lower()
    page = Page(html)
    assert page.text.count(evil) > 10
    assert evil in " ".join(str(value) for name, value in page.attributes if name == "alt")


def test_headline_gives_the_figures_and_concludes_nothing():
    pan, san = network_of("pan-hard-ctx", 0.91), network_of("san", 0.60)
    assert headline([pan, san]) == "pan-hard-ctx answers 91.0 % of 1,234 new questions rightly, san 60.0 %."
    assert headline([pan]) == "pan-hard-ctx answers 91.0 % of 1,234 new questions rightly."


def test_missing_figures_are_dashes():
    """No masks and no scales: nothing to say about attention or size, and no curve."""
    network = network_of("mine")
    nothing = {f"tpr_{name}": None for name in ("last", "accumulated", "activation", "uniform")}
    unknown = {"accuracy_by_scale": dict.fromkeys(BINS), "count_by_scale": dict.fromkeys(BINS, 0)}
    network = Network("mine", {**network.summary, **nothing, **unknown}, {})
    report = Report("my folder", [network], {})
    page = Page(render(report))
    assert page.pictures == []
    assert all(cell in ("–", "", "91.4 %", "89.3 – 92.6") for _, cells in measures(report) for cell in cells)


def test_layer_of_nan_is_drawn():
    empty = answer_of()
    empty.layers[1][:] = np.nan
    assert len(Page(render(report_of(answers=[empty]))).pictures) == 4


def test_without_networks():
    with pytest.raises(ValueError, match="at least one network"):
        render(report_of(networks=[]))


def test_terminal_table_has_the_same_figures_in_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(report_of()))
    lines = console.export_text().splitlines()
    assert any(re.search(r"accuracy.*91\.4 %.*98\.53 %.*60\.4 %.*82\.94 %", line) for line in lines)
    assert not [line for line in lines if "…" in line]


def test_report_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, report_of(scenes=(), answers=()))
    before = path.read_text(encoding="utf-8")
    Page(before)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_report(path, report_of(scenes=()))
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]
