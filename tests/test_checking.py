"""Checks of data: every kind of mistake is found where it was planted, nothing in clean data, and mending mends it."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from weebill import check_report, formats
from weebill.checking import check
from weebill.cli import app
from weebill.conversion import convert
from weebill.copies import _hashes_without_one_letter, _is_typo, fold
from weebill.findings import KINDS
from weebill.interchange import Losses, Row, Span
from weebill.label_checks import _edits, typos
from weebill.mending import mend, mended
from weebill.pairs import PAIR_FORMATS
from weebill.showing import excerpt
from weebill.templates import generate
from weebill.tokenizer import Tokenizer

TOKENIZER = Tokenizer.packaged()
NO_MISTAKE = {"few-rows", "few-examples", "no-entities", "no-intent"}  # what a file of a few rows has anyway


def _check(tmp_path, *rows, name="data.jsonl"):
    path = tmp_path / name
    formats.write(path, rows, "spans", Losses())
    return check([path], TOKENIZER, 32)


def _row(text, *spans, intent="set_alarm", split=None):
    return Row(text, (intent,), tuple(Span(*span) for span in spans), split=split)


TODAY = [_row(f"{word} the news of today", (len(word) + 13, len(word) + 18, "date")) for word in
         ("read", "show", "open", "find", "give me")]  # fmt: skip
NINES = [_row(f"{i} times number nine", (len(f"{i} times number "), len(f"{i} times number nine"), "count")) for i in
         range(40)]  # fmt: skip
# kind -> rows with that mistake, lines it is on, and a part of the message
IN_A_FILE_OF_TAGS = {"broken-tags"}  # which rows alone cannot have
PLANTED = {
    "empty-text": ([_row("  ")], [1], ""),
    "unread-key": ([Row("hm", extra={"label": "x"})], [1], "key 'label' of rows without intent"),
    "span-white-space": ([_row("at nine am", (2, 7, "time"))], [1], ""),
    "span-twice": ([_row("at nine am", (3, 7, "time"), (3, 7, "time"))], [1], ""),
    "span-overlap": ([_row("at nine am", (3, 7, "time"), (3, 10, "date"))], [1], ""),
    "label-white-space": ([_row("at nine am", (3, 7, "the time"))], [1], "entity label 'the time'"),
    "intent-conflict": (
        [_row("at nine am"), _row("hm"), _row("at nine am", intent="get_alarm")], [1, 3],
        "'at nine am': set_alarm, get_alarm",
    ),
    "entity-conflict": (
        [_row("at nine am", (3, 7, "time")), _row("at nine am", (3, 10, "time"))], [1, 2],
        "'at nine am': nine (time) or nine am (time)",
    ),
    "duplicate": ([_row("at nine am", (3, 7, "time"))] * 3, [1, 2, 3], ""),
    "near-duplicate": ([_row("At nine, please!"), _row("at nine please")], [1, 2], "but for case, accents"),
    "leakage": ([_row("at nine", split="train"), _row("at nine", split="dev")], [1, 2], ""),
    "near-leakage": (
        [_row("wake me tomorrow", split="train"), _row("wake me tomorow", split="dev")], [1, 2], "but for one letter",
    ),
    "label-not-learnt": (
        [_row("at nine", split="train"), _row("hm", intent="other", split="dev")], [2], "intent 'other' (dev 1)",
    ),
    "label-typo": (
        [*(_row(f"number {i}") for i in range(20)), _row("hm", intent="set_alram")], [21],
        "intent 'set_alram' (1 of them), perhaps 'set_alarm' (20 of them)",
    ),
    "value-unannotated": ([*TODAY, _row("what is on today")], [6], "'today', annotated 5 times (date), not so once"),
    "value-odd-label": ([*NINES, _row("at nine", (3, 7, "time"))], [41], "'nine' as time, elsewhere count (40 times)"),
    "span-cuts-word": ([_row("at nine am", (3, 6, "time")), *NINES], [1], ""),
    "span-cuts-token": ([_row("wait... now", (6, 11, "time"))], [1], ""),
    "markup-left": ([_row("fly to [Berlin] (city)")], [1], ""),
    "text-white-space": ([_row("at nine ")], [1], ""),
    "odd-space": ([_row("at\u00a0nine")], [1], "U+00A0 no-break space"),
    "invisible-character": ([_row("at \u200bnine")], [1], "U+200B zero width space"),
    "odd-character": ([_row("to p\u0430ris")], [1], "U+0430 cyrillic small letter a"),
    "broken-character": ([_row("at caf\ufffd")], [1], "U+FFFD replacement character"),
    "mojibake": ([_row("at cafÃ©")], [1], ""),
    "not-composed": ([_row("at cafe\u0301")], [1], ""),
    "text-too-long": ([_row("word " * 40 + "end")], [1], "texts past the model's 32 tokens"),
}  # fmt: skip


def test_every_kind_is_planted():
    elsewhere = {"malformed", "few-rows", "few-examples", "no-intent", "no-entities", "parts-of-words", "not-compared"}
    assert set(PLANTED) | elsewhere | IN_A_FILE_OF_TAGS == set(KINDS)


BROKEN_TAGS = {
    "BIO": ("to/O Rome/I-city now/O|to/B-city Rome/I-date|x/I-a|a/B-a b/I-a c/B-b d/I-b", [
        (2, "I-city after O, read as the beginning of a span"), (6, "I-date after B-city, read as the beginning"),
        (8, "I-a after the beginning, read as the beginning")]),
    "BILOU": ("a/B-x b/O|a/I-x b/L-x|a/B-x b/L-x c/I-x|a/U-x b/B-y c/I-y d/L-y|a/B-x b/L-y", [
        (1, "B-x before O, read as the end of a span"), (4, "I-x after the beginning, read as the beginning"),
        (9, "I-x after L-x, read as a part of the span before"), (9, "I-x before the end, read as the end"),
        (17, "L-y after B-x, read as the beginning")]),
    "IOB1": ("a/I-x b/O c/I-y|a/I-x b/B-x c/I-y", []),
    "BIOES": ("a/S-x|a/B-x b/E-x|a/E-x", [(6, "E-x after the beginning, read as the beginning")]),
}  # fmt: skip


@pytest.mark.parametrize("scheme", BROKEN_TAGS)
def test_tags_that_break_their_scheme(scheme, tmp_path, caplog):
    body, wanted = BROKEN_TAGS[scheme]
    path = tmp_path / "x.conll"
    path.write_text("".join("".join(word.replace("/", "\t") + "\n" for word in sentence.split()) + "\n" for sentence in
                            body.split("|")))  # fmt: skip
    found = [f for f in check([path], TOKENIZER, 32).findings if f.kind == "broken-tags"]
    assert sorted((int(f.places[0].rpartition(":")[2]), f.message) for f in found) == sorted(
        (line, next(f.message for f in found if f.message.startswith(message))) for line, message in wanted
    )
    losses = convert(path, tmp_path / "x.jsonl").losses.counts
    assert sum(losses.values()) == len(wanted) and all("breaks its scheme" in what for what in losses)
    assert formats.read_utterances(path) and ("tags that break their scheme" in caplog.text) == bool(wanted)


def test_broken_tags_of_a_folder(tmp_path):
    for name, body in (("seq.in", "to Rome\nhi\n"), ("seq.out", "O I-city\nO\n"), ("label", "go\nhi\n")):
        (tmp_path / name).write_text(body)
    (found,) = [f for f in check([tmp_path], TOKENIZER, 32).findings if f.kind == "broken-tags"]
    assert found.message == "I-city after O, read as the beginning of a span"
    assert found.places == [f"{tmp_path / 'seq.out'}:1"] and (found.examples[0].text, found.examples[0].source) == (
        "to Rome", found.places[0]
    )  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
def test_every_mistake_is_found_where_it_was_planted(kind, tmp_path):
    rows, lines, message = PLANTED[kind]
    report = _check(tmp_path, *rows)
    found = [finding for finding in report.findings if finding.kind == kind]
    assert len(found) == 1 and message in found[0].message
    assert found[0].places == [f"{tmp_path / 'data.jsonl'}:{line}" for line in lines]
    assert found[0].examples and {row.source for row in found[0].examples} <= set(found[0].places)
    assert {finding.kind for finding in report.findings} - NO_MISTAKE == {kind}


def test_the_documentation_names_every_kind_and_every_format():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in page] == []
    assert [name for name in (*formats.FORMATS, *PAIR_FORMATS) if f"`{name}`" not in page] == []


def test_clean_data_have_no_findings(tmp_path):
    train, dev = generate(700)
    rows = [_of(u, "train") for u in train] + [_of(u, "dev") for u in dev]
    report = _check(tmp_path, *rows)
    assert {f.kind for f in report.findings if f.severity == "error"} == set()
    assert report.rows == {"train": 595, "dev": 105}
    assert sum(sum(by.values()) for by in report.intents.values()) == 700


def _of(utterance, split):
    spans = tuple(Span(e.start, e.end, e.label) for e in utterance.entities)
    return Row(utterance.text, (utterance.intent,), spans, split=split)


def test_few_rows_and_few_examples(tmp_path):
    report = _check(tmp_path, *(_row(f"number {i}", (0, 6, "word")) for i in range(49)))
    assert [(f.kind, f.message) for f in report.findings] == [
        ("few-rows", "49 rows"),
        ("few-examples", "intent 'set_alarm': 49"), ("few-examples", "entity label 'word': 49"),
    ]  # fmt: skip
    assert not _check(tmp_path, *(_row(f"number {i}", (0, 6, "word")) for i in range(100))).findings


def test_several_files_are_splits_named_by_their_files(tmp_path):
    formats.write(tmp_path / "train.conll", [_row("at nine")], "conll", Losses())
    formats.write(tmp_path / "dev.yml", [_row("at nine")], "rasa", Losses())
    report = check([tmp_path / "train.conll", tmp_path / "dev.yml"], TOKENIZER, 32)
    assert report.rows == {"train": 1, "dev": 1}
    assert [f.places for f in report.findings if f.kind == "leakage"] == [
        [f"{tmp_path / 'train.conll'}:1", f"{tmp_path / 'dev.yml'}:6"]
    ]


def test_rows_that_cannot_be_read_are_findings_and_the_rest_is_checked(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": \n[1]\n{"text": "b", "spans": [{"start": 0, "end": 9, "label": "x"}]}\n'
                     b'{"text": "caf\xe9"}\n')  # fmt: skip
    report = check([path], TOKENIZER, 32)
    malformed = [f for f in report.findings if f.kind == "malformed"]
    assert sorted(place for f in malformed for place in f.places) == [f"{path}:{line}" for line in (2, 3, 4)]
    assert [f.places for f in report.findings if f.kind == "broken-character"] == [[f"{path}:5"]]
    assert report.rows == {"all": 2}


def test_odd_characters(tmp_path):
    clean = ["в москву", "USB-порт", "SMSки", "αβγ", "10 µm", "straße"]
    assert not [f for f in _check(tmp_path, *map(_row, clean)).findings if f.kind == "odd-character"]
    found = _check(tmp_path, _row("at \uff19 am"), _row("sh\u03bfw \u0391B")).findings
    assert {f.message for f in found if f.kind == "odd-character"} == {
        "U+FF19 fullwidth digit nine", "U+03BF greek small letter omicron", "U+0391 greek capital letter alpha",
    }  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_leakage_is_the_same_in_any_order_of_files(order, tmp_path):
    """A text in both splits, and one a letter apart in one of them; and copies that differ in case and signs."""
    for name, texts in (("train", ["wake me tomorrow", "wake me tomorow", "at nine!", "At nine", "at NINE"]),
                        ("dev", ["wake me tomorrow", "at nine!", "at nine."])):  # fmt: skip
        formats.write(tmp_path / f"{name}.jsonl", map(_row, texts), "spans", Losses())
    paths = [tmp_path / "train.jsonl", tmp_path / "dev.jsonl"]
    report = check([paths[i] for i in order], TOKENIZER, 32)
    assert {(f.message, f.count) for f in report.findings if "leak" in f.kind} == {
        ("texts in more than one split", 2),
        ("nearly the same texts in more than one split, but for one letter", 1),
        ("nearly the same texts in more than one split, but for case, accents, spacing or punctuation", 3),
    }  # fmt: skip
    for finding in report.findings:
        if finding.kind == "near-leakage":
            assert len({row.source.rpartition(":")[0] for row in finding.examples}) == 2


def test_of_few_labels_one_that_is_there_once_may_be_a_typo():
    assert list(typos({"artist": 9, "artst": 1, "title": 2, "tittle": 1})) == [("artst", "artist")]
    assert not list(typos({"artist": 9, "artst": 2}))


def test_words_written_without_spaces_are_no_mistake(tmp_path):
    report = _check(tmp_path, *(_row(f"明天{i}点叫我", (0, 2, "date")) for i in range(12)))
    kinds = {f.kind for f in report.findings}
    assert "parts-of-words" in kinds and "span-cuts-word" not in kinds


@settings(max_examples=200, deadline=None)
@given(a=st.text("abc1", min_size=1, max_size=8), b=st.text("abc1", min_size=1, max_size=8))
def test_one_letter_apart(a, b):
    """The slow definition: one edit, and the texts share a hash of a shortened form."""
    apart = _edits(a, b) == 1 and sorted(a) != sorted(b)  # a swap is one edit of labels, two of texts
    if apart:
        assert set(_hashes_without_one_letter(a)) & set(_hashes_without_one_letter(b))
    if _is_typo(a, b):
        assert a == b or apart
    if apart and "1" not in a + b:
        assert _is_typo(a, b)
    assert len(set(_hashes_without_one_letter(a))) == len({a, *(a[:i] + a[i + 1 :] for i in range(len(a)))})


def test_folding_keeps_what_tells_texts_apart():
    assert fold("Ça, c'est ÉTÉ!") == "cacestete" and fold("ﬁx 10") == "fix10"
    assert fold("की") != fold("का")  # vowel signs are letters


DIRTY = st.lists(
    st.builds(
        lambda text, a, b, label: Row(text, ("x",), (Span(min(a, b), max(a, b) + 1, label),) if text else ()),
        st.text("ab \u00a0\u200b\t", min_size=1, max_size=6), st.integers(0, 0), st.integers(0, 0),
        st.sampled_from(["t", "a b"]),
    ),
    max_size=5,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(rows=DIRTY)
def test_mended_rows_are_ready_to_learn_from(rows):
    changes = Losses()
    clean = list(mended(rows, changes))
    for row in clean:
        row.utterance()  # raises what training would
        assert row.text == row.text.strip() and "\u200b" not in row.text and "\u00a0" not in row.text
    assert list(mended(clean, again := Losses())) == clean and not again.counts
    assert clean == rows or changes.counts


def test_mending_moves_spans_along_and_says_what_it_changed(tmp_path):
    source, target = tmp_path / "dirty.jsonl", tmp_path / "clean.yml"
    rows = [
        _row(" at\u200b nine am ", (4, 12, "the time")),
        _row("at nine am", (3, 10, "the time")),
        _row(" "),
        _row("fine", (0, 4, "x")),
    ]
    formats.write(source, rows, "spans", Losses())
    with source.open("a") as file:
        file.write("{\n")
    said = "\n".join(mend(source, target))
    assert [(r.text, r.spans) for r in formats.stream(target)] == [
        ("at nine am", (Span(3, 10, "the_time"),)), ("fine", (Span(0, 4, "x"),))
    ]  # fmt: skip
    for line in (
        "clean.yml: Rasa YAML, written with these changes",
        f"invisible character removed from a text: 1 ({source}:1)",
        f"white space around a text removed: 2 ({source}:1, {source}:3)",
        f"white space trimmed from a span: 1 ({source}:1)",
        f"white space in an entity label written as _: 2 ({source}:1, {source}:2)",
        f"copy of an earlier row removed: 1 ({source}:2)",
        f"empty text removed: 1 ({source}:3)",
        f"row left out: it cannot be read: 1 ({source}:5)",
    ):
        assert line in said
    report = check([target], TOKENIZER, 32)
    assert not [f for f in report.findings if KINDS[f.kind].mended]


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.texts, self.outside = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_escapes_what_it_shows(tmp_path):
    report = _check(tmp_path, _row("a <script>alert(1)</script>\u200b &", (0, 1, "<b>")))
    page = _Page()
    page.feed(check_report.page(report))
    assert page.open == [] and page.outside == []
    shown = "".join(page.texts)
    assert "<script>alert(1)</script>" in shown and "U+200B" in shown and "<b>" in shown
    assert "<script" not in check_report.page(report)


HOSTILE = "\x1b[31m\x07\x00\u202e"


def test_nothing_in_the_data_reaches_the_terminal_as_a_command(tmp_path):
    """Codes of terminals, and a sign that turns the line around, are shown by their codes, by every command."""
    data, conll = tmp_path / "x.jsonl", tmp_path / "x.conll"
    rows = [Row(f"play {HOSTILE} jazz", (f"in{HOSTILE}",), (Span(5, 9, f"g{HOSTILE}", role=f"{HOSTILE}r"),),
                extra={f"k{HOSTILE}": 1}, id=str(i), split=f"{HOSTILE}s") for i in range(4)]  # fmt: skip
    formats.write(data, [*rows, replace(rows[0], intents=("other",)), Row("hi", ("x",), ())], "spans", Losses())
    html = tmp_path / "r.html"
    for arguments in (["check", data, "--html", html, "--fix", tmp_path / "clean.jsonl"],
                      ["convert", data, "--output", conll, "--to", "conll"],
                      ["split", data, "--output", tmp_path / "parts", "--size", "dev=1"]):  # fmt: skip
        run = CliRunner().invoke(app, ["data", *map(str, arguments)])
        assert run.exit_code == 0, run.exception
        assert not set(HOSTILE[:1] + HOSTILE[-3:]) & set(run.output), arguments
        assert r"\x1b[31m\x07\x00\u202e" in run.output, arguments
    assert not set("\x1b\x07\x00\u202e") & set(html.read_text())


def test_of_a_long_text_a_part_is_shown(tmp_path):
    long = "word " * 40_000
    report = _check(tmp_path, _row(long + "at nine", (len(long) + 3, len(long) + 7, "time")), _row(long + "at nine"))
    lines = [part for part in check_report.terminal(report)]
    console = Console(width=200, file=io.StringIO())
    for line in lines:
        console.print(line, soft_wrap=True)
    shown = console.file.getvalue()
    assert max(map(len, shown.split("\n"))) < 1_000 and "word at nine(time)" in shown and "…" in shown
    assert len(check_report.page(report)) < 60_000 and "nine<i>time</i>" in check_report.page(report)


@given(text=st.text(max_size=30), data=st.data(), limit=st.integers(4, 20))
def test_an_excerpt_keeps_its_spans_where_they_were(text, data, limit):
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=4)))
    spans = [Span(a, b, f"{a}") for a, b in zip(edges[::2], edges[1::2], strict=False)]
    part, kept = excerpt(text, spans, limit)
    assert len(part) <= limit + 1 or part == text
    assert bool(kept) == bool(spans)
    for span in kept:
        whole = next(s for s in spans if s.label == span.label)
        assert text[whole.start : whole.end].find(part[span.start : span.end]) >= 0 and span.start < span.end


def test_the_command_reports_mends_and_fails_on_request(tmp_path):
    data, html, report = tmp_path / "nlu.yml", tmp_path / "r.html", tmp_path / "r.json"
    data.write_text("nlu:\n- intent: a\n  examples: |\n    - at [nine ](time)\n    - hi\n    - hi\n")
    run = CliRunner().invoke(app, ["data", "check", str(data), "--html", str(html), "--json", str(report),
                                   "--fix", str(tmp_path / "clean.jsonl"), "--fail-on", "error"])  # fmt: skip
    assert run.exit_code == 1
    assert "spans that begin or end on white space: 1" in run.output and f"{data}:4" in run.output
    assert "2 errors" in run.output and "rows/s" in run.output
    found = {f["kind"]: f for f in json.loads(report.read_text())["findings"]}
    assert found["span-white-space"]["examples"][0]["spans"] == [{"start": 3, "end": 8, "label": "time"}]
    assert found["duplicate"]["places"] == [f"{data}:5", f"{data}:6"]
    assert len(formats.read_utterances(tmp_path / "clean.jsonl")) == 2
    assert html.read_text().startswith("<!doctype html>")
    assert CliRunner().invoke(app, ["data", "check", str(data)]).exit_code == 0
    clean = tmp_path / "many.jsonl"
    formats.write(clean, [replace(_row(f"number {i}"), source="") for i in range(120)], "spans", Losses())
    assert CliRunner().invoke(app, ["data", "check", str(clean), "--fail-on", "warning"]).exit_code == 0
