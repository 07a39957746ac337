"""Labelled utterances -> new ones with other slot values of the same labels, spans exact; invents no phrasings."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, repeat
from pathlib import PurePath

import numpy as np

from weebill.errors import ConfigError
from weebill.expressions import Choice, join
from weebill.schema import Entity, Utterance
from weebill.splitting import text_key

TRIES = 200  # turns in a row that bring an utterance no new text before it is left out
REDRAWS = 20  # of a value, where it is the old one


def swap_values(
    utterances: Sequence[Utterance],
    copies: int | None = None,
    seed: int = 0,
    slots: Mapping[str, Choice] | None = None,
) -> Iterator[Utterance]:
    """Yield new utterances: each of `utterances` in turn, every value in it another one of its label.

    A value alone in its label stays. No new text is among the given ones or comes twice, letter case and spacing aside,
    so none contradicts an annotation; no two entities of a text get the same value. Ids are the source's, or the line
    it stands on where it has none, with "~1", "~2" … behind; no two are the same.

    Args:
        utterances: The data; what has no entities is never a source, but its text is not made again.
        copies: Turns of each utterance, which may bring nothing new. Default: until it brings nothing any more.
        seed: The same one gives the same texts.
        slots: Values by label (`Grammar.slots`), drawn by weight. A label that is not there takes the distinct values
            it has in the data, each as likely as the others, so rare ones are seen more often.

    Example:
        >>> rows = [Utterance("wake me at nine", "alarm", (Entity(11, 15, "time"),)),
        ...         Utterance("7 am please", "alarm", (Entity(0, 4, "time"),))]
        >>> [(u.text, u.entities[0].start, u.entities[0].end) for u in swap_values(rows)]
        [('wake me at 7 am', 11, 15), ('nine please', 0, 4)]
    """
    values = _values_in(utterances)
    rng, weighted = np.random.default_rng(seed), random.Random(seed)

    def draw(label: str) -> str:
        if slots and label in slots:
            return join(slots[label].pieces(slots[label].draw(weighted)))[0]
        return values[label][int(rng.integers(len(values[label])))]

    def other(label: str, old: str) -> str:
        drawn = (draw(label) for _ in range(REDRAWS))
        return next((value for value in drawn if text_key(value) != text_key(old)), old)

    taken = {text_key(utterance.text) for utterance in utterances}
    failed = {row: 0 for row, utterance in enumerate(utterances) if utterance.entities}
    stems, made = _stems(utterances), Counter[str]()
    for _ in repeat(None) if copies is None else range(copies):
        for row in list(failed):
            new = _with_values(utterances[row], other)
            if text_key(new.text) not in taken and _values_differ(new):
                taken.add(text_key(new.text))
                made[stems[row]] += 1
                failed[row] = 0
                yield replace(new, id=f"{stems[row]}~{made[stems[row]]}")
            elif failed[row] < TRIES:
                failed[row] += 1
            else:
                del failed[row]
        if not failed:
            return


def _stems(utterances: Sequence[Utterance]) -> list[str]:
    """Return the id of each utterance; of one without, its line, with the file's name where there are several files.

    Example:
        >>> _stems([Utterance("a", id="x"), Utterance("b", source="nlu.yml:7"), Utterance("c")])
        ['x', '7', '3']
    """
    places = [utterance.source.rpartition(":") for utterance in utterances]
    several = len({path for path, _, line in places if line}) > 1
    return [utterance.id or (f"{PurePath(path).name}:{line}" if several and line else line) or f"{number}"
            for number, (utterance, (path, _, line)) in enumerate(zip(utterances, places, strict=True), start=1)
            ]  # fmt: skip


def augment(
    utterances: Sequence[Utterance], count: int, seed: int = 0, slots: Mapping[str, Choice] | None = None
) -> list[Utterance]:
    """Return `count` new utterances as of `swap_values`, the sources taking turns in a seeded order.

    Raises:
        ConfigError: The values cannot give that many new texts.
    """
    sources = list(utterances)
    random.Random(f"augment {seed}").shuffle(sources)
    made = list(islice(swap_values(sources, None, seed, slots), count))
    if len(made) < count:
        raise ConfigError(
            f"expected about {len(made)} new utterances at most, all that other slot values give, got a request for "
            f"{count}; lower the count, or name a grammar that has more values of the labels under its slots"
        )
    return made


def _values_in(utterances: Sequence[Utterance]) -> dict[str, list[str]]:
    """Return the distinct values of every label, letter case and spacing aside."""
    found: dict[str, dict[str, str]] = {}
    for utterance in utterances:
        for entity in utterance.entities or ():
            value = utterance.text[entity.start : entity.end]
            found.setdefault(entity.label, {}).setdefault(text_key(value), value)
    return {label: list(values.values()) for label, values in found.items()}


def _with_values(source: Utterance, other: Callable[[str, str], str]) -> Utterance:
    """Return the utterance with `other`(label, value) in place of every value."""
    text, done, entities = "", 0, list[Entity]()
    for entity in sorted(source.entities or ()):
        value = other(entity.label, source.text[entity.start : entity.end])
        text += source.text[done : entity.start]
        entities.append(replace(entity, start=len(text), end=len(text) + len(value)))
        text, done = text + value, entity.end
    return replace(source, text=text + source.text[done:], entities=tuple(entities))


def _values_differ(utterance: Utterance) -> bool:
    values = [text_key(utterance.text[entity.start : entity.end]) for entity in utterance.entities or ()]
    return len(set(values)) == len(values)
