"""Scores against seqeval (strict), scikit-learn and a hand-derived case."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill import metrics
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
def test_macro_f1_equals_scikit_learn(gold, rng):
    from sklearn.metrics import f1_score

    predicted = [rng.choice("abcd") for _ in gold]
    assert metrics.macro_f1(gold, predicted) == pytest.approx(
        f1_score(gold, predicted, average="macro", zero_division=0)
    )


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
