"""Tests of what is drawn from a grammar: sizes, weights, distinctness, order and the end of what it can give."""

from collections import Counter

import pytest

from weebill.errors import ConfigError
from weebill.generator import draw_utterances
from weebill.grammar import parse_grammar
from weebill.splitting import text_key

TRAVEL = """\
slots:
  city: [Rome, Oslo, Lima, Bern]
intents:
  go:
    - from {from_city:city} to {to_city:city}
    - /0.5/ [please] take me to {city}
  stop: [stop now, halt, (stop|halt) there]
"""


def drawn(text, count, **options):
    return draw_utterances(parse_grammar(text, "g.yaml"), {"": count}, **options)[""]


def test_unique_draws_reach_every_text_and_no_more():
    every = drawn(TRAVEL, 24)
    assert len({u.text for u in every}) == 24  # 4 · 3 pairs of two cities, 2 · 4 with one; stop: 2 + 2
    for u in every:
        values = [u.text[e.start : e.end] for e in u.entities]
        assert len(set(values)) == len(values)
    with pytest.raises(ConfigError, match=r"expected at most 24 distinct utterances, .* request for 25; lower"):
        drawn(TRAVEL, 25)


def test_weights_are_followed_before_everything_is_used_up():
    numbers = ", ".join(f"n{i}" for i in range(200))
    grammar = f"slots: {{n: [{numbers}]}}\nintents: {{x: ['/3/ a {{n}}', '(b|/4/ c {{n}}) [d] {{n2:n}}']}}"
    found = drawn(grammar, 200)
    first = Counter(u.key for u in found)
    assert first == {"x/0": 150, "x/1": 50}
    starts = Counter(u.text[0] for u in found)
    assert starts["c"] > 2 * starts["b"]


def test_same_seed_same_list_and_ids_are_unique():
    assert drawn(TRAVEL, 12) == drawn(TRAVEL, 12) != drawn(TRAVEL, 12, seed=1)
    many = drawn(TRAVEL, 500, unique=False)
    assert many == drawn(TRAVEL, 500, unique=False)
    assert len({u.id for u in many}) == 500 > len({u.text for u in many})
    assert Counter(u.intent for u in many) == {"go": 250, "stop": 250}
    assert many[0].source.startswith("g.yaml:")


def test_splits_share_no_text_and_the_smaller_chooses_first():
    text = "slots: {n: [a, b, c, d]}\nintents: {x: {train: ['go {n}', 'run {n}'], dev: ['(go|walk) {n}']}}"
    parts = draw_utterances(parse_grammar(text, "g.yaml"), {"train": 6, "dev": 2})
    assert [len(part) for part in parts.values()] == [6, 2]
    assert list(parts) == ["train", "dev"]
    assert {u.text for u in parts["train"]}.isdisjoint(u.text for u in parts["dev"])
    with pytest.raises(ConfigError, match=r"splits of the grammar .train, dev., got 'test'"):
        draw_utterances(parse_grammar(text, "g.yaml"), {"test": 1})


@pytest.mark.parametrize("unique", [True, False])
def test_a_text_is_never_annotated_in_two_ways(unique):
    text = "slots: {a: [x, y], b: [x, y]}\nintents: {one: ['{a}'], two: ['{b}', z]}"
    found = drawn(text, 3, unique=unique)
    readings = {(u.text, u.intent, u.entities) for u in found}
    assert len({u.text for u in found}) == len(readings)


def test_letter_case_makes_no_other_text():
    text = "slots: {n: [a, b, c]}\nintents: {on: {train: ['go {n}', 'Go {n}', 'Run'], dev: ['GO {n}']}, off: ['run']}"
    grammar = parse_grammar(text.replace("off: ['run']", "off: {train: ['run'], dev: ['RUN']}"), "g.yaml")
    parts = draw_utterances(grammar, {"train": 4, "dev": 2})
    seen = {}
    for split, utterances in parts.items():
        for u in utterances:
            assert seen.setdefault(text_key(u.text), (split, u.intent)) == (split, u.intent)
    assert sum(map(len, parts.values())) == 6


def test_a_template_that_cannot_be_filled_ends():
    text = "slots: {a: [x]}\nintents: {one: ['{a} {b:a}']}"
    for unique in (True, False):
        with pytest.raises(ConfigError, match="expected at most 0 distinct utterances"):
            drawn(text, 1, unique=unique)
