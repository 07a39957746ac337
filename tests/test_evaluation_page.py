"""The evaluation page in headless Chromium: numbers, errors, filters, hostile text, no script, screen reader, phone."""

import functools
import re

import pytest

from chromium import opened
from oracles.word_table import word_table_predictor
from weebill import metrics
from weebill.charts import line_chart
from weebill.evaluate import evaluate_in_detail
from weebill.evaluation_page import page as draw
from weebill.page_parts import escaped
from weebill.schema import Entity, Utterance

opened = functools.partial(opened, asks=())
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'& </li></ol> jazz \x00\u202e"
ROWS = [
    Utterance("play jazz", "play_music", (Entity(5, 9, "genre"),), source="rows.jsonl:1"),  # right
    Utterance("wake me at nine am", "play_music", (Entity(11, 18, "time"),), source="rows.jsonl:2"),  # intent
    Utterance("wake me at nine am", "set_alarm", (Entity(11, 15, "time"),), source="rows.jsonl:3"),  # boundary
    Utterance("play jazz now", "play_music", (Entity(5, 9, "time"), Entity(10, 13, "date")), source="rows.jsonl:4"),
    Utterance(HOSTILE, "<b>intent</b>", (Entity(0, 8, "<i>label</i>"),), source="<u>rows</u>:5"),
]
EVENTS = [
    {"event": "eval", "step": s, "best": s == 20, "losses": {"intent": 2.0 / s, "tags": 1.0}, "learning_rate": 1e-3,
     "metrics": {"exact_match": s / 40, "tag_loss": 1.0}} for s in (10, 20, 30)
]  # fmt: skip


@pytest.fixture(scope="module")
def evaluation():
    return evaluate_in_detail(word_table_predictor(), ROWS, with_intervals=True)


@pytest.fixture(scope="module")
def body(evaluation):
    return draw(evaluation, "<em>model</em>", "rows.jsonl", EVENTS)


def test_the_page_is_one_file_in_which_texts_are_texts(body):
    assert not re.search(r"https?://|<link|@import|url\(|src=[^x]", body)
    for part in ("<b>intent</b>", "<i>label</i>", "<u>rows</u>", "<em>model</em>", "<script>alert", "<img src"):
        assert part not in body and (escaped(part) in body or part.startswith(("<script", "<img")))
    assert body.count("<script>") == 1 and "U+202E" in body and "U+0000" in body


def test_learning_curves_are_there_when_the_run_is_known(evaluation, body):
    assert "Learning curves" in body and "best: step 20" in body and "Learning rate" in body
    without = draw(evaluation, "m", "d")
    assert "Learning curves" not in without and "<h2>Scores</h2>" in without
    odd = [
        {"event": "eval", "step": 1},
        {"event": "start"},
        {"event": "eval", "step": 2, "losses": {"x": float("nan")}},
    ]
    assert "Learning curves" in draw(evaluation, "m", "d", odd)
    assert line_chart("nothing", {"x": [(1.0, float("nan"))]}) == ""


def test_a_model_without_errors_and_partly_annotated_data():
    rows = [Utterance("play jazz", "play_music")]
    assert "Nothing was read otherwise" in draw(evaluate_in_detail(word_table_predictor(), rows), "m", "d")
    spans = [Utterance("play jazz", None, ())]
    only_spans = draw(evaluate_in_detail(word_table_predictor(), spans), "m", "d")
    assert "Confused intents" not in only_spans and "spurious" in only_spans


@pytest.fixture(scope="module")
def address(body, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(body.encode("utf-8", "replace"))
    return path.as_uri()


def test_every_error_is_shown_gold_against_read(browser, address, evaluation):
    with opened(browser, address) as page:
        assert page.locator("#list > li").count() == 4
        second = page.locator("#list > li").nth(1)
        assert second.locator(".badge").all_text_contents() == ["boundary"]
        gold, read = second.locator("dd").all()
        assert gold.locator("mark").all_text_contents() == ["ninetime"]
        assert read.locator("mark").all_text_contents() == ["nine amtime"]
        assert "set_alarm 100 %" in read.text_content() and "rows.jsonl:3" in second.text_content()
        third = page.locator("#list > li").nth(2)
        assert third.locator(".badge").all_text_contents() == ["label", "missed"]
        hostile = page.locator("#list > li").nth(3)
        assert hostile.locator("script, img, b").count() == 0
        assert "<script>alert(1)</script>" in hostile.locator("dd").nth(1).text_content()
        shown = page.locator(".facts div").all_text_contents()
        assert shown[0] == f"{100 * evaluation.report.intent_accuracy:.2f} %intent accuracy"
        assert sum(evaluation.report.span_errors.values()) == sum(
            len(metrics.span_errors(u.entities, p.entities)) for u, p in zip(ROWS, evaluation.predictions, strict=True)
        )


def test_filters(browser, address):
    with opened(browser, address) as page:
        visible = page.locator("#list > li:visible")
        status = page.get_by_role("status")
        assert (visible.count(), status.text_content()) == (4, "4 of 4 shown")
        page.get_by_label("boundary", exact=False).first.check()
        assert visible.all_text_contents() == page.locator("#list > li:nth-child(2)").all_text_contents()
        page.get_by_label("missed", exact=False).first.check()
        assert (visible.count(), status.text_content()) == (3, "3 of 4 shown")
        page.get_by_label("Search").fill("JAZZ NOW")
        assert (visible.count(), status.text_content()) == (1, "1 of 4 shown")
        page.get_by_label("Search").fill("no such text")
        assert (visible.count(), status.text_content()) == (0, "0 of 4 shown")
        page.get_by_label("Order").select_option("-")
        scores = [float(li.get_attribute("data-s")) for li in page.locator("#list > li").all()]
        assert scores == sorted(scores, reverse=True)


def test_without_a_script_all_is_there_but_the_filters(browser, address):
    with opened(browser, address, java_script_enabled=False) as page:
        assert page.locator("#list > li:visible").count() == 4 and not page.locator("#filter").is_visible()
        assert page.get_by_role("img", name="Accuracy against confidence").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme, browser, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    with opened(browser, address, color_scheme=scheme, bypass_csp=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        found = axe.Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()


@pytest.mark.parametrize("width", [320, 390, 1180])
def test_nothing_sticks_out(width, browser, address):
    with opened(browser, address, viewport={"width": width, "height": 800}) as page:
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
