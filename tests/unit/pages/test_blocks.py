"""Pages as Markdown and as HTML: words stay words, tables stay whole, the page fetches nothing."""

import re

import numpy as np
import pytest
from fake_answers import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from read_page import Page

from progressive_attention.pages.answer_plots import contact_sheet
from progressive_attention.pages.blocks import (
    Figure,
    bullets,
    code,
    emphasis,
    heading,
    html_page,
    line,
    markdown_page,
    strong,
    table,
)

PNG = contact_sheet(np.zeros((1, 8, 8, 3), np.uint8), ["black"])
WORDS = st.text(st.sampled_from("ab \n*_`[]()<>|&\\#-+1.!~=\"'$"), max_size=12)


def shown(text: str) -> str:
    """The words that a reader sees, blanks alike."""
    return " ".join(text.split())


@given(WORDS)
def test_words_are_shown_as_they_are(words):
    blocks = [line("a ", words), line(words), bullets([words]), table(["head", words], [[words, words]])]
    page = Page(html_page("title", blocks))
    assert shown(page.text).replace(" ", "") == shown(f"titletitlea {words}{words * 2}head{words * 3}").replace(" ", "")


@given(WORDS.filter(str.strip))
def test_marked_words_are_shown_as_they_are(words):
    page = Page(html_page("title", [line("a ", strong(f"x{words}x"), " b ", code(words), emphasis(f"y{words}y"))]))
    expected = f"titletitlea x{words}x b {words} y{words}y"
    assert re.sub(r"\s", "", page.text) == re.sub(r"\s", "", expected)


def test_hostile_words_everywhere():
    blocks = [heading(2, HOSTILE), table([HOSTILE], [[HOSTILE]]), bullets([HOSTILE]), Figure(PNG, HOSTILE, HOSTILE)]
    page = Page(html_page(HOSTILE, blocks))
    assert page.text.count(HOSTILE) == 7
    assert page.values("alt") == [HOSTILE]
    assert not page.values("href")
    readme = markdown_page([line(HOSTILE), Figure("figures/a.png", HOSTILE, HOSTILE)])
    tokens = [child.type for token in MarkdownIt("commonmark").parse(readme) for child in token.children or []]
    assert {*tokens} <= {"text", "text_special", "image", "hardbreak"}


def test_a_page_as_markdown():
    blocks = [heading(1, "Title"), table(["", "a|b"], [["x", strong("1")]]), Figure("figures/a.png", "alt", "caption")]
    assert markdown_page(blocks) == (
        "# Title\n\n|  | a\\|b |\n| :--- | ---: |\n| x | **1** |\n\n![alt](figures/a.png)\\\ncaption\n"
    )


def test_a_figure_has_its_caption_and_its_place():
    wide = contact_sheet(np.zeros((4, 8, 300, 3), np.uint8)[:, :, :8].repeat(40, 2).repeat(40, 1), ["black"] * 4)
    html = html_page("t", [Figure(PNG, "small", "below"), Figure(wide, "wide")])
    assert re.search(r'<figure class="half"><img src="data:image/png;base64,[\w+/=]+" alt="small" [^>]+>', html)
    assert "<figcaption>below</figcaption></figure>" in html
    assert html.count("<figcaption>") == 1
    assert '<figure class="wide">' in html
    assert Page(html).pictures == [PNG, wide]


def test_a_table_as_html():
    html = html_page("t", [table(["", "here"], [["accuracy", strong("91.4 %")]])])
    assert '<th style="text-align:right">here</th>' in html
    assert '<td style="text-align:right"><strong>91.4 %</strong></td>' in html


@pytest.mark.parametrize("words", ["`", "a`` b`", "x | y", "`` ` ``"])
def test_code_holds_any_backticks(words):
    assert shown(words) in Page(html_page("t", [line(code(words))])).text
