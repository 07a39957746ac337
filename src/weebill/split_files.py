"""A data file -> the files of its parts or folds; splitting.py says which row goes where."""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weebill.errors import ConfigError
from weebill.files import numbered_lines, write_together
from weebill.formats import span_row
from weebill.json_lines import json_rows
from weebill.schema import Utterance
from weebill.splitting import split_rows, template_key


def split_file(
    path: Path,
    utterances: Sequence[Utterance],
    sizes: Mapping[str, int],
    output: Path,
    group_by: str | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Write `output`/NAME.jsonl for each part, and return the row numbers of each.

    Args:
        path: Where `utterances` were read from. Rows of span JSON lines are copied with all their fields, those of
            other formats become span JSON lines; both get their part as "split".
        utterances: All rows to split.
        sizes: Rows by part; they add up to all rows.
        output: Folder, made if need be.
        group_by: "id", "template" or a field of JSON lines: rows with the same value stay in one part.
        seed: See `splitting.split_rows`.

    Raises:
        ConfigError: A row has no such field.
    """
    parts = _rows_of_parts(path, utterances, list(sizes.values()), group_by, seed)
    _write(path, utterances, [(output / f"{name}.jsonl", name, part) for name, part in zip(sizes, parts, strict=True)])
    return parts


def fold_file(
    path: Path,
    utterances: Sequence[Utterance],
    num_folds: int,
    output: Path,
    group_by: str | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Write `output`/fold-1/train.jsonl and dev.jsonl, and so on, and return the row numbers of each fold's dev.

    Every row is in the dev part of one fold and in the train part of the others. See `split_file` for the rest.

    Raises:
        ConfigError: Fewer than two folds, fewer rows than folds, or a row without the field.
    """
    if not 2 <= num_folds <= len(utterances):
        raise ConfigError(f"--folds: expected 2 to {len(utterances)}, one row a fold or more, got {num_folds}; correct "
                          f"it")  # fmt: skip
    sizes = [len(utterances) // num_folds + (fold < len(utterances) % num_folds) for fold in range(num_folds)]
    folds = _rows_of_parts(path, utterances, sizes, group_by, seed)
    for number, fold in enumerate(folds, start=1):
        folder, held_out = output / f"fold-{number}", set(fold)
        rest = [row for row in range(len(utterances)) if row not in held_out]
        _write(path, utterances, [(folder / "train.jsonl", "train", rest), (folder / "dev.jsonl", "dev", fold)])
    return folds


def _rows_of_parts(
    path: Path, utterances: Sequence[Utterance], sizes: Sequence[int], group_by: str | None, seed: int
) -> list[list[int]]:
    if group_by is None:
        return split_rows(utterances, sizes, None, seed)
    groups = _groups(path, utterances, group_by)
    return split_rows(utterances, sizes, groups.__getitem__, seed)


def _groups(path: Path, utterances: Sequence[Utterance], group_by: str) -> list[Hashable]:
    fields = {where: row.get(group_by) for where, row in _json_lines(path)}
    found: list[Hashable] = []
    for utterance in utterances:
        value = fields.get(utterance.source)
        if value is None and group_by == "id":
            value = utterance.id or None
        elif value is None and group_by == "template":
            value = template_key(utterance)
        if value is None:
            have = sorted(next((set(row) for where, row in _json_lines(path) if where == utterance.source), ()))
            raise ConfigError(f"{utterance.source}: expected a field {group_by!r} to group by, got "
                              f"{', '.join(have) or 'no JSON line'}; correct --group-by")  # fmt: skip
        found.append(json.dumps(value, sort_keys=True))
    return found


def _write(path: Path, utterances: Sequence[Utterance], files: Sequence[tuple[Path, str, Sequence[int]]]) -> None:
    """Write each (file, split, rows); all files or none."""
    own = {where: row for where, row in _json_lines(path) if "text" in row}
    bodies = {}
    for file, split, rows in files:
        lines = []
        for row in rows:
            utterance = utterances[row]
            line = {**own.get(utterance.source, span_row(utterance)), "split": split}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        bodies[file] = "".join(lines).encode()
    write_together(bodies)


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object) when the file is JSON lines, else nothing."""
    if not path.is_file():
        return
    first = next((line for _, line in numbered_lines(path) if line.strip()), "")
    try:
        json.loads(first)
    except ValueError:
        return
    yield from json_rows(path)
