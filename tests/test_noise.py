"""Noise: what changes is one place of the text; spans go on holding their values, words keep their number."""

from dataclasses import replace
from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weebill import templates
from weebill.noise import ERRORS, double, edit, hesitations, leave_out, next_key, swap_letters, typing_errors
from weebill.schema import Entity, Utterance
from weebill.soft_tags import word_spans

ROWS = templates.generate()[0][::40]


@given(st.text("ab ", min_size=1, max_size=12), st.data())
def test_entities_hold_what_they_held_but_for_the_change(text, data):
    bounds = st.lists(st.integers(0, len(text)), min_size=2, max_size=2).map(sorted)
    start, end = data.draw(bounds)
    a, b = data.draw(bounds.filter(lambda ab: ab[0] < ab[1] and not any(start < at < end for at in ab)))
    new = data.draw(st.text("xyz", max_size=3))
    changed = edit(Utterance(text, "i", (Entity(a, b, "l"),)), (start, end, new))
    assert changed.text == text[:start] + new + text[end:]
    (entity,) = changed.entities
    inside = a <= start and end <= b and not (start == end and start in (a, b))  # text put in at an edge is outside
    expected = text[a:start] + new + text[end:b] if inside else text[a:b]
    assert changed.text[entity.start : entity.end] == expected and entity.label == "l"


@pytest.mark.parametrize(
    ("error", "text"),
    [(swap_letters, "jzaz"), (leave_out, "jzz"), (double, "jaazz"), (next_key, "jszz")],
)
def test_each_error_does_what_it_says(error, text):
    assert edit(Utterance("jazz"), error("jazz", 1)).text == text


@given(st.text(st.characters(codec="utf-8"), max_size=12), st.integers(0, 2**32 - 1))
def test_an_error_stays_inside_a_word_of_any_text(text, seed):
    for changed, clean in typing_errors([Utterance(text)], 3, seed):
        assert clean.text == text != changed.text
        assert len(word_spans(changed.text)) == len(word_spans(text))


def test_what_is_on_no_english_keyboard_has_errors_too():
    russian = [Utterance("разбуди меня ДОМА завтра утром")] * 200
    assert len(list(typing_errors(russian, 1, seed=0))) == 200
    assert edit(Utterance("WAKE"), next_key("WAKE", 1)).text == "WSKE"
    chinese = Utterance("我要三个苹果", "order", (Entity(2, 3, "number"), Entity(4, 6, "fruit")))
    assert all(c.text[e.start : e.end] == "三" for c, _ in typing_errors([chinese] * 50, 1, 0) for e in c.entities[:1])
    assert list(typing_errors([replace(chinese, text="我要北京话的")], 9, 0)) == []


def test_every_copy_has_one_error_where_a_word_is_long_enough():
    pairs = list(typing_errors(ROWS, 2, seed=0))
    assert len(pairs) > 1.8 * len(ROWS)
    for changed, clean in pairs:
        assert changed.intent == clean.intent and abs(len(changed.text) - len(clean.text)) <= 1
        assert SequenceMatcher(None, changed.text, clean.text, autojunk=False).ratio() > 0.85
        spans = [[(u.text[e.start : e.end].split()[0][0], e.label) for e in u.entities] for u in (changed, clean)]
        assert spans[0] == spans[1]  # the first letter of a word stays
    assert pairs == list(typing_errors(ROWS, 2, seed=0)) != list(typing_errors(ROWS, 2, seed=1))
    assert list(typing_errors([Utterance("go to it")], 5, seed=0)) == []
    assert {len(c.text) - len(u.text) for c, u in pairs} == {-1, 0, 1} and len(ERRORS) == 4


def test_hesitations_stand_around_an_utterance_whose_entities_are_as_before():
    for said, utterance in zip(hesitations(ROWS, seed=0), ROWS, strict=True):
        assert utterance.text in said.text and len(said.text) > len(utterance.text)
        held = [[(u.text[e.start : e.end], e.label) for e in u.entities] for u in (said, utterance)]
        assert held[0] == held[1] and said.intent == utterance.intent
