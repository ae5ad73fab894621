"""A headless Chromium that can reach nothing but this machine; a test's file imports the fixture by name."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
OFFLINE = ["--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser of a file's tests, which are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright, to drive Chromium")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *OFFLINE])
        yield browser
        browser.close()
