"""The formats of labelled utterances: which there are, what each can hold, how to tell them apart, reading, writing.

Each format is read and written in a file of its own; this one chooses. Every error names file and line, what was
expected, what arrived and what to do.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weebill import json_lines, rasa_files, spacy_tuples, tables, word_files
from weebill.errors import ConfigError, DataError
from weebill.files import numbered_lines, write_lines_whole
from weebill.interchange import Block, Item, Losses, OnError, Row, Span, short
from weebill.schema import Utterance

_LOG = logging.getLogger("weebill")
SHOWN_PROBLEMS = 20
_SPAN_KEYS = ("value", "role", "group")  # which a format holds all of, or none
_NAMED = {
    "spans": (".jsonl", ".ndjson"),
    "rasa": (".yml", ".yaml"),
    "conll": (".conll", ".conllu", ".bio", ".iob", ".iob2"),
    "spacy": (".py",),
    "table": (".csv",),
}  # what a file's ending says of its format, "spans" only when written


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write labelled utterances down, and what it has a place for that not every format has."""

    title: str
    read: Callable[[Path, OnError], Iterator[Item]]
    holds: frozenset[str]
    span_keys: frozenset[str]  # of a span's object, where it may have others beside them; empty: it may not


def _format(
    title: str,
    read: Callable[[Path, OnError], Iterator[Item]],
    holds: str,
    span_keys: frozenset[str] = frozenset(),
) -> Format:
    return Format(title, read, frozenset(holds.split()), span_keys)


FORMATS = {
    "spans": _format("span JSON lines", json_lines.read_spans,
                     "no-intent no-spans overlap value role group id split lang extra", json_lines.SPAN_KEYS),
    "massive": _format("MASSIVE's JSON lines", json_lines.read_massive, "id split lang extra"),
    "bio": _format("a folder of seq.in, seq.out and label", word_files.read_folder, "split"),
    "conll": _format("CoNLL columns, BIO", word_files.read_conll, "no-intent id split lang"),
    "conll-iob1": _format("CoNLL columns, IOB1", word_files.read_conll, "no-intent id split lang"),
    "conll-bilou": _format("CoNLL columns, BILOU", word_files.read_conll, "no-intent id split lang"),
    "rasa": _format("Rasa YAML", rasa_files.read_rasa, "value role group same-span blocks",
                    rasa_files.ENTITY_KEYS),
    "rasa-json": _format("Rasa JSON", rasa_files.read_rasa_json, "no-intent overlap value role group blocks",
                         rasa_files.ENTITY_KEYS),
    "spacy": _format("spaCy's tuples", spacy_tuples.read_spacy, "no-intent no-spans overlap intents"),
    "table": _format("a table of texts and intents", tables.read_table, "no-intent no-spans overlap id split lang"),
}  # fmt: skip


def read_texts(path: Path | str) -> list[str]:
    """Return one text a line; an empty line is an empty text.

    Raises:
        DataError: see `files.numbered_lines`.
    """
    return [line for _, line in numbered_lines(Path(path))]


def read_utterances(path: Path | str, format: str | None = None, split: str | None = None) -> list[Utterance]:
    """Return the labelled utterances of a file or folder, in file order.

    What a model does not learn (roles, groups, values, any but the first intent, synonyms) is said in one warning, and
    tags that break their scheme in another.

    Args:
        path: a file, plain or .gz, or a folder, of any of FORMATS.
        format: one of FORMATS; default: guessed.
        split: only rows of this split: MASSIVE's `partition`, a "split" key of span JSON lines, a "# split" of CoNLL, a
            folder of "bio".

    Raises:
        DataError: missing, empty or malformed data, an unknown format or split; a span that is not within its text,
            overlaps another, or starts or ends on white space. All rows that are wrong are named together.
    """
    unread, guessed, utterances = Losses(), Losses(), []
    with every_problem_named(path, format, split):
        for item in stream(path, format, split):
            if isinstance(item, Block):
                unread.add(f"section {item.name!r}" if item.kind == "section" else item.kind, item.source)
                continue
            utterances.append(item.utterance())
            for doubt in item.doubts:
                guessed.add(f"read as {doubt.read_as}", doubt.source)
            if item.intents is not None and len(item.intents) > 1:
                unread.add("row with several intents, the first is taken", item.source)
            for name in _SPAN_KEYS:
                if any(getattr(span, name) is not None for span in item.spans or ()):
                    unread.add(f"row with a {name} of a span", item.source)
    if unread.counts:
        _LOG.warning("%s: a model does not learn these: %s", path, "; ".join(unread.lines()))
    if guessed.counts:
        _LOG.warning("%s: tags that break their scheme: %s", path, "; ".join(guessed.lines()))
    return utterances


@contextmanager
def every_problem_named(path: Path | str, format: str | None, split: str | None) -> Iterator[None]:
    """Make one error of the first, which the block raises, and of those of all other rows of the data."""
    try:
        yield
    except DataError as error:
        raise DataError("\n".join(_problems(path, format, split, str(error)))) from error


def _problems(path: Path | str, format: str | None, split: str | None, first: str) -> list[str]:
    """Return all that is wrong with data that cannot be read because of `first`: one message per row."""
    found: list[str] = []
    try:
        for item in stream(path, format, split, on_error=lambda error: found.append(str(error))):
            if isinstance(item, Row):
                try:
                    item.utterance()
                except DataError as error:
                    found.append(str(error))
    except DataError as error:
        found.append(str(error))
    found = list(dict.fromkeys(found if first in found else [first, *found]))
    if len(found) > SHOWN_PROBLEMS:
        found[SHOWN_PROBLEMS:] = [f"… and {len(found) - SHOWN_PROBLEMS:,} more; `weebill data check {path}` lists all"]
    return found


def stream(
    path: Path | str, format: str | None = None, split: str | None = None, on_error: OnError = None
) -> Iterator[Item]:
    """Yield rows as the file holds them, and what stands beside them; arguments as of `read_utterances`.

    Spans are within their texts, and not checked further. With `on_error`, errors of single rows go there, bytes that
    are no UTF-8 are read as U+FFFD, and reading goes on.

    Raises:
        DataError: missing, empty or malformed data, an unknown format or split.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: expected a data file, got nothing there; check the path")
    format = format or guess(path)
    if format not in FORMATS:
        raise DataError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}; correct --format")
    items = FORMATS[format].read(path, on_error)
    if format == "bio" and split is not None and (path / split / word_files.FOLDER_FILES[0]).exists():
        items = (replace(row, split=split) for row in word_files.read_folder(path / split, on_error))
    rows, present = 0, dict[str, None]()
    for item in items:
        if isinstance(item, Row):
            if item.split is not None:
                present[item.split] = None
            if split is not None and item.split != split:
                continue
            rows += 1
        yield item
    if rows:
        return
    if split is not None:
        known = ", ".join(map(repr, present)) or "rows without any split"
        raise DataError(f"{path}: expected split {split!r}, got {known}; correct or leave out the split")
    if on_error is None:
        raise DataError(f"{path}: expected utterances, got only blank lines; check the file")


def refuse_overwriting(
    option: str, target: Path, source: Path, format: str | None = None, to: str | None = None
) -> None:
    """Refuse to write where data are read from: what is not written would be lost.

    Args:
        option: that names the target.
        target: a file, or a folder of "bio".
        source: the data that are read, which may be a folder.
        format: of the source; default: guessed.
        to: the format that is written, if it is one of FORMATS.

    Raises:
        ConfigError: the target is the source or one of its files, also through a link, or it lies in the source's
            folder and would be read with it the next time.
    """
    new, read = target.resolve(), _files_of(source, format)
    for file in read:
        within = to == "bio" and new in file.resolve().parents
        if within or new == file.resolve() or (target.exists() and file.exists() and target.samefile(file)):
            raise ConfigError(f"{option}: expected another place than what is read, as what is not written would be "
                              f"lost, got {target}, which is {file}; choose another name")  # fmt: skip
    if source.is_dir() and new.is_relative_to(source.resolve()) and to == (format or guess(source)):
        raise ConfigError(f"{option}: expected a place outside of the folder that is read, got {target}, which would "
                          f"be read with {source} the next time; choose another folder")  # fmt: skip


def _files_of(source: Path, format: str | None) -> list[Path]:
    if not source.is_dir():
        return [source]
    if (format or guess(source)) == "rasa":
        return rasa_files.yaml_files(source)
    return [folder / name for folder in word_files.split_folders(source).values() for name in word_files.FOLDER_FILES]


def write(path: Path, items: Iterable[Item], format: str, losses: Losses) -> None:
    """Write rows and what stands beside them, whole or not at all; what the format cannot hold is added to `losses`.

    Raises:
        ArtifactError: the file cannot be written.
    """
    fitting = fitted(items, format, losses)
    if format in ("rasa", "rasa-json"):
        lines = rasa_files.rasa_lines if format == "rasa" else rasa_files.rasa_json_lines
        write_lines_whole(path, lines(fitting, losses))
        return
    rows = (item for item in fitting if isinstance(item, Row))
    match format:
        case "bio":
            word_files.write_folder(rows, path, losses)
        case "conll" | "conll-iob1" | "conll-bilou":
            scheme: word_files.Scheme = "IOB1" if "iob1" in format else "BILOU" if "bilou" in format else "BIO"
            write_lines_whole(path, word_files.conll_lines(rows, losses, scheme))
        case "spacy":
            write_lines_whole(path, spacy_tuples.spacy_lines(rows, losses, path.name.removesuffix(".gz")))
        case "table":
            write_lines_whole(path, tables.table_lines(rows, losses))
        case "massive":
            write_lines_whole(path, json_lines.massive_lines(rows, losses))
        case _:
            write_lines_whole(path, json_lines.spans_lines(rows, losses))


def write_spans(path: Path | str, utterances: Sequence[Utterance]) -> None:
    """Write span JSON lines, whole or not at all; what is not annotated has no key.

    Raises:
        ArtifactError: the file cannot be written.
    """
    write_lines_whole(Path(path), (json.dumps(span_row(u), ensure_ascii=False) + "\n" for u in utterances))


def span_row(utterance: Utterance) -> dict[str, object]:
    """Return the object that is one line of span JSON lines."""
    row: dict[str, object] = {"id": utterance.id, "text": utterance.text}
    if utterance.intent is not None:
        row["intent"] = utterance.intent
    if utterance.entities is not None:
        row["spans"] = [{"start": e.start, "end": e.end, "label": e.label} for e in utterance.entities]
    return row


def fitted(items: Iterable[Item], format: str, losses: Losses) -> Iterator[Item]:
    """Yield items as a format can hold them, with the spans of each row by position; the rest goes to `losses`."""
    holds = FORMATS[format].holds
    for item in items:
        if isinstance(item, Row):
            for doubt in item.doubts:
                losses.add(f"tag that breaks its scheme, read as {doubt.read_as}", doubt.source)
            if item.intents is None and "no-intent" not in holds:
                losses.add("row left out: its intent is not annotated", item.source)
            else:
                yield _fit_row(item, FORMATS[format], losses)
        elif "blocks" in holds and item.kind != "section":
            yield item
        elif item.kind == "section":
            losses.add(f"section {item.name!r} left out", item.source)
        else:
            losses.add(f"{item.kind} left out", item.source)


def _fit_row(row: Row, format: Format, losses: Losses) -> Row:
    """Return the row without what a format has no place for."""
    holds = format.holds
    changed: dict[str, Any] = {}
    if row.intents is not None and len(row.intents) > 1 and "intents" not in holds:
        losses.add("several intents: only the first is kept", row.source)
        changed["intents"] = row.intents[:1]
    if row.spans is None and "no-spans" not in holds:
        losses.add("entities not annotated, written as none", row.source)
    for name, none in (("id", ""), ("split", None), ("lang", None)):
        if name not in holds and getattr(row, name) not in ("", None):
            losses.add(f"{name} of a row left out", row.source)
            changed[name] = none
    if row.extra and "extra" not in holds:
        for key in row.extra:
            losses.add(f"key {key!r} left out", row.source)
        changed["extra"] = {}
    if row.spans:
        changed["spans"] = _fit_spans(row, format, losses)
    return replace(row, **changed) if changed else row


def _fit_spans(row: Row, format: Format, losses: Losses) -> tuple[Span, ...]:
    holds, kept = format.holds, list[Span]()
    for span in sorted(row.spans or (), key=lambda s: (s.start, s.end)):
        for name in _SPAN_KEYS:
            if getattr(span, name) is not None and name not in holds:
                losses.add(f"{name} of a span left out", row.source)
        extra = {key: value for key, value in span.extra.items() if format.span_keys and key not in format.span_keys}
        for key in span.extra:
            if key not in extra:
                losses.add(f"key {key!r} of a span left out", row.source)
        span = replace(span, extra=extra) if extra != span.extra else span
        if "value" not in holds:
            span = Span(span.start, span.end, span.label)
        same = kept and "same-span" in holds and (kept[-1].start, kept[-1].end) == (span.start, span.end)
        if kept and span.start < max(s.end for s in kept) and not same and "overlap" not in holds:
            losses.add("overlapping span left out, the one that starts first is kept", row.source)
        else:
            kept.append(span)
    return tuple(kept)


def guess(path: Path) -> str:
    """Return the format of a file or folder by its name and its beginning.

    Raises:
        DataError: nothing speaks for any of FORMATS.
    """
    if path.is_dir():
        return "rasa" if rasa_files.yaml_files(path) and not word_files.split_folders(path) else "bio"
    ending = Path(path.name.removesuffix(".gz")).suffix
    if ending == ".spacy":
        raise DataError(f"{path}: expected data in a format that is read, got a DocBin, which spaCy alone reads; write "
                        f"its docs as tuples (docs/coming-from.md has the lines)")  # fmt: skip
    for format in ("rasa", "conll", "spacy"):
        if ending in _NAMED[format]:
            return format
    lines = (line for _, line in numbered_lines(path, "replace"))
    first = next((line.strip() for line in lines if line.strip()), "")
    if first == "{" or (first.startswith("{") and '"rasa_nlu_data"' in first):
        return "rasa-json"
    if first.startswith("{"):
        return "massive" if '"annot_utt"' in first else "spans"
    if first.startswith("["):
        return "spans" if json_lines.is_array_of_objects(path) else "spacy"
    if tables.is_table(first):
        return "table"
    if first.startswith(("version:", "nlu:")):
        return "rasa"
    if word_files.is_conll(path):
        return "conll"
    if not first or ending in _NAMED["spans"]:  # which has lines that are wrong
        return "spans"
    markdown = "Rasa 2's `rasa data convert nlu` makes YAML of its Markdown" if ending == ".md" else "name its --format"
    raise DataError(f"{path}: expected data in a format that is read ({', '.join(FORMATS)}), got none of them, as the "
                    f"first line is {short(first)}; {markdown}, or convert it")  # fmt: skip


def format_to_write(path: Path) -> str:
    """Return the format that the name of a new file or folder asks for.

    Raises:
        DataError: the name does not say.

    Example:
        >>> format_to_write(Path("clean.jsonl.gz")), format_to_write(Path("data/train"))
        ('spans', 'bio')
    """
    ending = Path(path.name.removesuffix(".gz")).suffix
    for format, endings in _NAMED.items():
        if ending in endings:
            return format
    if not ending:
        return "bio"
    known = ", ".join(ending for endings in _NAMED.values() for ending in endings)
    raise DataError(f"{path}: expected a name that tells its format ({known}, or a folder without an ending), got "
                    f"{ending!r}; name the format with --to")  # fmt: skip
