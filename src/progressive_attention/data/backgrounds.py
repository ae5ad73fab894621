"""Background photographs for MBG: the embedded pack, or any folder of the user's.

Legend: H x W pixels; a photograph is (H, W, 3) uint8 RGB in its own resolution.
"""

import json
import warnings
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from progressive_attention.config import SPLITS
from progressive_attention.data.images import opened

PACK = Path(__file__).parent.parent / "assets" / "backgrounds"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
CACHE_BYTES = 256 * 2**20


class Photographs:
    """The photographs of one split: ``paths``, ``sizes`` (height, width), ``fingerprint``, ``load(i)``.

    The embedded pack is split by its splits.json; a user's folder (read recursively) by the sha256 of each relative
    path, about 60/20/20, so adding a photograph moves no other. Protocol ``authors`` uses all of them for every
    split. Photographs smaller than ``side``, unreadable and far too large ones are skipped with a warning; they are
    never resized. The fingerprint hashes names and contents; of a user's folder names, sizes and modification times.
    """

    def __init__(self, split: str, protocol: str = "paper", folder: Path | None = None, side: int = 100) -> None:
        root = PACK if folder is None else Path(folder).expanduser()
        usable = scan(root, side)
        if folder is None:
            listed = json.loads((root / "splits.json").read_text(encoding="utf-8"))
            members = {part: [name for name in usable if name in listed[part]] for part in SPLITS}
        else:
            members = {part: [name for name in usable if hashed_split(name) == part] for part in SPLITS}
        if protocol == "authors":
            members[split] = list(usable)
        elif empty := [part for part in SPLITS if not members[part]]:
            got = f"{len(usable)} in all and none for {', '.join(empty)}"
            raise ValueError(f"{root}: expected photographs for every split, got {got}; add some (split by name)")
        self.paths = [root / name for name in members[split]]
        self.sizes = [usable[name] for name in members[split]]
        self.fingerprint = fingerprint(root, members[split], contents=folder is None)
        largest = max(3 * height * width for height, width in self.sizes)
        self.load = lru_cache(maxsize=max(1, CACHE_BYTES // largest))(self._load)

    def __len__(self) -> int:
        return len(self.paths)

    def _load(self, i: int) -> np.ndarray:
        """Photograph i, (H, W, 3) uint8; orientation tags are ignored, so H and W are those of the header."""
        with opened(self.paths[i], str(self.paths[i])) as image:
            return np.asarray(image.convert("RGB"))


def scan(root: Path, side: int) -> dict[str, tuple[int, int]]:
    """Usable photographs below a folder: relative posix path -> (height, width), sorted; reads only headers."""
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of photographs, got no such folder; check --backgrounds")
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    sizes = {name: header_size(root / name) for name in names}
    usable = {name: size for name, size in sizes.items() if min(size) >= side}
    skipped = f"{len(names) - len(usable)} unreadable or smaller than {side} x {side} pixels"
    if not usable:
        raise ValueError(f"{root}: expected photographs ({', '.join(SUFFIXES)}), got {skipped}; check --backgrounds")
    if len(usable) < len(names):
        warnings.warn(f"{root}: skipped {skipped}; {len(usable)} photographs left", stacklevel=3)
    return usable


def header_size(path: Path) -> tuple[int, int]:
    """(height, width) of a photograph, (0, 0) for a broken or a far too large one."""
    if not path.is_file():  # a pipe would be waited for
        return 0, 0
    try:
        with opened(path, str(path)) as image:
            return image.height, image.width
    except ValueError:
        return 0, 0


def hashed_split(name: str) -> str:
    """Split of a user's photograph, from its relative path alone."""
    share = int(sha256(name.encode()).hexdigest()[:8], 16) / 2**32
    return SPLITS[(share >= 0.6) + (share >= 0.8)]


def fingerprint(root: Path, names: list[str], contents: bool) -> str:
    """sha256 over the photographs' names and either their contents or their sizes and modification times."""
    digest = sha256()
    for name in names:
        stat = (root / name).stat()
        state = sha256((root / name).read_bytes()).digest() if contents else f"{stat.st_size} {stat.st_mtime_ns}"
        digest.update(repr((name, state)).encode())
    return digest.hexdigest()
