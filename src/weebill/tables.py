"""Tables of texts and intents with a header <-> rows: CSV, or separated by tabs. Has no place for entities.

Columns are found by name: a text under one of TEXT_COLUMNS, an intent (empty = not annotated) under one of
INTENT_COLUMNS; "id", "split" and "lang" where they are. Other columns are kept as a row's extra.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from weebill.errors import DataError
from weebill.files import numbered_lines
from weebill.interchange import Losses, OnError, Row, report_or_raise, short

TEXT_COLUMNS = ("text", "utterance", "query", "sentence")
INTENT_COLUMNS = ("intent", "label", "category")
_PAIRED = frozenset((*TEXT_COLUMNS, "answer", "question", "anchor", "positive", "negative", "paraphrase", "passage"))
_WRITTEN = ("text", "intent", "id", "split", "lang")


def holds_table(path: Path) -> bool:
    """Return whether a file begins with the header of a table."""
    return path.is_file() and is_table(next((line for _, line in numbered_lines(path, "replace") if line.strip()), ""))


def is_table(first_line: str) -> bool:
    """Return whether a line is the header of a table: it names one column of texts, pairs have two, and one of intents.

    Example:
        >>> is_table("text,label"), is_table("id\\tutterance\\tintent"), is_table("query,answer,label")
        (True, True, False)
    """
    try:
        names = _names(first_line)
    except csv.Error:
        return False
    return len(_PAIRED.intersection(names)) == 1 and bool({*TEXT_COLUMNS} & {*names} and {*INTENT_COLUMNS} & {*names})


def _names(header: str) -> list[str]:
    return [name.strip().lower() for name in next(_fields([header], header), [])]


def _fields(lines: Iterable[str], header: str) -> Any:
    """Return a reader of fields; those parted by tabs have no quotes, as in other files of that kind."""
    if "\t" in header:
        return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=";" if ";" in header and "," not in header else ",", strict=True)


def read_table(path: Path, on_error: OnError) -> Iterator[Row]:
    """Yield the rows of a table; blank lines are skipped."""
    lines = numbered_lines(path, "replace" if on_error else "strict")
    above, header = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    where = f"{path}:{above}"
    if not is_table(header):
        raise DataError(f"{where}: expected a header with a column of texts ({', '.join(TEXT_COLUMNS)}) and one of "
                        f"intents ({', '.join(INTENT_COLUMNS)}), got {short(header)}; name the columns")  # fmt: skip
    names = _names(header)
    if len(set(names)) < len(names):
        raise DataError(f"{where}: expected columns of different names, got {short(header)}; rename or remove one")
    text, intent = (next(n for n in known if n in names) for known in (TEXT_COLUMNS, INTENT_COLUMNS))
    reader = _fields((line + "\n" for _, line in lines), header)
    while True:
        where = f"{path}:{above + reader.line_num + 1}"  # where the row begins; quoted fields may go over several lines
        try:
            fields = next(reader, None)
        except csv.Error as broken:
            raise DataError(f"{where}: expected fields with CSV quoting, got {broken} in the row that begins here; "
                            f"correct the quotes") from broken  # fmt: skip
        if fields is None:
            return
        if not any(fields):
            continue
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


def table_lines(rows: Iterable[Row], losses: Losses) -> Iterator[str]:
    """Yield the lines of a table in CSV; entities go to `losses`."""
    yield _line(_WRITTEN)
    for row in rows:
        if row.spans is not None:
            losses.add("entities of a row left out" if row.spans else "that a row has no entities", row.source)
        yield _line((row.text, row.intents[0] if row.intents else "", row.id, row.split or "", row.lang or ""))


def _line(fields: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue()
