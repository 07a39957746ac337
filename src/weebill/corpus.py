"""Texts of a corpus, streamed one after another: plain and .gz files, folders, JSON lines by field. Keeps nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from weebill.errors import DataError
from weebill.files import numbered_lines
from weebill.json_lines import json_rows, text_field


def stream_texts(
    paths: Sequence[Path], field: str | None = None, errors: str = "strict", or_else: str = ""
) -> Iterator[str]:
    r"""Yield one text a line, its "\n" included; of JSON lines, the text under `field`.

    Args:
        paths: files, plain or .gz; of a folder, every file below it that is not hidden, in order of name.
        field: the files are JSON lines, and this key of each object holds the text.
        errors: "strict", or "replace" to read U+FFFD where bytes are no UTF-8.
        or_else: what a user may do about such bytes beside saving the file as UTF-8, for the message.

    Raises:
        DataError: a file that is missing, empty, not UTF-8 (with its line and byte offset) or not JSON lines; a folder
            without files.
    """
    for path in paths:
        for file in _files(path):
            name = file.name.removesuffix(".gz")
            if field is None and name.endswith((".jsonl", ".ndjson")):
                raise DataError(f"{file}: expected the key that holds the text of each JSON line, got none; name it "
                                f"with --field")  # fmt: skip
            if field is None:
                yield from (line + "\n" for _, line in numbered_lines(file, errors, or_else))
            else:
                remedy = "correct the line or name the key that holds the text with --field"
                rows = json_rows(file, errors, or_else=or_else)
                yield from (text_field(row, field, where, remedy) + "\n" for where, row in rows)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    below = (p for p in sorted(path.rglob("*")) if p.is_file())
    found = [p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    if not found:
        raise DataError(f"{path}: expected a folder with text files, got none in it; check the path")
    return found
