"""What a check of data finds, as plain values: kinds, examples, counts, places. Looks at no data and draws nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from weebill.interchange import Row

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MIN_ROWS = 100
MIN_EXAMPLES = 50
SHOWN_EXAMPLES = 3
KEPT_PLACES = 1_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding: how bad, what it is, and what to do about it."""

    severity: Severity
    title: str
    fix: str
    mended: bool = False  # by --fix


_MEND = "`--fix FILE` does it"
KINDS: Mapping[str, Kind] = {
    # error: training refuses it, or learns from a contradiction
    "malformed": Kind("error", "rows that cannot be read", "correct the line as the message says"),
    "few-rows": Kind("error", f"fewer than {MIN_ROWS} rows", "collect more, or `weebill data generate --augment`"),
    "empty-text": Kind("error", "empty texts", f"remove the rows; {_MEND}", True),
    "span-white-space": Kind("error", "spans that begin or end on white space", f"trim them; {_MEND}", True),
    "span-twice": Kind("error", "the same span twice", f"remove one; {_MEND}", True),
    "span-overlap": Kind("error", "spans that overlap", "keep one of them"),
    "label-white-space": Kind("error", "labels with white space", f"write _ instead; {_MEND}", True),
    "intent-conflict": Kind("error", "one text, several intents", "decide on one intent, or remove the text"),
    "entity-conflict": Kind("error", "one text, several annotations", "annotate both alike, or remove one"),
    # warning: probably a mistake, or a model that is worse than it could be
    "few-examples": Kind("warning", f"labels with fewer than {MIN_EXAMPLES} examples",
                         "collect more, merge it with another label, or `weebill data generate --augment`"),
    "duplicate": Kind("warning", "rows that occur more than once", f"keep one; {_MEND}", True),
    "near-duplicate": Kind("warning", "texts that are nearly the same", "keep one, or annotate both alike"),
    "leakage": Kind("warning", "texts in more than one split", "remove them from one; `weebill data split` keeps them "
                    "together"),
    "near-leakage": Kind("warning", "nearly the same texts in more than one split", "remove them from one; `weebill "
                         "data split` keeps copies together"),
    "label-not-learnt": Kind("warning", "labels that train never shows", "add examples to train, or rename the label"),
    "label-typo": Kind("warning", "labels that look like typos of one another", "rename the rarer one"),
    "value-unannotated": Kind("warning", "values annotated here and not there", "annotate them, if they mean it"),
    "value-odd-label": Kind("warning", "values that hardly ever have this label", "compare with the usual label"),
    "span-cuts-word": Kind("warning", "spans that begin or end inside a word", "move the edge to the word's"),
    "span-cuts-token": Kind("warning", "spans that begin or end inside a token", "move the edge, or put in a space: "
                            "such labels cannot be learnt"),
    "broken-tags": Kind("warning", "tags that break their scheme", "write B- where a span begins (in BILOU and BIOES "
                        "L- or E- where it ends), or correct the label"),
    "markup-left": Kind("warning", "texts that look like a broken annotation", "correct brackets and quotes"),
    "text-white-space": Kind("warning", "texts with white space around them", f"trim them; {_MEND}", True),
    "odd-space": Kind("warning", "spaces other than ' '", f"write plain spaces; {_MEND}", True),
    "invisible-character": Kind("warning", "invisible or control characters", f"remove them; {_MEND}", True),
    "odd-character": Kind("warning", "letters of another alphabet inside a word, full-width digits",
                          "write the letters and digits that they look like"),
    "broken-character": Kind("warning", "U+FFFD, left by a wrong encoding", "restore the text, or read the file in its "
                             "own encoding and save it as UTF-8"),
    "mojibake": Kind("warning", "UTF-8 that was read as Windows-1252", "decode the text again"),
    "text-too-long": Kind("warning", "texts past the model's length", "shorten or split them, or raise "
                          "encoder.max_seq_len"),
    "unread-key": Kind("warning", "labels under a key that is not read", "rename it: an intent is read from 'intent', "
                       "entities from 'spans', a list of {start, end, label}"),
    # note: good to know
    "not-composed": Kind("note", "letters and accents as separate characters", 'train with normalizers = ["nfc"]'),
    "no-intent": Kind("note", "rows whose intent is not annotated", "nothing, if other rows have one; for "
                      "entities alone, give all rows the same intent"),
    "no-entities": Kind("note", "rows whose entities are not annotated", "nothing, if meant for intents alone"),
    "parts-of-words": Kind("note", "spans are parts of words", "nothing, where words are written without spaces"),
    "not-compared": Kind("note", "near duplicates were looked for in part", "check a smaller file for typos"),
}  # fmt: skip


@dataclass
class Finding:
    """All cases of one kind about one subject, as a label or a value; `message` says what, `count` how many rows."""

    kind: str
    message: str
    count: int = 0
    examples: list[Row] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.kind].severity

    def to_json(self) -> dict[str, Any]:
        """Return a plain object."""
        return {
            "kind": self.kind, "severity": self.severity, "message": self.message, "fix": KINDS[self.kind].fix,
            "count": self.count, "places": self.places, "examples": [example_json(row) for row in self.examples],
        }  # fmt: skip


def example_json(row: Row) -> dict[str, Any]:
    """Return a row as a report shows it."""
    spans = [{"start": s.start, "end": s.end, "label": s.label} for s in row.spans or ()]
    return {"source": row.source, "text": row.text, "intent": row.intents[0] if row.intents else None, "spans": spans}


class Ledger:
    """Collects findings, one per kind and message, with the first examples and places."""

    def __init__(self) -> None:
        self._findings = dict[tuple[str, str], Finding]()

    def add(self, kind: str, row: Row | None, message: str = "", place: str = "", count: int = 1) -> None:
        """Count one more row (or nothing but its place) of a finding; `message` default: the kind's title."""
        message = message or KINDS[kind].title
        finding = self._findings.setdefault((kind, message), Finding(kind, message))
        finding.count += count
        if row is not None and len(finding.examples) < SHOWN_EXAMPLES:
            finding.examples.append(row)
        place = place or (row.source if row else "")
        if place and len(finding.places) < KEPT_PLACES:
            finding.places.append(place)

    def add_case(self, kind: str, message: str, count: int, examples: Sequence[Row], places: Sequence[str]) -> None:
        """Count one case that several rows make together."""
        finding = self._findings.setdefault((kind, message), Finding(kind, message))
        finding.count += count
        if len(finding.examples) < SHOWN_EXAMPLES:
            finding.examples += examples
        if len(finding.places) < KEPT_PLACES:
            finding.places += places

    def drop(self, kind: str) -> None:
        """Forget all findings of a kind."""
        self._findings = {key: finding for key, finding in self._findings.items() if key[0] != kind}

    def findings(self) -> list[Finding]:
        """Return what was found, worst first, in the order of KINDS, most frequent first."""
        order = {kind: i for i, kind in enumerate(KINDS)}
        return sorted(self._findings.values(), key=lambda f: (order[f.kind], -f.count))


@dataclass(frozen=True)
class DataReport:
    """What a check saw and found. `rows` counts by split or input; `intents` and `labels` count by name, then so."""

    inputs: Mapping[str, str]
    rows: Mapping[str, int]
    intents: Mapping[str, Mapping[str, int]]
    labels: Mapping[str, Mapping[str, int]]
    findings: Sequence[Finding]

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain objects."""
        return {
            "inputs": dict(self.inputs), "rows": dict(self.rows), "intents": dict(self.intents),
            "labels": dict(self.labels), **{f"{s}s": self.count(s) for s in SEVERITIES},
            "findings": [finding.to_json() for finding in self.findings],
        }  # fmt: skip
