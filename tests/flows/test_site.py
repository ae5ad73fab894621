"""The documentation's site: it builds without a warning, holds every page, and fetches nothing from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from build_site import as_mathml, as_page, blank_before_lists, build, outside_code, stage
from doc_pages import PAGES, ROOT, name_of
from run_notebooks import NOTEBOOKS

FETCHED = {"src", "srcset", "data", "poster"}  # attributes that make a browser fetch; href only in <link>


class Page(HTMLParser):
    """What a page links to, what it makes a browser fetch, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.fetched += [value for name, value in given.items() if name in FETCHED]
        if "href" in given:
            (self.fetched if tag == "link" and given.get("rel") != "canonical" else self.links).append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    build(out)
    return out


def test_every_page_is_there(site: Path) -> None:
    named = [name_of(page) for page in PAGES] + [path.relative_to(ROOT).as_posix() for path in NOTEBOOKS]
    for name in [*named, "results/README.md", "benchmarks/NOTES.md", "CHANGELOG.md"]:
        there = Path(name).with_name("index.html") if name.endswith("README.md") else Path(name).with_suffix(".html")
        assert (site / there).is_file(), name


def test_every_link_leads_somewhere_on_the_site(site: Path) -> None:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > len(PAGES)
    for path, page in pages.items():
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)} links to {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors | {"__top"}, f"{path.relative_to(site)}: {link}"


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        for address in Page(path.read_text(encoding="utf-8")).fetched:
            assert not re.match(r"(https?:)?//", address), f"{path.relative_to(site)} fetches {address}"
    for path in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_the_api_page_is_filled_in(site: Path) -> None:
    text = (site / "docs" / "api.html").read_text(encoding="utf-8")
    assert ":::" not in text
    for name in ("Predictor", "build_model", "pixel_maps", "true_positive_ratio"):
        assert re.search(rf'id="progressive_attention\.[\w.]*{name}"', text), name
    assert "(B, K, H, W) float64" in text  # shapes come from docstrings


def test_equations_are_mathml(site: Path) -> None:
    text = (site / "docs" / "concepts.html").read_text(encoding="utf-8")
    assert text.count("<math") > 10
    assert not re.search(r"\\(sigma|hat|sum|alpha)\b", re.sub(r"<(code|pre).*?</\1>", "", text, flags=re.DOTALL))


def test_tex_outside_code_only() -> None:
    changed = outside_code("costs 3 $ or 4 $, `$x$`, $x|y$\n\n```text\n$a$\n```\n", as_mathml)
    assert changed.startswith("costs 3 $ or 4 $, `$x$`, <span><math")
    assert changed.endswith("```text\n$a$\n```\n")
    assert "|" not in changed  # it would end a table's cell


def test_lists_start_a_paragraph_of_their_own() -> None:
    assert blank_before_lists("as follows:\n- one\n  and more\n- two\n") == "as follows:\n\n- one\n  and more\n- two\n"


def test_a_broken_link_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("[there](docs/page.md)")
    (tmp_path / "docs" / "page.md").write_text("[not there](nothing.md)")
    monkeypatch.setattr("build_site.ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"docs/page\.md links to nothing\.md, which does not exist"):
        stage(tmp_path / "staged")


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    text = as_page(NOTEBOOKS[0], tmp_path / "ask.md")
    assert text.startswith("# Ask and look\n")
    assert "```text\nit knows: 0 1 2" in text
    pictures = re.findall(r"\]\((ask-\d+-\d+\.png)\)", text)
    assert len(pictures) == 2
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
