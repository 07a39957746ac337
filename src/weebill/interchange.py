"""One utterance as data files hold it, with what only some formats know, and the ledger of losses. Reads no files.

A model learns from `Utterance`; files also carry roles, several intents, synonyms and keys of their own. `Row` keeps
them, so that a conversion loses only what its target cannot hold, and says so.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from weebill.errors import DataError
from weebill.schema import Entity, Utterance

SHOWN_PLACES = 3


@dataclass(frozen=True, slots=True)
class Span:
    """One labelled span as a file holds it, not yet checked; half-open code point offsets.

    `value` is what the span stands for when that is not its text; `role` and `group` are Rasa's. `extra` holds
    what else the file says of it, which weebill does not read.
    """

    start: int
    end: int
    label: str
    value: str | None = None
    role: str | None = None
    group: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A tag that breaks its scheme, "I-city after O", where it stands, and what it was read as."""

    tag: str
    read_as: str
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """One text with all that a file says of it.

    `intents` and `spans` None = not annotated. `extra` holds the keys of a JSON row that weebill does not read.
    `source` is "file:line". `doubts` are what the reader had to guess, no part of what the row says.
    """

    text: str
    intents: tuple[str, ...] | None = None
    spans: tuple[Span, ...] | None = None
    id: str = ""
    split: str | None = None
    lang: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    doubts: tuple[Doubt, ...] = field(default=(), compare=False)

    def stripped(self) -> "Row":
        """Return the row without white space around its text, spans moved along and cut to what is left."""
        start = len(self.text) - len(self.text.lstrip())
        text = self.text.strip()
        if text == self.text or self.spans is None:
            return replace(self, text=text)
        moved = (replace(s, start=max(0, s.start - start), end=min(len(text), s.end - start)) for s in self.spans)
        return replace(self, text=text, spans=tuple(s for s in moved if s.start < s.end))

    def utterance(self) -> Utterance:
        """Return what a model learns from: the first intent, and checked entities without roles, groups and values.

        Raises:
            DataError: a span that is not within its text, overlaps another, or starts or ends on white space.
        """
        spans = None if self.spans is None else checked_entities(self.spans, self.text, self.source)
        return Utterance(self.text, self.intents[0] if self.intents else None, spans, self.id, self.source)


@dataclass(frozen=True, slots=True)
class Block:
    """What stands beside the rows of a Rasa file: a synonym, regex or lookup table with its values, other sections."""

    kind: Literal["synonym", "regex", "lookup", "section"]
    name: str
    values: tuple[str, ...]
    source: str = ""


Item = Row | Block
OnError = Callable[[DataError], None] | None  # None: raise it; else: called with it, and reading goes on


class Losses:
    """What a file says and its reader cannot keep, counted, with the first places.

    Example:
        >>> losses = Losses()
        >>> for line in range(1, 6):
        ...     losses.add("role left out", f"nlu.yml:{line}")
        >>> losses.lines()
        ['role left out: 5 (nlu.yml:1, nlu.yml:2, nlu.yml:3 …)']
    """

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.places = dict[str, list[str]]()

    def add(self, what: str, where: str) -> None:
        """Count one more loss of a kind."""
        self.counts[what] += 1
        places = self.places.setdefault(what, [])
        if len(places) <= SHOWN_PLACES:
            places.append(where)

    def lines(self) -> list[str]:
        """Return one line per kind, most frequent first."""
        out = []
        for what, count in self.counts.most_common():
            places = self.places[what]
            more = " …" if len(places) > SHOWN_PLACES else ""
            out.append(f"{what}: {count:,} ({', '.join(places[:SHOWN_PLACES])}{more})")
        return out


def checked_entities(spans: Sequence[Span], text: str, where: str) -> tuple[Entity, ...]:
    """Return the spans as entities, by position.

    Raises:
        DataError: one is outside the text, empty, on white space, without a label, or overlaps another.
    """
    ordered = sorted(Entity(s.start, s.end, s.label) for s in spans if checked_span(s, text, where))
    for i, entity in enumerate(ordered):
        span = f"span {entity.start}–{entity.end} ({entity.label})"
        covered = text[entity.start : entity.end]
        if covered != covered.strip():
            raise DataError(f"{where}: expected spans that start and end on a visible character, got {span} "
                            f"over {short(covered)}; leave out the white space, as `weebill data check --fix` "
                            f"does")  # fmt: skip
        if entity.label.split() != [entity.label]:
            raise DataError(f"{where}: expected a label without white space, got {entity.label!r}; rename it")
        if i and ordered[i - 1].end > entity.start:
            before = ordered[i - 1]
            raise DataError(f"{where}: expected spans that do not overlap, got {span} and span {before.start}–"
                            f"{before.end} ({before.label}); keep one of them")  # fmt: skip
    return tuple(ordered)


def checked_span(span: Span, text: str, where: str) -> Span:
    """Return a span that has what every format asks of one.

    Raises:
        DataError: the span is outside its text or empty, or has no label.
    """
    if not 0 <= span.start < span.end <= len(text):
        raise DataError(f"{where}: expected spans within the text's {len(text)} characters, start before end, got "
                        f"span {span.start}–{span.end} ({span.label}); correct the offsets (code points, end "
                        f"exclusive)")  # fmt: skip
    if not span.label.strip():
        raise DataError(f"{where}: expected a label, got {span.label!r} for span {span.start}–{span.end}; name it")
    return span


def short(value: object) -> str:
    """Return a value as an error shows it: JSON, cut to 60 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return repr(text if len(text) <= 60 else text[:57] + "…")


def report_or_raise(error: DataError, on_error: OnError) -> None:
    """Hand a row's error to who asked for it, or raise it."""
    if on_error is None:
        raise error
    on_error(error)
