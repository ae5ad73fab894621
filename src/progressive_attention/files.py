"""Files that are whole or absent: written beside their place, then renamed."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    from torch import Tensor


DIGEST = "sha256"  # the note of a safetensors file that holds ``digest_of`` it


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends well, and vanishes otherwise."""
    with temporary_for(path) as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 is for secrets, and results are there to be shared
        temporary.replace(path)


@contextmanager
def temporary_for(path: Path, folder: bool = False) -> Iterator[Path]:
    """A new hidden file or folder beside ``path``, to fill and rename; removed if it is still there at the end.

    First removes what killed processes left of ``path``: unlike what others are filling now, that has no lock. Where a
    disk knows no such locks, it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.pan-"
    for left in path.parent.glob(f"{escape(prefix)}*"):
        with suppress(OSError), locked(left, wait=False):
            remove(left)
    if folder:
        temporary = Path(tempfile.mkdtemp("", prefix, path.parent))
    else:
        handle, name = tempfile.mkstemp(path.suffix, prefix, path.parent)
        os.close(handle)
        temporary = Path(name)
    try:
        with ExitStack() as stack:
            with suppress(OSError):
                stack.enter_context(locked(temporary, wait=True))
            yield temporary
    finally:
        remove(temporary)


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold a file's or folder's lock; OSError where there are none (Windows), and if it is held and not waited for."""
    if fcntl is None:
        raise OSError("no locks")
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Take away a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all: a list of plain values on one line, so that a curve is one line of a diff."""
    text = json.dumps(value, indent=1)
    # No string holds a line break: JSON escapes them, so this only joins lines of the layout.
    text = re.sub(r'\[\n\s+([^\[\]{}"]+)\n\s*\]', lambda plain: "[" + re.sub(r"\n\s+", " ", plain[1]) + "]", text)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raises ValueError that names the file where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8 and numbers of 5000 digits among them
        raise ValueError(f"{path} is not valid JSON ({error}); it may be truncated, write or fetch it again") from error


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", notes: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with a digest, whole or not at all; raises OSError naming it, on a full disk say."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(whole, temporary, {**(notes or {}), DIGEST: digest_of(whole, notes or {})})
        except SafetensorError as error:  # not an OSError, whatever the cause
            raise OSError(f"{path} can't be written ({error}); free some space or choose another folder") from error


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """The tensors and notes of a safetensors file; SafetensorError, OSError, ValueError (digest) if broken."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = file.metadata() or {}
    stated = notes.pop(DIGEST, None)
    if stated is not None and stated != digest_of(tensors, notes):
        raise ValueError("its content is not what was written: SHA-256 differs")
    return tensors, notes


def digest_of(tensors: "Mapping[str, Tensor]", notes: Mapping[str, str]) -> str:
    """SHA-256 of all names, shapes, types, values and notes."""
    from torch import uint8

    digest = sha256(json.dumps(notes, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(tensor.reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()
