"""README, docs and all that they link to, as a site: `python tools/build_site.py site` (needs the extra `docs`).

The pages are written for a code-hosting page. They are staged in a mirror of the repository, so that the same relative
links hold on the site; only what a generator can't do by itself is changed there: TeX becomes MathML, so that no script
or font is fetched; notebooks become pages; folders without a page of their own are not linked.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import yaml
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
TEX = re.compile(r"(\${1,2})(?=\S)([^$]+?)(?<=\S)\1")
PAGES = (".md", ".ipynb")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with ``change`` applied to all but fenced blocks and code between backticks."""
    return "".join(part if i % 2 else change(part) for i, part in enumerate(CODE.split(text)))


def as_mathml(text: str) -> str:
    """$...$ and $$...$$ as MathML, which browsers draw by themselves; without a bar, which would end a table's cell."""

    def drawn(found: re.Match[str]) -> str:
        if found[1] == "$$":
            return convert(found[2].strip(), display="block")
        # In a span, since a line that starts with <math> would end its paragraph.
        return f"<span>{convert(found[2].strip())}</span>".replace("|", "&#x7C;")

    return TEX.sub(drawn, text)


def blank_before_lists(text: str) -> str:
    """A blank line before a list that follows a paragraph: code-hosting pages need none, the generator does."""
    return re.sub(r"^(?![-*|\s]|\d+\. )(.*\S)\n(?=(?:[-*]|\d+\.) )", r"\1\n\n", text, flags=re.MULTILINE)


def as_page(notebook: Path, staged: Path) -> str:
    """An executed notebook as Markdown; its pictures are written beside ``staged``."""
    parts = []
    for i, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for j, output in enumerate(cell.get("outputs", [])):
            if png := output.get("data", {}).get("image/png"):
                picture = staged.with_name(f"{staged.stem}-{i}-{j}.png")
                picture.write_bytes(base64.b64decode("".join(png)))
                parts.append(f"![what the code above draws]({picture.name})")
            else:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def stage(folder: Path) -> list[str]:
    """Mirror README, docs and what they link to, directly or not; returns the pages. ValueError for a broken link."""
    waiting = [Path("README.md"), *sorted(page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md"))]
    for path in waiting:  # grows as links are followed
        staged = folder / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in PAGES:
            shutil.copyfile(ROOT / path, staged)
            continue
        text = as_page(ROOT / path, staged) if path.suffix == ".ipynb" else (ROOT / path).read_text(encoding="utf-8")

        def followed(part: str, path: Path = path, staged: Path = staged) -> str:
            for target in LINK.findall(part):
                there = (ROOT / path.parent / unquote(target)).resolve()
                if (staged.parent / target).is_file():  # a notebook's picture
                    continue
                if not there.is_relative_to(ROOT) or not there.exists():
                    raise ValueError(f"{path} links to {target}, which does not exist; correct the link")
                if there.is_dir() and not (there / "README.md").exists():
                    part = re.sub(rf"\[([^\]]*)\]\({re.escape(target)}\)", r"\1", part)
                    continue
                found = (there / "README.md" if there.is_dir() else there).relative_to(ROOT)
                if found not in waiting:
                    waiting.append(found)
            return as_mathml(blank_before_lists(re.sub(r"(\]\([^)\s]+)\.ipynb(?=[)#])", r"\1.md", part)))

        staged.with_suffix(".md").write_text(outside_code(text, followed), encoding="utf-8")
    return sorted(str(path.with_suffix(".md")) for path in waiting if path.suffix in PAGES)


def build(out: Path) -> None:
    """Write the site to ``out``; raises ValueError for a broken link, CalledProcessError where the generator warns.

    Pages of docs/ that mkdocs.yml does not name go to the end of its group "How to".
    """
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        pages = stage(Path(temporary) / "pages")
        named, guides = str(config["nav"]), next(group["How to"] for group in config["nav"] if "How to" in group)
        guides += [page for page in pages if page.startswith("docs/") and f"'{page}'" not in named]
        config |= {"docs_dir": "pages", "site_dir": "site"}
        config["plugins"]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT / "src")]
        (Path(temporary) / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=temporary, check=True)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(Path(temporary) / "site", out)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
    print(f"open {sys.argv[1]}/index.html")
