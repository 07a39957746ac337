"""Tests of stratified, grouped splits, against scikit-learn where it does the same."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from weebill.errors import ConfigError
from weebill.schema import Entity, Utterance
from weebill.splitting import label_shares, labels_of, part_sizes, split_rows, template_key
from weebill.templates import generate


def intents_only(counts):
    return [Utterance(f"{intent} {i}", intent) for intent, count in counts.items() for i in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_intents_are_as_even_as_scikit_learns(seed):
    rows = intents_only({"a": 503, "b": 77, "c": 12, "d": 5, "e": 304})
    intents = np.array([u.intent for u in rows])
    theirs = StratifiedKFold(5, shuffle=True, random_state=seed).split(intents, intents)
    spread = {name: max(c) - min(c) for name, c in _counts([intents[test] for _, test in theirs]).items()}
    folds = split_rows(rows, [181, 180, 180, 180, 180], seed=seed)
    ours = {name: max(c) - min(c) for name, c in _counts([intents[fold] for fold in folds]).items()}
    assert max(spread.values()) == 1
    assert ours.keys() == spread.keys()
    assert all(ours[name] <= 1 for name in ours)


def test_a_part_of_intents_is_as_even_as_scikit_learns():
    rows = intents_only({"a": 503, "b": 77, "c": 12, "d": 5, "e": 304})
    intents = np.array([u.intent for u in rows])
    _, theirs = next(StratifiedShuffleSplit(1, test_size=100, random_state=0).split(intents, intents))
    _, ours = split_rows(rows, [801, 100])
    expected = {name: count * 100 / len(rows) for name, count in Counter(intents).items()}
    worst = [max(abs(Counter(intents[part])[name] - expected[name]) for name in expected) for part in (theirs, ours)]
    assert worst[1] <= max(1, worst[0])


def _counts(parts):
    counted = [Counter(part) for part in parts]
    return {name: [c[name] for c in counted] for c in counted for name in c}


def test_entity_types_are_spread_too_where_a_split_by_intent_leaves_them_to_chance():
    rng = random.Random(1)
    rows = []
    for i in range(3000):
        found = [n for n in range(12) if rng.random() < 0.3 / (n + 1)]
        rows.append(Utterance(f"text number {i}", f"i{i % 4}", tuple(Entity(n, n + 1, f"e{n}") for n in found)))
    intents = [u.intent for u in rows]
    _, theirs = next(StratifiedShuffleSplit(1, test_size=300, random_state=0).split(intents, intents))
    worst = []
    for part in (theirs, split_rows(rows, [2700, 300])[1]):
        shares = label_shares(rows, [part, [i for i in range(3000) if i not in set(part)]])
        worst.append(max(abs(share.parts[0] - share.total / 10) for share in shares))
    assert worst[1] <= 1.5 < 5 < worst[0]


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from("xyz"), st.sets(st.sampled_from("abc"))), min_size=6, max_size=60
    ),
    st.integers(0, 5),
)
def test_texts_and_groups_never_cross(rows, seed):
    utterances = [
        Utterance(
            f"T{n}" + " " * (i % 2), intent, tuple(Entity(k, k + 1, name) for k, name in enumerate(sorted(found)))
        )
        for i, (n, intent, found) in enumerate(rows)
    ]
    size = len(rows) // 3
    groups = [n // 2 if n < 6 else -i for i, (n, _, _) in enumerate(rows)]
    parts = split_rows(utterances, [len(rows) - 2 * size, size, size], groups.__getitem__, seed)
    assert sorted(row for part in parts for row in part) == list(range(len(rows)))
    for key in (lambda i: utterances[i].text.strip().lower(), groups.__getitem__):
        owners = [{key(row) for row in part} for part in parts]
        assert all(a.isdisjoint(b) for a in owners for b in owners if a is not b)
    assert parts == split_rows(utterances, [len(rows) - 2 * size, size, size], groups.__getitem__, seed)


def test_sizes_are_exact_when_groups_allow_it():
    rows = [Utterance(f"{i}", f"i{i % 7}", ()) for i in range(1003)]
    assert [len(part) for part in split_rows(rows, [700, 200, 103])] == [700, 200, 103]
    unlabelled = [Utterance(f"{i}") for i in range(10)]
    assert [len(part) for part in split_rows(unlabelled, [5, 3, 2])] == [5, 3, 2]


def test_generated_data_split_by_template():
    train, _ = generate(2000)
    parts = split_rows(train, [1360, 340], lambda row: template_key(train[row]))
    keys = [{train[row].key for row in part} for part in parts]
    assert keys[0].isdisjoint(keys[1])
    assert all(share.parts[1] > 0 for share in label_shares(train, parts) if share.label.startswith("intent"))
    assert split_rows(train, [1360, 340], seed=1) != split_rows(train, [1360, 340], seed=2)


def test_labels_and_templates():
    u = Utterance("From Oslo to Rome", "go", (Entity(13, 17, "to"), Entity(5, 9, "from")))
    assert labels_of(u) == {"intent go", "entity to", "entity from"}
    assert template_key(u) == "from {from} to {to}"
    assert template_key(Utterance("x", key="go/train/1")) == "go/train/1"


@pytest.mark.parametrize(
    ("sizes", "rows", "expected"),
    [
        ({"dev": 0.1}, 1000, {"train": 900, "dev": 100}),
        ({"dev": 0.1, "test": 250}, 1000, {"train": 650, "dev": 100, "test": 250}),
        ({"train": 0.7, "dev": 0.2, "test": 0.1}, 11, {"train": 8, "dev": 2, "test": 1}),
        ({"train": 6, "dev": 4}, 10, {"train": 6, "dev": 4}),
    ],
)
def test_part_sizes(sizes, rows, expected):
    assert part_sizes(sizes, rows) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dev": -1}, "size of dev: expected a fraction between 0 and 1 or a whole count, got -1"),
        ({"dev": float("nan")}, "whole count, got nan"),
        ({"dev": float("inf")}, "whole count, got inf"),
        ({"dev": 1.5}, "whole count, got 1.5"),
        ({"dev": 10}, "one row or more in each part of 10, got train 0, dev 10"),
        ({"dev": 0.01}, "one row or more in each part of 10, got train 10, dev 0; give sizes as counts of rows"),
        ({"train": 0.5, "dev": 0.1}, "got train 5, dev 1; leave train out"),
        ({"dev": 0.01}, "got train 10, dev 0"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(ConfigError, match=message):
        part_sizes(sizes, 10)
