"""Swapped values: other ones of their label, exact spans, the same for the same seed."""

from weebill import templates
from weebill.schema import Entity, Utterance
from weebill.swapping import swap_values


def _filled(utterance):
    """The utterance with its values taken out: what a swap must not change."""
    text, done, out = utterance.text, 0, []
    for entity in sorted(utterance.entities):
        out += [text[done : entity.start], f"[{entity.label}]"]
        done = entity.end
    return utterance.intent, *out, text[done:]


def test_only_values_change_and_spans_hold_values_of_their_label():
    rows = templates.generate()[0][::20]
    values = {(e.label, u.text[e.start : e.end]) for u in rows for e in u.entities}
    swapped = swap_values(rows, copies=3, seed=0)
    assert len(swapped) > len(rows)
    by_id = {u.id: u for u in rows}
    for utterance in swapped:
        original = by_id[utterance.id.rpartition("~")[0]]
        assert _filled(utterance) == _filled(original)
        for new, old in zip(utterance.entities, sorted(original.entities), strict=True):
            value = utterance.text[new.start : new.end]
            assert (new.label, value) in values and value != original.text[old.start : old.end]


def test_texts_are_new_and_distinct_and_follow_the_seed():
    rows = templates.generate()[0][::40]
    texts = [u.text for u in swap_values(rows, 2, seed=1)]
    assert len(set(texts)) == len(texts) and not set(texts) & {u.text for u in rows}
    assert texts == [u.text for u in swap_values(rows, 2, seed=1)] != [u.text for u in swap_values(rows, 2, seed=2)]


def test_what_cannot_be_swapped_is_left_out():
    alone = Utterance("play jazz", "play", (Entity(5, 9, "genre"),))
    assert swap_values([alone, Utterance("hello", "greet", ()), Utterance("no labels")], 5, seed=0) == []


def test_entities_out_of_order_and_side_by_side():
    rows = [Utterance("ab", "x", (Entity(1, 2, "late"), Entity(0, 1, "early"))),
            Utterance("CCC", "x", (Entity(0, 3, "early"),)), Utterance("DD", "x", (Entity(0, 2, "late"),))]  # fmt: skip
    first = swap_values(rows, 1, seed=0)[0]
    assert (first.text, first.entities) == ("CCCDD", (Entity(0, 3, "early"), Entity(3, 5, "late")))
