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


def lineage(page: Page, dagster_url: str) -> None:
    """The asset graph of one stream."""
    page.goto(f"{dagster_url}/locations/pipeline_platform/asset-groups/telemetry/lineage")
    page.wait_for_timeout(8_000)
    page.screenshot(path=IMAGES / "lineage.png")


def runs(page: Page, dagster_url: str) -> None:
    """The list of runs and one asset's page."""
    page.goto(f"{dagster_url}/runs")
    page.wait_for_timeout(4_000)
    page.screenshot(path=IMAGES / "runs.png")
    page.goto(f"{dagster_url}/assets/warehouse/telemetry_events")
    page.wait_for_timeout(5_000)
    page.screenshot(path=IMAGES / "asset.png")


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--warm-up", type=float, default=40, help="seconds of demo before the pictures")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    up = Up("--demo")
    try:
        up.start()
        time.sleep(options.warm_up)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=QUIET)
            page = browser.new_page(viewport={"width": 1400, "height": 620})
            url = f"http://127.0.0.1:{up.dagster_port}"
            lineage(page, url)
            runs(page, url)
            browser.close()
    finally:
        up.remove()


if __name__ == "__main__":
    main()
