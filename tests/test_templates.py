"""Tests of the embedded grammar and of what is drawn from it; trains nothing."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

from weebill.errors import ConfigError
from weebill.templates import generate, load_grammar, paraphrase_pairs, paraphrase_triplets

PLACEHOLDER = re.compile(r"\{(\w+)\}")
Reading = tuple[str, str, frozenset[tuple[str, str]]]


@cache
def patterns(split: str) -> list[tuple[str, str, re.Pattern[str]]]:
    """Every template as a regular expression: an outside way from text back to (intent, template, values)."""
    grammar = load_grammar()
    found = []
    for intent, templates in grammar.intents.items():
        for template in (template.source for template in templates[split]):
            pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
            slot = lambda m: f"(?P<{m[1]}>{'|'.join(map(re.escape, grammar.values(m[1])))})"  # noqa: E731
            found.append((intent, template, re.compile(PLACEHOLDER.sub(slot, pattern))))
    return found


def readings(text: str, split: str) -> list[Reading]:
    matches = [(intent, template, pattern.fullmatch(text)) for intent, template, pattern in patterns(split)]
    return [(intent, template, frozenset(m.groupdict().items())) for intent, template, m in matches if m]


def test_sizes_and_balance():
    train, dev = generate()
    assert len({u.text for u in train + dev}) == len(train) + len(dev) == 7000
    assert len(dev) == 1050
    assert len({e.label for u in train + dev for e in u.entities}) >= 15
    for utterances in (train, dev):
        counts = Counter(u.intent for u in utterances)
        assert len(counts) >= 15
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_data_are_the_ones_that_published_numbers_were_measured_on():
    """Hashes of what the JSON grammar of version 0.1, with its own sampler, gave; a new one makes the demo another."""
    rows = [[(u.text, u.intent, [(e.start, e.end, e.label) for e in u.entities], u.id, u.key) for u in part]
            for part in generate()]  # fmt: skip
    assert (
        hashlib.sha256(repr(rows).encode()).hexdigest()
        == "5342f1d144603ee7cb80566b2c89f270549190f9b2a58a53f54435a17babfb44"
    )


def test_templates_are_plain_as_the_paraphrases_need():
    for templates in load_grammar().intents.values():
        for template in (template for part in templates.values() for template in part):
            labels = PLACEHOLDER.findall(template.source)
            assert len(set(labels)) == len(labels)
            assert not re.search(r"[][()<>|/\\\\]", template.source)


def test_spans_are_slot_values_of_the_template():
    grammar = load_grammar()
    values = {label: set(grammar.values(label)) for label in grammar.slots}
    for u in [u for part in generate() for u in part]:
        intent, split, number = u.key.split("/")
        template = grammar.intents[intent][split][int(number)].source
        assert intent == u.intent
        assert list(u.entities) == sorted(u.entities)
        assert [e.label for e in u.entities] == PLACEHOLDER.findall(template)
        rebuilt = template
        for e in u.entities:
            assert u.text[e.start : e.end] in values[e.label]
            rebuilt = rebuilt.replace(f"{{{e.label}}}", u.text[e.start : e.end])
        assert rebuilt == u.text


def test_train_and_dev_share_no_template_and_ids_are_unique():
    train, dev = generate()
    assert {u.key for u in train}.isdisjoint(u.key for u in dev)
    assert len({u.id for u in train + dev}) == len(train) + len(dev)
    assert {u.key for u in train + dev} == {
        f"{intent}/{split}/{i}"
        for intent, splits in load_grammar().intents.items()
        for split, templates in splits.items()
        for i in range(len(templates))
    }


def test_same_seed_same_data_in_any_process():
    code = (
        "from weebill.templates import *\n"
        "drawn = generate(300, 5), paraphrase_triplets('train', 40, 5), paraphrase_pairs('dev', 40, 5)\n"
        "print([repr(part) for part in drawn])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    here = (generate(300, 5), paraphrase_triplets("train", 40, 5), paraphrase_pairs("dev", 40, 5))
    assert outputs[0] == outputs[1] == f"{[repr(x) for x in here]}\n"
    assert generate(300, 5) == here[0] != generate(300, 6)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_triplets(split):
    triplets = paraphrase_triplets(split, 300)
    assert len(set(triplets)) == 300
    other_intent = 0
    for anchor, positive, negative in triplets:
        of_anchor, of_positive, of_negative = (readings(text, split) for text in (anchor, positive, negative))
        assert any(a[0] == p[0] and a[2] == p[2] and a[1] != p[1] for a in of_anchor for p in of_positive)
        assert of_negative
        assert not any(a[0] == n[0] and a[2] == n[2] for a in of_anchor for n in of_negative)
        other_intent += {a[0] for a in of_anchor}.isdisjoint(n[0] for n in of_negative)
    assert 100 < other_intent < 200


def test_pairs_are_graded():
    pairs = paraphrase_pairs("dev", 301)
    assert Counter(p.score for p in pairs) == {1.0: 101, 0.5: 100, 0.0: 100}
    for pair in pairs:
        both = [(a, b) for a in readings(pair.a, "dev") for b in readings(pair.b, "dev")]
        same_intent = any(a[0] == b[0] for a, b in both)
        same_meaning = any(a[0] == b[0] and a[2] == b[2] for a, b in both)
        assert (same_intent, same_meaning) == (pair.score > 0, pair.score == 1)


def test_too_many_utterances():
    with pytest.raises(ConfigError, match=r"expected at most \d+ distinct dev .* lower the count"):
        generate(10_000_000)
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        generate(1)
