"""Swapped values: other ones of their label, exact spans, new texts, the same for the same seed; where they end."""

import pytest

from weebill.errors import ConfigError
from weebill.grammar import parse_grammar
from weebill.schema import Entity, Utterance
from weebill.splitting import text_key
from weebill.swapping import augment, swap_values
from weebill.templates import generate

DATA = [
    Utterance("from Rome to Oslo", "go", (Entity(5, 9, "city"), Entity(13, 17, "city")), id="1"),
    Utterance("to lima", "go", (Entity(3, 7, "city"),), id="2"),
    Utterance("To Rome", "stay", (), id="3"),
    Utterance("去东京吧", "go", (Entity(1, 3, "city"),), id="4"),
]


def _frame(utterance):
    """The utterance with its values taken out: what a swap must not change."""
    text, done, out = utterance.text, 0, []
    for entity in sorted(utterance.entities):
        out += [text[done : entity.start], f"[{entity.label}]"]
        done = entity.end
    return utterance.intent, utterance.key, *out, text[done:]


@pytest.mark.parametrize("swap", [lambda rows: list(swap_values(rows, copies=3)), lambda rows: augment(rows, 600, 3)])
def test_only_values_change_and_texts_are_new(swap):
    rows = generate(400)[0]
    values = {(e.label, u.text[e.start : e.end]) for u in rows for e in u.entities}
    by_id = {u.id: u for u in rows}
    swapped = swap(rows)
    texts = {text_key(u.text) for u in swapped}
    assert len(swapped) == len(texts) == len({u.id for u in swapped}) > len(rows)
    assert not texts & {text_key(u.text) for u in rows}
    for utterance in swapped:
        original = by_id[utterance.id.rpartition("~")[0]]
        assert _frame(utterance) == _frame(original)
        for new, old in zip(utterance.entities, sorted(original.entities), strict=True):
            value = utterance.text[new.start : new.end]
            assert (new.label, value) in values and value != original.text[old.start : old.end]


def test_a_text_known_with_another_annotation_is_never_made():
    made = augment(DATA, 12)
    assert "to rome" not in {u.text.lower() for u in made}
    assert {"去Rome吧", "去Oslo吧", "去lima吧"} == {u.text for u in made if u.id.startswith("4")}
    assert {u.text for u in made if u.id.startswith("2")} == {"to Oslo", "to 东京"}
    assert {u.text for u in made if u.id.startswith("1")} == {
        f"from {a} to {b}" for a in ("Oslo", "lima", "东京") for b in ("Rome", "lima", "东京") if a != b
    }
    with pytest.raises(ConfigError, match=r"expected about 12 new utterances at most, .* request for 13; lower"):
        augment(DATA, 13)


def test_seeded():
    assert augment(DATA, 9) == augment(DATA, 9) != augment(DATA, 9, seed=1)
    assert list(swap_values(DATA, 2)) == list(swap_values(DATA, 2)) != list(swap_values(DATA, 2, seed=1))


def test_each_utterance_gets_as_many_turns_as_asked_for():
    assert {u.id for u in swap_values(generate(40)[0], 2)} <= {f"{u.id}~{n}" for u in generate(40)[0] for n in (1, 2)}


def test_values_of_a_grammar_take_the_place_of_the_datas():
    grammar = parse_grammar("slots: {city: ['(north|south) pole', /2/ Bern]}\nintents: {x: [y]}", "g.yaml")
    made = augment(DATA, 12, slots=grammar.slots)
    assert {u.text[e.start : e.end] for u in made for e in u.entities} == {"north pole", "south pole", "Bern"}
    assert DATA[0].text.startswith("from Rome")


def test_what_cannot_be_swapped_is_left_out():
    alone = Utterance("play jazz", "play", (Entity(5, 9, "genre"),))
    rows = [alone, Utterance("hello", "greet", ()), Utterance("no labels")]
    assert list(swap_values(rows, 5)) == list(swap_values(rows)) == []
    with pytest.raises(ConfigError, match="expected about 0 new utterances"):
        augment(rows, 1)


def test_entities_out_of_order_and_side_by_side():
    rows = [Utterance("ab", "x", (Entity(1, 2, "late"), Entity(0, 1, "early"))),
            Utterance("CCC", "x", (Entity(0, 3, "early"),)), Utterance("DD", "x", (Entity(0, 2, "late"),))]  # fmt: skip
    first = next(swap_values(rows))
    assert (first.text, first.entities) == ("CCCDD", (Entity(0, 3, "early"), Entity(3, 5, "late")))
