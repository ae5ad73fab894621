"""Build what a user installs, and try it in a bare environment of each Python: no extra, no checkout, an empty folder.

    python tools/check_wheels.py 3.11 3.12 3.13

Needs git and uv (`pip install uv`); a Python is a version or a path. The wheel is built from the sdist, as an installer
that finds no wheel does, and takes the newest of every dependency. The environments are temporary: 6 GB, most of it
PyTorch's CUDA libraries, which uv keeps once for all of them.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = "progressive_attention"
PUBLIC = f"""
import pathlib, {PACKAGE}
from {PACKAGE} import *
picture = pathlib.Path({PACKAGE}.__path__[0], "assets", "examples", "mref.png")
assert "site-packages" in picture.parts, picture
pathlib.Path("picture.png").write_bytes(picture.read_bytes())
"""
TRIED = (  # after PUBLIC, which leaves picture.png
    "--version",
    "list",
    "predict --weights mref-pan picture.png --query 7",
    "render mbg --count 4 --out sheet.png",
    "train --data mref --images 64 --epochs 1 --batch 16 --out run",
    "predict --weights run picture.png --query 7 --out asked",
    "report run",
)
LACKING = {  # commands that need an extra, and must say which
    "serve": "demo",
    "export --weights mref-san --out san.onnx": "export",
    "train --data mref --images 64 --backbone vgg16 --out other": "backbones",
}


def main(pythons: list[str]) -> None:
    """Build, compare with the checkout, try; a command of a trial that fails is shown with its output, exit code 1."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(["uv", "build", "--quiet", "--out-dir", folder / "dist", ROOT], folder)
        (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
        compare(sdist, wheel)
        print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB; {wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        for i, python in enumerate(pythons):
            print(python, trial(python, wheel, folder / str(i)), sep=": ", flush=True)


def compare(sdist: Path, wheel: Path) -> None:
    """ValueError unless the sdist has what git has but for weights/, and the wheel what git has of the package."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name and not name.startswith("weights/")}
    source = f"src/{PACKAGE}/"
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames()} - {"PKG-INFO"}
    with zipfile.ZipFile(wheel) as archive:
        installed = {f"src/{name}" for name in archive.namelist() if name.startswith(f"{PACKAGE}/")}
    of_package = {name for name in tracked if name.startswith(source)}
    for path, names, expected in ((sdist, packed, tracked), (wheel, installed, of_package)):
        if names != expected:
            more = sorted(names - expected)
            raise ValueError(f"{path.name} lacks {sorted(expected - names)}, and has {more} that git lacks")


def trial(python: str, wheel: Path, folder: Path) -> str:
    """Install the wheel in an environment of its own, run TRIED in an empty folder; returns what versions it ran on."""
    environment, empty = folder / "environment", folder / "empty"
    empty.mkdir(parents=True)
    run(["uv", "venv", "--quiet", "--no-python-downloads", "--python", python, environment], folder)
    run(["uv", "pip", "install", "--quiet", "--python", environment, wheel], folder)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    run([scripts / "python", "-c", PUBLIC], empty)
    for command in TRIED:
        run([scripts / "pan", *command.split()], empty)
    for command, extra in LACKING.items():
        run([scripts / "pan", *command.split()], empty, refused=f"pip install 'progressive-attention[{extra}]'")
    frozen = run(["uv", "pip", "freeze", "--quiet", "--python", environment], folder).splitlines()
    direct = {re.split(r"\W", name, maxsplit=1)[0] for name in PROJECT["dependencies"]}
    return ", ".join(line for line in frozen if line.partition("==")[0] in direct)


def run(command: list[str | Path], folder: Path, refused: str = "") -> str:
    """A command's output; or, where it is to be refused, its error, which must hold these words and have exit code 2.

    Its scene cache stays in the folder, and the caller's PYTHONPATH is not seen. Exits with what it said when it fails.
    """
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    inside = {**outside, "PAN_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=inside, capture_output=True, text=True, check=False)
    if done.returncode != (2 if refused else 0) or refused not in done.stderr:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
