"""README, docs and all that they link to, as a site: `python tools/build_site.py site` (needs the extra `docs`).

The pages are written for a code-hosting page. They are staged in a mirror of the repository, so that the same relative
links hold on the site; only what a generator can't do by itself is changed there: TeX becomes MathML, so that no script
or font is fetched; notebooks become pages; folders without a page of their own are not linked.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import yaml
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
CODE = re.compile(r"(^```.*?^```|^ {4}.*?$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
TEX = re.compile(r"(\${1,2})(?=\S)([^$]+?)(?<=\S)\1")


def linked(text: str) -> list[str]:
    """Relative targets of a page's links and images, without their anchors."""
    return [unquote(target) for target in LINK.findall(outside_code(text, str, lambda code: ""))]


def outside_code(text: str, change, keep=str) -> str:  # noqa: ANN001
    """The text with ``change`` applied to all but code, and ``keep`` to code."""
    return "".join(keep(part) if i % 2 else change(part) for i, part in enumerate(CODE.split(text)))


def as_mathml(text: str) -> str:
    """$...$ and $$...$$ as MathML, which browsers draw by themselves; no bar in it, which would end a table's cell."""

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found[1] == "$$" else "inline"
        return convert(found[2].strip(), display=display).replace("|", "&#x7C;")

    return TEX.sub(drawn, text)


def as_page(notebook: Path, staged: Path) -> str:
    """An executed notebook as Markdown; its pictures are written beside ``staged``."""
    parts = []
    for i, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for j, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if "image/png" in data:
                picture = staged.with_name(f"{staged.stem}-{i}-{j}.png")
                picture.write_bytes(base64.b64decode("".join(data["image/png"])))
                parts.append(f"![output of the code above]({picture.name})")
            else:
                told = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{told.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def stage(folder: Path) -> list[str]:
    """Copy README, docs and what they link to, directly or not; returns the pages' paths. Broken links: ValueError."""
    waiting = [Path("README.md"), *sorted(page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md"))]
    seen = set(waiting)
    for page in waiting:  # grows as links are followed
        staged = folder / page
        staged.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix not in (".md", ".ipynb"):
            shutil.copyfile(ROOT / page, staged)
            continue
        notebook = page.suffix == ".ipynb"
        text = as_page(ROOT / page, staged) if notebook else (ROOT / page).read_text(encoding="utf-8")
        unlinked = set()
        for target in linked(text):
            there = (ROOT / page.parent / target).resolve()
            if notebook and (staged.parent / target).exists():
                continue
            if not there.is_relative_to(ROOT) or not there.exists():
                raise ValueError(f"{page} links to {target}, which does not exist; correct the link")
            if there.is_dir() and not (there / "README.md").exists():
                unlinked.add(target)
                continue
            found = (there / "README.md" if there.is_dir() else there).relative_to(ROOT)
            if found not in seen:
                seen.add(found)
                waiting.append(found)

        def mended(part: str, unlinked: set[str] = unlinked) -> str:
            for target in unlinked:
                part = re.sub(rf"\[([^\]]*)\]\({re.escape(target)}\)", r"\1", part)
            return as_mathml(re.sub(r"\.ipynb(?=[)#])", ".md", part))

        staged.with_suffix(".md").write_text(outside_code(text, mended), encoding="utf-8")
    return sorted(str(page.with_suffix(".md")) for page in waiting if page.suffix in (".md", ".ipynb"))


def build(out: Path) -> None:
    """Write the site to ``out``; raises ValueError for broken links, CalledProcessError where the generator warns."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        pages = stage(Path(temporary) / "pages")
        named = str(config["nav"])
        guides = next(group["Guides"] for group in config["nav"] if "Guides" in group)
        guides += [page for page in pages if page.startswith("docs/") and page not in named]
        config |= {"docs_dir": "pages", "site_dir": "site"}
        config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT / "src")]
        (Path(temporary) / "mkdocs.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [sys.executable, "-m", GENERATOR, "build", "--strict"]
        subprocess.run(command, cwd=temporary, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(Path(temporary) / "site", out)
