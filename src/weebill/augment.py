"""Labelled utterances -> new ones with other slot values of the same labels, spans exact; invents no phrasings."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from weebill.errors import ConfigError
from weebill.expressions import Choice, Literal, join
from weebill.schema import Entity, Utterance
from weebill.splitting import text_key

TRIES = 200  # draws in a row that give a known text before an utterance is left out


def augment(
    utterances: Sequence[Utterance], count: int, seed: int = 0, slots: Mapping[str, Choice] | None = None
) -> list[Utterance]:
    """Return `count` new utterances, each one of `utterances` with its entities exchanged for other values.

    No new text is among the given ones or comes twice, letter case and spacing aside, so none contradicts an
    annotation; no two entities of a text get the same value. The utterances take turns in a seeded order. Ids are the
    source's with "~1", "~2" … behind.

    Args:
        utterances: The data; what has no entities is never a source, but its text is not made again.
        slots: Values by label (`Grammar.slots`), drawn by weight. A label that is not there takes the values it has in
            the data, each as likely as the others.

    Raises:
        ConfigError: The values cannot give that many new texts.

    Example:
        >>> given = [
        ...     Utterance("to Rome", "go", (Entity(3, 7, "city"),), id="1"),
        ...     Utterance("Oslo please", "go", (Entity(0, 4, "city"),), id="2"),
        ... ]
        >>> sorted((u.text, u.id) for u in augment(given, 2))
        [('Rome please', '2~1'), ('to Oslo', '1~1')]
    """
    rng = random.Random(f"augment {seed}")
    values = {**_values_in(utterances), **(slots or {})}
    taken = {text_key(utterance.text) for utterance in utterances}
    sources = [utterance for utterance in utterances if utterance.entities]
    rng.shuffle(sources)
    turns = deque((source, 1) for source in sources)
    made: list[Utterance] = []
    while turns and len(made) < count:
        source, number = turns.popleft()
        new = _exchanged(source, values, taken, rng)
        if new:
            taken.add(text_key(new.text))
            made.append(replace(new, id=f"{source.id}~{number}"))
            turns.append((source, number + 1))
    if len(made) < count:
        raise ConfigError(
            f"expected about {len(made)} new utterances at most, all that other slot values give, got a request for "
            f"{count}; lower the count, or name a grammar that has more values of the labels under its slots"
        )
    return made


def _values_in(utterances: Sequence[Utterance]) -> dict[str, Choice]:
    """Return the distinct values of every label, letter case aside, as choices of equal weight."""
    found: dict[str, dict[str, str]] = {}
    for utterance in utterances:
        for entity in utterance.entities or ():
            value = utterance.text[entity.start : entity.end]
            found.setdefault(entity.label, {}).setdefault(value.lower(), value)
    return {
        label: Choice(tuple(map(Literal, values.values())), (1.0,) * len(values)) for label, values in found.items()
    }


def _exchanged(
    source: Utterance, values: Mapping[str, Choice], taken: set[str], rng: random.Random
) -> Utterance | None:
    """Return the utterance with other values and a text not in `taken`, or None when the draws bring none."""
    for _ in range(TRIES):
        text, done, entities = "", 0, list[Entity]()
        for entity in sorted(source.entities or ()):
            choice = values[entity.label]
            value = join(choice.pieces(choice.draw(rng)))[0]
            text += source.text[done : entity.start]
            entities.append(replace(entity, start=len(text), end=len(text) + len(value)))
            text, done = text + value, entity.end
        text += source.text[done:]
        drawn = {text[entity.start : entity.end].lower() for entity in entities}
        if text_key(text) not in taken and len(drawn) == len(entities):
            return replace(source, text=text, entities=tuple(entities))
    return None
