"""Tables of texts and intents, CSV or separated by tabs, with a header <-> rows. Has no place for entities.

Columns are found by name: a text under one of TEXT_COLUMNS, an intent (empty = not annotated) under one of
INTENT_COLUMNS; "id", "split" and "lang" where they are. Other columns are kept as a row's extra.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from weebill.errors import DataError
from weebill.files import numbered_lines
from weebill.interchange import Losses, OnError, Row, report_or_raise, short

TEXT_COLUMNS = ("text", "utterance", "query", "sentence")
INTENT_COLUMNS = ("intent", "label", "category")
_WRITTEN = ("text", "intent", "id", "split", "lang")


def is_table(first_line: str) -> bool:
    """Return whether a line is the header of a table: it names a column of texts and one of intents.

    Example:
        >>> is_table("text,label"), is_table('"id"\\t"utterance"\\t"intent"'), is_table("sentence1,sentence2,score")
        (True, True, False)
    """
    names = _names(first_line)
    return bool(names & set(TEXT_COLUMNS)) and bool(names & set(INTENT_COLUMNS))


def _names(line: str) -> set[str]:
    try:
        return {name.strip().lower() for name in next(csv.reader([line], delimiter=_delimiter(line)), [])}
    except csv.Error:
        return set()


def _delimiter(header: str) -> str:
    return "\t" if "\t" in header else ","


def read_table(path: Path, on_error: OnError) -> Iterator[Row]:
    """Yield the rows of a table; blank lines are skipped."""
    lines = numbered_lines(path, "replace" if on_error else "strict")
    header = next((line for _, line in lines), "")
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=_delimiter(header)), [])]
    text, intent = (next((n for n in known if n in names), "") for known in (TEXT_COLUMNS, INTENT_COLUMNS))
    if not text or not intent:
        raise DataError(f"{path}:1: expected a header with a column of texts ({', '.join(TEXT_COLUMNS)}) and one of "
                        f"intents ({', '.join(INTENT_COLUMNS)}), got {short(header)}; name the columns")  # fmt: skip
    reader = csv.reader((line + "\n" for _, line in lines), delimiter=_delimiter(header), strict=True)
    try:
        for fields in reader:
            if not any(fields):
                continue
            where = f"{path}:{reader.line_num + 1}"
            if len(fields) != len(names):
                error = DataError(f"{where}: expected {len(names)} fields, as the header has, got {len(fields)}; put a "
                                  f"text with a separator in quotes")  # fmt: skip
                report_or_raise(error, on_error)
                continue
            found = dict(zip(names, fields, strict=True))
            said, label = found.pop(text), found.pop(intent)
            id, split, lang = (found.pop(name, "") for name in ("id", "split", "lang"))
            extra = {name: cell for name, cell in found.items() if cell}
            yield Row(said, (label,) if label else None, None, id, split or None, lang or None, extra, where)
    except csv.Error as broken:
        raise DataError(f"{path}:{reader.line_num + 1}: expected a table with CSV quoting, got {broken}; correct the "
                        f"quotes") from broken  # fmt: skip


def table_lines(rows: Iterable[Row], losses: Losses, name: str) -> Iterator[str]:
    """Yield the lines of a table, CSV unless the name ends in .tsv; entities go to `losses`."""
    yield _line(_WRITTEN, name)
    for row in rows:
        if row.spans is not None:
            losses.add("entities of a row left out" if row.spans else "that a row has no entities", row.source)
        intent = row.intents[0] if row.intents else ""
        yield _line((row.text, intent, row.id, row.split or "", row.lang or ""), name)


def _line(fields: Iterable[str], name: str) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter="\t" if name.endswith(".tsv") else ",", lineterminator="\n").writerow(fields)
    return line.getvalue()
