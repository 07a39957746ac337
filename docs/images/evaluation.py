"""Takes the picture of the evaluation page in this folder: python docs/images/evaluation.py PAGE (needs Chromium).

PAGE is what `weebill demo` and `weebill evaluate runs/demo/model --html page.html` make.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

CLOSED = ("Scores by intent", "Scores by entity label", "Confused intents")
LAST_SHOWN = 3  # of the errors


def main() -> None:
    """Open the page, unfold what is folded, take the picture down to the first errors."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light", viewport={"width": 1100, "height": 900})
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        page.evaluate("""closed => document.querySelectorAll("details").forEach(part => {
            part.open = !closed.includes(part.querySelector("h2").textContent);
        })""", list(CLOSED))  # fmt: skip
        page.evaluate("document.querySelectorAll('#list li').forEach(row => row.style.contentVisibility = 'visible')")
        box = page.locator(f"#list > li:nth-child({LAST_SHOWN})").bounding_box()
        assert box is not None
        height = box["y"] + box["height"] + 8
        page.screenshot(
            path=Path(__file__).parent / "evaluation.png",
            full_page=True,
            clip={"x": 0, "y": 0, "width": 1100, "height": height},
        )
        browser.close()


if __name__ == "__main__":
    main()
