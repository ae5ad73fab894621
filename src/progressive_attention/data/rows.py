"""Rows on their way into a data set: what every importer does with them before they are written.

Nothing vanishes: a row that can't be used goes to ``rejected`` with its reason, and what is mended is counted.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError

from progressive_attention.config import SPLITS
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import FORMATS, MAX_PIXELS, labelled, target, upright_size
from progressive_attention.data.manifest import split_of
from progressive_attention.data.table import BOX, REJECTED, SCHEMA, as_table, write_dataset

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Box = tuple[float | None, float | None, float | None, float | None]


class Refused(NamedTuple):
    """Why a row can't be used: ``reason``, a few words that many rows share, and ``detail``, what was there."""

    reason: str
    detail: str


class Refusal(ValueError):
    """Raised with a Refused's two fields."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)


class Draft:
    """R rows of one source, those already rejected, and what was mended.

    ``columns``: names of ``table.SCHEMA`` -> R values, None where nothing is stated; image and query always are.
    ``places`` (R,) tell where each row stands in its source, e.g. "line 7"; "" where nothing would help.
    """

    def __init__(self, columns: Mapping[str, Iterable[Any]], places: Iterable[str] | None = None) -> None:
        self.columns = {name: list(values) for name, values in columns.items()}
        self.places = [""] * len(self) if places is None else list(places)
        self.rejected: dict[str, list[Any]] = {name: [] for name in REJECTED.names}
        self.mended: Counter[str] = Counter()
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.columns["image"])

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> "Draft":
        """From one mapping a row; what a row lacks is None."""
        return cls({name: [row.get(name) for row in rows] for name in names})

    def refuse(
        self, refused: Refused, image: str | None = None, query: str | None = None, id: int | None = None
    ) -> None:
        """Note something that never became a row, or is one no more."""
        for name, value in zip(REJECTED.names, (image, query, id, *refused), strict=True):
            self.rejected[name].append(value)

    def sift(self, results: Iterable[T | Refused]) -> list[T]:
        """Take out the rows whose result is a Refused; returns the results of the others."""
        found = list(results)
        keep = [not isinstance(result, Refused) for result in found]
        nothing = [None] * len(self)
        names = zip(self.columns["image"], self.columns["query"], self.columns.get("id", nothing), strict=True)
        for result, place, (image, query, id) in zip(found, self.places, names, strict=True):
            if isinstance(result, Refused):
                where = ": ".join(part for part in (place, result.detail) if part)
                self.refuse(Refused(result.reason, where), image, query, id)
        self.columns = {name: list(compress(values, keep)) for name, values in self.columns.items()}
        self.places = list(compress(self.places, keep))
        return [result for result in found if not isinstance(result, Refused)]

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
        """Check the rows against the files they name, and write the data set; returns what dataset.json says.

        ``home`` as in ``write_dataset``. Raises ValueError if no row can be used.
        """
        drop_contradictions(self)
        take_sizes(self, images)
        fill_splits(self)
        fit_boxes(self)
        if masks is not None:
            check_masks(self, masks)
        drop_repeats(self)
        if not len(self):
            raise ValueError(f"no row of {settings.get('table', source)} can be used: {self.complaint()}")
        always = ("image", "query", "attribute", "attributes", "split")
        stated = {n: v for n, v in self.columns.items() if n in always or any(value is not None for value in v)}
        return write_dataset(
            out,
            as_table(stated, SCHEMA),
            as_table(self.rejected, REJECTED),
            source=source,
            images=images.root,
            masks=None if masks is None else masks.root,
            home=home,
            settings=settings,
            counts=self.counts(),
            mended=dict((+self.mended).most_common()),
            notes=self.notes,
        )

    def complaint(self) -> str:
        """What was rejected, and the first of it."""
        if not self.rejected["reason"]:
            return "it has none"
        reasons = Counter(self.rejected["reason"]).most_common()
        first = [str(self.rejected[name][0]) for name in ("image", "query", "detail") if self.rejected[name][0]]
        return f"{'; '.join(f'{reason}: {count}' for reason, count in reasons)}; the first: {', '.join(first)}"

    def counts(self) -> dict[str, Any]:
        """How many images, rows, classes (queries) and attributes there are, and how many rows a split has."""
        words = set(self.columns.get("attribute", ()))
        for name in ("attributes", "absent"):
            words |= {word for listed in self.columns.get(name, ()) for word in listed or ()}
        splits = Counter(self.columns["split"])
        return {
            "images": len(set(self.columns["image"])),
            "rows": len(self),
            "classes": len(set(self.columns["query"])),
            "attributes": len(words),
            "splits": {split: splits[split] for split in SPLITS},
        }


def attempt(judge: Callable[..., T], *arguments: Any) -> T | Refused:
    """What ``judge`` returns, or why it refused."""
    try:
        return judge(*arguments)
    except Refusal as refusal:
        return Refused(*refusal.args)


def in_threads(judge: Callable[[Key], T], keys: Iterable[Key]) -> dict[Key, T | Refused]:
    """``attempt`` for each distinct key, many at a time, as files take their time."""
    distinct = list(dict.fromkeys(keys))
    with ThreadPoolExecutor() as threads:
        return dict(zip(distinct, threads.map(partial(attempt, judge), distinct), strict=True))


# --- words ------------------------------------------------------------------------------------------------------------


def clean(word: str, mended: Counter[str]) -> str:
    """A word without blanks around it, in Unicode's composed form (NFC); case stays. Counts what it changes."""
    short = word.strip()
    composed = unicodedata.normalize("NFC", short)
    mended["words with blanks around them"] += short != word
    mended["words not in NFC (Unicode's composed form)"] += composed != short
    return composed


def clean_list(words: Iterable[str], mended: Counter[str]) -> tuple[str, ...]:
    """``clean`` words, each once, blank ones left out. Counts what it changes."""
    cleaned = [clean(word, mended) for word in words]
    distinct = tuple(dict.fromkeys(word for word in cleaned if word))
    mended["words listed twice"] += sum(map(bool, cleaned)) - len(distinct)
    return distinct


# --- files ------------------------------------------------------------------------------------------------------------


def look(root: ImageRoot, kind: str, read: Callable[[Image.Image], T], path: str) -> T:
    """What ``read`` takes from an image file, ``kind`` "image" or "mask"; raises Refusal for one that can't be used."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise Refusal(f"{kind} outside", f"{path!r}: write paths from {root.root} on, without '..'")
    try:
        if root.split(path)[0] is None:
            root.inside(path)
    except (ValueError, OSError, RuntimeError) as error:  # links that lead out, or in circles
        raise Refusal(f"{kind} outside", str(error)) from error
    if not root.has(path):
        raise Refusal(f"{kind} file missing", f"{path!r} is no file below {root.root}")
    broken = {"image": "image unreadable", "mask": "mask unusable"}[kind]
    try:
        with root.open(path) as file, Image.open(file, formats=FORMATS) as picture:
            size = f"{picture.width} x {picture.height} pixels"
            if 0 < picture.width * picture.height <= MAX_PIXELS:
                return read(picture)
    except Image.DecompressionBombError as error:
        raise Refusal(f"{kind} too large", f"{path!r}: {error}") from error
    except UnidentifiedImageError as error:
        raise Refusal(broken, f"{path!r} is no image; expected {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises whatever a damaged file runs into
        raise Refusal(broken, f"{path!r}: {error}") from error
    raise Refusal(f"{kind} too large", f"{path!r} has {size}, expected 1 to {MAX_PIXELS:,}")


def take_sizes(draft: Draft, images: ImageRoot) -> None:
    """Fill width and height from the images' headers, upright; takes out rows whose image can't be opened."""
    columns = draft.columns
    short = {path: PurePosixPath(path).as_posix() for path in set(columns["image"])}
    columns["image"] = [short[path] for path in columns["image"]]  # ./a.jpg is a.jpg: one image, one name
    opened = in_threads(partial(look, images, "image", upright_size), columns["image"])
    sizes = draft.sift([opened[path] for path in columns["image"]])
    stated = zip(*(draft.columns.get(name, [None] * len(draft)) for name in ("width", "height")), strict=True)
    wrong = sum(
        any(one not in (None, true) for one, true in zip(pair, size, strict=True))
        for pair, size in zip(stated, sizes, strict=True)
    )
    if wrong:
        draft.mended["sizes that are not the image's"] += wrong
        draft.notes.append(
            f"{wrong} rows state another size than their image has, which is taken; were images resized or turned "
            "after their boxes were drawn?"
        )
    draft.columns |= {name: [size[at] for size in sizes] for at, name in enumerate(("width", "height"))}


def mask_size(root: ImageRoot, key: tuple[str, bool]) -> tuple[int, int]:
    """(width, height) of a mask's file, decoded; its pixels must be numbers where values are ``asked`` for."""
    path, asked = key

    def read(picture: Image.Image) -> tuple[int, int]:
        size = upright_size(picture)
        (labelled if asked else target)(picture)
        return size

    return look(root, "mask", read, path)


def check_masks(draft: Draft, masks: ImageRoot) -> None:
    """Take out rows whose mask can't be decoded, or is not of its image's size."""
    if "mask" not in draft.columns:
        return
    nothing = [None] * len(draft)
    values = [draft.columns.get(name, nothing) for name in ("mask_value", "mask_void")]
    asked = [value is not None or void is not None for value, void in zip(*values, strict=True)]
    keys = list(zip(draft.columns["mask"], asked, strict=True))
    found = in_threads(partial(mask_size, masks), [key for key in keys if key[0] is not None])

    def fault(key: tuple[str, bool], width: int, height: int) -> Refused | None:
        size = found.get(key, (width, height))
        if isinstance(size, Refused) or size == (width, height):
            return size if isinstance(size, Refused) else None
        return Refused("mask unusable", f"{key[0]!r} is {size[0]} x {size[1]} pixels, its image {width} x {height}")

    draft.sift(map(fault, keys, draft.columns["width"], draft.columns["height"]))


# --- rows -------------------------------------------------------------------------------------------------------------


def fill_splits(draft: Draft) -> None:
    """Where the source names no splits: by the hash of the image's path."""
    images = draft.columns["image"]
    if "split" not in draft.columns:
        splits = {image: split_of(image) for image in set(images)}
        draft.columns["split"] = [splits[image] for image in images]


def fitted(box: Box, width: int, height: int) -> Box:
    """A box x0, y0, x1, y1 (half open) clipped to its image; raises Refusal for one that can't be used."""
    if all(value is None for value in box):
        return box
    stated = f"box {box} in an image of {width} x {height}"
    if None in box:
        raise Refusal("incomplete box", stated)
    x0, y0, x1, y1 = (float(value or 0) for value in box)
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise Refusal("box not finite", stated)
    if x1 <= x0 or y1 <= y0:
        raise Refusal("empty box", stated)
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise Refusal("box outside the image", stated)
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def fit_boxes(draft: Draft) -> None:
    """Clip boxes to their images; takes out rows whose box can't be used."""
    if BOX[0] not in draft.columns:
        return
    sizes = draft.columns["width"], draft.columns["height"]
    stated = zip(*(draft.columns[name] for name in BOX), strict=True)
    results = [(attempt(fitted, box, *size), box) for box, *size in zip(stated, *sizes, strict=True)]
    draft.mended["boxes clipped to the image"] += sum(
        fit != box for fit, box in results if not isinstance(fit, Refused)
    )
    boxes = draft.sift(fit for fit, _ in results)
    for at, name in enumerate(BOX):
        draft.columns[name] = [box[at] for box in boxes]


def drop_contradictions(draft: Draft) -> None:
    """Take out rows where an attribute is stated both to hold and to be absent."""
    columns = draft.columns
    if "absent" not in columns:
        return
    holds = columns["attributes"] if "attributes" in columns else [(word,) for word in columns["attribute"]]
    both = (sorted({*some} & {*(none or ())}) for some, none in zip(holds, columns["absent"], strict=True))
    draft.sift(Refused("contradiction", f"{words} both hold and are absent") if words else None for words in both)


def drop_repeats(draft: Draft) -> None:
    """Take out rows that say what an earlier one said."""
    seen: dict[tuple[Any, ...], str] = {}
    results: list[Refused | None] = []
    for row, place in zip(zip(*draft.columns.values(), strict=True), draft.places, strict=True):
        results.append(
            Refused("duplicate row", f"the same as {seen[row] or 'an earlier one'}") if row in seen else None
        )
        seen.setdefault(row, place)
    draft.sift(results)
