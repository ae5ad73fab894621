"""HTML pages read as a browser would, and pictures as pixels."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page that is whole and fetches nothing; its text, attributes and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        without_pictures = re.sub(r"base64,[\w+/=]+", "", html)
        assert not re.search(r"https?:|url\(|@import|<script|<link|//\w", without_pictures)
        assert "default-src 'none'" in html
        self.html, self.text = html, ""
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def values(self, attribute: str) -> list[str]:
        """The values of an attribute, in order."""
        return [str(value) for name, value in self.attributes if name == attribute]

    @property
    def pictures(self) -> list[bytes]:
        """The PNGs."""
        sources = self.values("src")
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]


def pixels(png: bytes) -> np.ndarray:
    """A PNG as (H, W, 3) uint8."""
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))
