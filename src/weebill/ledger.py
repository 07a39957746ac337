"""The ledger of a run: every label that cannot be learnt or found as annotated, where it is, why, and what to do.

Only describes; what is lost is decided in tags.py and data.py.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from weebill.data import LabelledRows
from weebill.label_facts import SHOWN_PLACES, check_known_labels
from weebill.schema import Utterance, intent_parts
from weebill.tags import NO_TOKEN, TOO_LONG, TRUNCATED, Misaligned

SEEN_FROM = 0.25  # share of dev texts in train from which a run says so; MASSIVE has 0.01, ATIS 0.1
_AROUND = 40  # characters shown on either side of a span


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One loss: `source` is "file:line", `excerpt` shows the span in the text as 【…】, `start` and `end` where it is.

    `kind` names all losses of one sort; `label` is an intent or an entity label, as `reason` says.
    """

    kind: str
    source: str
    label: str
    reason: str
    fix: str
    excerpt: str = ""
    start: int | None = None
    end: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object that is one line of ledger.jsonl."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}


def training_ledger(
    rows: Sequence[LabelledRows], train: Sequence[Utterance], dev: Sequence[Utterance], intents: Sequence[str],
    labels: Sequence[str], separator: str | None = None,
) -> list[LedgerEntry]:  # fmt: skip
    """Return what a run cannot learn: entities off the tokens, ends of texts, labels without an example, new in dev.

    Also whether dev says nothing of new texts, as its own are in train.
    """
    misaligned = [one for some in rows for one in some.misaligned]
    entries = [*_misaligned(misaligned), *(_shortened(u, dropped) for some in rows for u, dropped in some.shortened)]
    lost = Counter(one.entity.label for _, one in misaligned)
    total = Counter(e.label for u in train for e in u.entities or () if e.label in lost)
    first = {one.entity.label: u.source for u, one in reversed(misaligned)}
    for label, count in lost.items():
        if count == total[label]:
            reason = f"none of its {count:,} entities can be learnt"
            fix = "correct its spans, or add examples"
            entries.append(LedgerEntry("label without an example", first[label], label, reason, fix))
    texts = {u.text for u in train}
    seen = [u.source for u in dev if u.text in texts]
    if seen and len(seen) >= SEEN_FROM * len(dev):
        reason = f"{len(seen):,} of {len(dev):,} dev texts are in train, too: dev scores say little of new texts"
        fix = "keep them apart: weebill data split FILE --output DIR"
        entries.append(LedgerEntry("dev text in train", _places(seen), "", reason, fix))
    return entries + _unknown(check_known_labels(dev, intents, labels, separator), intents, labels, "dev", "train")


def evaluation_ledger(
    misaligned: Sequence[tuple[Utterance, Misaligned]],
    shortened: Sequence[tuple[Utterance, int]],
    utterances: Sequence[Utterance],
    intents: Sequence[str],
    labels: Sequence[str],
    separator: str | None = None,
) -> list[LedgerEntry]:
    """Return what the model cannot get right whatever it does, and what of the texts it does not read."""
    entries = [*_misaligned(misaligned), *(_shortened(u, dropped) for u, dropped in shortened)]
    unknown = check_known_labels(utterances, intents, labels, separator)
    return entries + _unknown(unknown, intents, labels, "data", "the model")


def labels_of_others(
    utterances: Sequence[Utterance], intents: Sequence[str], separator: str | None = None
) -> str | None:
    """Return what to say of data whose intents are, most of them, none that a model knows."""
    said = {part for u in utterances if u.intent is not None for part in intent_parts(u.intent, separator)}
    unknown = said - set(intents)
    if 2 * len(unknown) <= len(said):
        return None
    return (
        f"{len(unknown)} of the {len(said)} intents in these data are none of the model's, so no such row can be right"
    )


def _misaligned(misaligned: Iterable[tuple[Utterance, Misaligned]]) -> Iterable[LedgerEntry]:
    for utterance, one in misaligned:
        entity, text = one.entity, utterance.text
        if one.reason == TRUNCATED:
            fix = "shorten or split the text, raise encoder.max_seq_len, or set on_overflow = window"
        elif one.reason == TOO_LONG:
            fix = "raise encoder.max_seq_len, or annotate less"
        elif one.reason == NO_TOKEN or one.nearest is None:
            fix = "remove the span"
        else:
            start, end = one.nearest
            fix = f"annotate {start}–{end} {text[start:end]!r}, or put a space where the span ends in a word"
        yield LedgerEntry(f"entity {one.reason}", utterance.source, entity.label, one.reason, fix,
                          excerpt(text, entity.start, entity.end), entity.start, entity.end)  # fmt: skip


def _shortened(utterance: Utterance, dropped: int) -> LedgerEntry:
    reason = f"the last {dropped:,} tokens of the text are not read"
    fix = "shorten or split the text, raise encoder.max_seq_len, or set on_overflow = window"
    shown = excerpt(utterance.text, len(utterance.text), len(utterance.text))
    return LedgerEntry("text too long", utterance.source, utterance.intent or "", reason, fix, shown)


def _unknown(
    unknown: Mapping[str, Sequence[str]], intents: Sequence[str], labels: Sequence[str], where: str, known_to: str
) -> list[LedgerEntry]:
    entries = []
    for what, places in unknown.items():
        kind, _, label = what.partition(" ")
        near = difflib.get_close_matches(label, intents if kind == "intent" else labels, n=1)
        fix = f"perhaps {near[0]!r} is meant; else " if near else ""
        reason = f"{kind} in {where} {len(places):,} times, never in {known_to}; each counts as an error"
        fix = f"{fix}add training examples of it, or correct the label"
        entries.append(LedgerEntry(f"{kind} unknown", _places(places), label, reason, fix))
    return entries


def _places(places: Sequence[str]) -> str:
    return ", ".join(places[:SHOWN_PLACES]) + (" …" if len(places) > SHOWN_PLACES else "")


def excerpt(text: str, start: int, end: int) -> str:
    """Return a span with what stands around it, cut with "…" where the text goes on.

    Example:
        >>> excerpt("wake me at nine am", 11, 14)
        'wake me at 【nin】e am'
    """
    first, last = max(0, start - _AROUND), min(len(text), end + _AROUND)
    span = f"【{text[start:end]}】" if start < end else ""
    return f"{'…' if first else ''}{text[first:start]}{span}{text[end:last]}{'…' if last < len(text) else ''}"
