"""Rasa's training data <-> rows: nlu.yml (3.x), and JSON with "rasa_nlu_data". Reads no stories and no domain.

`[SF](city)`, `[SF](city:San Francisco)`, `[SF]{"entity": "city", "role": "to"}` and `[SF][{…}, {…}]` are read as Rasa
3 reads them. Synonyms, regexes and lookup tables come as `Block`s; other sections are named by one each.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from weebill.errors import DataError
from weebill.files import numbered_lines
from weebill.interchange import Block, Item, Losses, OnError, Row, Span, checked_span, report_or_raise, short
from weebill.json_items import json_items
from weebill.json_lines import text_field, whole_text

BLOCKS = ("synonym", "regex", "lookup")
ENTITY_KEYS = frozenset(("start", "end", "entity", "value", "role", "group"))
_STRIPPED = "\n\r "  # around an example, as Rasa does
_MARKUP = re.compile(
    r"\[(?P<text>[^\]]+?)\](\((?P<label>[^:)]+?)(?:\:(?P<value>[^)]+))?\)|\{(?P<one>[^}]+?)\}|\[(?P<many>.*?)\])"
)
_DICT = re.compile(r"\{[^}]+?\}")
_UNPLAIN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_NAME = re.compile(r"[A-Za-z_][\w./+-]*", re.ASCII)
_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
_LINES_AT_ONCE = 1000
_MAX_DEPTH = 50  # of YAML; examples with metadata have a dozen


def read_rasa(path: Path, on_error: OnError) -> Iterator[Item]:
    """Yield the examples and blocks of a Rasa YAML file, or of all .yml and .yaml files below a folder."""
    for file in yaml_files(path) if path.is_dir() else [path]:
        sections = dict[str, None]()
        try:
            for name, node in _sections(file, "replace" if on_error else "strict"):
                sections[name] = None
                if name == "nlu":
                    yield from _nlu_item(node, file, on_error)
                elif name != "version":
                    yield Block("section", name, (), f"{file}:{_line(node)}")
            if file == path and sections and "nlu" not in sections:
                raise DataError(f"{path}: expected examples under the key nlu, got {', '.join(sections)}; name the "
                                f"file that has them, often data/nlu.yml")  # fmt: skip
        except DataError as error:
            report_or_raise(error, on_error)


def yaml_files(folder: Path) -> list[Path]:
    """Return the .yml and .yaml files below a folder that are not hidden, in order of name."""
    below = (p for p in folder.rglob("*") if p.suffix in (".yml", ".yaml"))
    return sorted(p for p in below if not any(part.startswith(".") for part in p.relative_to(folder).parts))


class _Scalar(NamedTuple):
    """A scalar of a YAML file; its value begins on line `at`, a block's text on `line`, counted from 1."""

    text: str
    at: int
    line: int


_Node = Any  # _Scalar, list[_Node], or dict[str, _Node]


def _sections(path: Path, errors: str) -> Iterator[tuple[str, _Node]]:
    """Yield (key, value) of the top mapping; where a value is a list, each of its items by itself."""
    lines = numbered_lines(path, errors)

    class Stream:
        def read(self, _: int) -> str:
            return "".join(line + "\n" for _, line in islice(lines, _LINES_AT_ONCE))

    def next_event() -> Any:
        return next(events)

    try:
        events = yaml.parse(Stream(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        next_event()
        if isinstance(next_event(), yaml.StreamEndEvent):
            return  # nothing but comments
        if not isinstance(next_event(), yaml.MappingStartEvent):
            raise DataError(f"{path}: expected a mapping with the key nlu, got none; check the file or name its "
                            f"--format")  # fmt: skip
        while not isinstance(key := next_event(), yaml.MappingEndEvent):
            built = _build(key, events, path)
            if not isinstance(built, _Scalar):
                raise DataError(f"{path}:{_line(built)}: expected a name before the colon, got a list or a mapping; "
                                f"correct the file")  # fmt: skip
            name = built.text
            event = next_event()
            if not isinstance(event, yaml.SequenceStartEvent):
                yield name, _build(event, events, path)
                continue
            while not isinstance(event := next_event(), yaml.SequenceEndEvent):
                yield name, _build(event, events, path)
    except StopIteration:
        raise DataError(f"{path}: expected a mapping with the key nlu, got nothing; check the file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DataError(f"{path}{f':{mark.line + 1}' if mark else ''}: expected YAML, got {problem}; correct the "
                        f"file") from error  # fmt: skip


def _build(event: Any, events: Iterator[Any], path: Path, depth: int = 0) -> _Node:
    """Return the value that begins with an event."""
    if depth > _MAX_DEPTH:
        raise DataError(f"{path}:{event.start_mark.line + 1}: expected examples of intents, got {depth} levels of "
                        f"lists and keys; correct the file")  # fmt: skip
    match type(event).__name__:
        case "ScalarEvent":
            at = event.start_mark.line + 1
            return _Scalar(event.value, at, at + (event.style == "|"))
        case "SequenceStartEvent":
            items = []
            while type(event := next(events)).__name__ != "SequenceEndEvent":
                items.append(_build(event, events, path, depth + 1))
            return items
        case "MappingStartEvent":
            mapping = {}
            while type(event := next(events)).__name__ != "MappingEndEvent":
                key = _build(event, events, path, depth + 1)
                name = key.text if isinstance(key, _Scalar) else str(key)
                mapping[name] = _build(next(events), events, path, depth + 1)
            return mapping
    raise DataError(f"{path}:{event.start_mark.line + 1}: expected values written out, got an alias; write the value "
                    f"where it is used")  # fmt: skip


def _line(node: _Node) -> int:
    while not isinstance(node, _Scalar):
        if not node:
            return 1
        node = next(iter(node.values())) if isinstance(node, dict) else node[0]
    return node.at


def _plain(node: _Node) -> Any:
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, list) else node.text


def _nlu_item(node: _Node, path: Path, on_error: OnError) -> Iterator[Item]:
    where = f"{path}:{_line(node)}"
    kind = next((key for key in ("intent", *BLOCKS) if isinstance(node, dict) and key in node), None)
    name = node[kind].text.strip() if kind and isinstance(node[kind], _Scalar) else ""
    if kind is None or not name:
        report_or_raise(DataError(f"{where}: expected an item under nlu with a named intent, synonym, regex or lookup, "
                                  f"got {short(_plain(node))}; name it"), on_error)  # fmt: skip
        return
    examples = node.get("examples")
    if not isinstance(examples, _Scalar) and not (kind == "intent" and isinstance(examples, list)):
        report_or_raise(DataError(f"{where}: expected examples as a block of lines after 'examples: |', got "
                                  f"{'none' if examples is None else short(_plain(examples))}; correct {kind} "
                                  f"{name!r}"), on_error)  # fmt: skip
        return
    if kind != "intent" and isinstance(examples, _Scalar):
        values = tuple(text for text, _ in _example_lines(examples, path, on_error))
        yield Block(kind, name, values, where)  # type: ignore[arg-type]  # one of BLOCKS
        return
    metadata = {"metadata": _plain(node["metadata"])} if "metadata" in node else {}
    if isinstance(examples, _Scalar):
        for text, place in _example_lines(examples, path, on_error):
            yield from _example(text, name, metadata, place, on_error)
        return
    for example in examples:
        place = f"{path}:{_line(example)}"
        if not isinstance(example, dict) or not isinstance(example.get("text"), _Scalar):
            report_or_raise(DataError(f"{place}: expected '- text: …' in a list of examples, got "
                                      f"{short(_plain(example))}; correct it"), on_error)  # fmt: skip
            continue
        place = f"{path}:{example['text'].line}"
        own = {"metadata": _plain(example["metadata"])} if "metadata" in example else metadata
        yield from _example(example["text"].text.strip(_STRIPPED), name, own, place, on_error)


def _example_lines(block: _Scalar, path: Path, on_error: OnError) -> Iterator[tuple[str, str]]:
    """Yield ("text", "file:line") of the lines "- text"; comments and blank lines are skipped."""
    for number, line in enumerate(block.text.split("\n"), start=block.line):
        if line.startswith("-"):
            yield line[1:].strip(_STRIPPED), f"{path}:{number}"
        elif line.strip() and not line.lstrip().startswith("#"):
            report_or_raise(DataError(f"{path}:{number}: expected an example that begins with '- ', got "
                                      f"{short(line)}; correct the line"), on_error)  # fmt: skip


def _example(marked: str, intent: str, extra: dict[str, Any], where: str, on_error: OnError) -> Iterator[Row]:
    try:
        text, spans = read_markup(marked, where)
    except DataError as error:
        report_or_raise(error, on_error)
        return
    yield Row(text, (intent,), spans, extra=extra, source=where)


def read_markup(marked: str, where: str = "") -> tuple[str, tuple[Span, ...]]:
    """Return text and spans of an example in Rasa's notation.

    Raises:
        DataError: the attributes of an entity are no JSON object with an "entity".

    Example:
        >>> read_markup('to [SF]{"entity": "city", "role": "to"}')
        ('to SF', (Span(start=3, end=5, label='city', value=None, role='to', group=None, extra={}),))
    """
    text, spans, last = "", list[Span](), 0
    for match in _MARKUP.finditer(marked):
        text += marked[last : match.start()]
        start, end = len(text), len(text) + len(match["text"])
        text, last = text + match["text"], match.end()
        if match["label"] is not None:
            given: list[dict[str, Any]] = [{"entity": match["label"], "value": match["value"]}]
        else:
            dicts = [f"{{{match['one']}}}"] if match["one"] is not None else _DICT.findall(match["many"])
            given = [_attributes(one, where) for one in dicts]
        for attributes in given:
            value, role, group = (attributes.get(key) for key in ("value", "role", "group"))
            value = None if value is None or str(value) == match["text"] else str(value)
            spans.append(Span(start, end, attributes["entity"], value, role, group, _other_keys(attributes)))
    return text + marked[last:], tuple(spans)


def _attributes(source: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected the attributes of an entity as JSON, got {short(source)}: {error}; correct "
                        f"them") from error  # fmt: skip
    if not isinstance(found.get("entity"), str):
        raise DataError(f'{where}: expected {{"entity": "city", …}}, got {short(found)}; name the entity')
    return dict(found)


def _other_keys(entity: dict[str, Any]) -> dict[str, Any]:
    """Return what an entity's attributes say that is no part of a span."""
    return {key: value for key, value in entity.items() if key not in ENTITY_KEYS}


def write_markup(row: Row) -> str | None:
    """Return an example in Rasa's notation; None when it would be read as something else."""
    out, last = "", 0
    for (start, end), spans in groupby(row.spans or (), key=lambda s: (s.start, s.end)):
        if start < last:
            return None
        out += f"{row.text[last:start]}[{row.text[start:end]}]{_marks(list(spans))}"
        last = end
    out += row.text[last:]
    try:
        return out if read_markup(out) == (row.text, row.spans or ()) else None
    except DataError:
        return None


def _marks(spans: Sequence[Span]) -> str:
    """Return what follows the bracketed text of an entity, or of several over the same characters."""
    only = spans[0]
    if len(spans) == 1 and only == Span(only.start, only.end, only.label) and not set(only.label) & set(":)"):
        return f"({only.label})"
    dicts = []
    for span in spans:
        given = {"entity": span.label, "role": span.role, "group": span.group, "value": span.value}
        known = {key: value for key, value in given.items() if value is not None}
        body = json.dumps(known | dict(span.extra), ensure_ascii=False)[1:-1]
        dicts.append("{" + body.replace("}", "\\u007d").replace("]", "\\u005d") + "}")
    return dicts[0] if len(dicts) == 1 else f"[{', '.join(dicts)}]"


def rasa_lines(items: Iterable[Item], losses: Losses) -> Iterator[str]:
    """Yield rows and blocks as Rasa YAML, grouped by intent and by block in order of first appearance.

    All examples are held in memory, as Rasa's format wants those of an intent together.
    """
    plain, quoted, blocks = dict[str, list[str]](), dict[str, list[str]](), dict[tuple[str, str], list[str]]()
    for item in items:
        if isinstance(item, Block):
            blocks.setdefault((item.kind, item.name), []).extend(item.values)
            continue
        row = item if item.text.strip(_STRIPPED) == item.text else item.stripped()
        if row is not item:
            losses.add("white space around a text left out", row.source)
        row = _without_nested(row, losses)
        example, intent = write_markup(row), row.intents[0] if row.intents else ""
        if example is None or not row.text:
            why = "is empty" if not row.text else "or an entity reads as something else in Rasa's notation"
            losses.add(f"row left out: its text {why}", row.source)
        else:
            plain.setdefault(intent, [])
            (quoted if _UNPLAIN.search(example) else plain).setdefault(intent, []).append(example)
    yield 'version: "3.1"\n\nnlu:\n'
    for intent, examples in plain.items():
        yield from _yaml_item("intent", intent, examples)
        if intent in quoted:
            yield f"- intent: {_quoted(intent)}\n  examples:\n"
            yield from (f"  - text: {_quoted(example)}\n" for example in quoted[intent])
    for (kind, name), values in blocks.items():
        kept = [v for v in values if v == v.strip(_STRIPPED) and not _UNPLAIN.search(v)]
        if len(kept) < len(values):
            losses.add(f"value of a {kind} with line breaks or white space around it left out", name)
        yield from _yaml_item(kind, name, kept)


def _without_nested(row: Row, losses: Losses) -> Row:
    """Return the row without keys of spans whose values are lists or objects, which Rasa's notation cannot hold."""
    spans = []
    for span in row.spans or ():
        kept = {key: value for key, value in span.extra.items() if not isinstance(value, list | dict)}
        for key in span.extra:
            if key not in kept:
                losses.add(f"key {key!r} of a span left out", row.source)
        spans.append(replace(span, extra=kept))
    return row if row.spans is None else replace(row, spans=tuple(spans))


def _yaml_item(kind: str, name: str, examples: Sequence[str]) -> Iterator[str]:
    if examples:
        yield f"- {kind}: {_quoted(name)}\n  examples: |\n"
        yield from (f"    - {example}\n" for example in examples)


def _quoted(text: str) -> str:
    """Return a YAML scalar: as it is where it cannot be taken for anything but a name, else in double quotes."""
    if _NAME.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return _UNPLAIN.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def read_rasa_json(path: Path, on_error: OnError) -> Iterator[Item]:
    """Yield the examples and blocks of Rasa JSON."""
    items = json_items(path, "replace" if on_error else "strict")
    while True:
        try:
            where, keys, value = next(items, ("", (), None))
            if not where:
                return
            item = _json_item(keys, value, where)
        except DataError as error:
            report_or_raise(error, on_error)
            continue
        if item is not None:
            yield item


def _json_item(keys: tuple[str, ...], value: Any, where: str) -> Item | None:
    if keys[:1] != ("rasa_nlu_data",) or not isinstance(value, dict):
        raise DataError(f'{where}: expected Rasa\'s {{"rasa_nlu_data": {{"common_examples": […]}}}}, got '
                        f"{short(value)} under {'.'.join(keys) or 'nothing'}; check the file or name its "
                        f"--format")  # fmt: skip
    match keys[1:]:
        case ("common_examples" | "intent_examples" | "entity_examples",):
            return _json_row(value, where)
        case ("entity_synonyms",):
            return Block("synonym", text_field(value, "value", where), _texts(value, "synonyms", where), where)
        case ("regex_features",):
            return Block("regex", text_field(value, "name", where), (text_field(value, "pattern", where),), where)
        case ("lookup_tables",):
            return Block("lookup", text_field(value, "name", where), _texts(value, "elements", where), where)
    return Block("section", ".".join(keys), (), where)


def _texts(value: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = value.get(key)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise DataError(f"{where}: expected a list of texts under {key!r}, got {short(found)}; correct it")
    return tuple(found)


def _json_row(example: dict[str, Any], where: str) -> Row:
    text = whole_text(example, "text", where)
    spans = []
    for entity in example.get("entities") or ():
        values: list[Any] = [entity.get(key) for key in ("start", "end", "entity")] if isinstance(entity, dict) else []
        if [type(value) for value in values] != [int, int, str]:
            raise DataError(f'{where}: expected entities as {{"start": 14, "end": 21, "entity": "time"}}, got '
                            f"{short(entity)}; correct it")  # fmt: skip
        start, end, label = values
        value, role, group = (entity.get(key) for key in ("value", "role", "group"))
        value = None if value is None or str(value) == text[start:end] else str(value)
        spans.append(checked_span(Span(start, end, label, value, role, group, _other_keys(entity)), text, where))
    intents = (text_field(example, "intent", where),) if example.get("intent") is not None else None
    extra = {key: value for key, value in example.items() if key not in ("text", "intent", "entities")}
    return Row(text, intents, tuple(spans), extra=extra, source=where)


def rasa_json_lines(items: Iterable[Item], losses: Losses) -> Iterator[str]:
    """Yield rows and blocks as Rasa JSON, an example a line."""
    blocks: dict[str, list[dict[str, Any]]] = {"entity_synonyms": [], "regex_features": [], "lookup_tables": []}
    separator = '{"rasa_nlu_data": {"common_examples": [\n'
    for item in items:
        if isinstance(item, Block):
            match item.kind:
                case "synonym":
                    blocks["entity_synonyms"].append({"value": item.name, "synonyms": item.values})
                case "regex":
                    blocks["regex_features"] += [{"name": item.name, "pattern": value} for value in item.values]
                case "lookup":
                    blocks["lookup_tables"].append({"name": item.name, "elements": item.values})
            continue
        example: dict[str, Any] = {"text": item.text, "intent": item.intents[0] if item.intents else None}
        example["entities"] = [
            {"start": s.start, "end": s.end, "value": item.text[s.start : s.end] if s.value is None else s.value,
             "entity": s.label} | {k: v for k, v in (("role", s.role), ("group", s.group)) if v is not None}
            | dict(s.extra)
            for s in item.spans or ()
        ]  # fmt: skip
        yield separator + json.dumps({k: v for k, v in example.items() if v is not None}, ensure_ascii=False)
        separator = ",\n"
    yield separator if separator.startswith("{") else ""
    for key, values in blocks.items():
        yield f'\n], "{key}": [\n' + ",\n".join(json.dumps(value, ensure_ascii=False) for value in values)
    yield "\n]}}\n"
