"""Chosen files of an archive or folder -> bytes. Unpacks nothing to disk: no path in an archive is ever written to."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from weebill.errors import DataError

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
MAX_MEMBER_BYTES = 1 << 30


def read_members(source: Path, wanted: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """Return, by key of `wanted`, the bytes of the first regular file whose path ends with one of the key's names.

    Args:
        source: An archive (.tar.gz, .tgz, .tar, .zip), whose links and devices are passed over; a folder; or one file.
        wanted: Ends of paths, as in "atis/train/seq.in"; only whole parts of a path count.

    Raises:
        DataError: Nothing there, broken, or a file of more than a gibibyte.
    """
    if not source.exists():
        raise DataError(f"{source}: expected an archive, a file or a folder, got nothing there; check --from")
    found: dict[str, bytes] = {}
    try:
        for name, size, read in _members(source):
            for key, ends in wanted.items():
                if key not in found and any(f"/{name}".endswith(f"/{end}") for end in ends):
                    if size > MAX_MEMBER_BYTES:
                        raise DataError(f"{source}: expected {name} to have at most {MAX_MEMBER_BYTES:,} bytes, got "
                                        f"{size:,}; check where the archive is from")  # fmt: skip
                    found[key] = read()
                    break
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{source}: expected a readable archive, got: {error}; download it again") from error
    return found


def _members(source: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yield (path, size, its reader) of every regular file."""
    if source.is_dir():
        for path in sorted(path for path in source.resolve().rglob("*") if path.is_file()):
            yield path.as_posix(), path.stat().st_size, path.read_bytes
    elif source.name.endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, partial(archive.read, info)
    elif source.name.endswith(ARCHIVES):
        with tarfile.open(source) as tar:
            for member in tar:
                if member.isreg():
                    yield member.name, member.size, partial(_tar_bytes, tar, member)
    else:
        yield source.resolve().as_posix(), source.stat().st_size, source.read_bytes


def _tar_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""
