"""Spans to tags and back: by hand, round trips, parity with seqeval, and nothing shifted or lost in silence."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill import templates
from weebill.encodings import Encoding
from weebill.schema import Entity
from weebill.tags import MISSING, align, end_of_words, spans_from_tags, spans_from_words, tag_vocabulary
from weebill.tokenizer import Tokenizer

TAGS = {tag: i for i, tag in enumerate(tag_vocabulary(["time", "date"]))}
NAMES = list(TAGS)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.packaged()


def test_final_marks_are_no_part_of_words_and_found_in_one_pass():
    found = {
        text: text[end_of_words(text) :] for text in ("at 9.", "yet?! ", "5 p.m.", "a_.", "...", "", "in C.\n", "1.")
    }
    assert found == {
        "at 9.": ".",
        "yet?! ": "?! ",
        "5 p.m.": "",
        "a_.": "",
        "...": "",
        "": "",
        "in C.\n": "",
        "1.": ".",
    }
    pattern = re.compile(r"([^\W_]+)[.?!。？！…]+\s*$")  # what it says in other words, in quadratic time
    rng = random.Random(0)
    for _ in range(20_000):
        text = "".join(rng.choices("ab1é漢_ .?!。…-\n\t", k=rng.randrange(9)))
        marks = pattern.search(text)
        whole = not marks or (len(marks[1]) == 1 and marks[1].isalpha())
        assert end_of_words(text) == (len(text) if whole else marks.end(1)), text
    assert end_of_words("a" * 1_000_000 + "-") == 1_000_001  # hours


def _names(labels):
    return [NAMES[i] if i != MISSING else "-" for i in labels]


def test_align_by_hand(tokenizer):
    text = "wake me at nine am on friday"
    labels, lost = align([Entity(11, 18, "time"), Entity(22, 28, "date")], tokenizer.encode(text), TAGS)
    pieces = ["[CLS]", *tokenizer.pieces(text), "[SEP]"]
    assert lost == []
    tagged = {piece: name for piece, name in zip(pieces, _names(labels), strict=True) if name not in "O-"}
    assert "".join(tagged) == " nine am friday" or tagged[" nine"] == "B-time"
    assert spans_from_tags(
        [n if n != "-" else "O" for n in _names(labels)], tokenizer.encode(text).offsets
    ) == (Entity(11, 18, "time"), Entity(22, 28, "date"))  # fmt: skip


def test_every_embedded_utterance_round_trips(tokenizer):
    train, dev = templates.generate()
    names = tag_vocabulary({e.label for u in (*train, *dev) for e in u.entities})
    ids = {tag: i for i, tag in enumerate(names)}
    for utterance in (*train[::7], *dev):
        encoding = tokenizer.encode(utterance.text)
        labels, lost = align(utterance.entities, encoding, ids)
        assert lost == []
        tags = [names[i] if i != MISSING else "O" for i in labels]
        assert spans_from_tags(tags, encoding.offsets) == tuple(sorted(utterance.entities))


def test_emoji_over_several_tokens_is_one_entity(tokenizer):
    text = "send 🦩 now"
    encoding = tokenizer.encode(text)
    assert encoding.offsets.count((5, 6)) > 1
    labels, lost = align([Entity(5, 6, "date")], encoding, TAGS)
    assert lost == []
    assert spans_from_tags([n if n != "-" else "O" for n in _names(labels)], encoding.offsets) == (
        Entity(5, 6, "date"),
    )


def test_a_span_inside_a_token_is_missing_never_moved():
    encoding = Encoding([1, 5, 6, 2], [(0, 0), (0, 5), (6, 12), (0, 0)])
    for span, reason in (
        (Entity(2, 5, "time"), "starts inside a token"),
        (Entity(6, 9, "time"), "ends inside a token"),
    ):
        labels, lost = align([span], encoding, TAGS)
        assert [(one.entity, one.reason) for one in lost] == [(span, reason)]
        touched = 1 if span.start < 5 else 2
        assert labels[touched] == MISSING and TAGS["O"] in labels


def test_a_truncated_span_is_reported(tokenizer):
    text = "wake me at nine am on friday"
    encoding = tokenizer.encode(text, max_length=8)
    read_until = max(end for _, end in encoding.offsets)
    labels, lost = align([Entity(22, 28, "date")], encoding, TAGS)
    assert [one.reason for one in lost] == ["truncated: beyond the model's max_seq_len"]
    cut_in_two = Entity(text.rindex(" ", 0, read_until) + 1, read_until + 3, "time")
    labels, lost = align([cut_in_two], encoding, TAGS)
    assert len(lost) == 1 and not {TAGS["B-time"], TAGS["I-time"]} & set(labels)


@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=12))
@settings(max_examples=300, deadline=None)
def test_well_formed_tags_equal_seqeval_strict(tags):
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.scheme import IOB2, Entities

    words = [f"w{i}" for i in range(len(tags))]
    text, spans = spans_from_words(words, tags)
    starts = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
    mine = {
        (e.label, starts.index(e.start), starts.index(e.start) + text[e.start : e.end].count(" ") + 1) for e in spans
    }
    assert mine == {(label, first, last + 1) for label, first, last in get_entities(tags)}
    strict = {(e.tag, e.start, e.end) for e in Entities([tags], IOB2).entities[0]}
    assert strict <= mine  # the rest begin with an "I-" that continues nothing: read as a beginning


def test_scores_are_means_of_token_scores():
    spans = spans_from_tags(["B-a", "I-a", "I-b"], [(0, 1), (2, 3), (4, 5)], [0.2, 0.4, 0.9])
    assert [(e.label, round(e.score, 6)) for e in spans] == [("a", 0.3), ("b", 0.9)]
