"""JSON lines <-> rows: span JSON lines, weebill's own, and MASSIVE's. Checks each row by itself, compares none.

A span JSON line: {"id", "text", "intent", "spans": [{"start", "end", "label", "value"?, "role"?, "group"?}], "split",
"lang"}; a missing "intent" or "spans" = not annotated. Any other key, of a row or of a span, is kept as it is. What
`weebill parse` writes is read too: its "entities" as spans. One JSON array of such objects is as good as lines.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from weebill.errors import DataError
from weebill.files import numbered_lines
from weebill.interchange import Losses, OnError, Row, Span, checked_span, report_or_raise, short
from weebill.json_items import json_items

_SLOT = re.compile(r"\[(\S+) : ([^\]]*)\]")
SPAN_KEYS = frozenset(("start", "end", "label", "value", "role", "group"))
_OWN_KEYS = frozenset(("id", "text", "intent", "spans", "split", "lang"))
_MASSIVE_KEYS = frozenset(("id", "locale", "partition", "intent", "utt", "annot_utt"))


def json_rows(
    path: Path, errors: str = "strict", on_error: OnError = None, or_else: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object) of JSON lines, or of an array of objects; blank lines are skipped.

    `errors`, `or_else`: see `numbered_lines`.
    """
    if is_array_of_objects(path):
        for where, keys, item in json_items(path, errors):
            if keys or not isinstance(item, dict):
                raise DataError(f"{where}: expected one array of JSON objects, got {short(item)}; correct the file")
            yield where, item
        return
    for number, line in numbered_lines(path, errors, or_else):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            report_or_raise(DataError(f"{where}: expected one JSON object, got {short(line)}: {error}; correct the "
                                      f"line"), on_error)  # fmt: skip
            continue
        if isinstance(row, dict):
            yield where, row
        else:
            report_or_raise(DataError(f"{where}: expected one JSON object, got {short(line)}; correct the line"),
                            on_error)  # fmt: skip


def is_array_of_objects(path: Path) -> bool:
    """Return whether a file begins as a JSON array of objects does, on one line or on many."""
    begun = ""
    for _, line in numbered_lines(path, "replace"):
        begun += line.strip()
        if len(begun) > 1 or not "[".startswith(begun):
            break
    return bool(re.match(r"\[\s*\{", begun))


def text_field(row: dict[str, Any], key: str, where: str, remedy: str = "correct the line or name its --format") -> str:
    """Return the text under a key, or say what is there instead."""
    value = row.get(key)
    if not isinstance(value, str):
        got = f"{type(value).__name__} {short(value)}" if key in row else f"only {', '.join(sorted(row)) or 'nothing'}"
        raise DataError(f"{where}: expected a text under {key!r}, got {got}; {remedy}")
    return value


def whole_text(row: dict[str, Any], key: str, where: str) -> str:
    """Return the text under a key, made of whole characters."""
    text = text_field(row, key, where)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: expected whole characters under {key!r}, got half a surrogate pair in "
                        f"{short(text.encode('utf-8', 'backslashreplace').decode())}; write the text anew")  # fmt: skip
    return text


def read_spans(path: Path, on_error: OnError) -> Iterator[Row]:
    """Yield the rows of span JSON lines."""
    for where, row in json_rows(path, "replace" if on_error else "strict", on_error):
        try:
            read = _span_row(row, where)
        except DataError as error:
            report_or_raise(error, on_error)
            continue
        yield read


def _span_row(row: dict[str, Any], where: str) -> Row:
    """Return the row that one span JSON object holds."""
    text = whole_text(row, "text", where)
    intents = (text_field(row, "intent", where),) if row.get("intent") not in (None, "") else None
    spans, key = None, "spans" if row.get("spans") is not None or not _as_parsed(row.get("entities")) else "entities"
    if row.get(key) is not None:
        if not isinstance(row[key], list):
            raise DataError(f"{where}: expected a list under 'spans', got {short(row[key])}; correct the line")
        spans = tuple(_span(span, text, where) for span in row[key])
    split, lang = (text_field(row, key, where) if row.get(key) is not None else None for key in ("split", "lang"))
    extra = {name: value for name, value in row.items() if name not in (*_OWN_KEYS, key)}
    id = row.get("id")
    return Row(text, intents, spans, "" if id is None else str(id), split, lang, extra, where)


def _as_parsed(entities: Any) -> bool:
    """Return whether a value is a list of entities as `weebill parse` writes them."""
    return isinstance(entities, list) and all(
        isinstance(one, dict) and {"start", "end", "label"} <= set(one) for one in entities
    )


def _span(span: Any, text: str, where: str) -> Span:
    values: list[Any] = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else []
    if [type(value) for value in values] != [int, int, str]:
        raise DataError(f'{where}: expected spans as {{"start": 14, "end": 21, "label": "time"}}, got {short(span)}; '
                        f"correct the line")  # fmt: skip
    start, end, label = values
    more = (span.get(key) for key in ("value", "role", "group"))
    value, role, group = (None if one is None else str(one) for one in more)
    extra = {key: value for key, value in span.items() if key not in SPAN_KEYS}
    return checked_span(Span(start, end, label, value, role, group, extra), text, where)


def spans_lines(rows: Iterable[Row], losses: Losses) -> Iterator[str]:
    """Yield rows as span JSON lines; what is not annotated has no key."""
    for row in rows:
        yield json.dumps(spans_object(row, losses), ensure_ascii=False) + "\n"


def spans_object(row: Row, losses: Losses) -> dict[str, Any]:
    """Return the object that is a row's line of span JSON lines."""
    out: dict[str, Any] = {"id": row.id} if row.id else {}
    out["text"] = row.text
    if row.intents is not None:
        out["intent"] = row.intents[0]
    if row.spans is not None:
        out["spans"] = [
            {"start": s.start, "end": s.end, "label": s.label}
            | {k: v for k, v in (("value", s.value), ("role", s.role), ("group", s.group)) if v is not None}
            | dict(s.extra)
            for s in row.spans
        ]
    out |= {key: value for key, value in (("split", row.split), ("lang", row.lang)) if value is not None}
    return out | _other_keys(row, _OWN_KEYS, losses)


def read_massive(path: Path, on_error: OnError) -> Iterator[Row]:
    """Yield the rows of MASSIVE's JSON lines; `partition` is the split, `locale` the language."""
    for where, row in json_rows(path, "replace" if on_error else "strict", on_error):
        try:
            intent, split = text_field(row, "intent", where), text_field(row, "partition", where)
            text, spans = _on_utterance(*read_slots(whole_text(row, "annot_utt", where)), row.get("utt"))
            for span in spans:
                checked_span(span, text, where)
            lang = text_field(row, "locale", where) if row.get("locale") else None
        except DataError as error:
            report_or_raise(error, on_error)
            continue
        extra = {key: value for key, value in row.items() if key not in _MASSIVE_KEYS}
        yield Row(text, (intent,), spans, str(row.get("id", "")), split, lang, extra, where)


def read_slots(annotated: str) -> tuple[str, tuple[Span, ...]]:
    """Return text and spans of MASSIVE's notation.

    Example:
        >>> read_slots("wake me at [time : nine am]")[0]
        'wake me at nine am'
    """
    text, spans, last = "", [], 0
    for match in _SLOT.finditer(annotated):
        text += annotated[last : match.start()]
        spans.append(Span(len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        last = match.end()
    return text + annotated[last:], tuple(spans)


def _on_utterance(annotated: str, spans: tuple[Span, ...], utterance: object) -> tuple[str, tuple[Span, ...]]:
    """Return MASSIVE's `utt` with the spans on it, where it differs from the annotated text in white space alone.

    In locales that are written without spaces, `annot_utt` has spaces around its slots that nobody would type:
    "请在明早八点叫我", but "请在 [time : 明早八点] 叫我". Where more differs, the annotated text is the text.
    """
    if not isinstance(utterance, str) or utterance == annotated:
        return annotated, spans
    if "".join(utterance.split()) != "".join(annotated.split()):
        return annotated, spans
    if not all(annotated[s.start : s.end].strip() for s in spans):
        return annotated, spans  # an empty slot is an error with its line
    places = [place for place, character in enumerate(utterance) if not character.isspace()]
    before = list(accumulate((not character.isspace() for character in annotated), initial=0))
    moved = (replace(s, start=places[before[s.start]], end=places[before[s.end] - 1] + 1) for s in spans)
    return utterance, tuple(moved)


def massive_lines(rows: Iterable[Row], losses: Losses) -> Iterator[str]:
    """Yield rows as MASSIVE's JSON lines; one whose text reads as an annotation is left out."""
    for row in rows:
        annotated, last = "", 0
        for span in row.spans or ():
            annotated += f"{row.text[last : span.start]}[{span.label} : {row.text[span.start : span.end]}]"
            last = span.end
        annotated += row.text[last:]
        if read_slots(annotated) != (row.text, row.spans or ()):
            losses.add("row left out: its text or a label holds brackets that read as an annotation", row.source)
            continue
        if row.split is None:
            losses.add("row without a split, written as partition train", row.source)
        intent = row.intents[0] if row.intents else ""
        out = {"id": row.id, "locale": row.lang or "", "partition": row.split or "train"}
        out |= {"scenario": row.extra.get("scenario", intent.partition("_")[0]), "intent": intent}
        out |= {"utt": row.text, "annot_utt": annotated}
        yield json.dumps(out | _other_keys(row, _MASSIVE_KEYS, losses), ensure_ascii=False) + "\n"


def _other_keys(row: Row, own: frozenset[str], losses: Losses) -> dict[str, Any]:
    """Return a row's extra keys but those that mean something else in the target."""
    for key in own & set(row.extra):
        losses.add(f"key {key!r} left out", row.source)
    return {key: value for key, value in row.extra.items() if key not in own}
