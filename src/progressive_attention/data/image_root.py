"""Image files below one folder, and never outside of it.

A path is written as in a table: relative, with forward slashes. Visual Genome's own two zips may stay packed:
``images.zip/VG_100K/1.jpg`` is a member of one.
"""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ZIPS = ("images.zip", "images2.zip")
Member = tuple[zipfile.ZipFile, zipfile.ZipInfo]
MAX_MEMBER = 256 * 2**20  # bytes of an unpacked zip member; no photograph comes near


class ImageRoot:
    """Opens and lists images below ``root``. Raises ValueError if that is no folder."""

    def __init__(self, root: Path | str) -> None:
        if not os.path.isdir(root):  # unlike Path.is_dir it is false, too, for what can't be a path
            raise ValueError(f"{root} is not a folder; give the one that holds the images")
        self.root = Path(root).resolve()

    def open(self, path: str) -> BinaryIO:
        """A file's bytes; raises ValueError for one that is missing, outside of the root, or too large a member."""
        if packed := self.packed(path):
            return io.BytesIO(unpacked(path, *packed))
        full = self.inside(path)
        try:
            if stat.S_ISREG(full.stat().st_mode):  # a pipe would be waited for
                return full.open("rb")
        except OSError as error:
            what = "does not exist" if isinstance(error, FileNotFoundError) else f"can't be opened ({error.strerror})"
            remedy = f"is {self.root} the right folder? of zips only {' and '.join(ZIPS)} are read"
            raise ValueError(f"{full} {what}; {remedy}") from error
        raise ValueError(f"{full} is no file")

    def check(self, path: str) -> None:
        """Raises ValueError for a path out of the root, or one that is not written from there on."""
        if not self.packed(path):
            self.inside(path)
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"{path!r}: write paths from {self.root} on, without '..'")

    def has(self, path: str) -> bool:
        """Whether a path is a file below the root; false for one that leads outside of it."""
        try:
            return bool(self.packed(path)) or stat.S_ISREG(self.inside(path).stat().st_mode)
        except (OSError, ValueError):
            return False

    def inside(self, path: str) -> Path:
        """A path on disk; raises ValueError if it, or a link on its way, leads out of the root."""
        try:
            full = (self.root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle, or what no path can hold
            raise ValueError(f"{path!r} leads nowhere ({error})") from error
        if not full.is_relative_to(self.root):
            raise ValueError(f"{path!r} lies outside {self.root}; paths, and links on their way, must stay in it")
        return full

    def packed(self, path: str) -> Member | None:
        """A member of Visual Genome's zips; it is looked up in there, so that no name can lead elsewhere."""
        path = path.removeprefix("./")
        return self.members.get(path) if path.startswith(ZIPS) else None

    @cached_property
    def members(self) -> dict[str, Member]:
        """Path -> archive and member, for Visual Genome's zips in the root; raises ValueError for a broken one."""
        members = {}
        for full in (self.inside(name) for name in ZIPS if (self.root / name).is_file()):
            try:
                archive = zipfile.ZipFile(full)
            except Exception as error:  # zipfile, zlib and lzma raise whatever a damaged archive runs into
                raise ValueError(f"{full} can't be read as a zip ({error}); fetch it again") from error
            members |= {f"{full.name}/{info.filename}": (archive, info) for info in archive.infolist()}
        return members

    def files(self) -> Iterator[str]:
        """Paths of all image files below the root, folders first; links to folders are not followed."""
        for folder, folders, names in os.walk(self.root):
            folders.sort()
            below = Path(folder).relative_to(self.root)
            yield from ((below / name).as_posix() for name in sorted(names) if name.lower().endswith(SUFFIXES))
        yield from (path for path in self.members if path.lower().endswith(SUFFIXES))

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """File name -> the paths that end with it, in ``files``' order."""
        paths: dict[str, list[str]] = {}
        for path in self.files():
            paths.setdefault(path.rpartition("/")[2], []).append(path)
        return paths

    def named(self, name: str, folder: str = "") -> str | None:
        """The first path that ends with a file name, rather one in a ``folder``, within the root; None without."""
        paths = sorted(self.by_name.get(name, ()), key=lambda path: PurePosixPath(path).parent.name != folder)
        return next((path for path in paths if self.has(path)), None)


def unpacked(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A zip member's bytes; raises ValueError for one that is too large or damaged."""
    if info.file_size > MAX_MEMBER:
        raise ValueError(f"{path} unpacks to {info.file_size:,} bytes, expected at most {MAX_MEMBER:,}")
    try:
        with archive.open(info) as file:
            return file.read(info.file_size + 1)  # about what is stated, whatever a bomb would unpack to
    except Exception as error:  # as above
        raise ValueError(f"{path} can't be unpacked ({error}); fetch the archive again") from error
