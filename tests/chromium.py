"""Pages in a headless Chromium, which must not complain nor ask anything of others; the `browser` is in conftest.py."""

import contextlib
import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@contextlib.contextmanager
def opened(browser, address, asks=("data:",), says=(), **options):
    """Open the page at an address; fail on anything in its console, and on a request to elsewhere.

    `asks` and `says` are how requests and messages may begin all the same.
    """
    context = browser.new_context(**options)
    page, trouble = context.new_page(), []
    page.on("console", lambda message: message.text.startswith(tuple(says)) or trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: request.url.startswith((address, *asks)) or trouble.append(request.url))
    page.goto(address)
    yield page
    context.close()
    assert trouble == []


def read(page, text):
    """Type a text into the playground and wait until it shows what the model read in it."""
    page.get_by_role("textbox", name="Type a sentence").fill(text)
    wait_for_answer(page, text)


def wait_for_answer(page, text):
    page.wait_for_function("text => JSON.parse($('answer').textContent || '{}').parse?.text === text", arg=text)
