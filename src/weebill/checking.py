"""Checks data files for what makes models worse: two passes over the rows, one report. Changes and draws nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from weebill import formats
from weebill.conversion import title
from weebill.copies import TYPO_TEXTS, Case, Copies
from weebill.encodings import ModelTokenizer
from weebill.errors import DataError
from weebill.findings import KINDS, SHOWN_EXAMPLES, DataReport, Ledger
from weebill.interchange import Row, short
from weebill.label_checks import Labels, report_rows
from weebill.pairs import utterances_only
from weebill.row_checks import RowChecks
from weebill.value_checks import Values

PARTS_OF_WORDS, PARTS_AT_LEAST = 0.3, 10  # share and number of spans cutting words that are no mistake any more
SHOWN_CASES = 100  # conflicting texts with a finding each

Watched = Callable[[Iterable[Any], str], Iterable[Any]]


def check(
    inputs: Sequence[Path],
    tokenizer: ModelTokenizer,
    max_seq_len: int,
    format: str | None = None,
    watched: Watched = lambda rows, what: rows,
) -> DataReport:
    """Return what is wrong with labelled utterances. Reads every input twice and holds no rows but the examples.

    Args:
        inputs: files or folders; several are splits of one data set, named by their files where rows name no split.
        tokenizer: cuts texts, to see which spans a model could learn.
        max_seq_len: of the model, in tokens.
        format: of every input; default: guessed.
        watched: sees every row go by, and what is being done; for a progress bar.

    Raises:
        DataError: a file that is missing, empty, no text, or holds pairs.
    """
    for path in inputs:
        utterances_only(path, format)
    found = {str(path): format or formats.guess(path) for path in inputs if path.exists()}
    ledger = Ledger()
    rows = RowChecks(ledger, tokenizer, max_seq_len)
    intents, labels, values, copies = Labels("intent"), Labels("entity label"), Values(), Copies()
    splits, numbers = Counter[str](), dict[str, int]()

    def malformed(error: DataError) -> None:
        place, _, message = str(error).partition(": ")
        ledger.add("malformed", Row(message, source=place), message.partition(", got")[0])

    for split, row in watched(_rows(inputs, format, malformed), "reading"):
        splits[split] += 1
        rows.check(row)
        copies.add(row, numbers.setdefault(split, len(numbers)))
        values.add(row)
        for intent in row.intents or ():
            intents.add(intent, split, row)
        for label in {span.label for span in row.spans or ()}:
            labels.add(label, split, row)
    values.settle()
    _report_parts_of_words(ledger, rows)
    report_rows(ledger, splits)
    for kind in (intents, labels):
        kind.report(ledger, splits)
    cases = list(copies.cases()) if splits else []
    wanted = _rows_to_show(cases)
    shown = dict[int, Row]()
    for number, (_, row) in enumerate(watched(_rows(inputs, format, lambda error: None), "comparing")):
        if number in wanted:
            shown[number] = row
        values.compare(row, ledger)
    values.report(ledger)
    _report_cases(ledger, cases, copies, shown)
    return DataReport(
        {path: title(name, Path(path)) for path, name in found.items()},
        dict(splits),
        {label: dict(by) for label, by in sorted(intents.counts.items(), key=lambda item: -item[1].total())},
        {label: dict(by) for label, by in sorted(labels.counts.items(), key=lambda item: -item[1].total())},
        ledger.findings(),
    )


def _rows(
    inputs: Sequence[Path], format: str | None, on_error: Callable[[DataError], None]
) -> Iterator[tuple[str, Row]]:
    """Yield (split, row) of every input; the same rows each time."""
    names = [path.name.partition(".")[0] or path.name for path in inputs]
    for path, name in zip(inputs, names, strict=True):
        default = "all" if len(inputs) == 1 else name if names.count(name) == 1 else str(path)
        for item in formats.stream(path, format, on_error=on_error):
            if isinstance(item, Row):
                yield (default if item.split is None else item.split), item


def _report_parts_of_words(ledger: Ledger, rows: RowChecks) -> None:
    if rows.cutting >= max(PARTS_AT_LEAST, PARTS_OF_WORDS * rows.spans):
        ledger.drop("span-cuts-word")
        ledger.add("parts-of-words", None, f"{rows.cutting:,} of {rows.spans:,} spans are parts of words",
                   count=rows.cutting)  # fmt: skip


def _rows_to_show(cases: Sequence[Case]) -> set[int]:
    """Return the rows that are examples: of every conflict up to a number, of the first cases of other kinds."""
    wanted, seen = set[int](), Counter[str]()
    for case in cases:
        seen[case.kind + case.why] += 1
        limit = SHOWN_CASES if case.kind.endswith("conflict") else SHOWN_EXAMPLES
        if seen[case.kind + case.why] <= limit:
            wanted.update(case.rows[:SHOWN_EXAMPLES])
    return wanted


def _report_cases(ledger: Ledger, cases: Sequence[Case], copies: Copies, shown: dict[int, Row]) -> None:
    seen = Counter[str]()
    for case in cases:
        seen[case.kind + case.why] += 1
        conflict = case.kind.endswith("conflict")
        examples = [shown[i] for i in case.rows[:SHOWN_EXAMPLES] if i in shown]
        message = f"{KINDS[case.kind].title}{', ' + case.why if case.why else ''}"
        if conflict and examples and seen[case.kind] <= SHOWN_CASES:
            message = f"{short(examples[0].text)}: " + _readings(case.kind, examples)
        places = [copies.place(i) for i in case.rows[: 2 * SHOWN_EXAMPLES]]
        ledger.add_case(case.kind, message, case.count, examples, places)
    if copies.typos_cut_short:
        ledger.add("not-compared", None, f"texts that differ in one letter were looked for among the first "
                                         f"{TYPO_TEXTS:,} different ones")  # fmt: skip


def _readings(kind: str, rows: Sequence[Row]) -> str:
    if kind == "intent-conflict":
        return ", ".join("+".join(row.intents or ()) for row in rows)
    return " or ".join(
        ", ".join(f"{row.text[s.start : s.end]} ({s.label})" for s in row.spans or ()) or "nothing" for row in rows
    )
