"""Scores as pure functions of labels; nothing here runs a model. All return fractions; more = better.

Empty input gives 0.0 where a ratio has nothing to divide by, as seqeval and scikit-learn (zero_division=0) do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weebill.schema import Entity

Spans = Sequence[Entity]


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Precision, recall and F1 over whole spans, with the counts they come from."""

    precision: float
    recall: float
    f1: float
    true_positives: int
    predicted: int
    gold: int


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Return the unweighted mean of F1 over every class that occurs in gold or predicted.

    Source: scikit-learn's f1_score(average="macro", zero_division=0).
    """
    classes = sorted({*gold, *predicted})
    right = [a for a, b in zip(gold, predicted, strict=True) if a == b]
    total = sum(2 * right.count(c) / (list(gold).count(c) + list(predicted).count(c)) for c in classes)
    return total / max(1, len(classes))


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
    best = int(gained.argmax())
    if best == 0:
        return 0.0
    upper = scores[best] if best < len(scores) else 1.0
    return float((scores[best - 1] + upper) / 2)
