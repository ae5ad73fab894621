"""Time and memory of `import_visual_genome` on made-up annotations of Visual Genome's real size.

python benchmarks/visual_genome_scale.py FOLDER [--images 108077] [--version 1.4]

FOLDER takes about 1.2 GB: annotations, an archive and a folder with empty files in place of photographs, and the data
set. They stay there for the next run; delete it afterwards.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from progressive_attention.data.visual_genome import import_visual_genome


def main() -> None:
    """Generate what is not there yet, then import it in a fresh process and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=108_077)
    parser.add_argument("--version", choices=("1", "1.2", "1.4"), default="1.4")
    parser.add_argument("--measure", action="store_true", help="only import, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.folder)
    if not arguments.folder.exists():
        generate(arguments.folder, arguments.images, arguments.version)
    for path in sorted(arguments.folder.glob("*.json")):
        print(f"{path.name}: {path.stat().st_size / 1e6:,.0f} MB")
    subprocess.run([sys.executable, __file__, str(arguments.folder), "--measure"], check=True)


def generate(folder: Path, images: int, version: str) -> None:
    """Annotations, and empty images: half of them in images.zip, half in the folder VG_100K_2."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from generated_genome import write_genome

    started = time.perf_counter()
    (folder / "images" / "VG_100K_2").mkdir(parents=True)
    print(write_genome(folder, images=images, version=version))
    records = json.loads((folder / "image_data.json").read_text())
    with zipfile.ZipFile(folder / "images" / "images.zip", "w") as archive:
        for record in records:
            name = record["url"].rpartition("/")[2]
            if "VG_100K_2" in record["url"]:
                (folder / "images" / "VG_100K_2" / name).touch()
            else:
                archive.writestr(f"VG_100K/{name}", b"")
    print(f"generated in {time.perf_counter() - started:.0f} s")


def measure(folder: Path) -> None:
    """Import, and print wall and processor time and the process's largest memory (of this process alone)."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    started, busy = time.perf_counter(), time.process_time()
    told = import_visual_genome(folder, folder / "images", folder / "out")
    wall, busy = time.perf_counter() - started, time.process_time() - busy
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({name: told[name] for name in ("counts", "rejected", "mended", "notes")}, indent=1))
    memory = f"{int(peak[1]) / 2**20:.2f} GiB" if peak else "unknown"
    print(f"import: {wall:.1f} s wall, {busy:.1f} s of processor time, largest memory {memory}")


if __name__ == "__main__":
    main()
