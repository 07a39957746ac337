"""Scores against seqeval (strict), scikit-learn and a hand-derived case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill import metrics
from weebill.evaluate import calibration_error
from weebill.schema import Entity
from weebill.tags import spans_from_words

_LABELS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=30)
_SPANS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("xy")), max_size=3)


def _tags(spans):
    """Well-formed BIO tags of eight words with two-word spans that do not overlap."""
    tags = ["O"] * 10
    for place, label in spans:
        tags[2 * place : 2 * place + 2] = [f"B-{label}", f"I-{label}"]
    return tags


@given(st.lists(st.tuples(_SPANS, _SPANS), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_span_scores_equal_seqeval_strict(rows):
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2

    gold, predicted = [_tags(a) for a, _ in rows], [_tags(b) for _, b in rows]
    words = [f"w{i}" for i in range(10)]
    mine = metrics.span_scores([spans_from_words(words, t)[1] for t in gold],
                               [spans_from_words(words, t)[1] for t in predicted])  # fmt: skip
    options = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    if any(tag != "O" for row in gold + predicted for tag in row):
        assert mine.precision == pytest.approx(precision_score(gold, predicted, **options))
        assert mine.recall == pytest.approx(recall_score(gold, predicted, **options))
        assert mine.f1 == pytest.approx(f1_score(gold, predicted, **options))


@given(_LABELS, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_scores_by_intent_equal_scikit_learn(gold, rng):
    from sklearn.metrics import precision_recall_fscore_support

    predicted = [rng.choice("abcd") for _ in gold]
    labels = sorted({*gold, *predicted})
    found = metrics.scores_by_intent(gold, predicted)
    values = precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
    assert list(found) == labels
    for i, label in enumerate(labels):
        one = found[label]
        assert (one.precision, one.recall, one.f1, one.gold) == pytest.approx([v[i] for v in values])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20))
def test_calibration_error_is_that_of_its_definition(answers, num_bins):
    """Guo et al. 2017, equation 3, bin by bin as torchmetrics' CalibrationError(norm="l1") has it."""
    confidences, right = [c for c, _ in answers], [r for _, r in answers]
    bins = metrics.confidence_bins(confidences, right, num_bins)
    assert sum(b.count for b in bins) == len(answers)
    expected = 0.0
    for m in range(num_bins):
        edges = m / num_bins, (m + 1) / num_bins
        inside = [(c, r) for c, r in answers if bin_of(c, num_bins) == m]
        assert all(edges[0] - 1e-9 <= c <= edges[1] + 1e-9 for c, _ in inside)
        if inside:
            accuracy, confidence = sum(r for _, r in inside) / len(inside), sum(c for c, _ in inside) / len(inside)
            expected += len(inside) / len(answers) * abs(accuracy - confidence)
    assert error_of(confidences, right, num_bins) == pytest.approx(expected, abs=1e-9)


def bin_of(confidence, num_bins):
    return int(metrics.bin_numbers(np.array([confidence]), num_bins)[0])


def error_of(confidences, right, num_bins=metrics.NUM_BINS):
    return calibration_error(confidences, right, num_bins)(np.ones((1, len(right))))[0]


def test_calibration_error_by_hand():
    assert error_of([1.0] * 4, [True] * 4) == 0.0
    assert error_of([1.0] * 4, [False] * 4) == 1.0
    mixed = error_of([0.9, 0.9, 0.3, 0.3], [True, False, False, False])  # |.5 - .9| / 2 + |0 - .3| / 2
    assert mixed == pytest.approx(0.35)


@given(_SPANS, _SPANS)
def test_every_wrong_span_is_one_error(gold, predicted):
    words = [f"w{i}" for i in range(10)]
    want, got = (spans_from_words(words, _tags(some))[1] for some in (gold, predicted))
    errors = metrics.span_errors(want, got)
    right = {(e.start, e.end, e.label) for e in want} & {(e.start, e.end, e.label) for e in got}
    assert sum(e.gold is not None for e in errors) == len(want) - len(right)
    assert sum(e.predicted is not None for e in errors) == len(got) - len(right)
    for error in errors:
        assert (error.kind == "missed") == (error.predicted is None)
        assert (error.kind == "spurious") == (error.gold is None)


def test_kinds_of_errors_by_hand():
    gold = [Entity(0, 4, "a"), Entity(5, 9, "b"), Entity(10, 14, "a")]
    kinds = {"label": [Entity(0, 4, "b")], "boundary": [Entity(0, 6, "a")], "boundary and label": [Entity(1, 4, "b")],
             "spurious": [Entity(20, 22, "a")]}  # fmt: skip
    for kind, predicted in kinds.items():
        found = [e.kind for e in metrics.span_errors(gold, predicted)]
        assert found.count(kind) == 1 and found.count("missed") == (3 if kind == "spurious" else 2)
    assert metrics.span_errors(gold, gold[::-1]) == []


def test_massive_convention_by_hand():
    text = "from new york to york"
    gold = [Entity(5, 13, "place"), Entity(17, 21, "place")]
    adjacent = [Entity(5, 8, "place"), Entity(9, 13, "place"), Entity(17, 21, "place")]
    # "new" + "york" of one label are one run of words
    assert metrics.massive_slot_counts(text, gold, adjacent) == metrics.SpanCounts(2, 2, 2, exact=True)
    assert metrics.span_counts(gold, adjacent) == metrics.SpanCounts(1, 3, 2, exact=False)  # strict: only the last
    partial = [Entity(6, 12, "place")]  # overlaps both words of the first
    assert metrics.massive_slot_counts(text, gold, partial) == metrics.SpanCounts(1, 1, 2, exact=False)


def test_scores_by_label_by_hand():
    spans = [[Entity(0, 2, "a")], [], [Entity(0, 2, "a")]]
    by_label = metrics.span_scores_by_label(spans, [[], [Entity(1, 2, "b")], [Entity(0, 2, "a", 0.4)]])
    assert (by_label["a"].recall, by_label["b"].predicted, by_label["b"].gold) == (0.5, 1, 0)
