"""The best legal sequence of tags, against all sequences there are; and what decoding makes of it."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill.decoding import TagGrammar, Transitions
from weebill.label_facts import entities_are_whole_words, touching_labels
from weebill.predictor import Predictor
from weebill.schema import Entity, ModelOutput, Utterance
from weebill.tokenizer import Tokenizer

TAGS = ["B-a", "O", "I-b", "I-a", "B-b"]


def _is_legal(tags, continues, touching="ab"):
    before = "O"
    for tag, goes_on in zip(tags, continues, strict=True):
        follows = tag[0] == "I" and before in (f"B-{tag[2:]}", tag)
        if not (follows or (tag == "O" and before == "O") or (not goes_on and tag[0] != "I")):
            return False
        if tag[0] == "B" and before[2:] == tag[2:] and tag[2:] not in touching:
            return False
        before = tag
    return True


def _best_by_trying_all(logits_TL, reads, continues, touching):
    read = [t for t in range(len(reads)) if reads[t]]
    legal = [s for s in product(range(len(TAGS)), repeat=len(read))
             if _is_legal([TAGS[i] for i in s], [continues[t] for t in read], touching)]  # fmt: skip
    return max(legal, key=lambda s: sum(logits_TL[t, i] for t, i in zip(read, s, strict=True))), read


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, "", "a", "b"]))
def test_decoding_finds_the_best_of_all_legal_sequences(seed, touching):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(6, 5, len(TAGS))).astype(np.float32)
    reads, continues = rng.random((6, 5)) < 0.8, rng.random((6, 5)) < 0.4
    places = [np.flatnonzero(row).tolist() for row in reads]
    grammar = TagGrammar(TAGS, touching=touching)
    got = grammar.decode(logits, places, [c[p].tolist() for c, p in zip(continues, places, strict=True)])
    for row in range(6):
        expected, read = _best_by_trying_all(
            logits[row], reads[row], continues[row], "ab" if touching is None else touching
        )
        assert places[row] == read and tuple(got[row]) == expected


def test_a_sequence_that_is_legal_already_stays():
    logits = np.full((1, 4, 5), -9.0, dtype=np.float32)
    for t, tag in enumerate(["O", "B-b", "I-b", "B-b"]):
        logits[0, t, TAGS.index(tag)] = 1.0
    got = TagGrammar(TAGS).decode(logits, [[0, 1, 2, 3]], [[False, False, True, False]])
    assert [TAGS[i] for i in got[0]] == ["O", "B-b", "I-b", "B-b"]


@pytest.mark.parametrize("touching", ["ab", "b", ""])
@pytest.mark.parametrize("seed", range(20))
def test_a_crf_reads_the_best_of_all_legal_sequences(seed, touching):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 6))
    chain = Transitions(*(rng.normal(0, 2, shape) for shape in ((5,), (5, 5), (5,))))
    logits = rng.normal(size=(2, length, 5))
    reads, continues = rng.random((2, length)) < 0.8, np.zeros((2, length), bool)
    for row in range(2):
        places = np.flatnonzero(reads[row])
        continues[row, places[1:]] = rng.random(max(0, len(places) - 1)) < 0.3
    read = [np.flatnonzero(row).tolist() for row in reads]
    going_on = [row[places].tolist() for row, places in zip(continues, read, strict=True)]
    got = TagGrammar(TAGS, chain, touching).decode(logits, read, going_on)
    for row, places in enumerate(read):
        if not places:
            continue
        every = product(range(5), repeat=len(places))
        best = max(
            (seq for seq in every if _is_legal([TAGS[i] for i in seq], continues[row, places], touching)),
            key=lambda seq: sum(logits[row, t, tag] for t, tag in zip(places, seq, strict=True))
            + chain.start_L[seq[0]] + chain.end_L[seq[-1]]
            + sum(chain.transitions_LL[a, b] for a, b in pairwise(seq)),
        )  # fmt: skip
        assert got[row] == list(best)


def _predict(whole_words, spelled, text="set bluetooth now"):
    """Parse a text, a token a letter, with logits that spell a tag for each token (special ones aside)."""
    tokenizer = Tokenizer.train(["set now"] * 9, 260)
    predictor = Predictor(tokenizer, None, 32, 4, ["x"], TAGS, whole_words)
    batch = tokenizer.encode_batch([text])
    logits = np.zeros((1, batch.input_ids_BT.shape[1], len(TAGS)), dtype=np.float32)
    for t, (start, end) in enumerate(batch.encodings[0].offsets):
        logits[0, t, TAGS.index(spelled(start) if start != end else "B-a")] = 2.0 + start / 10
    output = ModelOutput(np.zeros((1, 4), np.float32), np.ones((1, 1), np.float32), logits)
    return [(text[e.start : e.end], e.label) for e in predictor.decode([text], batch, output)[0].entities]


def test_equal_scores_leave_entities_of_a_label_apart():
    zeros = np.zeros((1, 5, 5), dtype=np.float32)
    zeros[0, :, TAGS.index("B-a")] = 1.0  # each token begins an entity
    got = TagGrammar(TAGS, touching=()).decode(zeros, [range(5)], [[False] * 5])
    tags = [TAGS[i] for i in got[0]]
    assert tags.count("B-a") == 3 and _is_legal(tags, [False] * 5, "")


def test_labels_that_touch_are_found_in_the_rows():
    apart = Utterance(
        "call anna, bob at 9 am", "x", (Entity(5, 9, "who"), Entity(11, 14, "who"), Entity(18, 22, "time"))
    )
    near = Utterance("anna bob 9 am", "x", (Entity(5, 8, "who"), Entity(0, 4, "who"), Entity(9, 13, "time")))
    assert touching_labels([apart, Utterance("hi", "x")]) == () and touching_labels([apart, near]) == ("who",)


def test_entities_are_whole_words_where_a_model_says_so():
    def half(start):  # "blue" of "bluetooth", with less weight than the rest of the word outside
        return "B-a" if start == 4 else "I-a" if 4 < start < 8 else "O"

    assert _predict(False, half) == [("blue", "a")]
    assert _predict(True, half) == []

    def most(start):  # "luetooth"
        return "B-b" if start == 5 else "I-b" if 5 < start < 13 else "O"

    assert _predict(False, most) == [("luetooth", "b")]
    assert _predict(True, most) == [("bluetooth", "b")]


def test_marks_that_end_a_text_are_no_part_of_an_entity():
    def last_word_and_mark(start):
        return "B-a" if start == 4 else "I-a" if start > 4 else "O"

    assert _predict(True, last_word_and_mark, "set now?!") == [("now", "a")]
    assert _predict(False, last_word_and_mark, "set now?!") == [("now?!", "a")]
    assert _predict(True, last_word_and_mark, "set 5 p.m.") == [("5 p.m.", "a")]


def test_an_inside_tag_begins_no_entity():
    alone = TagGrammar(TAGS).decode(np.eye(5, dtype=np.float32)[None, [3]] * 5, [[0]], [[False]])
    assert TAGS[alone[0][0]] != "I-a"


@pytest.mark.parametrize(
    ("text", "span", "whole"),
    [
        ("wake me at 9am", (11, 14), True),
        ("wake me at 9am", (11, 12), False),
        ("anna's birthday", (0, 4), True),
        ("明天早上叫醒我", (0, 2), False),
        ("café now", (0, 4), True),
        ("cafe\u0301 now", (0, 4), False),
    ],
)
def test_whole_words_are_told_from_parts(text, span, whole):
    assert entities_are_whole_words([Utterance(text, "x", (Entity(*span, "a"),))]) is whole
