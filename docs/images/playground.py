"""Takes the pictures of the playground in this folder: python docs/images/playground.py ADDRESS

Needs Chromium, and `weebill serve tiny --examples FILE` with some labelled requests in FILE."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

TEXT = "wake me up at nine am on friday"
VIEWS = {  # colour scheme, width, height, pixels per CSS pixel
    "playground-light": ("light", 1180, 900, 1),
    "playground-dark": ("dark", 1180, 900, 1),
    "playground-phone": ("light", 390, 844, 1.5),
}


def main() -> None:
    """Open the page, type a sentence, take the pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (scheme, width, height, scale) in VIEWS.items():
            page = browser.new_page(
                color_scheme=scheme, viewport={"width": width, "height": height}, device_scale_factor=scale
            )
            page.goto(sys.argv[1])
            page.wait_for_selector("#cards:not([hidden])")
            page.fill("#text", TEXT)
            page.wait_for_timeout(1_000)  # bars move
            page.screenshot(path=Path(__file__).parent / f"{name}.png", full_page=name != "playground-phone")
        browser.close()


if __name__ == "__main__":
    main()
