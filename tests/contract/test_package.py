"""The package as a whole: one version, every photograph credited, files of a readable size."""

import ast
import csv
import importlib
import importlib.metadata
import json
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import progressive_attention

ROOT = Path(__file__).parents[2]
PACKAGE = "progressive_attention"
SOURCE = ROOT / "src" / PACKAGE
BACKGROUNDS = SOURCE / "assets" / "backgrounds"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def attribution() -> list[dict[str, str]]:
    with open(BACKGROUNDS / "ATTRIBUTION.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert importlib.metadata.version("progressive-attention") == version
    assert progressive_attention.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_public_names_agree():
    assert dir(progressive_attention) == sorted(progressive_attention.__all__)
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    for_type_checkers = {
        alias.name: node.module.removeprefix(f"{PACKAGE}.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{PACKAGE}.")
        for alias in node.names
    }
    assert for_type_checkers == progressive_attention.HOMES
    assert set(progressive_attention.__all__) == {*progressive_attention.HOMES, "__version__"}


@pytest.mark.parametrize(("name", "home"), progressive_attention.HOMES.items())
def test_public_name_is_there(name, home):
    assert getattr(progressive_attention, name) is getattr(importlib.import_module(f"{PACKAGE}.{home}"), name)


def test_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'biuld_model'; it exports .*build_model"):
        progressive_attention.biuld_model  # noqa: B018


def test_every_photograph_is_credited_and_split_once():
    shipped = sorted(path.name for path in BACKGROUNDS.iterdir() if path.suffix not in (".csv", ".json"))
    assert shipped, "no photographs in assets/backgrounds"
    splits = json.loads((BACKGROUNDS / "splits.json").read_text())
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert sorted(row["file"] for row in attribution()) == shipped
    assert sorted(name for names in splits.values() for name in names) == shipped
    assert sorted(re.findall(r"\bscene_\d+\.\w+", notice)) == shipped


def test_notice_credits_what_the_table_says():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for row in attribution():
        credit = (
            f"\n{row['file']}: {row['title_or_subject']}\n    by {row['author']}; {row['licence']}\n"
            f"    from {row['source_package']}, {row['source_file_or_folder']}\n"
        )
        assert credit in notice, f"NOTICE lacks this credit:{credit}"
    counted = re.findall(r"^    (public domain|CC\S+) +(\d+)  ", notice, re.M)
    assert {licence: int(n) for licence, n in counted} == Counter(row["licence"] for row in attribution())


def test_licence_expression_covers_what_ships():
    mnist, onnxruntime_web = "CC-BY-SA-3.0", "MIT"
    photographs = {row["licence"].replace("public domain", "LicenseRef-Public-Domain") for row in attribution()}
    assert set(PROJECT["license"].split(" AND ")) == {"Apache-2.0", mnist, onnxruntime_web} | photographs
    for file in PROJECT["license-files"]:
        assert (ROOT / file).stat().st_size > 0, f"{file} is empty"


def test_citation_names_both_papers():
    text = (ROOT / "CITATION.cff").read_text()
    fields = dict(re.findall(r"^([a-z-]+):[ ]?(.*)$", text, re.M))
    assert fields["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "references"} <= set(fields)
    for line in text.splitlines():  # the plain subset of YAML we write: nested 'key: value' lines and '- ' items
        assert re.fullmatch(r"( {2})*(- )?[a-z-]+:( \S.*)?|( {2})+- [^:]+", line), (
            f"CITATION.cff: cannot read the line {line!r}"
        )
    assert "\n    title: Progressive Attention Networks for Visual Attribute Prediction\n" in text
    assert "\n    title: Hierarchical Attention Networks\n" in text
    assert text.count("family-names: Seo") == 2
    assert text.count("value: arXiv:1606.02393") == 2


def test_files_keep_a_readable_size():
    files = [*source_files(), *ROOT.glob("tests/**/*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {path: n for path, n in lines.items() if n > 450}, "over 450 lines: does the file still hold one idea?"


def test_no_drawer_of_odds_and_ends():
    assert not [path for path in [*source_files(), *ROOT.glob("tests/**/*.py")] if path.stem in ("utils", "util")]


def committed_files() -> dict[str, bytes]:
    """Content of all files that are committed, or would be: by path below the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of committed files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name: (ROOT / name).read_bytes() for name in sorted(set(names)) if (ROOT / name).is_file()}


def test_no_file_names_this_machine():
    machine_path = re.compile(rb"(?<![\w.])/(?:work/|tmp/bash)")
    wrong = [
        name for name, content in committed_files().items() if b"\0" not in content and machine_path.search(content)
    ]
    assert not wrong, f"paths of one machine are named in {wrong}"


def holds_picture(content: bytes) -> bool:
    """Whether a file is a picture, whatever its name, or a text with one inside (a page, a notebook's output)."""
    start = rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\0|MM\0\*|BM.{4}\0{4}|....ftyp|<svg|<\?xml[^>]*>\s*<svg"
    inside = rb"data:image/[\w+]+;base64,[A-Za-z0-9+/]{200}|\"image/[\w+]+\": ?\[?\s*\"[A-Za-z0-9+/<]{20}"
    return bool(re.match(start, content, re.DOTALL) or (b"\0" not in content and re.search(inside, content)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", True),
        (b"RIFF\0\0\0\0WEBPVP8", True),
        (b"<img src='data:image/png;base64," + b"iVBORw0KGgo" * 30 + b"'>", True),
        (b'{"data": {"image/%s": "iVBORw0KGgoAAAANSUhEUgAA"}}' % b"png", True),
        (b'MIME types are "image/png": and "image/jpeg"', False),
        (b"PK\x03\x04", False),
    ],
)
def test_pictures_are_known_by_their_content(content, expected):
    assert holds_picture(content) == expected


def test_every_picture_is_listed_with_its_origin():
    """No photograph of a data set for research slips in: each is in NOTICE, or in an ATTRIBUTION.csv above it."""
    files = committed_files()
    listed = set(re.findall(r"\S+", (ROOT / "NOTICE").read_text(encoding="utf-8")))
    for name in files:
        if Path(name).name == "ATTRIBUTION.csv":
            with open(ROOT / name, newline="", encoding="utf-8") as file:
                listed |= {(Path(name).parent / row["file"]).as_posix() for row in csv.DictReader(file)}
    pictures = {name for name, content in files.items() if holds_picture(content)}
    assert len(pictures) > 200, "the rule finds no pictures any more"
    assert not pictures - listed, f"say in NOTICE or ATTRIBUTION.csv where these come from: {sorted(pictures - listed)}"


def test_no_stream_that_numpy_may_change():
    """Bit generators give the same integers in every release; ``Generator``'s methods need not."""
    for path in source_files():
        used = set(re.findall(r"\bnp\.random\.(\w+)|\b(default_rng)\b", path.read_text(encoding="utf-8")))
        assert used <= {("PCG64", ""), ("SeedSequence", "")}, path
