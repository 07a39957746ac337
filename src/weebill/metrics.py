"""Scores as pure functions of labels; nothing here runs a model. All return fractions; more = better.

Empty input gives 0.0 where a ratio has nothing to divide by, as seqeval and scikit-learn (zero_division=0) do.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from weebill.schema import Entity, intent_parts

Spans = Sequence[Entity]
ErrorKind = Literal["label", "boundary", "boundary and label", "missed", "spurious"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
NUM_BINS = 15  # of confidence, as Guo et al. 2017


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Precision, recall and F1 over whole spans, or over texts of one intent, with the counts they come from."""

    precision: float
    recall: float
    f1: float
    true_positives: int
    predicted: int
    gold: int


def scores_by_intent(
    gold: Sequence[str], predicted: Sequence[str], separator: str | None = None
) -> dict[str, SpanScores]:
    """Return the scores of every intent that occurs in gold or predicted, sorted; with a separator, of every part."""
    gold_parts, parts_read = ([intent_parts(intent, separator) for intent in some] for some in (gold, predicted))
    want, got = Counter(chain(*gold_parts)), Counter(chain(*parts_read))
    right = Counter(x for a, b in zip(gold_parts, parts_read, strict=True) for x in a if x in b)
    return {intent: _span_scores(right[intent], got[intent], want[intent]) for intent in sorted({*want, *got})}


def _span_scores(true_positives: int, predicted: int, gold: int) -> SpanScores:
    precision = true_positives / predicted if predicted else 0.0
    recall = true_positives / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return SpanScores(precision, recall, f1, true_positives, predicted, gold)


def _keys(spans: Spans) -> set[tuple[int, int, str]]:
    return {(e.start, e.end, e.label) for e in spans}


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """Spans of one text: those that are right, those predicted, those that should be; `exact` = all and no other."""

    true_positives: int
    predicted: int
    gold: int
    exact: bool


def span_counts(gold: Spans, predicted: Spans) -> SpanCounts:
    """Return the counts of one text: a span is right when start, end and label are."""
    want, got = _keys(gold), _keys(predicted)
    return SpanCounts(len(want & got), len(got), len(want), want == got)


def sum_counts(counts: Sequence[SpanCounts]) -> SpanScores:
    """Return the scores of many texts together (micro average)."""
    return _span_scores(
        sum(c.true_positives for c in counts), sum(c.predicted for c in counts), sum(c.gold for c in counts)
    )


def span_scores(gold: Sequence[Spans], predicted: Sequence[Spans]) -> SpanScores:
    """Return strict span scores over all texts.

    Source: equals seqeval's micro average with mode="strict", scheme=IOB2, when spans lie on token edges.
    """
    return sum_counts([span_counts(a, b) for a, b in zip(gold, predicted, strict=True)])


def span_scores_by_label(gold: Sequence[Spans], predicted: Sequence[Spans]) -> dict[str, SpanScores]:
    """Return strict span scores of every label that occurs, sorted by label."""
    labels = sorted({e.label for row in (*gold, *predicted) for e in row})

    def only(rows: Sequence[Spans], label: str) -> list[list[Entity]]:
        return [[e for e in row if e.label == label] for row in rows]

    return {label: span_scores(only(gold, label), only(predicted, label)) for label in labels}


@dataclass(frozen=True, slots=True)
class SpanError:
    """One wrong span: what should be there, what is, and of which kind the error is."""

    kind: ErrorKind
    gold: Entity | None
    predicted: Entity | None


def span_errors(gold: Spans, predicted: Spans) -> list[SpanError]:
    """Return the errors of one text; each span is in at most one.

    Right spans aside, pairs are made in this order: same place and another label ("label"), overlap and the same label
    ("boundary"), overlap and another label ("boundary and label"); of several overlapping spans the first. Gold spans
    that are left were "missed", predicted ones are "spurious".

    Example:
        >>> gold = [Entity(0, 3, "time"), Entity(4, 9, "date"), Entity(10, 12, "place")]
        >>> found = span_errors(gold, [Entity(0, 3, "date"), Entity(4, 7, "date"), Entity(20, 22, "time")])
        >>> [error.kind for error in found]
        ['label', 'boundary', 'missed', 'spurious']
    """
    right = _keys(gold) & _keys(predicted)
    want = [e for e in sorted(gold) if (e.start, e.end, e.label) not in right]
    got = [e for e in sorted(predicted) if (e.start, e.end, e.label) not in right]
    pairs: list[SpanError] = []
    for kind in ERROR_KINDS:
        for a in list(want):
            for b in got:
                same_place, same_label = (a.start, a.end) == (b.start, b.end), a.label == b.label
                overlap = a.start < b.end and b.start < a.end
                if (
                    (kind == "label" and same_place)
                    or (kind == "boundary" and overlap and same_label)
                    or (kind == "boundary and label" and overlap)
                ):
                    pairs.append(SpanError(kind, a, b))
                    want.remove(a)
                    got.remove(b)
                    break
    errors = [*pairs, *(SpanError("missed", a, None) for a in want), *(SpanError("spurious", None, b) for b in got)]
    return sorted(errors, key=lambda e: (e.gold or e.predicted or Entity(0, 0, "")).start)


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """Answers whose confidence is in (low, high]: how many, how many of them right, their mean confidence."""

    low: float
    high: float
    count: int
    right: int
    confidence: float


def confidence_bins(
    confidences: Sequence[float], right: Sequence[bool], num_bins: int = NUM_BINS
) -> list[ConfidenceBin]:
    """Return bins of equal width over [0, 1], empty ones too.

    Example:
        >>> [(b.count, b.right, b.confidence) for b in confidence_bins([0.5, 0.75, 1.0], [True, False, True], 2)]
        [(1, 1, 0.5), (2, 1, 0.875)]
    """
    scores_N, right_N = np.array(confidences, dtype=np.float64), np.array(right, dtype=bool)
    numbers_N = bin_numbers(scores_N, num_bins)
    bins = []
    for i in range(num_bins):
        inside_N = numbers_N == i
        count = int(inside_N.sum())
        mean = float(scores_N[inside_N].mean()) if count else 0.0
        bins.append(ConfidenceBin(i / num_bins, (i + 1) / num_bins, count, int(right_N[inside_N].sum()), mean))
    return bins


def bin_numbers(confidences_N: "np.typing.NDArray[np.float64]", num_bins: int) -> "np.typing.NDArray[np.int64]":
    """Return the number of the bin that each confidence is in; a bin holds its upper edge."""
    return np.clip(np.ceil(np.nan_to_num(confidences_N) * num_bins).astype(np.int64) - 1, 0, num_bins - 1)


def massive_slot_counts(text: str, gold: Spans, predicted: Spans) -> SpanCounts:
    """Return the counts of one text by MASSIVE's convention.

    Words are split at white space; a word has the label of the first entity it overlaps; neighbouring words of one
    label form one span, so two adjacent entities of one label count as one.

    Source: FitzGerald et al. 2023, the evaluation of github.com/alexa/massive.
    """
    words = [match.span() for match in re.finditer(r"\S+", text)]
    want, got = _word_labels(words, gold), _word_labels(words, predicted)
    want_runs, got_runs = _runs(want), _runs(got)
    return SpanCounts(len(want_runs & got_runs), len(got_runs), len(want_runs), want == got)


def _word_labels(words: Sequence[tuple[int, int]], spans: Spans) -> list[str]:
    return [next((e.label for e in spans if e.start < end and start < e.end), "") for start, end in words]


def _runs(labels: Sequence[str]) -> set[tuple[int, int, str]]:
    """Return (first word, word after the last, label) of each run of equal labels that are not empty."""
    found, start = set(), 0
    for i in range(1, len(labels) + 1):
        if i == len(labels) or labels[i] != labels[start]:
            if labels[start]:
                found.add((start, i, labels[start]))
            start = i
    return found


def refusal_threshold(
    score_N: npt.NDArray[np.float64], right_N: npt.NDArray[np.bool_], outside_N: npt.NDArray[np.bool_]
) -> float:
    """Return the score below which to refuse, so that most rows are read rightly; of equally good ones the lowest.

    A row is read rightly if its answer is right and its score is at least the threshold, or if it is out of scope and
    its score is below.

    Args:
        score_N: probability of the likeliest intent, in [0, 1].
        right_N: whether that is the annotated one.
        outside_N: whether the row is out of scope.

    Example:
        >>> refusal_threshold(np.array([0.9, 0.5, 0.3]), np.array([True, True, False]), np.array([False, False, True]))
        0.4
    """
    order = score_N.argsort(kind="stable")
    scores = score_N[order]
    gained = np.concatenate([[0], np.cumsum(outside_N[order].astype(int) - right_N[order].astype(int))])
    gained[1:-1][scores[1:] == scores[:-1]] = gained.min(initial=0) - 1  # equal scores are on one side
    if scores[-1:] >= 1:
        gained[-1] = gained.min(initial=0) - 1  # no threshold is above 1
    best = int(gained.argmax())
    if best == 0:
        return 0.0
    upper = scores[best] if best < len(scores) else 1.0
    return float((scores[best - 1] + upper) / 2)
