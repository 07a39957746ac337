"""A Wikipedia dump -> plain text for tokenizers: a title line, paragraphs, a blank line between articles.

Wikitext is read by mwparserfromhell; templates, tables, files, categories and references are left out, not rendered.
"""

import bz2
import gzip
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from weebill.download import Progress, RemoteFile, download
from weebill.errors import ArtifactError, ConfigError, DataError, MissingExtraError

LICENCE = "CC BY-SA 4.0 and GFDL: free to use, with credit to Wikipedia's authors and under the same licence"
HOMEPAGE = "https://dumps.wikimedia.org"
MIN_CHARACTERS = 200  # an article with less text is a stub
_FILE_SPACES = {"6", "14"}  # files and categories; their links are no text
_DROPPED_TAGS = {"ref", "references", "table", "gallery", "math", "timeline", "imagemap", "score", "syntaxhighlight"}


def fetch_dump(
    language: str,
    cache: Path,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    base: str = HOMEPAGE,
) -> Path:
    """Return the latest dump of a Wikipedia's articles, checked with the checksum published beside it.

    Without a connection, the newest dump in `cache` is returned, if there is one.

    Raises:
        ConfigError: Not the form of a Wikipedia's language.
        DataError: See `download.download`.
    """
    if not re.fullmatch(r"[a-z][a-z-]*", language):
        raise ConfigError(f"--locale: expected a Wikipedia's language, as in simple, en or ja, got {language!r}; "
                          f"correct it")  # fmt: skip
    wiki = language.replace("-", "_") + "wiki"
    sums = RemoteFile(f"{base}/{wiki}/latest/{wiki}-latest-md5sums.txt", "md5sums.txt")
    try:
        with tempfile.TemporaryDirectory() as folder:  # not in the cache: it is another one every month
            listed = download(sums, Path(folder)).read_text(encoding="utf-8", errors="replace")
    except DataError:
        kept = sorted(cache.glob(f"{wiki}-*-pages-articles.xml.bz2"))
        if not kept:
            raise
        say(f"{sums.url} cannot be read; {kept[-1]} is used, as downloaded before")
        return kept[-1]
    match = re.search(rf"^([0-9a-f]{{32}})\s+({wiki}-(\d+)-pages-articles\.xml\.bz2)$", listed, re.MULTILINE)
    if not match:
        raise DataError(f"{sums.url}: expected a checksum of the dump of articles, got none; download the dump "
                        f"elsewhere and name it with --from")  # fmt: skip
    return download(RemoteFile(f"{base}/{wiki}/{match[3]}/{match[2]}", match[2], f"md5:{match[1]}"), cache, progress)


def write_articles(
    dump: Path, target: Path, max_articles: int | None = None, progress: Progress = lambda done, total: None
) -> int:
    """Write the text of the articles of a dump (.xml or .xml.bz2) to a .txt.gz, whole or not at all; return how many.

    Articles come in the dump's order, oldest first. Redirects and articles of few words are left out.

    Raises:
        MissingExtraError: `mwparserfromhell` is not installed.
        DataError: The dump is missing or broken.
        ArtifactError: The target cannot be written.
    """
    if not dump.is_file():
        raise DataError(f"{dump}: expected a Wikipedia dump (pages-articles.xml.bz2), got nothing there; check --from")
    temporary, count = target.with_name(f".{target.name}.part"), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(temporary, "wt", encoding="utf-8", newline="\n") as file:
            for title, text in islice(articles(dump), max_articles):
                file.write(f"{title}\n{text}\n\n")
                count += 1
                progress(count, max_articles)
        if count == 0:
            raise DataError(f"{dump}: expected articles, got none; check that it is a dump of pages-articles")
        temporary.replace(target)
    except OSError as error:
        raise ArtifactError(f"{target}: expected a place to write, got: {error}; choose another one") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return count


def articles(dump: Path) -> Iterator[tuple[str, str]]:
    """Yield (title, text) of a dump's articles, one paragraph a line.

    Raises:
        MissingExtraError: `mwparserfromhell` is not installed.
        DataError: The dump is broken; the articles before the break have been given.
    """
    spaces: set[str] = {"file", "image", "category"}
    try:
        with bz2.open(dump) if dump.suffix == ".bz2" else dump.open("rb") as file:
            for name, element in _elements(file):
                if name == "namespace" and element.get("key") in _FILE_SPACES:
                    spaces.add((element.text or "").casefold())
                elif name == "page" and element.findtext("{*}ns") == "0" and element.find("{*}redirect") is None:
                    text = plain_text(element.findtext("{*}revision/{*}text") or "", spaces)
                    if len(text) >= MIN_CHARACTERS:
                        yield element.findtext("{*}title") or "", text
    except (ElementTree.ParseError, EOFError, OSError) as error:
        raise DataError(f"{dump}: expected a Wikipedia dump, got: {error}; download it again") from error


def _elements(file: IO[bytes]) -> Iterator[tuple[str, ElementTree.Element]]:
    """Yield the elements of a dump that matter as they end, and forget pages after use: dumps do not fit in memory."""
    parser = iter(ElementTree.iterparse(file, events=("start", "end")))
    _, root = next(parser)
    for event, element in parser:
        name = element.tag.rpartition("}")[2]
        if event == "end" and name in ("namespace", "page"):
            yield name, element
        if event == "end" and name == "page":
            root.clear()


def plain_text(wikitext: str, file_spaces: set[str]) -> str:
    """Return the prose of an article's wikitext, one paragraph a line.

    Args:
        wikitext: MediaWiki markup.
        file_spaces: Case-folded namespaces whose links are dropped: those of files and categories.

    Raises:
        MissingExtraError: `mwparserfromhell` is not installed.
    """
    try:
        import mwparserfromhell
    except ImportError as error:
        raise MissingExtraError("mwparserfromhell", "fetch", "reading Wikipedia's markup") from error
    code = mwparserfromhell.parse(wikitext)
    dropped: list[Any] = code.filter_tags(matches=lambda node: str(node.tag).strip().lower() in _DROPPED_TAGS)
    for link in code.filter_wikilinks():
        space, colon, _ = str(link.title).partition(":")
        if colon and space.strip().casefold() in file_spaces:
            dropped.append(link)
    for node in dropped:
        with suppress(ValueError):  # gone with one around it
            code.remove(node)
    lines = (" ".join(line.split()) for line in str(code.strip_code()).splitlines())
    return "\n".join(line for line in lines if line)
