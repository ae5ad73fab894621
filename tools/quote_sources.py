"""Copy into docs/ what its pages quote of the source: `python tools/quote_sources.py`, after a change there.

A quotation is a block of Python below a line `<!-- source: module.name -->`, module and name of this package.
"""

import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
QUOTATION = re.compile(r"(^<!-- source: ([\w.]+) -->\n```python\n).*?(^```$)", re.DOTALL | re.MULTILINE)


def source(name: str) -> str:
    """The source of a function, class or method; AttributeError or ImportError where there is none of that name."""
    return textwrap.dedent(inspect.getsource(pkgutil.resolve_name(f"progressive_attention.{name}")))


def quoted(text: str) -> str:
    """A page's text with every quotation as the source is now."""
    return QUOTATION.sub(lambda found: found[1] + source(found[2]) + found[3], text)


if __name__ == "__main__":
    for page in DOCS.rglob("*.md"):
        old = page.read_text(encoding="utf-8")
        if (new := quoted(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(DOCS.parent))
