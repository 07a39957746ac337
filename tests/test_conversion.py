"""Every format: what is written is read again, with the same offsets; what a format cannot hold is counted."""

import ast
import gzip
import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weebill import formats
from weebill.conversion import convert
from weebill.errors import ArtifactError, DataError
from weebill.interchange import Block, Losses, Row, Span
from weebill.pairs import read_pairs
from weebill.rasa_files import read_markup
from weebill.schema import ScoredPair
from weebill.word_files import scheme_of

SUFFIX = {
    "spans": "x.jsonl", "massive": "x.jsonl", "bio": "folder", "conll": "x.conll", "conll-iob1": "x.conll",
    "conll-bilou": "x.conll.gz", "rasa": "x.yml", "rasa-json": "x.json", "spacy": "x.py",
}  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
TRICKY = st.text(st.sampled_from("ab[](){}:,#\"'\\|-> \t\n\r\u2028\u0085\u00a0é🎵OB"), min_size=1, max_size=24)
WORDS = st.lists(st.text("abé🎵9'-.", min_size=1, max_size=5), min_size=1, max_size=7).map(" ".join)
LABEL = st.sampled_from(["time", "date", "fromloc.city_name", "a:b", "O"])


@st.composite
def _rows(draw, texts):
    text = draw(texts)
    edges = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [Span(start, end, draw(LABEL)) for start, end in zip(edges[::2], edges[1::2], strict=False)]
    return Row(text, (draw(st.sampled_from(["alarm_set", "yes", "faq/ask", "a b"])),), tuple(spans))


@st.composite
def _rich_rows(draw):
    row = draw(_rows(st.one_of(ANY_TEXT, TRICKY)))
    optional = st.none() | st.sampled_from(["San Francisco", "to", "}]", "ü"])
    spans = tuple(replace(s, value=draw(optional), role=draw(optional), group=draw(optional)) for s in row.spans)
    extra = draw(st.dictionaries(st.sampled_from(["worker_id", "scenario"]), st.integers() | st.text("ab"), max_size=2))
    row = replace(row, spans=draw(st.none() | st.just(spans)), extra=extra, id=draw(st.sampled_from(["", "1", "x"])))
    row = replace(row, intents=draw(st.none() | st.just(row.intents)), lang=draw(st.none() | st.just("en-US")))
    return replace(row, split=draw(st.none() | st.sampled_from(["train", "dev"])))


def _there_and_back(rows, format, folder):
    """Write and read rows; returns what is read, without places, and the losses."""
    path, losses = folder / format / SUFFIX[format], Losses()
    formats.write(path, rows, format, losses)
    try:
        assert formats.guess(path) == (format.partition("-")[0] if format.startswith("conll") else format)
        back = [replace(item, source="") for item in formats.stream(path, format)]
    except DataError:  # no row was left
        back = []
    return back, losses


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(rows=st.lists(_rich_rows(), min_size=1, max_size=4))
def test_span_json_lines_hold_everything(rows, tmp_path):
    back, losses = _there_and_back(rows, "spans", tmp_path)
    assert back == rows and not losses.counts


@pytest.mark.parametrize("format", list(SUFFIX))
@quick
@given(rows=st.lists(_rows(st.one_of(ANY_TEXT, TRICKY, WORDS)), min_size=1, max_size=4))
def test_rows_come_back_or_are_counted(format, rows, tmp_path):
    """Any text at all: without a loss all rows are the same again; with one, no more rows differ than it counts."""
    back, losses = _there_and_back(rows, format, tmp_path)
    back = [replace(row, extra={}, split=None) for row in back]
    changed = sum(n for what, n in losses.counts.items() if "without a split" not in what)
    by_intent = {row.intents: n for n, row in reversed(list(enumerate(rows)))}
    wanted = sorted(rows, key=lambda row: by_intent[row.intents]) if format == "rasa" else rows
    if changed:
        assert len(back) >= len(rows) - changed
        assert sum(row not in back for row in rows) <= changed
    elif format == "rasa":  # what needs quotes stands after the rest of its intent
        assert sorted(map(repr, back)) == sorted(map(repr, wanted))
    else:
        assert back == wanted


@pytest.mark.parametrize(
    "format", ["bio", "conll", "conll-iob1", "conll-bilou", "massive", "rasa", "rasa-json", "spacy"]
)
@quick
@given(data=st.data())
def test_spans_of_whole_words_are_never_lost(format, data, tmp_path):
    text = data.draw(WORDS)
    starts = [0, *(i + 1 for i, c in enumerate(text) if c == " ")]
    ends = [*(i for i, c in enumerate(text) if c == " "), len(text)]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(starts)), max_size=6)))
    labels = st.sampled_from(["time", "date"])
    spans = [Span(starts[a], ends[b - 1], data.draw(labels)) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    row = Row(text, ("alarm",), tuple(spans), split="train" if format == "massive" else None)
    back, losses = _there_and_back([row], format, tmp_path)
    assert [(r.text, r.intents, r.spans) for r in back] == [(text, ("alarm",), tuple(spans))]
    assert not losses.counts
    if format.startswith("conll") and len(spans) > 1 and all(s.label == "time" for s in spans):
        path = tmp_path / format / SUFFIX[format]
        assert scheme_of(path) == {"conll-bilou": "BILOU"}.get(format, scheme_of(path))
