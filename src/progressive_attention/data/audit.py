"""An account of a data set's folder: ``pan data check``. Every image is decoded as training would, every mask once."""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from progressive_attention.config import SPLITS
from progressive_attention.data import checks, file_checks
from progressive_attention.data.checks import KINDS, Counts, Finding, Findings
from progressive_attention.data.images import UNREADABLE_SHARE
from progressive_attention.data.manifest import find_manifest, read_folder
from progressive_attention.data.table import answer_column, flat, word_sets

SEVERITIES = ("error", "warning", "note")


def audit(folder: Path, progress: file_checks.Progress | None = None) -> dict[str, Any]:
    """All that is found in a folder, ready for JSON; ``progress`` gets (files opened, files to open).

    "findings", errors first: kind, severity, remedy, and items (``checks.Finding``, rows from 1). "splits": rows of
    each, "usable" ones, images, queries and attributes. "words": the rows of each query and attribute by split.
    "errors", "warnings", "notes": how many items there are. "rejected": rows that the import left out. Raises
    ValueError as ``read_folder`` does.
    """
    manifest = read_folder(folder)
    table, read = manifest.table, file_checks.decoded
    images, masks = file_checks.open_files(table, manifest.images, manifest.masks, read, progress)
    image_size = file_checks.image_sizes(table, images)
    table, judged = checks.judge(table, image_size)
    if manifest.imported:  # the import wrote the files' sizes
        changed = "image changed since its import"
        judged = [f._replace(kind=changed) if f.kind == "image of another size" else f for f in judged]
    words = {"query": word_counts(table, "query"), "attribute": word_counts(table, answer_column(table))}
    digests = {path: file.content for path, file in images.items() if isinstance(file, file_checks.Opened)}
    findings = [
        *file_checks.unusable(table, "image", images),
        *judged,
        *file_checks.mask_faults(table, image_size, masks),
        *checks.empty_answers(table),
        *checks.disagreements(table),
        *checks.leaks(table, digests),
        *checks.empty_splits(table),
        *checks.word_faults("query", words["query"]),
        *checks.word_faults("attribute", words["attribute"]),
    ]
    findings += unusable_shares(table, findings)
    gone = checks.left_out(findings)
    usable = Counter(split for row, split in enumerate(table["split"].to_pylist()) if row not in gone)
    items: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for kind, subjects, rows, detail in findings:
        items[kind].append({"subjects": subjects, "rows": [row + 1 for row in rows], "detail": detail})
    return {
        "folder": str(folder),
        "table": str(find_manifest(folder)),
        "source": manifest.about.get("source"),
        "rows": len(table),
        "rejected": sum(manifest.about.get("rejected", {}).values()),
        "images": len(images),
        "masks": len(masks),
        "splits": {s: {"rows": n["rows"], "usable": usable[s], **n} for s, n in sizes(table).items()},
        "words": words,
        "findings": [
            {"kind": kind, "severity": severity, "remedy": remedy, "items": items[kind]}
            for kind, (severity, remedy) in KINDS.items()
            if items[kind]
        ],
        **{f"{s}s": sum(len(items[kind]) for kind in KINDS if KINDS[kind][0] == s) for s in SEVERITIES},
    }


def unusable_shares(table: pa.Table, findings: Sequence[Finding]) -> Findings:
    """Splits with more unusable images than training puts up with."""
    kinds = [kind for kind in KINDS if kind.startswith("image") and KINDS[kind][0] == "error"]
    bad = {path for finding in findings if finding.kind in kinds for path in finding.subjects}
    for split in SPLITS:
        images = set(table.filter(pc.equal(table["split"], split))["image"].drop_null().to_pylist())
        if (unusable := len(images & bad)) > UNREADABLE_SHARE * len(images):
            share = f"{unusable} of {len(images)} images ({unusable / len(images):.0%})"
            yield Finding("too many unusable images", [split], [], f"{share}, expected at most {UNREADABLE_SHARE:.0%}")


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
    counts: Counts = {}
    for split, words in zip(table["split"].to_pylist(), word_sets(table, column), strict=True):
        for word in words if split in SPLITS else ():
            counts.setdefault(word, dict.fromkeys(SPLITS, 0))[split] += 1
    return dict(sorted(counts.items()))
