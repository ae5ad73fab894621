"""docs/trust.md and constraints.txt keep up with pyproject.toml, and with what the installed packages state."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"], "to build": BUILD}
TEXT = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8").partition("\n## Dependencies\n")[2]
TOOLS = ("docs", "dev", "to build")  # no user installs them
PINNED = re.findall(r"^(\S+?)==(\S+)(?: ;.*?)?  # (.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
PINS = {canonicalize_name(name): version for name, version, _ in PINNED}
LISTED = {canonicalize_name(name): licence for name, _, licence in PINNED}
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
        if extra not in TOOLS and not line.startswith("progressive-attention")
    }
    assert {(name, extra) for name, extra, _, _ in rows} == stated
    assert len(rows) == len(stated)
    for name, _, why, kind in rows:
        assert len(why) > 5, name
        assert kind == LISTED[name], name


def test_every_pin_states_its_licence():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert len(PINNED) == len(PINS) == sum(bool(line.strip()) and not line.startswith("#") for line in lines)


def test_the_page_names_copyleft():
    mpl = re.search(r"\*\*MPL-2\.0\*\* \(([^)]+)\)", TEXT)[1]
    assert mpl.split(", ") == sorted(name for name, kind in LISTED.items() if "MPL" in kind)
    assert not [kind for kind in LISTED.values() if "GPL" in kind or "LicenseRef" in kind], "say so below the table"


@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_required_is_pinned(python):
    wanted = [line for extra, lines in EXTRAS.items() for line in lines if extra != "to build"]
    needed = tree(wanted, python) - {"progressive-attention"}
    assert len(needed) > len(wanted)
    assert not [name for name in needed - set(PINS) if not name.startswith(CUDA)]
