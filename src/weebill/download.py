"""A URL -> a whole, checked file in a folder, resumed where it was broken off. Knows no data sets and unpacks nothing.

A download grows in NAME.part, with the server's validator in NAME.part.json, and becomes NAME in one step when its
length and checksum are right, so that a file NAME is always whole. The sha256 of what came is kept in NAME.sha256: a
file that has no published checksum must come out the same whenever it is downloaded again (trust on first use).
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weebill import __version__
from weebill.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from weebill.files import write_whole

if TYPE_CHECKING:
    import requests

ATTEMPTS = 4  # in a row without a new byte
CHUNK_BYTES = 1 << 18
MAX_PAUSE_S = 60.0
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server says


class RemoteFile(NamedTuple):
    """A file at a URL: its `name` here, and its published checksum, "md5:…" or "sha256:…", if there is one."""

    url: str
    name: str
    checksum: str | None = None


def download(
    remote: RemoteFile,
    folder: Path,
    progress: Progress = lambda done, total: None,
    timeout_s: float = 30.0,
    pause_s: float = 1.0,
) -> Path:
    """Return the file in `folder`, downloaded unless it is there already, whole and unchanged.

    What breaks off or stalls is taken up where it stopped (HTTP Range, guarded by If-Range), as is the part that an
    earlier call left; a server in trouble is asked again, each time after twice the pause.

    Args:
        remote: What to fetch.
        folder: Made if need be. One process at a time downloads a file; others wait.
        progress: Called as bytes arrive.
        timeout_s: Silence after which a connection counts as stalled.
        pause_s: First pause before asking again.

    Raises:
        MissingExtraError: `requests` or `filelock` is not installed.
        DataError: No answer, an answer that is no file, or another checksum than published or than the first time.
        ArtifactError: `folder` cannot be written.
    """
    try:
        import requests  # noqa: F401
        from filelock import FileLock
    except ImportError as error:
        raise MissingExtraError(error.name or "requests", "fetch", "downloading") from error
    target = folder / remote.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not _is_whole(remote, target):
                _download(remote, target, progress, timeout_s, pause_s)
    except OSError as error:
        raise ArtifactError(f"{target}: expected a place to keep the download, got: {error}; choose another --cache, "
                            f"or make room") from error  # fmt: skip
    return target


def checksum_of(path: Path, kind: str = "sha256") -> str:
    """Return "kind:hexdigest" of a file; `kind` is "sha256" or "md5"."""
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def _recorded(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _expected(remote: RemoteFile, target: Path) -> str | None:
    """Return the published checksum, else the one of the first download, else None."""
    if remote.checksum or not _recorded(target).exists():
        return remote.checksum
    return f"sha256:{_recorded(target).read_text(encoding='ascii').strip()}"


def _is_whole(remote: RemoteFile, target: Path) -> bool:
    expected = _expected(remote, target)
    return target.is_file() and expected is not None and checksum_of(target, expected.partition(":")[0]) == expected


def _download(remote: RemoteFile, target: Path, progress: Progress, timeout_s: float, pause_s: float) -> None:
    part, about = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    expected = _expected(remote, target)
    resumed = part.exists()
    _retrieve(remote.url, part, about, progress, timeout_s, pause_s, needs_length=expected is None)
    found = checksum_of(part, (expected or "sha256").partition(":")[0])
    if resumed and expected and found != expected:  # the old part may have been another version: once more, all of it
        part.unlink()
        _retrieve(remote.url, part, about, progress, timeout_s, pause_s, needs_length=False)
        found = checksum_of(part, expected.partition(":")[0])
    if expected and found != expected:
        part.unlink()
        about.unlink(missing_ok=True)
        source = "published" if remote.checksum else f"kept in {_recorded(target)} from the first download"
        raise DataError(f"{remote.url}: expected {expected}, as {source}, got {found}; what came was deleted: try "
                        f"again, and if it stays so, the file was replaced at its source")  # fmt: skip
    write_whole(_recorded(target), f"{checksum_of(part).partition(':')[2]}\n".encode())
    part.replace(target)
    about.unlink(missing_ok=True)


def _retrieve(
    url: str, part: Path, about: Path, progress: Progress, timeout_s: float, pause_s: float, needs_length: bool
) -> None:
    """Fill `part` until it is as long as the server says the file is; without a checksum, it has to say it."""
    import requests
    from urllib3.exceptions import HTTPError

    attempt = 1
    with requests.Session() as session:
        session.headers["User-Agent"] = f"weebill/{__version__}"
        while True:
            before = part.stat().st_size if part.exists() else 0
            wait_s = pause_s * 2 ** (attempt - 1)
            try:
                trouble, asked_s = _one_request(session, url, part, about, progress, timeout_s, needs_length)
                if trouble is None:
                    return
                wait_s = max(wait_s, asked_s)
            except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
                trouble = _short(error)
            except requests.RequestException as error:
                raise DataError(f"{url}: expected an address to download from, got: {error}; report it") from error
            attempt = 1 if part.exists() and part.stat().st_size > before else attempt + 1
            if attempt > ATTEMPTS:
                kept = "what came is kept: " if part.exists() and part.stat().st_size else ""
                raise DataError(f"{url}: expected a download, got {trouble}, {ATTEMPTS} times in a row; {kept}try "
                                f"again later, or download it elsewhere and name it with --from")  # fmt: skip
            time.sleep(min(wait_s, MAX_PAUSE_S))


def _one_request(
    session: "requests.Session",
    url: str,
    part: Path,
    about: Path,
    progress: Progress,
    timeout_s: float,
    needs_length: bool,
) -> tuple[str | None, float]:
    """Ask for what `part` lacks and append it; return what went wrong, or None, and how long the server asks to wait.

    Raises:
        DataError: There is no such file, it may not be had, or nothing would tell when it is whole.
    """
    headers = {"Accept-Encoding": "identity"}  # byte positions are those of the file
    done, validator = part.stat().st_size if part.exists() else 0, _validator(url, about)
    if done and validator:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    with session.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
        if response.status_code in TRY_AGAIN:
            asked = response.headers.get("Retry-After", "")
            return f"HTTP {response.status_code}", float(asked) if asked.isdecimal() else 0.0
        if response.status_code == 416:  # nothing beyond what is here: whole, or another file
            if response.headers.get("Content-Range") == f"bytes */{done}":
                return None, 0.0
            part.unlink()
            return "another length than before", 0.0
        if response.status_code not in (200, 206):
            raise DataError(f"{url}: expected a file, got HTTP {response.status_code} {response.reason}; if the file "
                            f"has moved, download it elsewhere and name it with --from")  # fmt: skip
        total = _total(response, done)
        if needs_length and total is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise DataError(f"{url}: expected an answer that says how long the file is, as there is no checksum to "
                            f"tell when it is whole, got none; download it elsewhere, for --from")  # fmt: skip
        if response.status_code == 200:
            done = 0
            validator = response.headers.get("ETag", "").strip()
            if not validator or validator.startswith("W/"):  # a weak one does not vouch for bytes
                validator = response.headers.get("Last-Modified", "")
            write_whole(about, json.dumps({"url": url, "validator": validator}).encode())
        with part.open("ab" if done else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done != total:
        if done > total:
            part.unlink()
        return f"{done:,} bytes of {total:,}", 0.0
    return None, 0.0


def _chunks(response: "requests.Response") -> Iterator[bytes]:
    chunks: Iterator[bytes] = response.raw.stream(CHUNK_BYTES, decode_content=False)
    return chunks


def _total(response: "requests.Response", done: int) -> int | None:
    """Return the length of the whole file, if the server says it.

    Raises:
        DataError: The server sends another range than was asked for.
    """
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != done:
            raise DataError(f"{response.url}: expected bytes from {done} on, got Content-Range "
                            f"{response.headers.get('Content-Range')!r}; download the file elsewhere and name it with "
                            f"--from")  # fmt: skip
        return None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _validator(url: str, about: Path) -> str:
    """Return the ETag or date of the version that the part is of; "" when there is none, and it must start again."""
    try:
        known: dict[str, Any] = json.loads(about.read_bytes())
    except (OSError, ValueError):
        return ""
    return str(known.get("validator", "")) if known.get("url") == url else ""


def _short(error: Exception) -> str:
    """Return the innermost reason of a connection error, which libraries wrap several times over."""
    reason: object = error
    while isinstance(reason, Exception):
        error = reason
        reason = getattr(error, "reason", None) or next(iter(error.args), None)
    return f"{type(error).__name__} ({str(error).rpartition(': ')[2]})"


def cache_folder(option: Path | None) -> Path:
    """Return `option`, else $WEEBILL_CACHE, else weebill's folder in the user's cache."""
    if option:
        return option
    if named := os.environ.get("WEEBILL_CACHE"):
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "weebill"
    except RuntimeError as error:
        raise ConfigError(f"expected a home folder for the cache, got: {error}; name one with --cache") from error
