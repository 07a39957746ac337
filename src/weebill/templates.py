"""Writes the embedded English utterances and paraphrases from a small grammar; reads no user data and trains nothing.

The grammar is `assets/templates.yaml`: values per entity type, and templates per intent and split. The two splits share
slot values but no template, so dev measures phrasings that training never showed. Its templates are text and plain
{slots}, each slot once, which the paraphrases rely on.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, TypeVar

from weebill.errors import ConfigError
from weebill.generator import draw_utterances
from weebill.grammar import Grammar, parse_grammar
from weebill.schema import Entity, ScoredPair, Utterance

Split = Literal["train", "dev"]

DEV_FRACTION = 0.15
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_GRAMMAR_FILE = "assets/templates.yaml"

_T = TypeVar("_T")


@cache
def load_grammar() -> Grammar:
    """Return the grammar that ships with the package; read once, shared, not to be changed.

    Example:
        >>> load_grammar().intents["set_alarm"]["train"][0].source
        'set an alarm for {time}'
    """
    return parse_grammar((files("weebill") / _GRAMMAR_FILE).read_text(encoding="utf-8"), _GRAMMAR_FILE)


@cache
def _values(label: str) -> tuple[str, ...]:
    return load_grammar().values(label)


def render(template: str, values: Mapping[str, str]) -> tuple[str, tuple[Entity, ...]]:
    """Return the template with its slots filled, and the entities in order of start; unused values are ignored.

    Example:
        >>> render("wake me at {time}", {"time": "7 am"})
        ('wake me at 7 am', (Entity(start=11, end=15, label='time', score=1.0),))
    """
    text, done, entities = "", 0, []
    for match in _PLACEHOLDER.finditer(template):
        text += template[done : match.start()]
        value = values[match[1]]
        entities.append(Entity(len(text), len(text) + len(value), match[1]))
        text, done = text + value, match.end()
    return text + template[done:], tuple(entities)


def generate(num_utterances: int = 7000, seed: int = 0) -> tuple[list[Utterance], list[Utterance]]:
    """Return (train, dev) utterances with distinct texts and no template in common; about 15 % are dev.

    The intents take turns, and within an intent its templates, so that counts differ by one until an intent runs out.
    The same arguments give the same lists, in shuffled order. `key` is the template: "set_alarm/train/3".

    Args:
        num_utterances: Size of both lists together.
        seed: Chooses the slot values and the order.

    Raises:
        ConfigError: The grammar cannot give that many distinct texts.

    Example:
        >>> train, dev = generate(100)
        >>> len(train), len(dev), {u.key.split("/")[1] for u in dev}
        (85, 15, {'dev'})
    """
    if num_utterances < 2:
        raise ConfigError(f"expected num_utterances of at least 2, got {num_utterances}; ask for more")
    num_dev = max(1, round(num_utterances * DEV_FRACTION))
    drawn = draw_utterances(load_grammar(), {"train": num_utterances - num_dev, "dev": num_dev}, seed)
    return drawn["train"], drawn["dev"]


def paraphrase_triplets(split: Split, num_triplets: int = 4000, seed: int = 0) -> list[tuple[str, str, str]]:
    """Return distinct (anchor, positive, negative) texts of one split; deterministic by seed.

    Anchor and positive are one intent and the same slot values in two templates with the same slots, at least one. The
    negative is a near miss: in half the cases the anchor's own template with one value exchanged, otherwise another
    intent that shares slot values with the anchor, or any other intent when none has a slot in common.

    Raises:
        ConfigError: The grammar cannot give that many.

    Example:
        >>> [len(set(triplet)) for triplet in paraphrase_triplets("dev", num_triplets=3)]
        [3, 3, 3]
    """
    rng = random.Random(f"triplets {split} {seed}")

    def draw(_: int) -> tuple[str, str, str]:
        intent, template, other_template, values = _anchor(split, rng)
        anchor, positive = render(template, values)[0], render(other_template, values)[0]
        if rng.random() < 0.5:
            kept = dict(values)
            del kept[rng.choice(list(kept))]
            return anchor, positive, render(template, _fill(values, rng, kept, avoid=values))[0]
        return anchor, positive, _other_intent(intent, values, split, rng)

    return _distinct(draw, num_triplets)


def paraphrase_pairs(split: Split, num_pairs: int = 1000, seed: int = 0) -> list[ScoredPair]:
    """Return distinct scored pairs of one split, in turn 1.0, 0.5 and 0.0; deterministic by seed.

    1.0 is one intent and the same values in two templates; 0.5 the same two templates with every value exchanged;
    0.0 another intent, sharing slot values where it can. The grades are ours, made to rank by, not human judgements.

    Raises:
        ConfigError: The grammar cannot give that many.

    Example:
        >>> [pair.score for pair in paraphrase_pairs("dev", num_pairs=4)]
        [1.0, 0.5, 0.0, 1.0]
    """
    rng = random.Random(f"pairs {split} {seed}")

    def draw(index: int) -> ScoredPair:
        score = (1.0, 0.5, 0.0)[index % 3]
        intent, template, other_template, values = _anchor(split, rng)
        if score == 0.0:
            other = _other_intent(intent, values, split, rng)
        else:
            other = render(other_template, values if score == 1.0 else _fill(values, rng, {}, avoid=values))[0]
        return ScoredPair(render(template, values)[0], other, score, _GRAMMAR_FILE)

    return _distinct(draw, num_pairs)


def _distinct(draw: Callable[[int], _T], count: int) -> list[_T]:
    """Collect `count` different draws; `draw` gets the number collected so far."""
    drawn: dict[_T, None] = {}
    for _ in range(20 * count + 100):
        if len(drawn) >= count:
            return list(drawn)
        drawn[draw(len(drawn))] = None
    raise ConfigError(f"expected about {len(drawn)} examples at most, got a request for {count}; lower the number")


@cache
def _same_slots(split: Split) -> list[tuple[str, list[str]]]:
    """Return (intent, templates) for every set of slots that two or more templates of the intent have in common."""
    groups: dict[tuple[str, frozenset[str]], list[str]] = {}
    for intent, templates in load_grammar().intents.items():
        for template in templates[split]:
            labels = frozenset(_PLACEHOLDER.findall(template.source))
            groups.setdefault((intent, labels), []).append(template.source)
    return [(intent, group) for (intent, labels), group in groups.items() if labels and len(group) > 1]


def _anchor(split: Split, rng: random.Random) -> tuple[str, str, str, dict[str, str]]:
    """Draw an intent, two of its templates with the same slots, and values for them."""
    intent, group = rng.choice(_same_slots(split))
    template, other_template = rng.sample(group, 2)
    return intent, template, other_template, _fill(_PLACEHOLDER.findall(template), rng, {}, avoid={})


def _fill(
    labels: Iterable[str], rng: random.Random, kept: Mapping[str, str], avoid: Mapping[str, str]
) -> dict[str, str]:
    """Draw a value for every label not in `kept`, unlike any value kept, drawn or avoided."""
    values = dict(kept)
    for label in labels:
        if label not in values:
            used = {value.lower() for value in (*values.values(), *avoid.values())}
            values[label] = rng.choice([value for value in _values(label) if value.lower() not in used])
    return values


@cache
def _near_misses(intent: str, labels: frozenset[str], split: Split) -> list[str]:
    """Return the templates of other intents that share a slot with `labels`, or all of them when none does."""
    others = [templates[split] for name, templates in load_grammar().intents.items() if name != intent]
    sources = [template.source for templates in others for template in templates]
    return [source for source in sources if labels & set(_PLACEHOLDER.findall(source))] or sources


def _other_intent(intent: str, values: Mapping[str, str], split: Split, rng: random.Random) -> str:
    """Render a template of another intent with the values it can share."""
    template = rng.choice(_near_misses(intent, frozenset(values), split))
    labels = _PLACEHOLDER.findall(template)
    shared = {label: values[label] for label in labels if label in values}
    return render(template, _fill(labels, rng, shared, avoid={}))[0]
