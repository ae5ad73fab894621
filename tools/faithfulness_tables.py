"""Write the tables of docs/faithfulness.md from results/faithfulness/: `python tools/faithfulness_tables.py`."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "faithfulness.md"
RESULTS = ROOT / "results" / "faithfulness"
MIDDLE = ("stage 3", "stage 2")  # depths that the page leaves out
OURS = ("last", "accumulated", "activation", "flow")  # the only maps whose correlations it shows
MARK = re.compile(r"(<!-- (\w+): tools/faithfulness_tables.py -->\n)((?:\|.*\n)*)")


def cell(figure: dict[str, float], unit: float, digits: int) -> str:
    """The mean and half of its interval."""
    return f"{figure['mean'] * unit:.{digits}f}±{(figure['high'] - figure['mean']) * unit:.{digits}f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown, the figures at the right."""
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def areas(results: list[dict[str, Any]]) -> str:
    """Areas in per cent, a row for each network and map."""
    kinds = [(baseline, kind) for baseline in ("blurred", "black") for kind in ("deletion", "insertion")]
    rows = [
        [f"`{result['weights']}`", name, *(cell(of_map[baseline][kind], 100, 1) for baseline, kind in kinds)]
        for result in results
        for name, of_map in result["faithfulness"].items()
    ]
    return table(["network", "map", *(f"{kind}, {baseline}" for baseline, kind in kinds)], rows)


def correlations(results: list[dict[str, Any]]) -> str:
    """Rank correlations, a row for each network and map."""
    depths = [depth for depth in next(iter(results[0]["randomisation"].values())) if depth not in MIDDLE]
    rows = [
        [f"`{result['weights']}`", name, *(cell(of_map[depth], 1, 2) for depth in depths)]
        for result in results
        for name, of_map in result["randomisation"].items()
        if name in OURS
    ]
    return table(["network", "map", *depths], rows)


def filled(page: str, results: list[dict[str, Any]]) -> str:
    """The page with its tables drawn again."""
    tables = {"areas": areas(results), "correlations": correlations(results)}
    return MARK.sub(lambda found: found[1] + tables[found[2]], page)


def read_results() -> list[dict[str, Any]]:
    """The measured networks, by the names of their files."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), read_results()), encoding="utf-8")
