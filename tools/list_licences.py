"""Write the licence of every pinned dependency into docs/dependencies.md: `python tools/list_licences.py`.

Run it after a change of constraints.txt, in an environment that has these pins. A licence is what the installed package
itself states; of a pin that is for other machines, and so not installed here, it is what the page said before.
"""

import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
TABLE = re.compile(r"(<!-- licences: tools/list_licences.py -->\n)((?:\|.*\n)*)")
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
SPELLINGS = {  # how packages without a licence expression write theirs -> SPDX; which BSD it is they do not tell
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "ISC license": "ISC",
    "MIT Licence": "MIT",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def pins() -> dict[str, str]:
    """Name, as package indexes write it, -> version, of all in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    split = [line.partition("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version for name, _, version in split}


def licence(name: str) -> str:
    """What an installed package states: its licence expression, or the first line of its licence, or its classifiers.

    Raises PackageNotFoundError where it is not installed, ValueError for words that are neither SPDX nor in SPELLINGS.
    """
    stated = metadata(name)
    classifiers = [words.rpartition(" :: ")[2] for words in stated.get_all("Classifier", []) if "License ::" in words]
    told = [stated.get("License-Expression", ""), stated.get("License", "").strip().partition("\n")[0], *classifiers]
    for words in filter(None, map(str.strip, told)):
        if words in SPELLINGS:
            return SPELLINGS[words]
        with suppress(InvalidLicenseExpression):
            return canonicalize_license_expression(words)
    raise ValueError(f"{name} states its licence as {told}; read it, and add these words to SPELLINGS")


def listed(page: str) -> dict[str, str]:
    """Package -> licence, as a page's table has it."""
    found = TABLE.search(page)
    rows = ROW.findall(found[2])[1:] if found else []  # without the head
    return {name: licence for licence, names in rows for name in names.split(", ") if name.strip("-")}


def table(licences: dict[str, str]) -> str:
    """Package -> licence as rows by licence, both in alphabetical order."""
    kinds = sorted(set(licences.values()))
    rows = [f"| {kind} | {', '.join(sorted(n for n in licences if licences[n] == kind))} |" for kind in kinds]
    return "\n".join(["| licence | packages |", "|---|---|", *rows, ""])


def main() -> None:
    """Read what is installed and write the table; ValueError for a pin that is neither installed nor on the page."""
    page = PAGE.read_text(encoding="utf-8")
    licences, before = {}, listed(page)
    for name in pins():
        try:
            licences[name] = licence(name)
        except PackageNotFoundError:
            if name not in before:
                raise ValueError(f"{name} is not installed: pip install --no-deps it once") from None
            licences[name] = before[name]
    PAGE.write_text(TABLE.sub(lambda found: found[1] + table(licences), page), encoding="utf-8")


if __name__ == "__main__":
    main()
