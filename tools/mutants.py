"""Tell what `mutmut run` left in mutants/: a table by module, and every survivor that nobody has explained.

`python tools/mutants.py`; exit code 1 where there is one. tests/equivalent_mutants.toml holds the explanations: of
mutants that no test can tell from our own lines, each named by its function and its changed lines, and why.
"""

import json
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / "tests" / "equivalent_mutants.toml"
RUN = ROOT / "mutants" / "src" / "progressive_attention"
COLUMNS = ("mutants", "killed", "timed out", "survived", "equivalent")


def explained(path: Path = KNOWN) -> set[str]:
    """The names of all mutants that the file explains; raises ValueError for one that stands there twice."""
    names = Counter(name for group in tomllib.loads(path.read_text())["group"] for name in group["mutants"])
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{path.name} must explain each mutant once, got again: {', '.join(twice)}")
    return set(names)


def short_name(mutant: str) -> str:
    """progressive_attention.data.scenes.xǁStreamǁpeek__mutmut_3 -> data.scenes.Stream.peek"""
    function = mutant.removeprefix("progressive_attention.").partition("__mutmut_")[0]
    return re.sub(r"\.x_?", ".", function.replace("ǁ", "."), count=1).replace("..", ".")


def described(mutant: str, diff: str) -> str:
    """A name that lasts while others come and go: the function, and its lines after the change."""
    changed = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    return f"{short_name(mutant)}: {' '.join(changed)}"


def table(found: dict[str, Counter[str]]) -> str:
    """A Markdown table of each module's counts, by the names of COLUMNS, with a row for their sum."""
    rows = {**found, "all": sum(found.values(), Counter())}
    lines = [f"| {module} | {' | '.join(str(counts[name]) for name in COLUMNS)} |" for module, counts in rows.items()]
    return "\n".join([f"| module | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|", *lines])


def main() -> int:
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # reads pyproject.toml in the working directory
    from mutmut.stats import status_by_exit_code

    known, unused = explained(), explained()
    found: dict[str, Counter[str]] = {}
    unexplained = []
    for path in sorted(RUN.rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        counts: Counter[str] = Counter()
        for mutant, code in codes.items():
            status = status_by_exit_code[code].replace("timeout", "timed out")
            counts.update(["mutants", status])
            if status not in ("killed", "timed out"):
                name = described(mutant, get_diff_for_mutant(mutant, path=f"src/{path.relative_to(RUN.parent)}"[:-5]))
                counts.update(["equivalent"] * (name in known))
                unexplained += [f"{status}: {name}"] * (name not in known)
                unused.discard(name)
        if codes:
            found[".".join(path.relative_to(RUN).with_suffix("").with_suffix("").parts)] = counts
    print(table(found), *unexplained, *(f"explained, but killed or gone: {name}" for name in unused), sep="\n")
    return bool(unexplained)


if __name__ == "__main__":
    sys.exit(main())
