"""Draws labelled utterances from a grammar, seeded; reads no notation (grammar.py) and holds no data (templates.py)."""

import random
from collections.abc import Iterator, Mapping
from itertools import islice

from weebill.errors import ConfigError
from weebill.grammar import Grammar, Template
from weebill.schema import Entity, Utterance
from weebill.splitting import text_key

PATIENCE = 1000  # draws in a row that bring nothing new before a template is given up, or drawn in another way

_Filling = tuple[str, tuple[Entity, ...]]


def draw_utterances(
    grammar: Grammar, counts: Mapping[str, int], seed: int = 0, unique: bool = True
) -> dict[str, list[Utterance]]:
    """Return `counts[split]` utterances of each split, in shuffled order; the same arguments give the same lists.

    Intents take turns, and within an intent its templates, one of weight 3 three times as often as one of weight 1. No
    two slots of one utterance have the same value. No text has two annotations, and none is in two splits, in
    whatever letter case and spacing: smaller splits choose first. `key` is the template: "set_alarm/train/3", or
    "set_alarm/3" where there are no splits.

    Args:
        counts: Utterances by split; the split of a grammar without splits is "".
        unique: Give no text twice. Otherwise every utterance is drawn anew, so frequent ones come up again.

    Raises:
        ConfigError: The grammar cannot give that many, or has no such split.
    """
    taken = _Taken()
    drawn = {}
    for split, count in sorted(reversed(list(counts.items())), key=lambda item: item[1]):
        if split not in grammar.splits:
            known = ", ".join(grammar.splits)
            raise ConfigError(f"expected splits of the grammar ({known or 'it has none'}), got {split!r}; correct the "
                              f"name")  # fmt: skip
        rng = random.Random(f"{split} {seed}")
        turns = [_intent_stream(grammar, intent, split, rng, taken, unique) for intent in grammar.intents]
        drawn[split] = _take_turns(turns, count, split)
        rng.shuffle(drawn[split])
    return {split: drawn[split] for split in counts}


class _Taken:
    """What was given: the entities of every text, and what all texts that differ in case and spacing alone have."""

    def __init__(self) -> None:
        self.entities: dict[str, tuple[Entity, ...]] = {}
        self.readings: dict[str, tuple[str, str, list[tuple[str, str]]]] = {}

    def admits(self, split: str, intent: str, text: str, entities: tuple[Entity, ...], unique: bool) -> bool:
        """Note a text and return True, or return False where it would contradict or repeat another."""
        if text in self.entities and (unique or self.entities[text] != entities):
            return False
        reading = (split, intent, [(e.label, text_key(text[e.start : e.end])) for e in entities])
        if self.readings.setdefault(text_key(text), reading) != reading:
            return False
        self.entities[text] = entities
        return True


def _take_turns(turns: list[Iterator[Utterance]], count: int, split: str) -> list[Utterance]:
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
            f"expected at most {len(drawn)} distinct {split + ' ' if split else ''}utterances, all the grammar can "
            f"give, got a request for {count}; lower the count or add templates and slot values"
        )
    return drawn


def _intent_stream(
    grammar: Grammar,
    intent: str,
    split: str,
    rng: random.Random,
    taken: _Taken,
    unique: bool,
) -> Iterator[Utterance]:
    """Yield utterances of an intent, its templates taking turns, until none has one left; note them in `taken`."""
    turns = {}
    for number, template in enumerate(grammar.intents[intent][split]):
        key = f"{intent}/{split}/{number}" if split else f"{intent}/{number}"
        fillings = _every_filling(template, rng) if unique else _any_fillings(template, rng)
        turns[key] = (template, enumerate(fillings))
    credit = dict.fromkeys(turns, 0.0)
    while turns:
        heaviest = max(template.weight for template, _ in turns.values())
        for key, (template, turn) in list(turns.items()):
            credit[key] += template.weight / heaviest
            if credit[key] < 1:
                continue
            credit[key] -= 1
            for number, (text, entities) in turn if unique else islice(turn, PATIENCE):
                if taken.admits(split, intent, text, entities, unique):
                    yield Utterance(text, intent, entities, id=f"{key}/{number}", source=template.where, key=key)
                    break
            else:
                del turns[key]


def _every_filling(template: Template, rng: random.Random) -> Iterator[_Filling]:
    """Yield every filling with distinct values once: by weight while that brings new ones, then in random order."""
    expression, seen = template.expression, set[int]()
    misses = 0
    while not expression.is_uniform and misses < PATIENCE and len(seen) < expression.size:
        number = expression.draw(rng)
        misses = misses + 1 if number in seen else 0
        if number not in seen:
            seen.add(number)
            yield from _distinct_values(template, number)
    for number in _shuffled(expression.size, rng):
        if number not in seen:
            yield from _distinct_values(template, number)


def _any_fillings(template: Template, rng: random.Random) -> Iterator[_Filling]:
    """Yield fillings with distinct values, drawn by weight, without end unless it has none."""
    misses = 0
    while misses < PATIENCE:
        misses += 1
        for filling in _distinct_values(template, template.expression.draw(rng)):
            misses = 0
            yield filling


def _distinct_values(template: Template, number: int) -> Iterator[_Filling]:
    text, entities = template.fill(number)
    if len({text[entity.start : entity.end].lower() for entity in entities}) == len(entities):
        yield text, entities


def _shuffled(total: int, rng: random.Random) -> Iterator[int]:
    """Yield 0 … total - 1 in random order: a Fisher-Yates shuffle that holds only what it has moved."""
    moved: dict[int, int] = {}
    for i in range(total):
        j = rng.randrange(i, total)
        number, moved[j] = moved.get(j, j), moved.get(i, i)
        yield number
