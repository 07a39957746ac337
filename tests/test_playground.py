"""The playground in headless Chromium, against a real server: what it shows, keyboard, screen reader, themes, phone."""

import functools
import json
import shutil
import subprocess

import pytest

from chromium import opened, read, wait_for_answer
from live_server import running
from oracles.word_table import expected_entities, word_table_predictor
from weebill.limits import Limits
from weebill.neighbours import Neighbours
from weebill.schema import Entity, Utterance
from weebill.serve import create_app

EXAMPLES = [Utterance("play jazz", "play_music", (Entity(5, 9, "genre"),)), Utterance("wake me at nine", "set_alarm")]
TEXT = "🎵 don't wake me at nine am"
opened = functools.partial(opened, says=["Failed to load resource: the server responded with a status of"])


@pytest.fixture(scope="module")
def address():
    predictor = word_table_predictor()
    limits = Limits(max_text_chars=200)
    with running(create_app(predictor, "table", examples=Neighbours(predictor, EXAMPLES), limits=limits)) as found:
        yield found


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as found:
        yield found


def test_it_shows_what_the_model_reads(page):
    read(page, TEXT)
    assert page.locator("#first").text_content() == "set_alarm"
    assert page.locator("#bars li").all_inner_texts()[0].split("\n") == ["set_alarm", "100 %"]
    expected = [TEXT[start:end] for start, end, _ in expected_entities(TEXT)]
    assert expected == ["🎵", "nine am"]
    assert page.locator("#under mark").all_text_contents() == expected
    assert page.locator("#entities q").all_text_contents() == expected
    assert page.locator("#entities b").all_text_contents() == [label for _, _, label in expected_entities(TEXT)]
    encoding = word_table_predictor().tokenizer.encode(TEXT)
    assert page.locator("#pieces small").all_text_contents() == list(map(str, encoding.token_ids))
    assert page.locator("#near .text").all_text_contents()[0] in {u.text for u in EXAMPLES}
    assert json.loads(page.locator("#answer").text_content())["parse"]["text"] == TEXT


def test_the_marks_lie_under_the_letters_they_colour(page):
    read(page, "play jazz " * 12 + "at nine am")  # several lines
    boxes = page.evaluate("""() => {
        const [over, under] = [document.getElementById('text'), document.getElementById('under')];
        const names = ['font', 'letterSpacing', 'lineHeight', 'padding', 'whiteSpace', 'overflowWrap'];
        const style = element => names.map(name => getComputedStyle(element)[name]);
        return [style(over), style(under), over.clientWidth, under.clientWidth, over.scrollHeight, under.clientHeight];
    }""")
    assert boxes[0] == boxes[1] and boxes[2] == boxes[3] and abs(boxes[4] - boxes[5]) <= 1


def test_the_last_key_wins(page):
    box = page.get_by_role("textbox", name="Type a sentence")
    box.fill("")
    box.press_sequentially("play jazz at nine am", delay=15)
    wait_for_answer(page, "play jazz at nine am")
    assert page.locator("#under mark").all_text_contents() == ["jazz", "nine am"]


def test_a_suggestion_does_not_fall_into_what_is_typed(browser, address):
    context = browser.new_context()
    page, held = context.new_page(), []
    page.route("**/info", lambda route: held.append(route))  # the model is still loading
    page.goto(address)
    box = page.get_by_role("textbox", name="Type a sentence")
    box.focus()
    page.wait_for_timeout(50)
    held[0].continue_()
    page.wait_for_selector("#try button")
    box.press_sequentially("nine am")
    wait_for_answer(page, "nine am")
    context.close()


def test_the_keyboard_reaches_everything(page):
    read(page, "nine am")
    box = page.get_by_role("textbox", name="Type a sentence")
    box.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "play jazz"
    page.keyboard.press("Enter")
    wait_for_answer(page, "play jazz")
    assert page.evaluate("document.activeElement.id") == "text" and box.input_value() == "play jazz"
    page.get_by_role("radio", name="/model/parse").focus()
    page.keyboard.press("ArrowRight")
    assert "/embed" in page.locator("#code").text_content()


def test_a_screen_reader_is_told(page):
    read(page, "play jazz")
    page.wait_for_function("() => document.querySelector('[role=status]').textContent.includes('genre jazz')")
    assert page.get_by_role("status").text_content() == "play_music, 100 %; genre jazz; nearest example: play jazz"
    for heading in ("Intent", "Entities", "Tokens", "Nearest examples", "The request"):
        assert page.get_by_role("region", name=heading).is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_axe_finds_nothing(scheme, path, browser, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    with opened(browser, address, color_scheme=scheme, bypass_csp=True) as page:
        page.goto(address + path)
        if path == "/":
            read(page, TEXT)
        else:
            page.wait_for_selector("section")
        found = axe.Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_the_curl_command_runs_as_shown(page):
    text = """play "jazz", don't $HOME \\ `ls` 🎵"""
    read(page, text)
    for radio in page.get_by_role("radio").all():
        radio.check(force=True)
        command = page.locator("#code").text_content()
        # apart from the page's loop, so that the thread of the server answers
        done = subprocess.run(["bash", "-c", command + " -sS"], capture_output=True, encoding="utf-8", timeout=30)
        answer = json.loads(done.stdout)
        assert "error" not in answer
        if "/model/parse" in command:
            assert answer["text"] == text


def test_a_refusal_is_shown_and_goes_away(page):
    page.get_by_role("textbox", name="Type a sentence").fill("a" * 201)
    page.wait_for_selector("#trouble:not([hidden])")
    assert "expected texts of at most 200 characters, got one of 201" in page.get_by_role("alert").text_content()
    read(page, "nine am")
    assert not page.get_by_role("alert").is_visible()


def test_markup_in_a_text_is_text(page):
    text = "<img src=x onerror=alert(1)> <b>jazz</b>"
    read(page, text)
    assert page.locator("#under").text_content() == text and page.locator("main img").count() == 0


def test_a_token_is_asked_for(browser):
    app = create_app(word_table_predictor(), token="geheim")
    with running(app) as address, opened(browser, address) as page:
        page.get_by_label("This server asks for its token").fill("falsch")
        page.get_by_role("button", name="Use it").click()
        page.get_by_role("alert").wait_for()
        page.get_by_label("This server asks for its token").fill("geheim")
        page.get_by_role("button", name="Use it").click()
        page.wait_for_selector("#cards:not([hidden])")
        assert "$WEEBILL_TOKEN" in page.locator("#code").text_content()
        assert page.locator("#near-none").is_visible() and not page.locator("#key").is_visible()


@pytest.mark.parametrize("width", [320, 390, 1180])
def test_nothing_sticks_out(width, browser, address):
    with opened(browser, address, viewport={"width": width, "height": 800}) as page:
        read(page, "play jazz " * 5 + "w" * 80)
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
