"""docs/dependencies.md and constraints.txt keep up with pyproject.toml, and with what the installed packages state."""

import re
import tomllib
from collections.abc import Iterable
from email.message import Message
from importlib.metadata import PackageNotFoundError, requires, version

import pytest
from list_licences import PAGE, ROOT, SPELLINGS, licence, listed, main, pins, table
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"], "to build": BUILD}
TEXT = PAGE.read_text(encoding="utf-8")
LISTED = listed(TEXT)
PINS = pins()
PYTHONS = re.findall(r"Python :: (3\.\d+)", str(PROJECT["classifiers"]))
CUDA = ("cuda-toolkit", "nvidia-")  # torch pins them itself


def at_its_pin(name: str) -> bool:
    """Whether a package is installed in the version that constraints.txt names."""
    try:
        return version(name) == PINS.get(name)
    except PackageNotFoundError:
        return False


def tree(wanted: Iterable[str], python: str) -> set[str]:
    """Names of all that is required on Linux with a version of Python, as far as the installed packages tell."""
    waiting = [(Requirement(line), "") for line in wanted]
    seen = set()
    for requirement, extra in waiting:  # grows
        here = {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({**here, "sys_platform": "linux"}):
            continue
        for of_name in {(name, ""), *((name, chosen) for chosen in requirement.extras)} - seen:
            seen.add(of_name)
            waiting += [(Requirement(line), of_name[1]) for line in (at_its_pin(name) and requires(name)) or ()]
    return {name for name, _ in seen}


def test_every_direct_dependency_has_a_row_that_says_why():
    rows = re.findall(r"^\| ([\w-]+) \| ?([\w ]*?) \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)[1:]  # without the head
    stated = {
        (canonicalize_name(Requirement(line).name), extra)
        for extra, lines in EXTRAS.items()
        for line in lines
        if not line.startswith("progressive-attention")
    }
    assert {(name, extra) for name, extra, _, _ in rows} == stated
    assert len(rows) == len(stated)
    for name, extra, why, kind in rows:
        assert len(why) > 5, name
        assert extra == "to build" or kind == LISTED[name], name


def test_every_pin_is_listed_with_what_it_states():
    assert sorted(LISTED) == sorted(PINS)
    here = [name for name in LISTED if at_its_pin(name)]
    assert {name: LISTED[name] for name in here} == {name: licence(name) for name in here}
    assert table(LISTED) in TEXT


def test_copyleft_is_told_in_words():
    mpl = re.search(r"\*\*MPL-2\.0\*\* \(([^)]+)\)", TEXT)[1]
    assert mpl.split(", ") == sorted(name for name, kind in LISTED.items() if "MPL" in kind)
    assert not [kind for kind in LISTED.values() if "GPL" in kind or "LicenseRef" in kind], "tell it above the table"


@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_required_is_pinned(python):
    wanted = [line for extra, lines in EXTRAS.items() for line in lines if extra != "to build"]
    needed = tree(wanted, python) - {"progressive-attention"}
    assert len(needed) > len(wanted)
    assert not [name for name in needed - set(PINS) if not name.startswith(CUDA)]


def stating(**fields: str) -> Message:
    message = Message()
    for name, words in fields.items():
        message[name.replace("_", "-")] = words
    return message


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (stating(License_Expression="MIT AND PSF-2.0", License="BSD"), "MIT AND PSF-2.0"),
        (stating(License="Apache 2.0", Classifier="License :: OSI Approved :: MIT License"), "Apache-2.0"),
        (stating(License="BSD 3-Clause License\n\nCopyright (c) 2026, its authors"), "BSD-3-Clause"),
        (stating(License="Copyright (c) 2026\n", Classifier="License :: OSI Approved :: ISC License (ISCL)"), "ISC"),
        (stating(License="UNKNOWN", Classifier="License :: OSI Approved :: MIT License"), "MIT"),
        (stating(License="mit"), "MIT"),
    ],
)
def test_licences_are_read(monkeypatch, stated, expected):
    monkeypatch.setattr("list_licences.metadata", lambda _: stated)
    assert licence("thing") == expected


@pytest.mark.parametrize("stated", [stating(License="do what you like"), stating(Classifier="Typing :: Typed")])
def test_a_licence_that_nobody_knows_is_told(monkeypatch, stated):
    monkeypatch.setattr("list_licences.metadata", lambda _: stated)
    with pytest.raises(ValueError, match="thing states its licence as .*add these words to SPELLINGS"):
        licence("thing")


def test_no_spelling_is_idle():
    assert set(SPELLINGS.values()) <= set(LISTED.values())


def test_the_table_is_written_anew(monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Before\n\n<!-- licences: tools/list_licences.py -->\n| licence | packages |\n|---|---|\n"
                    "| ISC | gone, elsewhere |\n\nAfter\n")  # fmt: skip

    def installed(name: str) -> Message:
        if name == "elsewhere":
            raise PackageNotFoundError(name)
        return stating(License="MIT")

    monkeypatch.setattr("list_licences.PAGE", page)
    monkeypatch.setattr("list_licences.metadata", installed)
    monkeypatch.setattr("list_licences.pins", lambda: dict.fromkeys(["zoo", "elsewhere", "ape"], "1.0"))
    main()
    rows = "| licence | packages |\n|---|---|\n| ISC | elsewhere |\n| MIT | ape, zoo |"
    assert page.read_text() == f"Before\n\n<!-- licences: tools/list_licences.py -->\n{rows}\n\nAfter\n"
    page.write_text("<!-- licences: tools/list_licences.py -->\n")
    with pytest.raises(ValueError, match="elsewhere is not installed"):
        main()
