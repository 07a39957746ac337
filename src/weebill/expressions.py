"""Expressions of the template language: what can be said, numbered. Reads no notation (grammar.py does) and no files.

Every expression is finite, so its fillings are the numbers 0 … size - 1: `pieces(number)` gives one, `draw` a random
number by the weights. An expression `is_uniform` when `draw` gives every filling equally often, and `is_nullable` when
a filling may be no text at all.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import TypeAlias

from weebill.schema import Entity

Expression: TypeAlias = "Literal | Choice | Slot | Sequence"
Piece = tuple[str, str | None]  # a text, and its label if it is the value of a slot


@dataclass(frozen=True)
class Literal:
    """Text that stands for itself; white space is single spaces."""

    text: str
    size = 1
    is_uniform = True  # whether `draw` gives every filling equally often

    @property
    def is_nullable(self) -> bool:
        """Whether a filling may be no text at all."""
        return not self.text.strip()

    def draw(self, rng: random.Random) -> int:
        """Return the number of the only filling."""
        return 0

    def pieces(self, number: int) -> Iterator[Piece]:
        """Yield (text, its label if it is a slot value) of filling `number`."""
        yield self.text, None


@dataclass(frozen=True)
class Choice:
    """One of several expressions; their weights need not add up to anything."""

    options: "tuple[Expression, ...]"
    weights: tuple[float, ...]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(option.size for option in self.options))

    @property
    def size(self) -> int:
        """Number of fillings."""
        return self._ends[-1]

    @cached_property
    def is_uniform(self) -> bool:
        """Whether `draw` gives every filling equally often."""
        alike = len(set(self.weights)) == 1 and len({option.size for option in self.options}) == 1
        return alike and all(option.is_uniform for option in self.options)

    @cached_property
    def is_nullable(self) -> bool:
        """Whether a filling may be no text at all."""
        return any(option.is_nullable for option in self.options)

    def draw(self, rng: random.Random) -> int:
        """Choose by weight, then within the option."""
        index = rng.choices(range(len(self.options)), self.weights)[0]
        return self._ends[index] - self.options[index].size + self.options[index].draw(rng)

    def pieces(self, number: int) -> Iterator[Piece]:
        """Yield (text, its label if it is a slot value) of filling `number`."""
        index = bisect_right(self._ends, number)
        option = self.options[index]
        return option.pieces(number - self._ends[index] + option.size)


@dataclass(frozen=True)
class Slot:
    """One of the slot's values, annotated with `label`."""

    label: str
    values: Choice
    is_nullable = False  # no value is, see `_Reader`

    @property
    def size(self) -> int:
        """Number of fillings."""
        return self.values.size

    @property
    def is_uniform(self) -> bool:
        """Whether `draw` gives every filling equally often."""
        return self.values.is_uniform

    def draw(self, rng: random.Random) -> int:
        """Choose a value by weight."""
        return self.values.draw(rng)

    def pieces(self, number: int) -> Iterator[Piece]:
        """Yield the value of filling `number` with its label."""
        yield join(self.values.pieces(number))[0], self.label


@dataclass(frozen=True)
class Sequence:
    """Expressions one after another; the number of a filling has one digit for each, the first the fastest."""

    parts: "tuple[Expression, ...]"

    @cached_property
    def size(self) -> int:
        """Number of fillings."""
        return prod(part.size for part in self.parts)

    @cached_property
    def is_uniform(self) -> bool:
        """Whether `draw` gives every filling equally often."""
        return all(part.is_uniform for part in self.parts)

    @cached_property
    def is_nullable(self) -> bool:
        """Whether a filling may be no text at all."""
        return all(part.is_nullable for part in self.parts)

    def draw(self, rng: random.Random) -> int:
        """Choose in every part."""
        number, scale = 0, 1
        for part in self.parts:
            number += part.draw(rng) * scale
            scale *= part.size
        return number

    def pieces(self, number: int) -> Iterator[Piece]:
        """Yield (text, its label if it is a slot value) of filling `number`."""
        for part in self.parts:
            number, digit = divmod(number, part.size)
            yield from part.pieces(digit)


def join(pieces: Iterator[Piece]) -> tuple[str, tuple[Entity, ...]]:
    """Return the text of the pieces and its entities, in order of start.

    Around parts left out, white space shrinks to one space, and to none at the edges of the text.

    Example:
        >>> join(iter([("wake ", None), (" me at ", None), ("7 am", "time")]))
        ('wake me at 7 am', (Entity(start=11, end=15, label='time', score=1.0),))
    """
    text, entities = "", []
    for piece, label in pieces:
        if label is not None:
            entities.append(Entity(len(text), len(text) + len(piece), label))
        elif not text or text[-1].isspace():
            piece = piece.lstrip()
        text += piece
    return text.rstrip(), tuple(entities)
