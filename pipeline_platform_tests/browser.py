"""A real browser for tests: Debian's chromium, or whichever PIPELINE_CHROMIUM names. Without one a test fails."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def chromium() -> str:
    """The browser's path. Fails, and says how to get one, where there is none: a test is never skipped for that."""
    named = os.environ.get("PIPELINE_CHROMIUM")
    found = named if named and Path(named).exists() else next(filter(None, map(shutil.which, _NAMES)), None)
    assert found, "There is no chromium: run `make chromium` (as root, Debian), or set PIPELINE_CHROMIUM to its path."
    return found


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a screen, which keeps pages for its back button as everybody's does."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=list(QUIET), ignore_default_args=["--disable-back-forward-cache"]
        )
        try:
            yield browser
        finally:
            browser.close()
