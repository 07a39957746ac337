"""Lines of text files with their numbers, and files written whole or not at all. Knows no formats."""

import codecs
import ctypes
import errno
import gzip
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from weebill.errors import ArtifactError, DataError

MAX_LINE_BYTES = 1 << 28  # of a line, unpacked: a .gz of a megabyte may hold a gigabyte without an end of line
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux
_RENAME_SWAP = 2  # of macOS


def numbered_lines(path: Path, errors: str = "strict", or_else: str = "") -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, line without its end) of a UTF-8 file, plain or .gz.

    Lines end at "\n" or "\r\n" alone: other separators (U+2028, a lone "\r") are part of a text. A byte order mark is
    dropped. With `errors` = "replace", bytes that are no UTF-8 become U+FFFD;
    `or_else` is what a user may do about them beside saving the file as UTF-8, for the message.

    Raises:
        DataError: no file there, empty, not readable, not gzip, not UTF-8 (with its line and byte offset), or a line of
            more than MAX_LINE_BYTES.
    """
    if not path.is_file():
        if path.exists() and not path.is_dir():
            raise DataError(f"{path}: expected a file, which can be read more than once, got a pipe or device; save "
                            f"what comes from it as a file")  # fmt: skip
        what = "a folder" if path.is_dir() else "nothing there"
        raise DataError(f"{path}: expected a file, got {what}; check the path")
    number = offset = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
                if len(raw) > MAX_LINE_BYTES:
                    raise DataError(f"{path}:{number}: expected lines of at most {MAX_LINE_BYTES:,} bytes, got a "
                                    f"longer one; put ends of line between its parts")  # fmt: skip
                if number == 1 and raw.startswith(codecs.BOM_UTF8):
                    raw, offset = raw[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
                line = raw.decode("utf-8", errors)
                offset += len(raw)
                yield number, line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: expected UTF-8, got byte {error.object[error.start]:#04x} at byte offset "
                        f"{offset + error.start}; save the file as UTF-8{or_else}") from error  # fmt: skip
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a readable file, got {error} after line {number}; copy it again") from error
    if number == 0:
        raise DataError(f"{path}: expected lines of text, got an empty file; check the path")


def write_whole(path: Path, body: bytes) -> None:
    """Write a file beside its place, then move it there; missing folders are made.

    Raises:
        ArtifactError: the file cannot be written; an older one is left as it was.
    """
    with writing_whole(path) as file:
        file.write(body)


def write_lines_whole(path: Path, lines: Iterable[str]) -> None:
    """Write texts one after another as UTF-8, packed where the name ends in .gz; all of them or no file.

    What the iterable raises, and Ctrl-C, leave no file and an older one as it was.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with writing_whole(path) as file, ExitStack() as stack:
        if path.suffix == ".gz":  # no time and no name inside: the same lines give the same file
            file = cast(BinaryIO, stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)))
        file.writelines(line.encode() for line in lines)


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with writing_together() as open_new:
        yield open_new(path)


@contextmanager
def writing_together() -> Iterator[Callable[[Path], BinaryIO]]:
    """Yield a function that opens a new file for a path; all take their places when the block ends well, else none.

    No file takes its place before all are on the disk: one that is full leaves every older file as it was.

    Raises:
        ArtifactError: a file cannot be written.
    """
    wanted, temporaries, files = list[Path](), dict[Path, Path](), list[BinaryIO]()
    made = list[Path]()

    def open_new(path: Path) -> BinaryIO:
        wanted.append(path)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is there", str(path))
        if path.exists() and not path.is_file():  # a pipe or /dev/null is written to, never replaced
            files.append(path.open("wb"))
            return files[-1]
        path = path.resolve() if path.is_symlink() else path
        made.extend(folder for folder in path.parents if not folder.exists())
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporaries[path] = Path(temporary)
        files.append(os.fdopen(handle, "wb"))
        return files[-1]

    try:
        yield open_new
        for file in files:
            file.close()
        for temporary in temporaries.values():
            sync(temporary)  # else a machine that loses power may keep the new name and not what is in it
        for path, temporary in temporaries.items():
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            temporary.replace(path)
    except OSError as error:
        more = f" and {len(wanted) - 3:,} more" if len(wanted) > 3 else ""
        raise ArtifactError(f"{', '.join(map(str, wanted[:3]))}{more}: expected a place to write, got: {error}; make "
                            f"room, or choose another one") from error  # fmt: skip
    finally:
        for file in files:
            with suppress(OSError):  # what is left in its buffer may not fit either
                file.close()
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        for folder in sorted(made, key=lambda folder: -len(folder.parts)):
            with suppress(OSError):  # which is not empty when all went well
                folder.rmdir()


def write_together(bodies: Mapping[Path, bytes]) -> None:
    """Write several files, all of them or none.

    Raises:
        ArtifactError: a file cannot be written; older ones are left as they were.
    """
    with writing_together() as open_new:
        for path, body in bodies.items():
            with open_new(path) as file:
                file.write(body)


def sync(path: Path) -> None:
    """Wait until a file is on the disk itself; of a folder, nothing.

    Raises:
        OSError: it cannot be put there.
    """
    if path.is_file():
        with path.open("r+b") as file:
            os.fsync(file.fileno())


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that takes its place when the block ends well, whole: readers see the older one or this.

    Through a link it is the folder that the link leads to.

    Raises:
        OSError: it cannot be written; an older one is left as it was.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        for path in fresh.rglob("*"):
            sync(path)
        if folder.exists():
            exchange(fresh, folder)
        else:
            fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def exchange(fresh: Path, old: Path) -> None:
    """Put one folder in the place of another, which is left at `fresh`.

    In one step on Linux and macOS: whoever is killed or looks at any moment finds one of the two. Elsewhere, and on a
    file system that cannot, in two renames, the first of which is undone when the second fails.

    Raises:
        OSError: neither way works; `old` is where it was.
    """
    if _exchanged(fresh, old):
        return
    aside = fresh.with_name(f"{fresh.name}.old")
    old.replace(aside)
    try:
        fresh.replace(old)
    except OSError:
        aside.replace(old)
        raise
    aside.replace(fresh)


def _exchanged(first: Path, second: Path) -> bool:
    names = os.fsencode(first), os.fsencode(second)
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, _RENAME_SWAP) == 0)
        return bool(library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
    except (OSError, AttributeError, TypeError):  # no such call: an older C library, or Windows
        return False
