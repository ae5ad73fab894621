"""Rows on their way into a data set: what every importer does with them before they are written.

Nothing vanishes: a row that can't be used goes to rejected.parquet with its reason, and what is repaired is counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from progressive_attention.config import SPLITS
from progressive_attention.data.cells import flat
from progressive_attention.data.checks import REPEATED, Finding, answer_column, judge, left_out, summary
from progressive_attention.data.file_checks import headed, mask_faults, open_files
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.table import REJECTED, SCHEMA, as_table, tidy, write_dataset

ALWAYS = ("image", "query", "attribute", "attributes", "split")  # other columns are written where they state something
REPAIRED = {
    "box reaching out of its image": "boxes clipped to the image",
    "incomplete box": "incomplete boxes left out",
    "image of another size": "sizes that are not the image's",
}


class Rejection(NamedTuple):
    """A row that can't be used: of REJECTED's columns."""

    image: str | None
    query: str | None
    id: int | None
    reason: str
    detail: str


@dataclass
class Draft:
    """Rows of one source in SCHEMA's types, those already rejected, what was repaired, and sentences for the user.

    ``place`` says where a row is in its source, e.g. "line 7".
    """

    table: pa.Table
    repaired: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejection] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    place: Callable[[int], str] = lambda row: ""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> "Draft":
        """From one mapping a row; what a row lacks is null."""
        repaired: Counter[str] = Counter()
        columns = {name: [row.get(name) for row in rows] for name in names}
        return cls(tidy(as_table(columns, SCHEMA), repaired), repaired)

    def write(
        self,
        out: Path,
        *,
        source: str,
        images: ImageRoot,
        masks: ImageRoot | None,
        settings: dict[str, Any],
        home: Path | None = None,
    ) -> dict[str, Any]:
        """Judge the rows and the files they name, and write the data set; returns dataset.json's content.

        ``home`` as in ``write_dataset``. Raises ValueError if no row can be used.
        """
        pictures, opened = open_files(self.table, images, masks, headed)
        table, findings = judge(self.table, pictures.sizes)
        findings = [*pictures.faults(), *findings, *mask_faults(table, pictures.sizes, opened)]
        gone = left_out(findings)
        self.rejected += [self.rejection(row, finding) for row, finding in sorted(gone.items())]
        for at, name in enumerate(("width", "height")):
            column = pa.array(pictures.sizes[:, at], SCHEMA.field(name).type)
            table = (table.drop_columns(name) if name in table.column_names else table).append_column(name, column)
        rows = table.take(pa.array(np.setdiff1d(np.arange(len(table)), list(gone)), pa.int64()))
        if not len(rows):
            raise ValueError(f"no row of {settings.get('table', source)} can be used: {self.complaint()}")
        self.count_repairs(findings)
        empty = [n for n in rows.column_names if n not in ALWAYS and rows[n].null_count == len(rows)]
        return write_dataset(
            out,
            rows.drop_columns(empty),
            as_table(dict(zip(REJECTED.names, zip(*self.rejected, strict=True), strict=True)), REJECTED)
            if self.rejected
            else REJECTED.empty_table(),
            source=source,
            images=images.root,
            masks=None if masks is None else masks.root,
            home=home,
            settings=settings,
            counts=counts_of(rows),
            mended=dict((+self.repaired).most_common()),
            notes=self.notes,
        )

    def rejection(self, row: int, finding: Finding) -> Rejection:
        """A row of the rejected table."""
        detail = finding.detail
        if finding.kind == REPEATED:
            detail = f"the same as {self.place(finding.rows[0]) or 'an earlier one'}"
        known = [n for n in ("image", "query", "id") if n in self.table.column_names]
        cells = {name: self.table[name][row].as_py() for name in known}
        where = ": ".join(part for part in (self.place(row), detail) if part)
        return Rejection(cells["image"], cells["query"], cells.get("id"), finding.kind, where)

    def count_repairs(self, findings: Sequence[Finding]) -> None:
        """Add what the rules repaired, and a note on sizes that were stated wrong."""
        counts = summary(findings)
        for kind, name in REPAIRED.items():
            self.repaired[name] += counts[kind]
        if wrong := counts["image of another size"]:
            self.notes.append(
                f"{wrong} rows state another size than their image has, which is taken; were images resized or turned "
                "after their boxes were drawn?"
            )

    def complaint(self) -> str:
        """What was rejected, and the first of it."""
        if not self.rejected:
            return "it has none"
        reasons = Counter(row.reason for row in self.rejected).most_common()
        first = ", ".join(
            part for part in (self.rejected[0].image, self.rejected[0].query, self.rejected[0].detail) if part
        )
        return f"{'; '.join(f'{reason}: {count}' for reason, count in reasons)}; the first: {first}"


def counts_of(rows: pa.Table) -> dict[str, Any]:
    """How many images, rows, classes (queries) and attributes there are, and how many rows a split has."""
    listed = [name for name in (answer_column(rows), "absent") if name in rows.column_names]
    splits = Counter(rows["split"].to_pylist())
    return {
        "images": len(rows["image"].unique()),
        "rows": len(rows),
        "classes": len(rows["query"].unique()),
        "attributes": len({word for name in listed for word in flat(rows[name])[1].unique().to_pylist()}),
        "splits": {split: splits[split] for split in SPLITS},
    }
