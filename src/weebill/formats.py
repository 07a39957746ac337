"""Data files -> utterances, pairs and texts; and utterances -> span JSON lines. Trains nothing and guesses no labels.

Every error names file and line, what was expected, what arrived and what to do.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from weebill.errors import DataError
from weebill.files import numbered_lines, write_whole
from weebill.schema import Entity, Utterance
from weebill.tags import spans_from_words

_SLOT = re.compile(r"\[(\S+) : ([^\]]*)\]")
_BIO_FILES = ("seq.in", "seq.out", "label")
_TAG = re.compile(r"O|[BI]-\S+")


def read_texts(path: Path | str) -> list[str]:
    """Return one text a line; an empty line is an empty text.

    Raises:
        DataError: see `files.numbered_lines`.
    """
    return [line for _, line in numbered_lines(Path(path))]


def read_utterances(path: Path | str, format: str | None = None, split: str | None = None) -> list[Utterance]:
    """Return the labelled utterances of a file or folder, in file order.

    Args:
        path: a file, plain or .gz; for "bio" a folder.
        format: "massive" (MASSIVE's JSON lines), "spans" (weebill's own: {"text", "intent", "spans": [{"start", "end",
            "label"}]}), "bio" (a folder with seq.in, seq.out and label, as ATIS and SNIPS come). Default: guessed.
        split: only rows of this split: MASSIVE's `partition`, a "split" key of span JSON lines, a folder of "bio".

    Raises:
        DataError: missing, empty or malformed data, an unknown format or split; a span that is not within its text,
            overlaps another, or starts or ends on white space.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: expected a data file, got nothing there; check the path")
    format = format or _guess(path)
    if format not in _READERS:
        raise DataError(f"format: expected one of {', '.join(_READERS)}, got {format!r}; correct --format")
    rows = list(_READERS[format](path, split))
    present = dict.fromkeys(name for name, _ in rows if name is not None)
    if split is not None:
        chosen = [utterance for name, utterance in rows if name == split]
        if not chosen:
            known = ", ".join(map(repr, present)) if present else "rows without any split"
            raise DataError(f"{path}: expected split {split!r}, got {known}; correct or leave out the split")
        return chosen
    if not rows:
        raise DataError(f"{path}: expected utterances, got only blank lines; check the file")
    return [utterance for _, utterance in rows]


def write_spans(path: Path | str, utterances: Sequence[Utterance]) -> None:
    """Write span JSON lines, whole or not at all; what is not annotated has no key.

    Raises:
        ArtifactError: the file cannot be written.
    """
    lines = [json.dumps(span_row(utterance), ensure_ascii=False) + "\n" for utterance in utterances]
    write_whole(Path(path), "".join(lines).encode())


def span_row(utterance: Utterance) -> dict[str, object]:
    """Return the object that is one line of span JSON lines."""
    row: dict[str, object] = {"id": utterance.id, "text": utterance.text}
    if utterance.intent is not None:
        row["intent"] = utterance.intent
    if utterance.entities is not None:
        row["spans"] = [{"start": e.start, "end": e.end, "label": e.label} for e in utterance.entities]
    return row


def _guess(path: Path) -> str:
    if path.is_dir():
        return "bio"
    first = next((line for _, line in numbered_lines(path) if line.strip()), "")
    return "massive" if '"annot_utt"' in first else "spans"


_Rows = Iterator[tuple[str | None, Utterance]]  # (split, utterance)


def json_rows(path: Path, errors: str = "strict") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object) of JSON lines; blank lines are skipped."""
    for number, line in numbered_lines(path, errors):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: expected one JSON object, got {_short(line)}: {error}; correct the "
                            f"line") from error  # fmt: skip
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected one JSON object, got {_short(line)}; correct the line")
        yield where, row


def text_field(row: dict[str, Any], key: str, where: str) -> str:
    """Return the text under a key, or say what is there instead."""
    value = row.get(key)
    if not isinstance(value, str):
        got = f"{type(value).__name__} {_short(value)}" if key in row else f"only {', '.join(sorted(row)) or 'nothing'}"
        raise DataError(f"{where}: expected a text under {key!r}, got {got}; correct the line or name its --format")
    return value


def _read_massive(path: Path, split: str | None) -> _Rows:
    for where, row in json_rows(path):
        intent, part = text_field(row, "intent", where), text_field(row, "partition", where)
        text, entities, last = "", [], 0
        annotated = text_field(row, "annot_utt", where)
        for match in _SLOT.finditer(annotated):
            text += annotated[last : match.start()]
            entities.append(Entity(len(text), len(text) + len(match[2]), match[1]))
            text += match[2]
            last = match.end()
        text += annotated[last:]
        text, entities = _on_utterance(entities, text, row.get("utt"))
        spans = tuple(_checked(entities, text, where))
        yield part, Utterance(text, intent, spans, id=str(row.get("id", "")), source=where)


def _on_utterance(entities: list[Entity], annotated: str, utterance: object) -> tuple[str, list[Entity]]:
    """Return MASSIVE's `utt` with the spans on it, where it differs from the annotated text in white space alone.

    In locales that are written without spaces, `annot_utt` has spaces around its slots that nobody would type:
    "请在明早八点叫我", but "请在 [time : 明早八点] 叫我". Where more differs, the annotated text is the text.
    """
    if not isinstance(utterance, str) or utterance == annotated:
        return annotated, entities
    if "".join(utterance.split()) != "".join(annotated.split()):
        return annotated, entities
    if not all(annotated[e.start : e.end].strip() for e in entities):
        return annotated, entities  # an empty slot is an error with its line, see `_checked`
    places = [place for place, character in enumerate(utterance) if not character.isspace()]
    before = list(accumulate((not character.isspace() for character in annotated), initial=0))
    moved = [replace(e, start=places[before[e.start]], end=places[before[e.end] - 1] + 1) for e in entities]
    return utterance, moved


def _read_spans(path: Path, split: str | None) -> _Rows:
    for where, row in json_rows(path):
        text = text_field(row, "text", where)
        intent = text_field(row, "intent", where) if row.get("intent") is not None else None
        entities = None
        if row.get("spans") is not None:
            if not isinstance(row["spans"], list):
                raise DataError(f"{where}: expected a list under 'spans', got {_short(row['spans'])}; correct the line")
            entities = tuple(_checked([_entity(span, where) for span in row["spans"]], text, where))
        part = text_field(row, "split", where) if row.get("split") is not None else None
        yield part, Utterance(text, intent, entities, id=str(row.get("id", "")), source=where)


def _entity(span: Any, where: str) -> Entity:
    values: list[Any] = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else []
    if [type(value) for value in values] != [int, int, str]:
        raise DataError(f'{where}: expected spans as {{"start": 14, "end": 21, "label": "time"}}, got {_short(span)}; '
                        f"correct the line")  # fmt: skip
    return Entity(*values)


def _read_bio(path: Path, split: str | None) -> _Rows:
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder with {', '.join(_BIO_FILES)}, got a file; name the folder")
    folders: dict[str | None, Path]
    if (path / _BIO_FILES[0]).exists():
        folders = {None: path}
    else:
        folders = {child.name: child for child in sorted(path.iterdir()) if (child / _BIO_FILES[0]).exists()}
        if not folders:
            raise DataError(f"{path}: expected a folder with {', '.join(_BIO_FILES)}, got one without; name the folder "
                            f"that holds them")  # fmt: skip
    for name, folder in folders.items():
        if split is not None and name is not None and name != split:
            yield name, Utterance("")  # only its name is needed, to list what is there
        else:
            yield from ((name, utterance) for utterance in _read_bio_folder(folder))


def _read_bio_folder(folder: Path) -> Iterator[Utterance]:
    words, tags, intents = (list(numbered_lines(folder / name)) for name in _BIO_FILES)
    if not len(words) == len(tags) == len(intents):
        raise DataError(f"{folder}: expected as many lines in each of {', '.join(_BIO_FILES)}, got {len(words)}, "
                        f"{len(tags)} and {len(intents)}; copy the files again")  # fmt: skip
    for (number, word_line), (_, tag_line), (_, intent) in zip(words, tags, intents, strict=True):
        row, row_tags = word_line.split(), tag_line.split()
        where = f"{folder / 'seq.out'}:{number}"
        if len(row) != len(row_tags):
            raise DataError(f"{where}: expected {len(row)} tags, one per word of seq.in, got {len(row_tags)}; correct "
                            f"the line")  # fmt: skip
        bad = next((tag for tag in row_tags if not _TAG.fullmatch(tag)), None)
        if bad is not None:
            raise DataError(f"{where}: expected tags O, B-x and I-x, got {bad!r}; correct the line")
        if not intent.strip():
            raise DataError(f"{folder / 'label'}:{number}: expected an intent, got an empty line; correct it")
        text, entities = spans_from_words(row, row_tags)
        yield Utterance(text, intent.strip(), entities, id=str(number), source=f"{folder / 'seq.in'}:{number}")


_READERS: dict[str, Callable[[Path, str | None], _Rows]] = {
    "massive": _read_massive,
    "spans": _read_spans,
    "bio": _read_bio,
}


def _checked(entities: Sequence[Entity], text: str, where: str) -> list[Entity]:
    """Return the entities by position.

    Raises:
        DataError: one is outside the text, empty, on white space, without a label, or overlaps another.
    """
    ordered = sorted(entities)
    for i, entity in enumerate(ordered):
        span = f"span {entity.start}–{entity.end} ({entity.label})"
        if not 0 <= entity.start < entity.end <= len(text):
            raise DataError(f"{where}: expected spans within the text's {len(text)} characters, start before end, got "
                            f"{span}; correct the offsets (code points, end exclusive)")  # fmt: skip
        covered = text[entity.start : entity.end]
        if covered != covered.strip():
            raise DataError(f"{where}: expected spans that start and end on a visible character, got {span} over "
                            f"{covered!r}; leave out the white space")  # fmt: skip
        if not entity.label or entity.label.split() != [entity.label]:
            raise DataError(f"{where}: expected a label without white space, got {entity.label!r}; rename it")
        if i and ordered[i - 1].end > entity.start:
            before = ordered[i - 1]
            raise DataError(f"{where}: expected spans that do not overlap, got {span} and span {before.start}–"
                            f"{before.end} ({before.label}); keep one of them")  # fmt: skip
    return ordered


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= 60 else text[:57] + "…")
