"""A data file -> the files of its parts or folds; splitting.py says which row goes where."""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weebill import formats
from weebill.errors import ConfigError, DataError
from weebill.files import writing_together
from weebill.interchange import Losses, Row
from weebill.json_lines import json_rows, spans_object
from weebill.pairs import utterances_only
from weebill.schema import Utterance
from weebill.splitting import split_rows, template_key

_AUGMENTED = re.compile(r"~\d+$")  # of an id: the source's, and which of its copies


@dataclass
class SplitData:
    """What is to be split: rows, the object of span JSON lines that each becomes, and what that cannot hold."""

    source: Path
    format: str
    utterances: list[Utterance] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    losses: Losses = field(default_factory=Losses)


def read_to_split(path: Path, format: str | None = None, split: str | None = None) -> SplitData:
    """Return the rows of a data file; lines of span JSON lines are kept whole, with fields that weebill does not read.

    Raises:
        DataError: as `formats.read_utterances`.
    """
    utterances_only(path, format)
    data = SplitData(path, format or (formats.guess(path) if path.exists() else "spans"))
    with formats.every_problem_named(path, format, split):
        for row in formats.fitted(formats.stream(path, format, split), "spans", data.losses):
            assert isinstance(row, Row)  # span JSON lines hold no blocks
            data.utterances.append(row.utterance())
            data.lines.append(spans_object(row, data.losses))
    if data.format == "spans":
        own = dict(json_rows(path))
        data.lines = [own[utterance.source] for utterance in data.utterances]
    return data


def split_file(
    data: SplitData, sizes: Mapping[str, int], output: Path, group_by: str | None = None, seed: int = 0
) -> list[list[int]]:
    """Write `output`/NAME.jsonl for each part, and return the row numbers of each.

    Args:
        data: All rows to split; each gets its part as "split".
        sizes: Rows by part; they add up to all rows.
        output: Folder, made if need be.
        group_by: "id", "template" or a field of the lines: rows with the same value stay in one part, and with "id"
            those that were augmented from one row.
        seed: See `splitting.split_rows`.

    Raises:
        ConfigError: A row has no such field, or a part would be written over the data.
        DataError: So many rows belong together that a part would be empty.
    """
    parts = _rows_of_parts(data, sizes, group_by, seed)
    _write(data, [(output / f"{name}.jsonl", name, part) for name, part in zip(sizes, parts, strict=True)])
    return parts


def fold_file(
    data: SplitData, num_folds: int, output: Path, group_by: str | None = None, seed: int = 0
) -> list[list[int]]:
    """Write `output`/fold-1/train.jsonl and dev.jsonl, and so on, and return the row numbers of each fold's dev.

    Every row is in the dev part of one fold and in the train part of the others. See `split_file` for the rest.

    Raises:
        ConfigError: Fewer than two folds, fewer rows than folds, a row without the field, or data that would be
            written over.
        DataError: So many rows belong together that a fold would be empty.
    """
    num_rows = len(data.utterances)
    if not 2 <= num_folds <= num_rows:
        raise ConfigError(f"--folds: expected 2 to {num_rows}, one row a fold or more, got {num_folds}; correct it")
    sizes = {f"fold-{i + 1}": num_rows // num_folds + (i < num_rows % num_folds) for i in range(num_folds)}
    folds = _rows_of_parts(data, sizes, group_by, seed)
    files = list[tuple[Path, str, Sequence[int]]]()
    for number, fold in enumerate(folds, start=1):
        folder, held_out = output / f"fold-{number}", set(fold)
        rest = [row for row in range(num_rows) if row not in held_out]
        files += [(folder / "train.jsonl", "train", rest), (folder / "dev.jsonl", "dev", fold)]
    _write(data, files)
    return folds


def _rows_of_parts(data: SplitData, sizes: Mapping[str, int], group_by: str | None, seed: int) -> list[list[int]]:
    groups = None if group_by is None else _groups(data, group_by).__getitem__
    parts = split_rows(data.utterances, list(sizes.values()), groups, seed)
    empty = [name for name, part in zip(sizes, parts, strict=True) if not part]
    if empty:
        same = f"text or {group_by}" if group_by else "text"
        other = ", or another --group-by" if group_by else ""
        raise DataError(f"{data.source}: expected rows for every part, got none for {', '.join(empty)}, as rows with "
                        f"one {same} stay together and the {len(data.utterances):,} rows "
                        f"here are too few groups of them; ask for fewer parts{other}, collect more rows, or "
                        f"remove copies with `weebill data check --fix`")  # fmt: skip
    return parts


def _groups(data: SplitData, group_by: str) -> list[Hashable]:
    found: list[Hashable] = []
    for utterance, line in zip(data.utterances, data.lines, strict=True):
        value = line.get(group_by)
        if value is None and group_by == "template":
            value = template_key(utterance)
        if value is None:
            raise ConfigError(f"{utterance.source}: expected a field {group_by!r} to group by, got "
                              f"{', '.join(sorted(line))}; correct --group-by")  # fmt: skip
        if group_by == "id" and isinstance(value, str):
            value = _AUGMENTED.sub("", value)
        found.append(json.dumps(value, sort_keys=True))
    return found


def _write(data: SplitData, files: Sequence[tuple[Path, str, Sequence[int]]]) -> None:
    """Write each (file, split, rows); all files or none."""
    for path, _, _ in files:
        formats.refuse_overwriting("--output", path, data.source, data.format)
    with writing_together() as open_new:
        for path, split, rows in files:
            with open_new(path) as file:
                lines = (json.dumps({**data.lines[row], "split": split}, ensure_ascii=False) + "\n" for row in rows)
                file.writelines(line.encode() for line in lines)
