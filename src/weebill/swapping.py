"""Labelled utterances with their entities' values swapped for others of the same label. Trains nothing."""

from collections.abc import Sequence

import numpy as np

from weebill.schema import Entity, Utterance


def swap_values(utterances: Sequence[Utterance], copies: int, seed: int) -> list[Utterance]:
    """Return new utterances: each given one up to `copies` times, every value in it another one of its label.

    Values are drawn evenly from the distinct ones that `utterances` have for a label, so rare ones are seen more often.
    A value alone in its label stays; texts that are no new ones are left out. Intents stay, spans move with the text.

    Args:
        utterances: with annotated entities; others are passed over.
        copies: tries for each utterance.
        seed: the same one gives the same texts.

    Example:
        >>> rows = [Utterance("wake me at nine", "alarm", (Entity(11, 15, "time"),)),
        ...         Utterance("7 am please", "alarm", (Entity(0, 4, "time"),))]
        >>> [(u.text, u.entities[0].start, u.entities[0].end) for u in swap_values(rows, 1, seed=0)]
        [('wake me at 7 am', 11, 15), ('nine please', 0, 4)]
    """
    values: dict[str, list[str]] = {}
    for utterance in utterances:
        for entity in utterance.entities or ():
            values.setdefault(entity.label, []).append(utterance.text[entity.start : entity.end])
    values = {label: list(dict.fromkeys(found)) for label, found in values.items()}
    rng = np.random.default_rng(seed)
    known = {u.text for u in utterances}
    out = []
    for number in range(copies):
        for utterance in utterances:
            if not utterance.entities:
                continue
            swapped = _swap(utterance, values, rng, number)
            if swapped.text not in known:
                known.add(swapped.text)
                out.append(swapped)
    return out


def _swap(utterance: Utterance, values: dict[str, list[str]], rng: np.random.Generator, number: int) -> Utterance:
    text, done, entities = "", 0, []
    for entity in sorted(utterance.entities or ()):
        value = old = utterance.text[entity.start : entity.end]
        known = values[entity.label]
        while value == old and len(known) > 1:
            value = known[int(rng.integers(len(known)))]
        text += utterance.text[done : entity.start]
        entities.append(Entity(len(text), len(text) + len(value), entity.label))
        text, done = text + value, entity.end
    return Utterance(text + utterance.text[done:], utterance.intent, tuple(entities), f"{utterance.id}~{number}",
                     utterance.source, utterance.key)  # fmt: skip
