"""Mends what can be mended without judgement: white space, invisible characters, exact copies. Finds nothing else."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from weebill import formats
from weebill.errors import DataError
from weebill.interchange import Item, Losses, Row, Span
from weebill.row_checks import INVISIBLE_CHARACTER, ODD_SPACE


def mend(
    source: Path,
    target: Path,
    format: str | None = None,
    watched: Callable[[Iterable[Any], str], Iterable[Any]] = lambda rows, what: rows,
) -> list[str]:
    """Write a file with its mechanical mistakes mended, in the format that the new name asks for; returns what changed.

    Raises:
        DataError: the file cannot be read.
        ConfigError: the new file is the old one.
        ArtifactError: the new one cannot be written.
    """
    to = formats.format_to_write(target)
    formats.refuse_overwriting("--fix", target, source, format, to)
    changes = Losses()

    def unreadable(error: DataError) -> None:
        changes.add("row left out: it cannot be read", str(error).partition(": ")[0])

    items = mended(formats.stream(source, format, on_error=unreadable), changes)
    formats.write(target, watched(items, "mending"), to, changes)
    return [f"{target}: {formats.FORMATS[to].title}, written with these changes:",
            *(f"  {line}" for line in changes.lines() or ["none"])]  # fmt: skip


def mended(items: Iterable[Item], changes: Losses) -> Iterator[Item]:
    """Yield the items with their mechanical mistakes mended; what was changed is counted in `changes`.

    Order: odd spaces become " " and invisible characters go; white space around texts, spans and labels goes, and
    within labels becomes "_"; then empty texts, repeated spans, and rows that occurred before in the same split go.
    """
    seen = set[int]()
    for item in items:
        if not isinstance(item, Row):
            yield item
            continue
        row = _labels(_spans(_text(item, changes), changes), changes)
        if not row.text:
            changes.add("empty text removed", item.source)
            continue
        spans = None if row.spans is None else frozenset((s.start, s.end, s.label) for s in row.spans)
        key = hash((row.text, row.intents, spans, row.split))
        if key in seen:
            changes.add("copy of an earlier row removed", item.source)
            continue
        seen.add(key)
        yield row


def _text(row: Row, changes: Losses) -> Row:
    if ODD_SPACE.search(row.text.strip()):
        changes.add("odd space written as ' '", row.source)
        row = replace(row, text=ODD_SPACE.sub(" ", row.text))  # as long as before
    if INVISIBLE_CHARACTER.search(row.text):
        changes.add("invisible character removed from a text", row.source)
        row = _without_invisible(row)
    if row.text != row.text.strip():
        changes.add("white space around a text removed", row.source)
        row = row.stripped()
    return row


def _without_invisible(row: Row) -> Row:
    """Return the row without invisible characters, its spans moved along.

    Example:
        >>> row = _without_invisible(Row("at\u200b nine", spans=(Span(4, 8, "time"),)))
        >>> row.text, row.spans[0].start
        ('at nine', 3)
    """
    kept = [not INVISIBLE_CHARACTER.fullmatch(character) for character in row.text]
    moved = [0, *accumulate(kept)]
    text = "".join(character for character, keep in zip(row.text, kept, strict=True) if keep)
    spans = row.spans and tuple(replace(s, start=moved[s.start], end=moved[s.end]) for s in row.spans)
    return replace(row, text=text, spans=None if spans is None else tuple(s for s in spans if s.start < s.end))


def _spans(row: Row, changes: Losses) -> Row:
    if not row.spans:
        return row
    kept = list[Span]()
    for span in row.spans:
        covered = row.text[span.start : span.end]
        start = span.start + len(covered) - len(covered.lstrip())
        trimmed = replace(span, start=start, end=start + len(covered.strip()))
        if trimmed != span:
            changes.add("white space trimmed from a span", row.source)
        twice = any(replace(other, extra=trimmed.extra) == trimmed for other in kept)
        if twice or trimmed.start == trimmed.end:
            changes.add("repeated or empty span removed", row.source)
        else:
            kept.append(trimmed)
    return row if tuple(kept) == row.spans else replace(row, spans=tuple(kept))


def _labels(row: Row, changes: Losses) -> Row:
    labels = [span.label for span in row.spans or ()]
    if any(label.split() != [label] for label in labels):
        changes.add("white space in an entity label written as _", row.source)
        row = replace(row, spans=tuple(replace(s, label="_".join(s.label.split())) for s in row.spans or ()))
    if row.intents is not None and any(intent != " ".join(intent.split()) for intent in row.intents):
        changes.add("white space around an intent removed", row.source)
        row = replace(row, intents=tuple(" ".join(intent.split()) for intent in row.intents))
    return row
