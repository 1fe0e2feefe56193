"""Takes the pictures of the documentation from a running demo with a real browser.

    python docs/pictures.py [--chromium /usr/bin/chromium]

Starts `up --demo`, lets it run for a while, and writes docs/images/*.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline_platform_tests.acceptance.stacks import Up

IMAGES = Path(__file__).parent / "images"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


def picture(page: Page, url: str, name: str, *, settle: float, width: int = 1400, height: int = 620) -> None:
    """One page, `settle` seconds after it was opened."""
    page.set_viewport_size({"width": width, "height": height})
    page.goto(url)
    page.wait_for_timeout(settle * 1000)
    page.screenshot(path=IMAGES / f"{name}.png")


def backfill_id(up: Up) -> str:
    """The demo's backfill of candles."""
    if not (found := up.backfills()):
        raise SystemExit("The demo has not started its backfill yet; give it longer with --warm-up.")
    return found[-1]["id"]


def all_pictures(page: Page, up: Up) -> None:
    """The login, lineage of a stream and of prices, runs, an asset, partitions, a backfill, and automation."""
    dagster_url = f"http://127.0.0.1:{up.dagster_port}"
    picture(page, f"{dagster_url}/login", "login", settle=1, width=900)
    page.goto("about:blank")  # the link's fragment alone would not load the page again
    page.goto(up.run("login").stdout.strip())
    page.wait_for_url(f"{dagster_url}/**/timeline*", timeout=60_000)
    groups = f"{dagster_url}/locations/pipeline_platform/asset-groups"
    picture(page, f"{groups}/telemetry/lineage", "lineage", settle=8, width=2100)
    picture(page, f"{groups}/prices/lineage", "prices", settle=8)
    picture(page, f"{dagster_url}/runs", "runs", settle=4)
    picture(page, f"{dagster_url}/assets/warehouse/telemetry_events", "asset", settle=5)
    picture(page, f"{dagster_url}/assets/prices/candles?view=partitions", "partitions", settle=6)
    picture(page, f"{dagster_url}/runs/b/{backfill_id(up)}", "backfill", settle=5)
    picture(page, f"{dagster_url}/automation", "automation", settle=5, height=900)


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--warm-up", type=float, default=100, help="seconds of demo before the pictures")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    up = Up("--demo")
    try:
        up.start()
        time.sleep(options.warm_up)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=QUIET)
            page = browser.new_page(viewport={"width": 1400, "height": 620})
            all_pictures(page, up)
            browser.close()
    finally:
        up.remove()


if __name__ == "__main__":
    main()
