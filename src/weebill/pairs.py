"""Files of text pairs <-> ScoredPair. The twin of formats.py for sentence pairs; builds no triplets."""

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from weebill.errors import DataError
from weebill.files import numbered_lines, write_lines_whole
from weebill.interchange import Losses, short
from weebill.schema import ScoredPair
from weebill.tables import holds_table
from weebill.word_files import is_conll

_LOG = logging.getLogger("weebill")
STS_COLUMNS = 7  # genre, file, year, id, score, sentence1, sentence2; some rows carry more
STS_SCALE = 5.0
_STS_NAMES = ("genre", "file", "year", "id")  # of the columns before the score
_COLUMN_NAMES = {
    "anchor", "positive", "negative", "query", "answer", "question", "sentence", "score", "label", "similarity",
    *(f"{name}{mark}{number}" for name in ("sentence", "text", "question") for mark in ("", "_") for number in (1, 2)),
}  # fmt: skip
_TEXT_COLUMNS = {"text", "utterance", "intent", "category", "class", "spans", "entities"}  # of labelled utterances
LABELLED = ('write a text and its labels as a JSON line, {"text": "bye", "intent": "goodbye"}, or as another format of '
            "utterances: a table with columns text and intent, Rasa YAML, CoNLL, seq.in, MASSIVE, spaCy")  # fmt: skip
QQP_COLUMNS = ("question1", "question2", "is_duplicate")


def read_pairs(path: Path | str, format: str | None = None) -> list[ScoredPair]:
    """Return the pairs of a file, in file order, with scores in [0, 1].

    Args:
        path: text, plain or .gz.
        format: "sts" (STS Benchmark: tabs, no quoting, scores 0–5), "qqp" (header with question1, question2 and
            is_duplicate, tabs, CSV quoting), "pairs" (by column order: anchor and positive; or anchor, positive and
            negative; or a, b and a score from 0 to 1). Columns of "pairs" are separated by commas, with CSV quoting, in
            .csv; the values of one JSON array or object a line in .jsonl; separated by tabs, without quoting,
            elsewhere. A first row of column names that others use (anchor, positive, sentence1, score …) is skipped.
            Default: guessed from the name and the first line.

    Raises:
        DataError: missing, empty or malformed data, or an unknown format; a text that is empty; a text paired with
            itself, save in "sts" and "qqp" with the highest score, as a few of their published rows are.
    """
    return list(stream_pairs(Path(path), format))


def stream_pairs(path: Path, format: str | None = None, losses: Losses | None = None) -> Iterator[ScoredPair]:
    """Yield the pairs of a file, as `read_pairs` returns them; what else a row says is added to `losses`."""
    format = format or guess_pairs(path)
    if format not in _READERS:
        raise DataError(f"format: expected one of {', '.join(PAIR_FORMATS)}, got {format!r}; correct data.format")
    return _READERS[format](path, Losses() if losses is None else losses)


def write_pairs(path: Path, pairs: Iterable[ScoredPair], format: str, losses: Losses) -> None:
    """Write pairs, whole or not at all: "pairs" by the file's ending as `read_pairs` reads it, always with a score.

    Raises:
        ArtifactError: the file cannot be written.
    """
    lines = {"sts": _sts_lines, "qqp": _qqp_lines, "pairs": _WRITERS[_ending(path)]}[format]
    write_lines_whole(path, lines(pairs, losses))


def _tab_separated(pairs: Iterable[ScoredPair], losses: Losses) -> Iterator[ScoredPair]:
    """Yield the pairs that a line without quoting can hold."""
    for pair in pairs:
        if set("\t\n\r") & set(pair.a + pair.b):
            losses.add("row left out: a tab or line break in a text", pair.source)
        else:
            yield pair


def _sts_lines(pairs: Iterable[ScoredPair], losses: Losses) -> Iterator[str]:
    for number, pair in enumerate(_tab_separated(pairs, losses), start=1):
        yield f"main\tweebill\t\t{number}\t{pair.score * STS_SCALE:.10g}\t{pair.a}\t{pair.b}\n"


def _qqp_lines(pairs: Iterable[ScoredPair], losses: Losses) -> Iterator[str]:
    yield "\t".join(("id", *QQP_COLUMNS)) + "\n"
    for number, pair in enumerate(pairs, start=1):
        if pair.score in (0, 1):
            yield _quoted_line((str(number), pair.a, pair.b, f"{pair.score:.0f}"), "\t")
        else:
            losses.add("row left out: a score between 0 and 1 is no label", pair.source)


def _tsv_lines(pairs: Iterable[ScoredPair], losses: Losses) -> Iterator[str]:
    yield from (f"{p.a}\t{p.b}\t{p.score}\n" for p in _tab_separated(pairs, losses))


def _csv_lines(pairs: Iterable[ScoredPair], losses: Losses) -> Iterator[str]:
    yield "sentence1,sentence2,score\n"
    yield from (_quoted_line((p.a, p.b, f"{p.score}"), ",") for p in pairs)


def _jsonl_lines(pairs: Iterable[ScoredPair], losses: Losses) -> Iterator[str]:
    for pair in pairs:
        row = {"sentence1": pair.a, "sentence2": pair.b, "score": pair.score}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _quoted_line(fields: Iterable[str], delimiter: str) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(fields)
    return line.getvalue()


_WRITERS = {"tsv": _tsv_lines, "csv": _csv_lines, "jsonl": _jsonl_lines}


def holds_pairs(path: Path, format: str | None) -> bool:
    """Return whether data are pairs, by the name of the format or by how the file looks."""
    return format in PAIR_FORMATS or (format is None and path.is_file() and is_pair_file(path))


def utterances_only(path: Path, format: str | None = None) -> None:
    """Refuse pairs where labelled utterances are wanted.

    Raises:
        DataError: the data are pairs; what labelled utterances look like is said.
    """
    if path.exists() and holds_pairs(path, format):
        why = ", as a .csv is read" if _ending(path) == "csv" else ""
        raise DataError(f"{path}: expected labelled utterances, got pairs{why}; {LABELLED}")


def is_pair_file(path: Path) -> bool:
    """Return whether a file looks like pairs: .csv, tabs in its first line, or JSON lines that are no utterances.

    Raises:
        DataError: the file is missing, empty or not UTF-8.
    """
    if path.name.endswith(".spacy") or holds_table(path):
        return False
    kind, first = _kind(path), next(numbered_lines(path))[1]
    if kind == "jsonl":
        try:
            row = json.loads(first)
        except (ValueError, RecursionError):
            return False
        if isinstance(row, list):
            return not any(isinstance(value, dict) for value in row)  # as spaCy's tuples have
        return isinstance(row, dict) and not {"text", "utt", "intent", "spans", "entities"} & set(row)
    return kind == "csv" or ("\t" in first and not first.startswith(("{", "[")) and not is_conll(path))


def _kind(path: Path) -> str:
    kind = _ending(path)
    return "tsv" if kind == "jsonl" and next(numbered_lines(path))[1][:1] not in ("[", "{") else kind


def _ending(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return "jsonl" if name.endswith((".jsonl", ".ndjson")) else "csv" if name.endswith(".csv") else "tsv"


def guess_pairs(path: Path) -> str:
    """Return "sts", "qqp" or "pairs", by a file's name and first line."""
    if _kind(path) == "jsonl":
        return "pairs"
    fields = next(numbered_lines(path))[1].split("\t")
    if set(QQP_COLUMNS) & set(fields):
        return "qqp"
    return "sts" if len(fields) >= STS_COLUMNS else "pairs"


def _read_sts(path: Path, losses: Losses) -> Iterator[ScoredPair]:
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        where = f"{path}:{number}"
        if len(fields) < STS_COLUMNS:
            raise DataError(f"{where}: expected at least {STS_COLUMNS} fields separated by tabs, got {len(fields)}; "
                            f"correct the line")  # fmt: skip
        score = _number(fields[4], STS_SCALE, where)
        for name, value in zip(_STS_NAMES, fields, strict=False):
            if value:
                losses.add(f"{name} of a row left out", where)
        if len(fields) > STS_COLUMNS:
            losses.add("fields behind the texts of a row left out", where)
        yield _pair(fields[5], fields[6], score / STS_SCALE, where, published=True)


def _read_qqp(path: Path, losses: Losses) -> Iterator[ScoredPair]:
    reader = csv.reader((line + "\n" for _, line in numbered_lines(path)), delimiter="\t", strict=True)
    columns, others = list[int](), dict[int, str]()
    try:
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if not columns:
                if not set(QQP_COLUMNS) <= set(fields):
                    raise DataError(f"{where}: expected a header with {', '.join(QQP_COLUMNS)}, got {fields}; name the "
                                    f"columns so")  # fmt: skip
                columns = [fields.index(name) for name in QQP_COLUMNS]
                others = {i: name for i, name in enumerate(fields) if name not in QQP_COLUMNS}
                continue
            if len(fields) <= max(columns):
                raise DataError(f"{where}: expected at least {max(columns) + 1} fields separated by tabs, got "
                                f"{len(fields)}; correct the line")  # fmt: skip
            a, b, label = (fields[column] for column in columns)
            if label not in ("0", "1"):
                raise DataError(f"{where}: expected is_duplicate 0 or 1, got {label!r}; correct the line")
            for column, name in others.items():
                if fields[column : column + 1] not in ([], [""]):
                    losses.add(f"{name} of a row left out", where)
            yield _pair(a, b, float(label), where, published=True)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: expected tab-separated fields with CSV quoting, got {error}; "
                        f"correct the quotes") from error  # fmt: skip


def _read_columns(path: Path, losses: Losses) -> Iterator[ScoredPair]:
    scored: bool | None = None  # does the third column hold scores? decided by the first row
    width, labels = 0, Counter[str]()
    for number, (where, fields) in enumerate(_ROWS[_kind(path)](path)):
        if number == 0 and _names_columns(fields, where):
            continue
        width = width or len(fields)
        if len(fields) not in (2, 3) or len(fields) != width:
            wanted = width if width in (2, 3) else "2 or 3"
            other = "; an STS file has 7 or more" if len(fields) > 3 else ""
            raise DataError(f"{where}: expected {wanted} fields, got {len(fields)}{other}; correct the line")
        if width == 3 and not fields[2].strip():
            raise DataError(f"{where}: expected a score or a negative text in field 3, got nothing; correct the line")
        if width == 3 and scored is None:
            scored = _is_number(fields[2])
        elif number == 1 and width == 3 and not scored and _is_number(fields[2]):
            raise DataError(f"{where}: expected a negative text in field 3, as on line 1, got the number "
                            f"{fields[2]!r}; if line 1 names the columns, call them sentence1, sentence2 and score, or "
                            f"remove it")  # fmt: skip
        if scored:
            yield _pair(fields[0], fields[1], _number(fields[2], 1.0, where), where)
            continue
        labels[fields[1] if len(fields[1].split()) == 1 < len(fields[0].split()) else ""] += 1
        yield _pair(fields[0], fields[1], 1.0, where)
        if width == 3:
            if fields[1] == fields[2]:
                raise DataError(f"{where}: expected a negative that differs from the positive, got {short(fields[1])} "
                                f"as both; correct or remove the line")  # fmt: skip
            losses.add("triplet written as two pairs, scored 1 and 0", where)
            yield _pair(fields[0], fields[2], 0.0, where)
    if width == 2 and not labels[""]:
        _LOG.warning("%s: every second text is a single word, such as %s; if these are labels, %s", path,
                     ", ".join(map(repr, list(labels)[:3])), LABELLED)  # fmt: skip


def _names_columns(fields: Sequence[str], where: str) -> bool:
    """Return whether a first row is no pair but the names of columns.

    Raises:
        DataError: the names are those of labelled utterances.
    """
    names = {field.strip().lower() for field in fields}
    if names <= _COLUMN_NAMES or ({"a", "b"} < names and names <= _COLUMN_NAMES | {"a", "b"}):
        return True
    if names & _TEXT_COLUMNS and names <= _COLUMN_NAMES | _TEXT_COLUMNS | {"id", "labels"}:
        raise DataError(f"{where}: expected pairs of texts, as columns are read, got the columns "
                        f"{', '.join(fields)}; {LABELLED}")  # fmt: skip
    if names & (_COLUMN_NAMES | _TEXT_COLUMNS) and len(names) > 1 and all(name.isidentifier() for name in names):
        raise DataError(f"{where}: expected columns whose names say what they hold, or a pair of texts, got "
                        f"{', '.join(fields)}; name columns of pairs sentence1, sentence2 and score, or {LABELLED}"
                        )  # fmt: skip
    return False


def _tab_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in numbered_lines(path):
        yield f"{path}:{number}", line.split("\t")


def _csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader((line + "\n" for _, line in numbered_lines(path)), strict=True)
    try:
        for fields in reader:
            if fields:
                yield f"{path}:{reader.line_num}", fields
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: expected fields separated by commas with CSV quoting, got {error}; "
                        f"correct the quotes") from error  # fmt: skip


def _json_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: expected one JSON array or object, got {error}; correct the line") from error
        values = list(row.values()) if isinstance(row, dict) else row
        if not isinstance(values, list) or not all(isinstance(v, str | int | float) for v in values):
            raise DataError(f"{where}: expected an array or object of two texts and a third text or a score, got "
                            f"{line[:60]!r}; correct the line")  # fmt: skip
        yield where, [v if isinstance(v, str) else str(float(v)) for v in values]


def _pair(a: str, b: str, score: float, where: str, published: bool = False) -> ScoredPair:
    """Return a pair whose texts can be compared; see `read_pairs` for what is refused."""
    if not a.strip() or not b.strip():
        place = "first" if not a.strip() else "second"
        raise DataError(f"{where}: expected two texts, got an empty {place} one; correct or remove the line")
    if a == b and not (published and score == 1):
        what = "the same text twice" + (f" scored {score:g} of 1" if score < 1 else "")
        raise DataError(
            f"{where}: expected two different texts, got {what}: {short(a)}; correct or remove the line"
            + ("" if published else ", or, if the second column is no text but a label, " + LABELLED)
        )
    return ScoredPair(a, b, score, where)


_READERS: dict[str, Callable[[Path, Losses], Iterator[ScoredPair]]] = {
    "sts": _read_sts,
    "qqp": _read_qqp,
    "pairs": _read_columns,
}
PAIR_FORMATS = tuple(_READERS)
_ROWS = {"tsv": _tab_rows, "csv": _csv_rows, "jsonl": _json_rows}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str, largest: float, where: str) -> float:
    value = float(text) if _is_number(text) else -1.0
    if not 0 <= value <= largest:
        raise DataError(f"{where}: expected a score from 0 to {largest:g}, got {text!r}; correct the line")
    return value
