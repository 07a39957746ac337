"""Tests of exchanging slot values: spans, values, known texts, order and the end of what is there."""

import pytest

from weebill.augment import augment
from weebill.errors import ConfigError
from weebill.grammar import parse_grammar
from weebill.schema import Entity, Utterance
from weebill.templates import generate

DATA = [
    Utterance("from Rome to Oslo", "go", (Entity(5, 9, "city"), Entity(13, 17, "city")), id="1"),
    Utterance("to lima", "go", (Entity(3, 7, "city"),), id="2"),
    Utterance("To Rome", "stay", (), id="3"),
    Utterance("去东京吧", "go", (Entity(1, 3, "city"),), id="4"),
]


def test_new_texts_have_other_values_at_exact_spans():
    made = augment(generate(400)[0], 600, seed=3)
    known = {u.text.lower() for u in generate(400)[0]}
    sources = {u.id: u for u in generate(400)[0]}
    assert len({u.text.lower() for u in made}) == len({u.id for u in made}) == 600
    for u in made:
        source = sources[u.id.rpartition("~")[0]]
        assert u.text.lower() not in known
        assert (u.intent, u.key, [e.label for e in u.entities]) == (
            source.intent, source.key, [e.label for e in source.entities],
        )  # fmt: skip
        frame, done = "", 0
        for e in u.entities:
            frame, done = frame + u.text[done : e.start] + f"{{{e.label}}}", e.end
        theirs, done = "", 0
        for e in source.entities:
            theirs, done = theirs + source.text[done : e.start] + f"{{{e.label}}}", e.end
        assert frame + u.text[u.entities[-1].end :] == theirs + source.text[source.entities[-1].end :]


def test_a_text_known_with_another_annotation_is_never_made():
    made = augment(DATA, 16)
    assert "to rome" not in {u.text.lower() for u in made}
    assert {"去Rome吧", "去Oslo吧", "去lima吧"} == {u.text for u in made if u.id.startswith("4")}
    assert {u.text for u in made if u.id.startswith("2")} == {"to Oslo", "to 东京"}
    assert all(len({u.text[e.start : e.end] for e in u.entities}) == len(u.entities) for u in made)
    with pytest.raises(ConfigError, match=r"expected about 16 new utterances at most, .* request for 17; lower"):
        augment(DATA, 17)


def test_seeded():
    assert augment(DATA, 9) == augment(DATA, 9) != augment(DATA, 9, seed=1)


def test_values_of_a_grammar_take_the_place_of_the_datas():
    grammar = parse_grammar("slots: {city: ['(north|south) pole', /2/ Bern]}\nintents: {x: [y]}", "g.yaml")
    made = augment(DATA, 12, slots=grammar.slots)
    assert {u.text[e.start : e.end] for u in made for e in u.entities} == {"north pole", "south pole", "Bern"}
    assert DATA[0].text.startswith("from Rome")


def test_data_without_entities():
    with pytest.raises(ConfigError, match="expected about 0 new utterances"):
        augment([Utterance("hi", "greet", ())], 1)
