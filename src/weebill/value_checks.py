"""Entity values over a whole data set: annotated here and not there, or with a label they hardly ever have."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from weebill.findings import SHOWN_EXAMPLES, Ledger
from weebill.interchange import Row

MIN_ANNOTATED = 3  # times, before a value counts as one that should be annotated
MIN_SHARE = 0.8  # of a value's occurrences that are annotated
MAX_WORDS = 5
USUAL_TIMES, ODD_TIMES, ODD_SHARE = 20, 2, 0.05
_WORD = re.compile(r"\w+(?:['’.-]\w+)*")
_KEPT = 100


@dataclass
class _Unannotated:
    count: int = 0
    rows: list[Row] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


class Values:
    """Counts the values of a first pass; a second pass over the same rows finds what is at odds with them."""

    def __init__(self) -> None:
        self._labels = Counter[tuple[str, str]]()

    def add(self, row: Row) -> None:
        """First pass: count the values of a row."""
        for span in row.spans or ():
            self._labels[row.text[span.start : span.end].lower(), span.label] += 1

    def settle(self) -> None:
        """Between the passes: choose the values to look for."""
        totals, usual = Counter[str](), dict[str, str]()
        for (value, label), count in self._labels.most_common():
            totals[value] += count
            usual.setdefault(value, label)
        self._usual = usual
        self._odd = {(value, label) for (value, label), count in self._labels.items()
                     if count <= ODD_TIMES and totals[value] >= USUAL_TIMES and count <= ODD_SHARE * totals[value]
                     }  # fmt: skip
        self._totals = {v: n for v, n in totals.items() if n >= MIN_ANNOTATED and _is_telling(v)}
        self._longest = Counter[str]()  # first word -> words of the longest value that begins with it
        for value in self._totals:
            words = [match[0] for match in _WORD.finditer(value)]
            self._longest[words[0]] = max(self._longest[words[0]], len(words))
        self._found = dict[str, _Unannotated]()

    def compare(self, row: Row, ledger: Ledger) -> None:
        """Second pass: note unannotated occurrences, and report odd labels."""
        if row.spans is None:
            return
        for span in row.spans:
            value = row.text[span.start : span.end].lower()
            if (value, span.label) in self._odd:
                ledger.add("value-odd-label", row, f"{value!r} as {span.label}, elsewhere {self._usual[value]} "
                                                   f"({self._labels[value, self._usual[value]]:,} times)")  # fmt: skip
        for value, start, end in self._occurrences(row.text):
            if any(span.start < end and start < span.end for span in row.spans):
                continue
            found = self._found.setdefault(value, _Unannotated())
            found.count += 1
            if len(found.places) < _KEPT:
                found.places.append(row.source)
            if len(found.rows) < SHOWN_EXAMPLES:
                found.rows.append(row)

    def _occurrences(self, text: str) -> Iterator[tuple[str, int, int]]:
        """Yield the longest values in a text, word by word."""
        lowered = text.lower()
        if len(lowered) != len(text):  # a few capitals become two characters
            return
        words = [match.span() for match in _WORD.finditer(lowered)]
        i = 0
        while i < len(words):
            start = words[i][0]
            longest = self._longest.get(lowered[start : words[i][1]], 0)
            for j in range(min(i + longest, len(words)) - 1, i - 1, -1):
                value = lowered[start : words[j][1]]
                if value in self._totals:
                    yield value, start, words[j][1]
                    i = j
                    break
            i += 1

    def report(self, ledger: Ledger) -> None:
        """After both passes: report the values that are annotated nearly everywhere, and where they are not."""
        for value, found in self._found.items():
            times = self._totals[value]
            if times >= MIN_SHARE * (times + found.count):
                message = f"{value!r}, annotated {times:,} times ({self._usual[value]}), not so {found.count:,} times"
                message = message.replace(" 1 times", " once")
                for number, place in enumerate(found.places):
                    row = found.rows[number] if number < len(found.rows) else None
                    ledger.add("value-unannotated", row, message, place)


def _is_telling(value: str) -> bool:
    """Return whether a value is words that mean something by themselves, not a number or a single letter."""
    words = _WORD.findall(value)
    return 0 < len(words) <= MAX_WORDS and len(value) > 2 and any(c.isalpha() for c in value)
