"""The rules of a data set's rows: import repairs and rejects by them, loading applies them, ``pan data check`` lists.

A finding is an *error* where a row can't be used, a *warning* where something was repaired or results would mislead,
and a *note* where a look is worth it. Legend: R rows, N images.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from progressive_attention.config import SPLITS
from progressive_attention.data.table import BOX, LISTS, answer_column, numbers, rows_by, word_sets

RARE = 5  # a word with fewer rows than this to learn from is noted
REPEATED = "duplicate row"
OBJECT = ("image", "query", *BOX, "mask", "mask_value")  # what identifies an object in an image
PATHS = "write paths from the images' folder on, without '..' and without links that lead out of it"
MASKS = "evaluation stops at it; repair the file or its path, or leave the cell empty"
BOXES = "correct it (pixels of the upright image, x0 < x1 and y0 < y1), or leave its four cells empty"
UNLEARNT = "it can't be learnt; move rows of it to train, or drop them"
FEW = f"fewer than {RARE} rows to learn it from; add some, or drop the word"
# What can be found, in the order of the report: its severity, and what to do. Rows with errors are not used.
KINDS: dict[str, tuple[str, str]] = {
    "no image": ("error", "name the image, or drop the row"),
    "no query": ("error", "name what is asked about, or drop the row"),
    "no attributes": ("error", "name them; write [] where none is true, in CSV ;"),
    "unknown split": ("error", f"write {', '.join(SPLITS)}, or leave the column out to have images spread"),
    "contradiction": ("error", "keep the attribute in one of both"),
    "image outside": ("error", PATHS),
    "image file missing": ("error", "put the file there, correct its path, or drop its rows"),
    "image unreadable": ("error", "save the file again (too large: smaller, with its boxes), or drop its rows"),
    "image changed since its import": ("error", "import again, or put back the picture that the table is about"),
    "too many unusable images": ("error", "training stops at so many; repair or drop those above"),
    "empty box": ("error", BOXES),
    "box outside the image": ("error", BOXES),
    "mask outside": ("error", f"evaluation stops at it; {PATHS}"),
    "mask file missing": ("error", MASKS),
    "mask unusable": ("error", MASKS),
    "mask of another size": ("error", "evaluation stops at it; a mask must have its upright image's size"),
    "image of another size": ("warning", "the file's size is taken; correct width and height, or the picture"),
    "incomplete box": ("warning", "it is left out; give all four numbers, or none"),
    "box reaching out of its image": ("warning", "it is cut at the image's edge; are its numbers pixels?"),
    REPEATED: ("warning", "it is asked once; keep one of them"),
    "mask without its target": ("warning", "attention can't be measured there; is mask_value right?"),
    "none of the attributes": ("warning", "counts as: none is true; drop the row where that is not known"),
    "same object, other attributes": ("warning", "keep the right row, or list all in one; give boxes to each object"),
    "image in several splits": ("warning", "results would flatter; keep all rows of an image in one split"),
    "same picture in several splits": ("warning", "results would flatter; keep copies in one split, or one of them"),
    "split without rows": ("warning", "name it in the column split, or leave that column out to have images spread"),
    "query never in train": ("warning", UNLEARNT),
    "attribute never in train": ("warning", UNLEARNT),
    "no attributes in any row": ("note", "enough to measure attention by a network trained elsewhere, not to train"),
    "rare query": ("note", FEW),
    "rare attribute": ("note", FEW),
}
Counts = dict[str, dict[str, int]]  # word -> split -> rows


class Finding(NamedTuple):
    """Something found: the paths or words that it is about, its rows from 0 (none for words), what is the matter."""

    kind: str
    subjects: list[str]
    rows: list[int]
    detail: str


Findings = Iterator[Finding]


def judge(table: pa.Table, sizes: np.ndarray) -> tuple[pa.Table, list[Finding]]:
    """The same rows with boxes cut at their images' edges and incomplete ones left out, and all that was found.

    ``sizes`` (R, 2) is width and height of each row's image, 0 where they are unknown. ``left_out`` says which rows
    can't be used.
    """
    findings = [*missing_cells(table), *contradictions(table), *stated_sizes(table, sizes)]
    if BOX[0] in table.column_names:
        boxes, of_boxes = fit_boxes(table, sizes)
        findings += of_boxes
        for at, name in enumerate(BOX) if of_boxes else ():
            cells = pa.array(boxes[:, at], pa.float32(), mask=np.isnan(boxes[:, at]))
            table = table.set_column(table.column_names.index(name), name, cells)
    return table, [*findings, *repeats(table, np.setdiff1d(np.arange(len(table)), list(left_out(findings))))]


def left_out(findings: Iterable[Finding]) -> dict[int, Finding]:
    """Rows that can't be used, and repeated ones but the first, each with what was found first."""
    gone: dict[int, Finding] = {}
    for finding in findings:
        if finding.kind == REPEATED or KINDS[finding.kind][0] == "error":
            for row in finding.rows[finding.kind == REPEATED :]:
                gone.setdefault(row, finding)
    return gone


def summary(findings: Iterable[Finding]) -> Counter[str]:
    """How many rows each kind concerns; of repeated rows those that are too many."""
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.kind] += len(finding.rows) - (finding.kind == REPEATED)
    return counts


def alike(table: pa.Table, names: Iterable[str]) -> list[list[int]]:
    """Rows that are equal in some columns, lists in any order: two or more at a time, ascending."""
    keys = {n: ["\0".join(sorted(s)) for s in word_sets(table, n)] if n in LISTS else table[n] for n in names}
    keyed = pa.table({**keys, "row": np.arange(len(table))})
    groups = keyed.group_by(list(keys), use_threads=False).aggregate([("row", "list")])["row_list"]
    return groups.filter(pc.greater(pc.list_value_length(groups), 1)).to_pylist()


def about(table: pa.Table, kind: str, rows: Iterable[Any], detail: str) -> Finding:
    """What was found in some rows of one image."""
    rows = [int(row) for row in rows]
    image = table["image"][rows[0]].as_py()
    return Finding(kind, [] if image is None else [image], rows, detail)


def missing_cells(table: pa.Table) -> Findings:
    """Rows without image, query or answer, or of an unknown split."""
    for kind, column in (("no image", "image"), ("no query", "query"), ("no attributes", answer_column(table))):
        for row in np.flatnonzero(table[column].is_null().to_numpy()):
            yield about(table, kind, [row], "write [] where none is true, in CSV ;" if column == "attributes" else "")
    for row in np.flatnonzero(~pc.is_in(table["split"], pa.array(SPLITS)).to_numpy()):
        split = table["split"][int(row)].as_py()
        yield about(table, "unknown split", [row], f"{split!r}, expected one of {', '.join(SPLITS)}")


def contradictions(table: pa.Table) -> Findings:
    """Rows where an attribute is both true and absent."""
    both = zip(word_sets(table, answer_column(table)), word_sets(table, "absent"), strict=True)
    for row, (true, absent) in enumerate(both):
        if words := sorted(true & absent):
            yield about(table, "contradiction", [row], f"{words} both true and absent")


def stated_sizes(table: pa.Table, sizes: np.ndarray) -> Findings:
    """Rows that state another width or height than their image has."""
    stated = numbers(table, "width", "height", missing=np.nan)
    wrong = np.flatnonzero((~np.isnan(stated) & (stated != sizes)).any(1) & (sizes > 0).all(1))
    for same in rows_by(table["image"].take(pa.array(wrong))).values():
        rows = wrong[same]
        claim = " x ".join("?" if np.isnan(side) else f"{side:.0f}" for side in stated[rows[0]])
        width, height = sizes[rows[0]]
        yield about(
            table, "image of another size", rows, f"{claim} pixels in the table, {width} x {height} in the file"
        )


def fit_boxes(table: pa.Table, sizes: np.ndarray) -> tuple[np.ndarray, list[Finding]]:
    """Boxes (R, 4) x0, y0, x1, y1 cut at their images' edges, NaN where there is none or only half of one."""
    box = numbers(table, *BOX, missing=np.nan)
    known = np.all(sizes > 0, 1)
    (x0, y0, x1, y1), (width, height) = box.T, sizes.T
    limits = sizes[:, [0, 1, 0, 1]]
    half = np.isnan(box).any(1) & ~np.isnan(box).all(1)
    against = {
        "incomplete box": half,
        "empty box": (x1 <= x0) | (y1 <= y0) | np.isinf(box).any(1),
        "box outside the image": known & ((x1 <= 0) | (y1 <= 0) | (x0 >= width) | (y0 >= height)),
        "box reaching out of its image": known & ((box < 0) | (box > limits)).any(1),
    }
    findings = []
    kind = np.select(list(against.values()), np.arange(len(against)), -1)
    for row in np.flatnonzero(kind >= 0):
        sides = tuple(None if np.isnan(side) else side for side in box[row].tolist())
        where = f" in an image of {width[row]} x {height[row]}" if known[row] else ""
        findings.append(about(table, list(against)[kind[row]], [row], f"box {sides}{where}"))
    box = np.where(known[:, None], box.clip(0, limits), box)
    box[half] = np.nan
    return box, findings


def repeats(table: pa.Table, rows: np.ndarray) -> Findings:
    """Those of some rows that are equal in all that they state."""
    names = [name for name in table.column_names if name not in ("width", "height")]
    for same in alike(table.take(pa.array(rows)), names):
        yield about(table, REPEATED, rows[same], f"query {table['query'][int(rows[same[0]])].as_py()!r}")


def empty_answers(table: pa.Table) -> Findings:
    """Rows with an empty list of attributes and nothing absent."""
    answer = answer_column(table)
    stated = [true | absent for true, absent in zip(word_sets(table, answer), word_sets(table, "absent"), strict=True)]
    if not any(stated):
        yield Finding("no attributes in any row", [], [], "")
        return
    for row, known in enumerate(table[answer].is_valid().to_pylist()):
        if known and not stated[row]:
            yield about(table, "none of the attributes", [row], f"query {table['query'][row].as_py()!r}")


def disagreements(table: pa.Table) -> Findings:
    """Rows about one object of one image that give it other attributes."""
    answers = word_sets(table, answer_column(table))
    for rows in alike(table, [name for name in OBJECT if name in table.column_names]):
        if any(answers[row] != answers[rows[0]] for row in rows):
            query = table["query"][rows[0]].as_py()
            yield about(table, "same object, other attributes", rows, f"query {query!r}")


def leaks(table: pa.Table, digests: Mapping[str, bytes]) -> Findings:
    """Images that are in several splits, or whose copies are; ``digests``: path -> of its pixels, where known."""
    split, rows_of = table["split"].to_pylist(), rows_by(table["image"])
    copies: dict[bytes, list[str]] = defaultdict(list)
    for path, digest in digests.items():
        copies[digest].append(path)
    for kind, groups in (
        ("image in several splits", [[path] for path in rows_of]),
        ("same picture in several splits", [paths for paths in copies.values() if len(paths) > 1]),
    ):
        for paths in groups:
            rows = sorted(row for path in paths for row in rows_of[path])
            counts = Counter(split[row] for row in rows if split[row] in SPLITS)
            if len(counts) > 1:
                yield Finding(kind, paths, rows, by_split({name: counts[name] for name in SPLITS}))


def empty_splits(table: pa.Table) -> Findings:
    """Splits that nothing is in."""
    have = set(table["split"].to_pylist())
    for split in [name for name in SPLITS if name not in have]:
        need = "`pan evaluate` asks it unless --split names another" if split == "test" else "`pan train` needs it"
        yield Finding("split without rows", [split], [], need)


def word_faults(kind: str, counts: Counts) -> Findings:
    """Queries or attributes (``kind``) that can't be learnt, or hardly can."""
    learning = any(splits[SPLITS[0]] for splits in counts.values())
    for word, splits in counts.items():
        if learning and splits[SPLITS[0]] < RARE:
            fault = f"rare {kind}" if splits[SPLITS[0]] else f"{kind} never in train"
            yield Finding(fault, [word], [], by_split(splits))


def by_split(counts: Mapping[str, int]) -> str:
    """The rows of each split that has any, as "train 3, test 1"."""
    return ", ".join(f"{split} {rows}" for split, rows in counts.items() if rows)
