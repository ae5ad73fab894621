"""Questions about what is not there, for `pan absence`: of each photograph one query that its table doesn't ask.

    python tools/absent_questions.py data/flickr8k-attributes data/flickr8k-absent
    pan absence --weights RUN --data data/flickr8k-absent

The new data set has the validation and test rows of the old, and for each of their photographs one row more, with the
attribute "absent". Its query is drawn as often as the table asks it, from a fixed seed. What nobody asks about may be
there all the same, so figures measured on these rows are rather too low.
"""

import argparse
import csv
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from progressive_attention.data.manifest import read_manifest
from progressive_attention.data.questions import ABSENT
from progressive_attention.data.rows import import_table

ASKED = "validation,test"


def absent_queries(rows: list[dict], seed: int = 0) -> dict[str, str]:
    """For each image of the rows ("image", "query") a query that no row asks of it, by how often the rows ask it."""
    often, of_image = Counter(row["query"] for row in rows), defaultdict(set)
    for row in rows:
        of_image[row["image"]].add(row["query"])
    drawn, chosen = np.random.Generator(np.random.PCG64(seed)), {}
    for image, there in sorted(of_image.items()):
        left = sorted(often.keys() - there)
        share = np.cumsum([often[query] for query in left])
        chosen[image] = left[int(np.searchsorted(share, drawn.integers(share[-1]), side="right"))]
    return chosen


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a data set whose rows list attributes")
    parser.add_argument("out", type=Path, help="the folder to write")
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.data).rows_of(ASKED)
    rows = manifest.table.select(["image", "query", "attributes", "split"]).to_pylist()
    split = {row["image"]: row["split"] for row in rows}
    absent = absent_queries(rows)
    more = [{"image": i, "query": q, "attributes": [ABSENT], "split": split[i]} for i, q in absent.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["image", "query", "attributes", "split"])
            writer.writeheader()
            writer.writerows({**row, "attributes": ";".join(row["attributes"])} for row in [*rows, *more])
        about = import_table(path, arguments.out, images=manifest.images.root)
    print(f"{arguments.out}: {about['rows']:,} rows, {len(more):,} of them about what is not there")


if __name__ == "__main__":
    main()
