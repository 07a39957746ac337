"""Character spans <-> BIO tags <-> token labels, and what could not be aligned. Knows no models and no files.

A span whose edge falls inside a token, or that truncation cut, becomes *missing*: its tokens carry no loss and the
loss of the label is reported. It is never shifted to the next edge and never turned into "O".
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from weebill.encodings import Encoding
from weebill.schema import Entity

MISSING = -100  # a label that carries no loss; torch's ignore_index
OUTSIDE = "O"
STARTS_INSIDE, ENDS_INSIDE = "starts inside a token", "ends inside a token"
NO_TOKEN, TRUNCATED = "covers no token", "truncated: beyond the model's max_seq_len"
TOO_LONG = "longer than the model reads at once"


@dataclass(frozen=True, slots=True)
class Misaligned:
    """An entity that could not be put on tokens, and why; `nearest` is the span of the whole tokens it touches."""

    entity: Entity
    reason: str
    nearest: tuple[int, int] | None = None


def tag_vocabulary(labels: Iterable[str]) -> list[str]:
    """Return the BIO tags of entity labels: "O" first, then "B-x", "I-x" by sorted label.

    Example:
        >>> tag_vocabulary(["time", "date", "time"])
        ['O', 'B-date', 'I-date', 'B-time', 'I-time']
    """
    return [OUTSIDE, *(f"{prefix}-{label}" for label in sorted(set(labels)) for prefix in "BI")]


def align(
    entities: Sequence[Entity], encoding: Encoding, tag_ids: Mapping[str, int]
) -> tuple[list[int], list[Misaligned]]:
    """Return one tag id per token, and the entities that could not be aligned.

    Tokens with an empty span (special tokens, lone spaces) are MISSING. An entity is aligned when tokens start and end
    exactly at its edges; else every token it touches is MISSING.

    Example:
        >>> encoding = Encoding([1, 70, 71, 72, 2], [(0, 0), (0, 2), (3, 7), (8, 10), (0, 0)])
        >>> align([Entity(3, 10, "time")], encoding, {"O": 0, "B-time": 1, "I-time": 2})
        ([-100, 0, 1, 2, -100], [])
    """
    outside = tag_ids[OUTSIDE]
    labels = [MISSING if start == end else outside for start, end in encoding.offsets]
    read_until = max((end for _, end in encoding.offsets), default=0)
    misaligned = []
    for entity in entities:
        touched = [i for i, (a, b) in enumerate(encoding.offsets) if a < b and a < entity.end and entity.start < b]
        if not touched or (encoding.dropped_tokens and entity.end > read_until):
            reason = TRUNCATED if encoding.dropped_tokens else NO_TOKEN
        elif encoding.offsets[touched[0]][0] != entity.start:
            reason = STARTS_INSIDE
        elif encoding.offsets[touched[-1]][1] != entity.end:
            reason = ENDS_INSIDE
        else:
            beginning = encoding.offsets[touched[0]]
            for i in touched:
                # tokens that share the first one's characters (an emoji over three tokens) begin the entity together
                prefix = "B" if encoding.offsets[i] == beginning else "I"
                labels[i] = tag_ids[f"{prefix}-{entity.label}"]
            continue
        nearest = (encoding.offsets[touched[0]][0], encoding.offsets[touched[-1]][1]) if touched else None
        misaligned.append(Misaligned(entity, reason, nearest))
        for i in touched:
            labels[i] = MISSING
    return labels, misaligned


_FINAL_MARKS = ".?!。？！…"


def is_inside_word(text: str, at: int) -> bool:
    """Return whether the boundary before character `at` cuts a word: letters, digits and their marks on both sides.

    Example:
        >>> [at for at in range(12) if is_inside_word("at 9am, anna's", at)]
        [1, 4, 5, 9, 10, 11]
    """
    return 0 < at < len(text) and text[at - 1] != " " and _in_word(text[at - 1]) and _in_word(text[at])


def end_of_words(text: str) -> int:
    """Return where the marks begin that end a text, its length if none do: they are no part of an entity.

    The full stop of a single letter is part of it: "at 5 p.m.", "to Washington D. C."

    Example:
        >>> [text[end_of_words(text) :] for text in ("wake me at 9.", "are we there yet?! ", "it is 5 p.m.", "hi")]
        ['.', '?! ', '', '']
    """
    marked = text.rstrip()
    words = marked.rstrip(_FINAL_MARKS)
    if words == marked or not words[-1:].isalnum():
        return len(text)
    return len(text) if words[-1].isalpha() and not words[-2:-1].isalnum() else len(words)


def _in_word(character: str) -> bool:
    return character.isalnum() or (character >= "\u0300" and unicodedata.combining(character) > 0)


def spans_from_tags(
    tags: Sequence[str], offsets: Sequence[tuple[int, int]], scores: Sequence[float] | None = None
) -> tuple[Entity, ...]:
    """Return the entities that BIO tags over tokens spell.

    "B-x" begins an entity; "I-x" continues one of the same label, and begins one where there is none to continue.
    Tokens with an empty span are skipped; one with the same span as the token before belongs to it, whatever its tag.
    An entity's score is the mean of its tokens' scores.

    Example:
        >>> spans_from_tags(["O", "B-time", "I-time"], [(0, 2), (3, 7), (8, 10)], [1.0, 0.5, 0.7])
        (Entity(start=3, end=10, label='time', score=0.6),)
    """
    open_spans: list[tuple[int, int, str, list[float]]] = []
    current = ""  # label the previous token belongs to
    last_span = (-1, -1)
    for i, (tag, (start, end)) in enumerate(zip(tags, offsets, strict=True)):
        if start == end or (start, end) == last_span:
            continue
        last_span = (start, end)
        label = tag[2:]
        score = 1.0 if scores is None else scores[i]
        if label and tag[0] == "I" and label == current:
            first, _, _, collected = open_spans[-1]
            open_spans[-1] = (first, end, label, [*collected, score])
        elif label:
            open_spans.append((start, end, label, [score]))
        current = label
    return tuple(Entity(a, b, label, sum(found) / len(found)) for a, b, label, found in open_spans)


def spans_from_words(words: Sequence[str], tags: Sequence[str]) -> tuple[str, tuple[Entity, ...]]:
    """Return the text of space-joined words and the entities of their BIO tags.

    Example:
        >>> spans_from_words(["at", "nine", "am"], ["O", "B-time", "I-time"])
        ('at nine am', (Entity(start=3, end=10, label='time', score=1.0),))
    """
    offsets, at = [], 0
    for word in words:
        offsets.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), spans_from_tags(tags, offsets)
