"""Put onnxruntime-web, as its authors publish it, among what ships; pages of ``pan export --format web`` hold it.

    npm pack onnxruntime-web@1.30.0
    python tools/vendor_onnxruntime_web.py onnxruntime-web-1.30.0.tgz

The published package has no licence texts; they are those of the installed onnxruntime, built from the same sources.
"""

import json
import lzma
import sys
import tarfile
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

from progressive_attention.files import replacing, write_json
from progressive_attention.predict.export_web import RUNTIME, RUNTIME_FILES


def vendor(package: Path, folder: Path) -> None:
    """Fill a folder from the package; raises KeyError for one without these files."""
    with tarfile.open(package) as archive:
        version = json.loads(read(archive, "package/package.json"))["version"]
        files = {name: read(archive, f"package/dist/{name}") for name in RUNTIME_FILES}
    for name, content in files.items():
        write_bytes(folder / f"{name}.xz", lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    wheel = distribution("onnxruntime")
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        write_bytes(folder / name, Path(str(wheel.locate_file(f"onnxruntime/{name}"))).read_bytes())
    hashes = {name: sha256(content).hexdigest() for name, content in files.items()}
    about = {"version": version, "licences_from": f"onnxruntime {wheel.version}", "sha256": hashes}
    write_json(folder / "onnxruntime-web.json", about)


def read(archive: tarfile.TarFile, name: str) -> bytes:
    """The bytes of a file in the archive."""
    file = archive.extractfile(name)
    assert file is not None, f"{name} is no file"
    return file.read()


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    vendor(Path(sys.argv[1]), RUNTIME)
