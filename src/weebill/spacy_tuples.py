"""spaCy's training tuples <-> rows: (text, {"entities": [(start, end, label)], "cats": {label: 1.0}}). Runs no code.

As a JSON array, as JSON lines, or as a Python list in a .py file, read as a literal. A category from 0.5 on is an
intent; "entities" or true "cats" that are missing = not annotated.
"""

import ast
import json
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from weebill.errors import DataError
from weebill.files import numbered_lines
from weebill.interchange import Losses, OnError, Row, Span, checked_span, report_or_raise, short
from weebill.json_items import json_items
from weebill.json_lines import whole_text

_SILENT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)


def read_spacy(path: Path, on_error: OnError) -> Iterator[Row]:
    """Yield the rows of spaCy tuples; `source` is the line where the tuple begins."""
    errors, name = "replace" if on_error else "strict", path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        items = _json_lines(path, errors, on_error)
    elif name.endswith(".py"):
        items = _python_items(path, errors, on_error)
    else:
        items = ((where, item) for where, _, item in json_items(path, errors))
    while True:
        try:
            where, item = next(items, (None, None))
            if where is None:
                return
            row = _row(item, where)
        except DataError as error:
            report_or_raise(error, on_error)
            continue
        yield row


def _json_lines(path: Path, errors: str, on_error: OnError) -> Iterator[tuple[str, Any]]:
    for number, line in numbered_lines(path, errors):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            report_or_raise(DataError(f"{path}:{number}: expected one JSON array, got {short(line)}: {error}; correct "
                                      f"the line"), on_error)  # fmt: skip
            continue
        yield f"{path}:{number}", item


def _python_items(path: Path, errors: str, on_error: OnError) -> Iterator[tuple[str, Any]]:
    """Yield the items of the first list of a Python file, each evaluated as a literal."""
    lines = (line + "\n" for _, line in numbered_lines(path, errors))
    depth, parts, line, first = 0, list[str](), 1, 1
    try:
        for token in tokenize.generate_tokens(lambda: next(lines, "")):
            line = token.start[0]
            if token.type in _SILENT or (depth == 0 and token.string != "["):
                continue
            closes = token.type == tokenize.OP and token.string in ("]", ")", "}")
            if depth == 1 and (token.string == "," or closes):
                if parts:
                    yield from _literal(" ".join(parts), f"{path}:{first}", on_error)
                parts = []
                if closes:
                    return
                continue
            if depth:
                first = first if parts else line
                parts.append(token.string)
            depth += (token.type == tokenize.OP and token.string in ("[", "(", "{")) - closes
    except (tokenize.TokenError, SyntaxError) as error:
        raise DataError(f"{path}:{line}: expected a Python list of tuples, got {error}; correct the file") from error
    raise DataError(f"{path}: expected a Python list of tuples, as in TRAIN_DATA = [(…), …], got none; check the file")


def _literal(source: str, where: str, on_error: OnError) -> Iterator[tuple[str, Any]]:
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        report_or_raise(DataError(f"{where}: expected a tuple of literals, got {short(source)}: {error}; write its "
                                  f"values out"), on_error)  # fmt: skip
        return
    yield where, value


def _row(item: Any, where: str) -> Row:
    if not (isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], dict)):
        raise DataError(f'{where}: expected (text, {{"entities": [(0, 5, "label")], "cats": {{}}}}), got '
                        f"{short(item)}; correct it")  # fmt: skip
    text = whole_text({"the text": item[0]}, "the text", where)
    annotation = dict(item[1])
    entities, cats = annotation.pop("entities", None), annotation.pop("cats", None) or {}
    if not isinstance(cats, dict) or not all(isinstance(value, int | float) for value in cats.values()):
        raise DataError(f'{where}: expected "cats" as {{"label": 1.0}}, got {short(cats)}; correct it')
    if entities is not None and not isinstance(entities, list | tuple):
        raise DataError(f'{where}: expected a list under "entities", got {short(entities)}; correct it')
    spans = None if entities is None else tuple(_span(entity, text, where) for entity in entities)
    intents = tuple(str(label) for label, value in cats.items() if value >= 0.5)
    return Row(text, intents or None, spans, extra=annotation, source=where)


def _span(entity: Any, text: str, where: str) -> Span:
    values = list(entity[:3]) if isinstance(entity, list | tuple) else []
    if [type(value) for value in values] != [int, int, str]:
        raise DataError(f'{where}: expected entities as (14, 21, "time"), got {short(entity)}; correct it')
    return checked_span(Span(*values), text, where)


def spacy_lines(rows: Iterable[Row], losses: Losses, name: str) -> Iterator[str]:
    """Yield rows as the lines of a file of that name: .py a Python list, .jsonl JSON lines, else a JSON array."""
    python, lines = name.endswith(".py"), name.endswith((".jsonl", ".ndjson"))
    yield "" if lines else "TRAIN_DATA = [\n" if python else "["
    for number, row in enumerate(rows):
        annotation: dict[str, Any] = {}
        if row.spans is not None:
            annotation["entities"] = [(s.start, s.end, s.label) for s in row.spans]
        if row.intents is not None:
            annotation["cats"] = dict.fromkeys(row.intents, 1.0)
        if python:
            yield f"    {(row.text, annotation)!r},\n"
        else:
            separator = "" if lines else ",\n" if number else "\n"
            yield separator + json.dumps([row.text, annotation], ensure_ascii=False) + ("\n" if lines else "")
    yield "" if lines else "]\n" if python else "\n]\n"
