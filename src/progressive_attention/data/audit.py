"""An account of a data set's folder: ``pan data check``. Every image is decoded as training would, every mask once."""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from progressive_attention.config import SPLITS
from progressive_attention.data import checks
from progressive_attention.data.cells import flat
from progressive_attention.data.checks import KINDS, Counts, Finding, Findings, answer_column
from progressive_attention.data.file_checks import Pictures, Progress, Refusal, decoded, mask_faults, open_files
from progressive_attention.data.images import UNREADABLE_SHARE
from progressive_attention.data.manifest import find_manifest, read_folder

SEVERITIES = ("error", "warning", "note")


def audit(folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """All that is found in a folder, ready for JSON; ``progress`` gets (files opened, files to open).

    "findings", errors first: kind, severity, remedy, and items (``checks.Finding``, rows from 1). "splits": rows of
    each, "usable" ones, images, queries and attributes. "words": the rows of each query and attribute by split.
    "errors", "warnings", "notes": how many items there are. Raises ValueError as ``read_folder`` does.
    """
    manifest = read_folder(folder)
    pictures, masks = open_files(manifest.table, manifest.images, manifest.masks, decoded, progress)
    table, judged = checks.judge(manifest.table, pictures.sizes)
    if manifest.imported:  # the import wrote the files' sizes
        changed = "image changed since its import"
        judged = [f._replace(kind=changed) if f.kind == "image of another size" else f for f in judged]
    words = {"query": word_counts(table, "query"), "attribute": word_counts(table, answer_column(table))}
    digests = [None if isinstance(one, Refusal) else one.digest for one in pictures.opened]
    findings = [
        *pictures.faults(),
        *judged,
        *mask_faults(table, pictures.sizes, masks),
        *checks.empty_answers(table),
        *checks.disagreements(table),
        *checks.leaks(table, pictures.paths, digests),
        *checks.empty_splits(table),
        *checks.word_faults("query", words["query"]),
        *checks.word_faults("attribute", words["attribute"]),
    ]
    findings += unusable_shares(table, pictures, findings)
    items = {kind: [as_item(finding) for finding in findings if finding.kind == kind] for kind in KINDS}
    return {
        "folder": str(folder),
        "table": str(find_manifest(folder)),
        "source": manifest.about.get("source"),
        "rows": len(table),
        "images": len(pictures.paths),
        "masks": len(masks),
        "splits": with_usable(table, findings),
        "words": words,
        "findings": [
            {"kind": kind, "severity": severity, "remedy": remedy, "items": items[kind]}
            for kind, (severity, remedy) in KINDS.items()
            if items[kind]
        ],
        **{f"{s}s": sum(len(items[kind]) for kind in KINDS if KINDS[kind][0] == s) for s in SEVERITIES},
    }


def as_item(finding: Finding) -> dict[str, Any]:
    """A finding for JSON, its rows as a person counts them."""
    rows = [row + 1 for row in finding.rows]
    return {"subjects": finding.subjects, "rows": rows, "detail": finding.detail}


def unusable_shares(table: pa.Table, pictures: Pictures, findings: Sequence[Finding]) -> Findings:
    """Splits with more unusable images than training puts up with."""
    kinds = [kind for kind in KINDS if kind.startswith("image") and KINDS[kind][0] == "error"]
    bad = {path for finding in findings if finding.kind in kinds for path in finding.subjects}
    for split in SPLITS:
        images = set(table.filter(pc.equal(table["split"], split))["image"].drop_null().to_pylist())
        if (unusable := len(images & bad)) > UNREADABLE_SHARE * len(images):
            share = f"{unusable} of {len(images)} images ({unusable / len(images):.0%})"
            yield Finding("too many unusable images", [split], [], f"{share}, expected at most {UNREADABLE_SHARE:.0%}")


def with_usable(table: pa.Table, findings: Sequence[Finding]) -> dict[str, dict[str, int]]:
    """``sizes``, and how many rows of each split are used."""
    usable = np.ones(len(table), bool)
    usable[list(checks.left_out(findings))] = False
    split = checks.split_codes(table)
    return {
        name: {"rows": size.pop("rows"), "usable": int((usable & (split == code)).sum()), **size}
        for code, (name, size) in enumerate(sizes(table).items())
    }


def sizes(table: pa.Table) -> dict[str, dict[str, int]]:
    """How many rows, and distinct images, queries and attributes, each split has."""
    counts = {}
    for split in SPLITS:
        rows = table.filter(pc.equal(table["split"], split))
        columns = {"images": rows["image"], "queries": rows["query"], "attributes": flat(rows[answer_column(rows)])[1]}
        distinct = {name: pc.count_distinct(cells).as_py() for name, cells in columns.items()}
        counts[split] = {"rows": len(rows), **distinct}
    return counts


def word_counts(table: pa.Table, column: str) -> Counts:
    """How many rows of each split have a word of a column, words in order."""
    row, words = flat(table[column])
    split = np.array([*SPLITS, None], object)[checks.split_codes(table)][row]
    once = pa.table({"row": row, "word": words, "split": pa.array(split, pa.string())})
    once = once.group_by(["row", "word", "split"]).aggregate([])  # an attribute may be listed twice
    grouped = once.filter(pc.and_(pc.is_valid(once["word"]), pc.is_valid(once["split"]))).group_by(["word", "split"])
    counts: Counts = {}
    for group in grouped.aggregate([([], "count_all")]).sort_by("word").to_pylist():
        counts.setdefault(group["word"], dict.fromkeys(SPLITS, 0))[group["split"]] = group["count_all"]
    return counts
