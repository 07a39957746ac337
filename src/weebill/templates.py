"""Writes the embedded English utterances and paraphrases from a small grammar; reads no user data and trains nothing.

The grammar is `assets/templates.json`: values per entity type, and templates per intent and split. The two splits share
slot values but no template, so dev measures phrasings that training never showed.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weebill.errors import ConfigError
from weebill.schema import Entity, ScoredPair, Utterance

Split = Literal["train", "dev"]

DEV_FRACTION = 0.15
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_GRAMMAR_FILE = "assets/templates.json"

_T = TypeVar("_T")
_Values = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2)]
_Templates = Annotated[dict[Split, Annotated[list[str], Field(min_length=1)]], Field(min_length=2)]  # both splits


class Grammar(BaseModel):
    """Slot values by entity type and templates by intent; every rule between them is checked on construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    slots: dict[str, _Values]
    intents: Annotated[dict[str, _Templates], Field(min_length=2)]

    @model_validator(mode="after")
    def _check(self) -> "Grammar":
        for label, values in self.slots.items():
            if len(set(values)) != len(values):
                raise ValueError(f"expected distinct values of slot {label!r}, got a repeated one; remove the repeat")
        seen: dict[str, str] = {}
        for intent, templates in self.intents.items():
            for split, phrasings in templates.items():
                for number, template in enumerate(phrasings):
                    key = f"{intent}/{split}/{number}"
                    self._check_template(template, key)
                    if template in seen:
                        raise ValueError(
                            f"expected each template once over all intents and splits, got {template!r} as "
                            f"{seen[template]} and {key}; reword one of them"
                        )
                    seen[template] = key
        return self

    def _check_template(self, template: str, key: str) -> None:
        labels = _PLACEHOLDER.findall(template)
        if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
            raise ValueError(
                f"expected placeholders like {{time}}, got {template!r} at {key}; close or rename the braces"
            )
        if len(set(labels)) != len(labels):
            raise ValueError(f"expected each placeholder once, got {template!r} at {key}; name the roles apart")
        for label in labels:
            if label not in self.slots:
                raise ValueError(f"expected values for {{{label}}} of {key}, got none; add them under slots.{label}")


def parse_grammar(text: str, source: str = _GRAMMAR_FILE) -> Grammar:
    """Return the grammar written in `text`, checked.

    Raises:
        ConfigError: The text is not JSON, a placeholder has no values, or a template occurs twice.

    Example:
        >>> text = '{"slots": {}, "intents": {"hi": {"train": ["hey"], "dev": ["hello"]}, '
        >>> parse_grammar(text + '"bye": {"train": ["bye"], "dev": ["ciao"]}}}').intents["bye"]["dev"]
        ['ciao']
    """
    try:
        return Grammar.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}:{error.lineno}: expected JSON, got {error.msg}; fix the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}: {where + ': ' if where else ''}{message}") from error


@cache
def load_grammar() -> Grammar:
    """Return the grammar that ships with the package; read once, shared, not to be changed.

    Example:
        >>> load_grammar().intents["set_alarm"]["train"][0]
        'set an alarm for {time}'
    """
    return parse_grammar((files("weebill") / _GRAMMAR_FILE).read_text(encoding="utf-8"))


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
    taken: set[str] = set()
    dev = _draw("dev", num_dev, random.Random(f"dev {seed}"), taken)
    return _draw("train", num_utterances - num_dev, random.Random(f"train {seed}"), taken), dev


def _draw(split: Split, count: int, rng: random.Random, taken: set[str]) -> list[Utterance]:
    """Draw `count` utterances with texts not in `taken`, and add their texts to it."""
    turns = [_intent_stream(intent, split, rng, taken) for intent in load_grammar().intents]
    drawn: list[Utterance] = []
    while turns and len(drawn) < count:
        for turn in list(turns):
            if len(drawn) == count:
                break
            utterance = next(turn, None)
            if utterance is None:
                turns.remove(turn)
            else:
                drawn.append(utterance)
    if len(drawn) < count:
        raise ConfigError(
            f"expected at most {len(drawn)} distinct {split} utterances, all the grammar can give, got a request for "
            f"{count}; lower num_utterances or add templates and slot values"
        )
    rng.shuffle(drawn)
    return drawn


def _intent_stream(intent: str, split: Split, rng: random.Random, taken: set[str]) -> Iterator[Utterance]:
    """Yield every distinct utterance of an intent, its templates taking turns."""
    templates = load_grammar().intents[intent][split]
    turns = {f"{intent}/{split}/{i}": enumerate(_fillings(template, rng)) for i, template in enumerate(templates)}
    while turns:
        for key, turn in list(turns.items()):
            for number, (text, entities) in turn:
                if text not in taken:
                    taken.add(text)
                    yield Utterance(text, intent, entities, id=f"{key}/{number}", source=_GRAMMAR_FILE, key=key)
                    break
            else:
                del turns[key]


def _fillings(template: str, rng: random.Random) -> Iterator[tuple[str, tuple[Entity, ...]]]:
    """Yield every filling of a template with distinct values once, in random order (a sparse Fisher-Yates shuffle)."""
    labels, slots = _PLACEHOLDER.findall(template), load_grammar().slots
    total = 1
    for label in labels:
        total *= len(slots[label])
    moved: dict[int, int] = {}
    for i in range(total):
        j = rng.randrange(i, total)
        rest, moved[j] = moved.get(j, j), moved.get(i, i)
        values = {}
        for label in labels:  # the index read as digits, one per slot
            rest, digit = divmod(rest, len(slots[label]))
            values[label] = slots[label][digit]
        if len({value.lower() for value in values.values()}) == len(labels):
            yield render(template, values)


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
            groups.setdefault((intent, frozenset(_PLACEHOLDER.findall(template))), []).append(template)
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
            values[label] = rng.choice([value for value in load_grammar().slots[label] if value.lower() not in used])
    return values


@cache
def _near_misses(intent: str, labels: frozenset[str], split: Split) -> list[str]:
    """Return the templates of other intents that share a slot with `labels`, or all of them when none does."""
    others = [t for name, templates in load_grammar().intents.items() if name != intent for t in templates[split]]
    return [template for template in others if labels & set(_PLACEHOLDER.findall(template))] or others


def _other_intent(intent: str, values: Mapping[str, str], split: Split, rng: random.Random) -> str:
    """Render a template of another intent with the values it can share."""
    template = rng.choice(_near_misses(intent, frozenset(values), split))
    labels = _PLACEHOLDER.findall(template)
    shared = {label: values[label] for label in labels if label in values}
    return render(template, _fill(labels, rng, shared, avoid={}))[0]
