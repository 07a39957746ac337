"""Which rows of a large data set repeat one another, exactly or nearly. Keeps numbers per row, not the rows.

Nearly the same: the same letters and digits in the same order, whatever the case, accents, spacing and punctuation; or,
of the first texts, one letter more, less or other.
"""

import re
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from weebill.interchange import Row

TYPO_TEXTS = 100_000  # so many different texts are compared letter by letter
TYPO_LENGTH = 12  # letters and digits; in a shorter text one letter is often another word
_CROWD = 20  # texts that are equal but for one place, where so many are, are a pattern and no typo
_ASCII_REST = bytes(i for i in range(128) if not chr(i).isalnum())
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))

Ints = npt.NDArray[np.int64]


def fold(text: str) -> str:
    """Return the letters and digits of a text, without case and accents; the text itself when it has none.

    Example:
        >>> fold("Wake me up, at 9 a.m.!"), fold("Café"), fold(":-)")
        ('wakemeupat9am', 'cafe', ':-)')
    """
    if text.isascii():
        return text.lower().encode().translate(None, _ASCII_REST).decode() or text
    kept = (c for c in unicodedata.normalize("NFKD", text.casefold()) if c.isalnum() or _is_vowel_sign(c))
    return "".join(kept) or text


def _is_vowel_sign(character: str) -> bool:
    """Return whether a mark makes another letter, as in Indic scripts, and is no accent."""
    return unicodedata.category(character)[0] == "M" and not "\u0300" <= character <= "\u036f"


@dataclass(frozen=True, slots=True)
class Case:
    """Rows that repeat one another, by number: `kind` is a key of `findings.KINDS`, `count` how many are too many."""

    kind: str
    rows: list[int]
    count: int
    why: str = ""


@dataclass
class Copies:
    """Collects every row of a data set as a few numbers; `cases` then says which repeat one another."""

    texts: "array[int]" = field(default_factory=lambda: array("q"))
    folded: "array[int]" = field(default_factory=lambda: array("q"))
    intents: "array[int]" = field(default_factory=lambda: array("q"))
    spans: "array[int]" = field(default_factory=lambda: array("q"))
    splits: "array[int]" = field(default_factory=lambda: array("i"))
    files: "array[int]" = field(default_factory=lambda: array("i"))
    lines: "array[int]" = field(default_factory=lambda: array("q"))
    paths: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)  # folded text -> its first row, for typos

    def add(self, row: Row, split: int) -> None:
        """Take one row in; 0 stands for what is not annotated."""
        folded = fold(row.text)
        if len(folded) >= TYPO_LENGTH and len(self.candidates) < TYPO_TEXTS:
            self.candidates.setdefault(folded, len(self.texts))
        self.texts.append(hash(row.text))
        self.folded.append(hash(folded))
        self.intents.append(0 if row.intents is None else hash(row.intents) | 1)
        spans = sorted((s.start, s.end, s.label) for s in row.spans or ())
        self.spans.append(0 if row.spans is None else hash(tuple(spans)) | 1)
        self.splits.append(split)
        path, _, line = row.source.rpartition(":")
        self.files.append(self.paths.setdefault(path, len(self.paths)))
        self.lines.append(int(line) if line.isdecimal() else 0)

    def place(self, row: int) -> str:
        """Return "file:line" of a row."""
        return f"{list(self.paths)[self.files[row]]}:{self.lines[row]}"

    @property
    def typos_cut_short(self) -> bool:
        """Whether there were more texts than are compared letter by letter."""
        return len(self.candidates) == TYPO_TEXTS

    def cases(self) -> Iterator[Case]:
        """Yield what repeats, by kind in order of the first row."""
        for group in _groups(np.asarray(self.texts)):
            yield from self._same_text(group)
        for group in _groups(np.asarray(self.folded)):
            firsts = list({self.texts[i]: i for i in reversed(group)}.values())[::-1]
            if len(firsts) > 1:
                yield self._near(firsts, group, "but for case, accents, spacing or punctuation")
        yield from self._one_letter_apart()

    def _near(self, firsts: list[int], group: list[int], why: str) -> Case:
        """Return the case of `group`, all rows of some texts; `firsts` are the first row of each text."""
        shown, leaks = firsts, len({self.splits[i] for i in group}) > 1
        if leaks:  # show rows of two splits
            some = list({(self.splits[i], self.texts[i]): i for i in reversed(group)}.values())[::-1]
            pair = next((i, j) for i in some for j in some
                        if self.splits[i] != self.splits[j] and self.texts[i] != self.texts[j])  # fmt: skip
            shown = [*pair, *(i for i in firsts if self.texts[i] not in {self.texts[j] for j in pair})]
        return Case("near-leakage" if leaks else "near-duplicate", shown, len(firsts) - 1, why)

    def _same_text(self, group: list[int]) -> Iterator[Case]:
        for kind, values in (("intent-conflict", self.intents), ("entity-conflict", self.spans)):
            firsts = {values[i]: i for i in reversed(group) if values[i]}
            if len(firsts) > 1:
                yield Case(kind, sorted(firsts.values()), 1)
        same: dict[tuple[int, int, int], list[int]] = {}
        for i in group:
            same.setdefault((self.splits[i], self.intents[i], self.spans[i]), []).append(i)
        for rows in same.values():
            if len(rows) > 1:
                yield Case("duplicate", rows, len(rows) - 1)
        splits = {self.splits[i]: i for i in reversed(group)}
        if len(splits) > 1:
            yield Case("leakage", sorted(splits.values()), 1)

    def _one_letter_apart(self) -> Iterator[Case]:
        """Yield the cases of two candidates at edit distance 1 in a letter, not in a digit.

        All rows of the two count, so that it does not matter in which split either came first. Two such texts share a
        hash when one letter is left out of either, or of the longer one.
        """
        texts = list(self.candidates)
        keys, owners = [], []
        for number, text in enumerate(texts):
            variants = _hashes_without_one_letter(text)
            keys.append(variants)
            owners.append(np.full(len(variants), number))
        if not texts:
            return
        found = set[tuple[int, int]]()
        for group in _groups(np.concatenate(keys).view(np.int64), np.concatenate(owners)):
            members = sorted(set(group))
            if 1 < len(members) <= _CROWD:
                found |= {(a, b) for i, a in enumerate(members) for b in members[i + 1 :]
                          if _is_typo(texts[a], texts[b])}  # fmt: skip
        firsts = {number: self.candidates[texts[number]] for pair in found for number in pair}
        rows = self._rows_of({self.folded[first] for first in firsts.values()})
        for a, b in sorted(found):
            group = sorted(rows[self.folded[firsts[a]]] + rows[self.folded[firsts[b]]])
            yield self._near([firsts[a], firsts[b]], group, "but for one letter")

    def _rows_of(self, folded: set[int]) -> dict[int, list[int]]:
        """Return the rows of each folded text."""
        rows: dict[int, list[int]] = {}
        for row in np.flatnonzero(np.isin(np.asarray(self.folded), list(folded))).tolist():
            rows.setdefault(self.folded[row], []).append(row)
        return rows


def _groups(keys: Ints, values: Ints | None = None) -> list[list[int]]:
    """Return the positions (or values there) that share a key, for keys that occur twice or more, by first position."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], in_order[1:] != in_order[:-1])))
    sizes = np.diff(np.append(starts, len(keys)))
    named = order if values is None else values[order]
    return sorted(named[start : start + size].tolist() for start, size in
                  zip(starts[sizes > 1], sizes[sizes > 1], strict=True))  # fmt: skip


def _hashes_without_one_letter(text: str) -> npt.NDArray[np.uint64]:
    """Return a hash of the text and of each text with one character left out, polynomials modulo 2**64."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    powers = np.full(len(codes), _BASE)
    powers[0] = 1
    before = np.concatenate(([np.uint64(0)], np.cumsum(codes * np.cumprod(powers), dtype=np.uint64)))
    without = before[:-1] + (before[-1] - before[1:]) * _INVERSE
    return np.append(without, before[-1])


def _is_typo(a: str, b: str) -> bool:
    """Return whether two texts differ in one letter: another, one more or one less.

    Example:
        >>> _is_typo("tomorrow", "tomorow"), _is_typo("track1", "track2"), _is_typo("cat", "dog")
        (True, False, False)
    """
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest_a, rest_b = a[start + (len(a) >= len(b)) :], b[start + (len(b) >= len(a)) :]
    return rest_a == rest_b and not re.search(r"\d", a[start : start + 1] + b[start : start + 1])
