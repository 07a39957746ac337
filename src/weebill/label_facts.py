"""What rows say of their labels: which there are, how entities lie, which of them a model cannot know. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from weebill.errors import DataError
from weebill.schema import Utterance, intent_parts
from weebill.tags import is_inside_word

SHOWN_PLACES = 10


def labels_of(utterances: Sequence[Utterance]) -> tuple[list[str], list[str]]:
    """Return the sorted intents and entity labels that occur."""
    intents = sorted({u.intent for u in utterances if u.intent is not None})
    return intents, sorted({e.label for u in utterances for e in u.entities or ()})


def sort_intents(utterances: Sequence[Utterance], separator: str | None) -> list[Utterance]:
    """Return the utterances with the parts of every intent sorted, each once: labels of equal parts are equal.

    Raises:
        DataError: a part is empty; all such rows are named.
    """
    if separator is None:
        return list(utterances)
    found, wrong = [], []
    for utterance in utterances:
        parts = () if utterance.intent is None else intent_parts(utterance.intent, separator)
        if "" in parts:
            wrong.append(f"{utterance.source or repr(utterance.text[:60])} ({utterance.intent!r})")
        found.append(replace(utterance, intent=separator.join(parts)) if parts else utterance)
    if wrong:
        more = f" and {len(wrong) - SHOWN_PLACES} more" if len(wrong) > SHOWN_PLACES else ""
        raise DataError(f"heads.intent_separator = {separator!r}: expected an intent before and after it, got none in "
                        f"{', '.join(wrong[:SHOWN_PLACES])}{more}; correct the labels, or choose a separator that is "
                        f"no part of a name")  # fmt: skip
    return found


def entities_are_whole_words(utterances: Sequence[Utterance], tolerance: float = 0.005) -> bool:
    """Return whether hardly any annotated entity begins or ends inside a word: at most `tolerance` of them.

    Not so where words are written without spaces between them, or parts of words are annotated.
    """
    spans = [(u.text, e) for u in utterances for e in u.entities or ()]
    cutting = sum(is_inside_word(text, e.start) or is_inside_word(text, e.end) for text, e in spans)
    return cutting <= tolerance * len(spans)


def touching_labels(utterances: Iterable[Utterance]) -> tuple[str, ...]:
    """Return the labels of which an entity follows another one with nothing but white space between them, sorted."""
    found = set()
    for u in utterances:
        for one, after in pairwise(sorted(u.entities or (), key=lambda entity: entity.start)):
            if one.label == after.label and not u.text[one.end : after.start].strip():
                found.add(one.label)
    return tuple(sorted(found))


def check_known_labels(
    dev: Sequence[Utterance], intents: Sequence[str], labels: Sequence[str], separator: str | None = None
) -> Mapping[str, list[str]]:
    """Return labels of `dev` the model cannot predict, each with the places it occurs (they count as errors)."""
    known_intents, known_labels, unknown = set(intents), set(labels), dict[str, list[str]]()
    for utterance in dev:
        for intent in () if utterance.intent is None else intent_parts(utterance.intent, separator):
            if intent not in known_intents:
                unknown.setdefault(f"intent {intent}", []).append(utterance.source)
        for entity in utterance.entities or ():
            if entity.label not in known_labels:
                unknown.setdefault(f"entity {entity.label}", []).append(utterance.source)
    return unknown
