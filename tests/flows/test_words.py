"""The documents read as plain English: short sentences, and none of the words that this project has learnt to avoid."""

import re
from pathlib import Path

import pytest
from doc_pages import FENCE, PAGES, ROOT, name_of

MANUAL = [page for page in PAGES if page.parent == ROOT / "docs"]
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "results/README.md"))]
LONGEST, ON_AVERAGE = 40, 18  # words in a sentence
# A pattern of each word or turn that no native speaker would use here -> what to write.
PLAIN = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"lone": "single",
    r"want of": "out of, lack of",
    r"refus(e|es|ed|al|ing)": "reject",
    r"(tell|tells|told)": "report, say, show",
    r"stands? in": "is in",
    r"(has|have|had) not(?= *[.,;:)])": "has no ...",
    r"(that|which) ships?": "pretrained",
    r"but for": "except for",
    r"likeliest": "most likely",
    r"one's own": "your own",
    r"said so": "and we say so",
    r"(upon|whilst|lest|thereof|therein|hitherto|amongst|shall)": "an everyday word",
}
documents = pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)


def sentences(text: str) -> list[str]:
    """The sentences of paragraphs and items, without code, tables, headings, equations and addresses."""
    text = FENCE.sub("", text)
    text = re.sub(r"<!--.*?-->|\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"^\s*(\||#|:::).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "code", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.)\s", text)
    parts = [part for paragraph in paragraphs for part in re.split(r"(?<=[.!?])[*_)\"']*\s+(?=[^a-z\s])", paragraph)]
    return [" ".join(part.split()) for part in parts if part.strip()]


def words(sentence: str) -> list[str]:
    """What a reader counts as words: numbers and code too, but no punctuation by itself, such as a table's bars."""
    return [word for word in sentence.split() if re.search(r"\w", word)]


@documents
def test_plain_words(page: Path) -> None:
    prose = "\n".join(sentences(page.read_text(encoding="utf-8")))
    for pattern, better in PLAIN.items():
        odd = re.search(rf".*\b{pattern}\b.*", prose, re.IGNORECASE)
        assert odd is None, f"write {better!r} in: {odd[0]}"


@documents
def test_short_sentences(page: Path) -> None:
    lengths = {sentence: len(words(sentence)) for sentence in sentences(page.read_text(encoding="utf-8"))}
    long = [f"{length} words: {sentence}" for sentence, length in lengths.items() if length > LONGEST]
    assert not long, "\n".join(long)
    assert sum(lengths.values()) / len(lengths) <= ON_AVERAGE


def test_plain_words_in_the_program() -> None:
    for source in sorted((ROOT / "src").rglob("*.py")):
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, better in PLAIN.items():
                odd = re.search(rf"(?<![\w\"'`]){pattern}(?![\"'`\w=\]])", line, re.IGNORECASE)  # but keys of files
                assert odd is None, f"{source}:{number}: write {better!r} in: {line}"


def test_the_manual_is_short() -> None:
    assert len(MANUAL) <= 20
    assert sum(len(words(page.read_text(encoding="utf-8"))) for page in MANUAL) <= 22_000
    assert len(words((ROOT / "README.md").read_text(encoding="utf-8"))) <= 600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "One. Two three!\n\n- an item\n- another, e.g. this",
            ["One.", "Two three!", "- an item", "another, e.g. this"],
        ),
        ("# Head\n\n| a | b |\n\nSee [the page](x.md), `code here` and $a + b$.", ["See the page, code and code."]),
    ],
)
def test_sentences_are_found(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected
