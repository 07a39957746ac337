"""Labels over a whole data set: how many examples each has, typos of one another, labels that train lacks."""

from collections import Counter
from collections.abc import Iterator, Mapping

from weebill.findings import MIN_EXAMPLES, MIN_ROWS, Ledger
from weebill.interchange import Row

TRAIN = "train"
_ONE_EDIT_SHARE, _TWO_EDITS_SHARE = 0.1, 0.01  # how rare the rarer label is for so many edits to be a typo
_BESIDE_A_SINGLE = 3  # examples of a label that make one with a single example, an edit away, its typo


class Labels:
    """Counts the labels of one kind, "intent" or "entity label", by split."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.counts = dict[str, Counter[str]]()
        self._first = dict[str, Row]()

    def add(self, label: str, split: str, row: Row) -> None:
        """Count one example."""
        self.counts.setdefault(label, Counter())[split] += 1
        self._first.setdefault(label, row)

    def report(self, ledger: Ledger, splits: Mapping[str, int]) -> None:
        """Report rare labels (in train, where that is known), labels that train lacks, and typos."""
        has_train = TRAIN in splits and len(splits) > 1
        totals = {label: by[TRAIN] if has_train else by.total() for label, by in self.counts.items()}
        where = " in train" if has_train else ""
        for label, count in sorted(totals.items(), key=lambda item: item[1]):
            row = self._first[label]
            if not count:
                others = ", ".join(f"{split} {n:,}" for split, n in self.counts[label].items())
                ledger.add(
                    "label-not-learnt", row, f"{self.kind} {label!r} ({others})", count=self.counts[label].total()
                )
            elif count < MIN_EXAMPLES:
                ledger.add("few-examples", row, f"{self.kind} {label!r}: {count:,}{where}")
        for rare, usual in typos({label: by.total() for label, by in self.counts.items()}):
            message = (f"{self.kind} {rare!r} ({self.counts[rare].total():,} of them), perhaps {usual!r} "
                       f"({self.counts[usual].total():,} of them)")  # fmt: skip
            ledger.add("label-typo", self._first[rare], message)


def report_rows(ledger: Ledger, splits: Mapping[str, int]) -> None:
    """Report too few rows."""
    rows = splits[TRAIN] if TRAIN in splits else sum(splits.values())
    if rows < MIN_ROWS:
        ledger.add("few-rows", None, f"{rows:,} rows{' in train' if TRAIN in splits else ''}")


def typos(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield (rarer, commoner) label where the rarer one looks like a typo of the other.

    They are the same but for case and separators, or one edit apart and the rarer has at most a tenth of the examples
    or a single one, or two edits apart in long labels and it has at most a hundredth.

    Example:
        >>> list(typos({"set_alarm": 90, "set_alram": 2, "Set-Alarm": 40, "set_timer": 9, "set_timr": 1}))
        [('Set-Alarm', 'set_alarm'), ('set_alram', 'set_alarm'), ('set_timr', 'set_timer')]
    """
    ordered = sorted(counts, key=lambda label: (-counts[label], label))
    bare = {label: "".join(c for c in label.casefold() if c.isalnum()) for label in ordered}
    for i, rare in enumerate(ordered):
        for usual in ordered[:i]:
            a, b = bare[rare], bare[usual]
            if a != b and (abs(len(a) - len(b)) > 2 or min(len(a), len(b)) < 4):
                continue
            share = counts[rare] / counts[usual]
            is_rare = share <= _ONE_EDIT_SHARE or (counts[rare] == 1 and counts[usual] >= _BESIDE_A_SINGLE)
            edits = 0 if a == b else _edits(a, b) if is_rare else 3
            two = (
                edits == 2 and share <= _TWO_EDITS_SHARE and len(a) >= 8 and not a.startswith(b) and not b.startswith(a)
            )
            if edits < 2 or two:
                yield rare, usual
                break


def _edits(a: str, b: str) -> int:
    """Return the number of letters to change, add, leave out or swap with their neighbour (optimal string alignment).

    Example:
        >>> _edits("alarm", "alram"), _edits("alarm", "alrm"), _edits("alarm", "timer")
        (1, 1, 5)
    """
    before, row = list[int](), list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, before, row = before, row, [i]
        for j, y in enumerate(b, start=1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]
