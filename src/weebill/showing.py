r"""A text as a report shows it: what cannot be seen by its code, what is long cut. Draws nothing and knows no colours.

Data may hold anything, and a terminal does what it is told: "\x1b[2J" clears it, U+202E turns the line around.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from weebill.interchange import Span
from weebill.schema import Entity

TERMINAL_CHARACTERS, PAGE_CHARACTERS = 300, 2_000  # shown of a text
ELLIPSIS = "…"
_JOINERS = "\u200c\u200d"  # part of the spelling in Persian, Hindi and many emoji

S = TypeVar("S", bound=Span | Entity)


def is_visible(character: str) -> bool:
    """Return whether a character can be printed as it is."""
    return character.isprintable() or character in _JOINERS


def shown(text: str, limit: int | None = None, lines: bool = False) -> str:
    r"""Return a text with the codes of what cannot be seen, cut to `limit` characters.

    Args:
        text: may hold anything.
        limit: in characters of `text`; default: all of it.
        lines: keep the ends of lines.

    Example:
        >>> print(shown("a\x1b[31m\u202eb\nc"), shown("1234567890", 4))
        a\x1b[31m\u202eb\nc 123…
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + ELLIPSIS
    if text.isprintable():
        return text
    return "".join(c if is_visible(c) or (lines and c == "\n") else repr(c)[1:-1] for c in text)


def excerpt(text: str, spans: Sequence[S], limit: int) -> tuple[str, list[S]]:
    """Return at most about `limit` characters of a text, with the first span if one fits, and the spans within.

    Example:
        >>> excerpt("0123456789", [Entity(8, 9, "x")], 4)
        ('…789', [Entity(start=2, end=3, label='x', score=1.0)])
    """
    ordered = sorted(spans, key=lambda span: span.start)
    if len(text) <= limit:
        return text, ordered
    start = 0
    if ordered and ordered[0].end >= limit:
        start = min(max(0, ordered[0].start - limit // 4), len(text) - limit + 1)
    end = start + limit - 1
    before, after = ELLIPSIS if start else "", ELLIPSIS if end < len(text) else ""
    back = start - len(before)
    moved = [replace(span, start=max(span.start, start) - back, end=min(span.end, end) - back)
             for span in ordered if span.start < end and span.end > start]  # fmt: skip
    return before + text[start:end] + after, moved
