"""Replaced words: each stood between the same two words somewhere, and drawn as often as it did."""

from collections import Counter
from dataclasses import replace

import pytest

from weebill import templates
from weebill.schema import Entity, Utterance
from weebill.substitution import EDGE, replace_words, word_frames

ROWS = templates.generate()[0][::10]


def test_every_word_stood_between_its_two_neighbours_somewhere():
    frames = word_frames(u.text for u in ROWS)
    rows = {str(i): replace(u, source=str(i)) for i, u in enumerate(ROWS)}
    copies = list(replace_words(list(rows.values()), frames, 0.3, 2, seed=0))
    assert len(copies) > 0.5 * len(ROWS)
    for copy in copies:
        assert (copy.intent, copy.entities) == (None, None)
        was, now = ([EDGE, *text.split(), EDGE] for text in (rows[copy.source].text, copy.text))
        assert len(was) == len(now)
        for i in range(1, len(now) - 1):  # from left to right: what is behind was still as before
            assert now[i] == was[i] or now[i] in frames[now[i - 1], was[i + 1]]


def test_words_are_drawn_as_often_as_they_stood_there():
    frames = word_frames(["a x b"] * 3 + ["a y b"])
    rows = [Utterance("a x b", "i", (Entity(2, 3, "l"),))] * 8_000
    middle = {("a", "b"): frames["a", "b"]}
    drawn = Counter(u.text for u in replace_words(rows, middle, 0.5, 1, 1))
    assert drawn.keys() == {"a y b"} and drawn["a y b"] == pytest.approx(8_000 * 0.5 * 0.25, rel=0.1)


def test_the_share_and_the_seed_decide():
    frames = word_frames(u.text for u in ROWS)
    few, many = (list(replace_words(ROWS, frames, share, 1, 0)) for share in (0.05, 0.9))
    assert len(few) < len(many)
    assert few == list(replace_words(ROWS, frames, 0.05, 1, 0)) != list(replace_words(ROWS, frames, 0.05, 1, 1))
    assert list(replace_words(ROWS, {}, 1.0, 3, 0)) == []
