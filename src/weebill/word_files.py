"""Files of words with a tag each <-> rows: seq.in/seq.out/label folders and CoNLL columns. Knows no other format.

CoNLL: a word and its tag a line (first and last column), a blank line after each text, BIO, IOB1, BILOU or BIOES tags.
Comments before the words carry what columns cannot: `# intent = x`, `# text = …` (where words are not one space apart),
`# id = …`, `# split = …`, `# lang = …`.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from weebill.errors import DataError
from weebill.files import numbered_lines, writing_together
from weebill.interchange import Doubt, Losses, OnError, Row, Span, report_or_raise, short
from weebill.tags import OUTSIDE, spans_from_tags

Scheme = Literal["BIO", "IOB1", "BILOU"]  # that is written
FOLDER_FILES = ("seq.in", "seq.out", "label")
_WORD = re.compile(r"\S+")
_BIO_TAG = re.compile(r"O|[BI]-\S+")
_ANY_TAG = re.compile(r"O|[BILUES]-\S+")
_COMMENT = re.compile(r"#\s*(text|intent|id|split|lang)\s*[=:] ?(.*)", re.DOTALL)
_AS_BIO = {"L": "I", "E": "I", "U": "B", "S": "B"}
_SCHEME_LINES = 20_000  # looked at to name a file's scheme


def read_folder(path: Path, on_error: OnError) -> Iterator[Row]:
    """Yield the rows of a folder with seq.in, seq.out and label, or of its folders, which name the splits."""
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder with {', '.join(FOLDER_FILES)}, got a file; name the folder")
    folders = split_folders(path)
    if not folders:
        files = sorted(p.name for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        got = f"got one with {', '.join(files[:4])}{', …' if files[4:] else ''}" if files else "got one without"
        name_it = f"name one of its files, as in {path / files[0]}" if files else "name the folder that holds them"
        raise DataError(f"{path}: expected a folder with {', '.join(FOLDER_FILES)}, {got}; {name_it}")
    for split, folder in folders.items():
        yield from _read_three(folder, split, on_error)


def split_folders(path: Path) -> dict[str | None, Path]:
    """Return the folders that hold seq.in by the split they name: the folder itself (None), or those in it."""
    if (path / FOLDER_FILES[0]).exists():
        return {None: path}
    return {child.name: child for child in sorted(path.iterdir()) if (child / FOLDER_FILES[0]).exists()}


def _read_three(folder: Path, split: str | None, on_error: OnError) -> Iterator[Row]:
    paths, errors = [folder / name for name in FOLDER_FILES], "replace" if on_error else "strict"
    counts = [sum(1 for _ in numbered_lines(path, errors)) for path in paths]
    if len(set(counts)) > 1:
        raise DataError(f"{folder}: expected as many lines in each of {', '.join(FOLDER_FILES)}, got {counts[0]}, "
                        f"{counts[1]} and {counts[2]}; copy the files again")  # fmt: skip
    for (number, words), (_, tags), (_, intent) in zip(*(numbered_lines(path, errors) for path in paths), strict=True):
        try:
            where, read = f"{paths[1]}:{number}", tags.split()
            text, spans = _tagged(words.split(), read, where)
            if not intent.strip():
                raise DataError(f"{paths[2]}:{number}: expected an intent, got an empty line; correct it")
        except DataError as error:
            report_or_raise(error, on_error)
            continue
        doubts = tuple(Doubt(tag, read_as, where) for _, tag, read_as in _breaks(read, "BIO"))
        yield Row(text, (intent.strip(),), spans, split=split, source=f"{paths[0]}:{number}", doubts=doubts)


def _tagged(words: Sequence[str], tags: Sequence[str], where: str) -> tuple[str, tuple[Span, ...]]:
    """Return the text of space-joined words and the spans of their BIO tags."""
    if len(words) != len(tags):
        raise DataError(f"{where}: expected {len(words)} tags, one per word of seq.in, got {len(tags)}; correct the "
                        f"line")  # fmt: skip
    bad = next((tag for tag in tags if not _BIO_TAG.fullmatch(tag)), None)
    if bad is not None:
        raise DataError(f"{where}: expected tags O, B-x and I-x, got {bad!r}; correct the line")
    return " ".join(words), _spans(tags, _joined_offsets(words))


def _joined_offsets(words: Sequence[str]) -> list[tuple[int, int]]:
    offsets, at = [], 0
    for word in words:
        offsets.append((at, at + len(word)))
        at += len(word) + 1
    return offsets


def _spans(tags: Sequence[str], offsets: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    return tuple(Span(e.start, e.end, e.label) for e in spans_from_tags(tags, offsets))


def _breaks(tags: Sequence[str], scheme: str) -> Iterator[tuple[int, str, str]]:
    """Yield (number of the tag, the tag and its neighbour, what `_spans` makes of it) of tags that break a scheme.

    Example:
        >>> list(_breaks(["O", "I-city"], "BIO")), list(_breaks(["B-city", "O"], "BILOU"))
        ([(1, 'I-city after O', 'the beginning of a span')], [(0, 'B-city before O', 'the end of a span')])
    """
    if scheme == "IOB1":  # where every I- may begin a span
        return
    has_ends, before = scheme in ("BILOU", "BIOES"), OUTSIDE
    for i, tag in enumerate(tags):
        goes_on, same = tag[0] in "ILE", before[1:] == tag[1:] and before != OUTSIDE
        is_open = before[0] in "BI" or not has_ends
        if goes_on and not (same and is_open):
            after = before if i else "the beginning"
            yield i, f"{tag} after {after}", "a part of the span before" if same else "the beginning of a span"
        elif has_ends and before[0] in "BI" and not (goes_on and same):
            yield i - 1, f"{before} before {tag}", "the end of a span"
        before = tag
    if has_ends and before[0] in "BI":
        yield len(tags) - 1, f"{before} before the end", "the end of a span"


def write_folder(rows: Iterable[Row], folder: Path, losses: Losses) -> None:
    """Write seq.in, seq.out and label; rows with a split into a folder of its name. All files or none.

    Raises:
        DataError: rows with a split and rows without one.
    """
    files = dict[str | None, list[BinaryIO]]()
    with writing_together() as open_new:
        for row in rows:
            if row.split not in files:
                if None in files or (files and row.split is None):
                    raise DataError(f"{row.source}: expected rows with a split, or none with one, got both; give every "
                                    f"row a split in the data, or name one with --split and leave out the others and "
                                    f"the rows without")  # fmt: skip
                if row.split is not None and Path(row.split).name != row.split:
                    raise DataError(f"{row.source}: expected a split whose name can be a folder's, got {row.split!r}; "
                                    f"rename it")  # fmt: skip
                place = folder / (row.split or "")
                files[row.split] = [open_new(place / name) for name in FOLDER_FILES]
            offsets, tags = words_and_tags(row, "BIO", losses)
            words = " ".join(row.text[start:end] for start, end in offsets)
            if words != row.text:
                losses.add("spacing changed: words stand one space apart", row.source)
            intent = _one_line(row.intents[0], row, losses) if row.intents else ""
            for file, line in zip(files[row.split], (words, " ".join(tags), intent), strict=True):
                file.write(f"{line}\n".encode())


@dataclass
class _Sentence:
    """Lines of one text of a CoNLL file, as they come in."""

    source: str
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)  # of the tags
    comments: dict[str, str] = field(default_factory=dict)
    broken: bool = False

    def row(self, scheme: str) -> Row | None:
        """Return the row; None when there were only comments that say nothing of a text."""
        text = self.comments.get("text")
        if not self.words and text is None and "intent" not in self.comments:
            return None
        offsets = _joined_offsets(self.words) if text is None else self._found_in(text)
        tags = [_AS_BIO.get(tag[0], tag[0]) + tag[1:] for tag in self.tags]
        intent = self.comments.get("intent", "").strip()
        return Row(
            " ".join(self.words) if text is None else text,
            (intent,) if intent else None,
            _spans(tags, offsets),
            self.comments.get("id", ""),
            self.comments.get("split"),
            self.comments.get("lang"),
            source=self.source,
            doubts=tuple(Doubt(tag, read_as, self.places[i]) for i, tag, read_as in _breaks(self.tags, scheme)),
        )

    def _found_in(self, text: str) -> list[tuple[int, int]]:
        offsets, at = [], 0
        for word in self.words:
            while text[at : at + 1].isspace():
                at += 1
            if not text.startswith(word, at):
                raise DataError(f"{self.source}: expected the words of the text {short(text)}, got {word!r} at "
                                f"character {at}; correct the words or leave out the '# text' line")  # fmt: skip
            offsets.append((at, at + len(word)))
            at += len(word)
        return offsets


def read_conll(path: Path, on_error: OnError) -> Iterator[Row]:
    """Yield the rows of a CoNLL file, whatever its scheme; `source` is the line of the first word or comment."""
    scheme, sentence = scheme_of(path), None
    for where, line in _lines_and_end(path, on_error):
        if line.strip():
            sentence = sentence or _Sentence(where)
            try:
                _take(sentence, line, where)
            except DataError as error:
                report_or_raise(error, on_error)
                sentence.broken = True
            continue
        done, sentence = sentence, None
        if done is None or done.broken:
            continue
        try:
            row = done.row(scheme)
        except DataError as error:
            report_or_raise(error, on_error)
            continue
        if row is not None:
            yield row


def _lines_and_end(path: Path, on_error: OnError) -> Iterator[tuple[str, str]]:
    for number, line in numbered_lines(path, "replace" if on_error else "strict"):
        yield f"{path}:{number}", line
    yield f"{path}", ""


def _take(sentence: _Sentence, line: str, where: str) -> None:
    """Add one line, a comment or a word with its tag."""
    comment = _COMMENT.fullmatch(line)
    if comment:
        sentence.comments[comment[1]] = comment[2]
        return
    columns = line.split("\t") if "\t" in line else line.split()
    if columns[0] == "-DOCSTART-":
        return
    if len(columns) > 1 and _ANY_TAG.fullmatch(columns[-1]) and columns[0].strip():
        sentence.words.append(columns[0])
        sentence.tags.append(columns[-1])
        sentence.places.append(where)
    elif not line.startswith("#"):
        raise DataError(f"{where}: expected a word and a tag (O, B-x, I-x, L-x or U-x), got {short(line)}; correct "
                        f"the line")  # fmt: skip


def is_conll(path: Path) -> bool:
    """Return whether the beginning of a file is words with tags."""
    found = 0
    for _, line in islice(numbered_lines(path, "replace"), 200):
        columns = line.split("\t") if "\t" in line else line.split()
        if not columns or columns[0] == "-DOCSTART-" or _COMMENT.fullmatch(line):
            continue
        if len(columns) > 1 and _ANY_TAG.fullmatch(columns[-1]):
            found += 1
        elif not line.startswith("#"):
            return False
    return found > 0


def scheme_of(path: Path) -> Literal["BIO", "IOB1", "BILOU", "BIOES"]:
    """Return the tagging scheme that the beginning of a CoNLL file shows."""
    before, prefixes, begins = OUTSIDE, set(), {"B": False, "I": False}
    for _, line in islice(numbered_lines(path, "replace"), _SCHEME_LINES):
        columns = line.split()
        tag = columns[-1] if len(columns) > 1 and _ANY_TAG.fullmatch(columns[-1]) else OUTSIDE
        prefixes.add(tag[0])
        if tag[0] in begins and before[2:] != tag[2:]:  # begins a span, with nothing of its label before it
            begins[tag[0]] = True
        before = tag
    if prefixes & {"L", "U", "E", "S"}:
        return "BIOES" if prefixes & {"E", "S"} else "BILOU"
    return "IOB1" if begins["I"] and not begins["B"] else "BIO"


def conll_lines(rows: Iterable[Row], losses: Losses, scheme: Scheme) -> Iterator[str]:
    """Yield rows as CoNLL, two columns separated by a tab; a span inside a word cuts the word."""
    for row in rows:
        text = row.text.replace("\n", " ").replace("\r", " ")
        if text != row.text:
            losses.add("line break in a text, written as a space", row.source)
        offsets, tags = words_and_tags(row, scheme, losses)
        words = [text[start:end] for start, end in offsets]
        comments = {"id": row.id or None, "split": row.split, "lang": row.lang}
        comments |= {"intent": row.intents[0] if row.intents else None}
        lines = [f"# {key} = {_one_line(value, row, losses)}" for key, value in comments.items() if value is not None]
        if text != " ".join(words) or not words:
            lines.append(f"# text = {text}")
        lines += [f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)]
        yield "\n".join(lines) + "\n\n"


def words_and_tags(row: Row, scheme: Scheme, losses: Losses) -> tuple[list[tuple[int, int]], list[str]]:
    """Return the words of a row, cut at white space and at the edges of spans, and the tag of each.

    The spans must not overlap. White space at their edges is left out.
    """
    text, offsets = row.text, [match.span() for match in _WORD.finditer(row.text)]
    edges = {edge for span in row.spans or () for edge in (span.start, span.end)}
    inner = [e for e in sorted(edges) if 0 < e < len(text) and not text[e - 1].isspace() and not text[e].isspace()]
    if inner:
        whole, offsets = offsets, []
        for start, end in whole:
            cuts = [edge for edge in inner if start < edge < end]
            offsets += zip([start, *cuts], [*cuts, end], strict=True)
    starts = [start for start, _ in offsets]
    tags = [OUTSIDE] * len(offsets)
    before = ""
    for span in sorted(row.spans or (), key=lambda s: s.start):
        inside = range(bisect_left(starts, span.start), bisect_left(starts, span.end))
        label = "_".join(span.label.split())
        if label != span.label:
            losses.add("white space in a label, written as _", row.source)
        if not inside:
            losses.add("span of white space left out", row.source)
            continue
        if row.text[span.start].isspace() or row.text[span.end - 1].isspace():
            losses.add("white space at the edge of a span left out of it", row.source)
        follows = inside[0] > 0 and tags[inside[0] - 1] != OUTSIDE and before == label
        for i, prefix in zip(inside, _prefixes(len(inside), scheme, follows), strict=True):
            tags[i] = f"{prefix}-{label}"
        before = label
    return offsets, tags


def _prefixes(count: int, scheme: Scheme, follows: bool) -> str:
    """Return one letter per word of a span; `follows` = a span of the same label ends right before it.

    Example:
        >>> _prefixes(3, "BIO", False), _prefixes(3, "IOB1", False), _prefixes(3, "BILOU", False)
        ('BII', 'III', 'BIL')
    """
    if scheme == "BILOU":
        return "U" if count == 1 else "B" + "I" * (count - 2) + "L"
    return ("B" if scheme == "BIO" or follows else "I") + "I" * (count - 1)


def _one_line(value: str, row: Row, losses: Losses) -> str:
    joined = " ".join(value.split())
    if joined != value:
        losses.add("white space in an intent, split or id changed", row.source)
    return joined
