"""What may lie in a model folder, and its JSON read without surprises. Knows no file by name and no weights.

A folder is data of anybody's: it is looked at before any file of it is opened.
"""

import json
import os
from pathlib import Path, PurePath
from typing import Any, TypeVar

from weebill.errors import ArtifactError

MAX_ENTRIES = 10_000  # files and folders; a model has a dozen, and those of TensorBoard
MAX_FILE_BYTES = 8 << 30
MAX_JSON_BYTES = 1 << 28  # a tokenizer.json of 250,000 tokens has a tenth
Json = TypeVar("Json")


def check_folder(folder: Path) -> None:
    """Refuse a folder with anything but regular files of bounded size, or with a link that leaves it.

    Links of the Hugging Face cache, from snapshots/REVISION to blobs/ beside it, are as good as files.

    Raises:
        ArtifactError: a link elsewhere, a device or pipe, a file too large, too many files.
    """
    count = 0
    root = folder.resolve()
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parent.parent / "blobs")
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(place) / name
            count += 1
            if count > MAX_ENTRIES:
                raise ArtifactError(f"{folder}: expected at most {MAX_ENTRIES:,} files, got more; name the folder of "
                                    f"one model")  # fmt: skip
            _check_entry(path, homes)


def _check_entry(path: Path, homes: list[Path]) -> None:
    try:
        target = path.resolve(strict=True) if path.is_symlink() else path
        if not any(target.is_relative_to(home) for home in homes):
            raise ArtifactError(f"{path}: expected a file in the folder, got a link to {target}, outside of it; copy "
                                f"the file there")  # fmt: skip
        if target.is_dir():
            return
        size = target.stat().st_size
    except (OSError, RuntimeError) as error:  # before Python 3.13 a loop of links is a RuntimeError
        raise ArtifactError(f"{path}: expected a readable file, got: {error}; copy the folder again") from error
    if not target.is_file():
        raise ArtifactError(f"{path}: expected a regular file, got a device, pipe or socket; remove it")
    limit = MAX_JSON_BYTES if path.suffix in (".json", ".jsonl") else MAX_FILE_BYTES
    if size > limit:
        raise ArtifactError(f"{path}: expected at most {limit:,} bytes, got {size:,}; copy the folder again")


def inside(folder: Path, name: str) -> Path:
    """Return the path of what a file of the folder calls `name`.

    Raises:
        ArtifactError: it would lie outside the folder.
    """
    pure = PurePath(name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in name:
        raise ArtifactError(f"{folder}: expected the name of a file within the folder, got {name!r}; copy the folder "
                            f"again from where you trust it")  # fmt: skip
    return folder / name


def parse_json(text: str) -> Any:
    """Return the value of a JSON text that means the same to every reader.

    Raises:
        ValueError: no JSON, nested too deeply, with a key twice, NaN, Infinity or half a surrogate pair.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' twice in one object
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("values nested too deeply") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} twice in one object")
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name}, which is no number of JSON")


def read_json(path: Path, kind: type[Json]) -> Json:
    """Read a JSON file of a model that holds a `kind`: dict or list.

    Raises:
        ArtifactError: missing, damaged, or something else.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: expected a JSON file of the model, got {error}; copy the folder again") from error
    if not isinstance(value, kind):
        raise ArtifactError(f"{path}: expected a JSON {kind.__name__}, got {type(value).__name__}; copy the folder "
                            f"again")  # fmt: skip
    return value
