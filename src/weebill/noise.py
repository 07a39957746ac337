"""What people do to a text without meaning to: typing errors, words of hesitation. Spans move along; labels stay."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from weebill.schema import Utterance

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
OPENERS = ("uh ", "well ", "okay ", "hey ", "so ", "please ", "listen ", "hi there ", "can you ", "could you ",
           "i would like you to ", "i need you to ", "would you mind to ", "you know what ")  # fmt: skip
CLOSERS = ("", " please", " thanks", " thank you", " now then", ".", "?", "!", " please.", " thanks!")

Edit = tuple[int, int, str]  # from, to, what stands there instead


def swap_letters(text: str, at: int) -> Edit:
    """Swap the letter with the next one."""
    return at, at + 2, text[at + 1] + text[at]


def leave_out(text: str, at: int) -> Edit:
    """Leave the letter out."""
    return at, at + 1, ""


def double(text: str, at: int) -> Edit:
    """Write the letter twice."""
    return at, at + 1, text[at] * 2


def next_key(text: str, at: int) -> Edit:
    """Write the letter beside it on an English keyboard, where it is on none the letter twice."""
    letter = text[at].lower()
    row = next((row for row in KEYBOARD if letter in row), None)
    if row is None:
        return double(text, at)
    place = row.index(letter)
    other = row[place + 1] if place + 1 < len(row) else row[place - 1]
    return at, at + 1, other.upper() if text[at].isupper() else other


ERRORS = (swap_letters, leave_out, double, next_key)


def edit(utterance: Utterance, change: Edit) -> Utterance:
    """Return the utterance with a part of its text replaced, its entities moved along.

    Example:
        >>> from weebill.schema import Entity
        >>> u = Utterance("wake me at nine", entities=(Entity(11, 15, "time"),))
        >>> changed = edit(u, leave_out(u.text, 2))
        >>> changed.text, changed.entities[0].start, changed.entities[0].end
        ('wae me at nine', 10, 14)
    """
    start, end, new = change
    longer = len(new) - (end - start)
    entities = utterance.entities and tuple(
        replace(
            e,
            start=e.start + longer if e.start >= end else e.start,
            end=e.end + longer if e.end >= end and e.end > start else e.end,
        )
        for e in utterance.entities
    )
    return replace(utterance, text=utterance.text[:start] + new + utterance.text[end:], entities=entities)


def typing_error(
    utterance: Utterance, rng: random.Random, errors: Sequence[Callable[[str, int], Edit]] = ERRORS
) -> Utterance:
    """Return the utterance with one error inside one word: its first and last letter stay, and so do words and spans.

    As it is, when no word has four letters, or an entity begins or ends wherever one does.

    Args:
        utterance: any.
        rng: decides.
        errors: one of them is made.

    Example:
        >>> typing_error(Utterance("play some jazz"), random.Random(1), [swap_letters]).text
        'play some jzaz'
    """
    text = utterance.text
    edges = {edge for entity in utterance.entities or () for edge in (entity.start, entity.end)}
    places = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 3].isalpha() and text[i] != text[i + 1]
              and edges.isdisjoint(range(i, i + 3))]  # fmt: skip
    return edit(utterance, rng.choice(errors)(text, rng.choice(places))) if places else utterance


def typing_errors(utterances: Sequence[Utterance], copies: int, seed: int) -> Iterator[tuple[Utterance, Utterance]]:
    """Yield each utterance `copies` times with an error, and beside it as it was; what cannot have one is left out."""
    rng = random.Random(f"typing errors {seed}")
    for _ in range(copies):
        for utterance in utterances:
            changed = typing_error(utterance, rng)
            if changed.text != utterance.text:
                yield changed, utterance


def hesitations(utterances: Sequence[Utterance], seed: int) -> Iterator[Utterance]:
    """Yield each utterance with an opener in front, and a closer or a mark behind.

    Example:
        >>> [u.text for u in hesitations([Utterance("play some jazz")], seed=4)]
        ['hey play some jazz?']
    """
    rng = random.Random(f"hesitations {seed}")
    for utterance in utterances:
        opened = edit(utterance, (0, 0, rng.choice(OPENERS)))
        yield edit(opened, (len(opened.text), len(opened.text), rng.choice(CLOSERS)))
