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
def test_accuracy_and_macro_f1_equal_scikit_learn(gold, rng):
    from sklearn.metrics import accuracy_score, f1_score

    predicted = [rng.choice("abcd") for _ in gold]
    assert metrics.accuracy(gold, predicted) == pytest.approx(accuracy_score(gold, predicted))
    assert metrics.macro_f1(gold, predicted) == pytest.approx(
        f1_score(gold, predicted, average="macro", zero_division=0)
    )


def test_massive_convention_by_hand():
    text = "from new york to york"
    gold = [Entity(5, 13, "place"), Entity(17, 21, "place")]
    adjacent = [Entity(5, 8, "place"), Entity(9, 13, "place"), Entity(17, 21, "place")]
    scores, right = metrics.massive_slot_scores([text], [gold], [adjacent])
    assert (scores.f1, right) == (1.0, [True])  # "new" + "york" of one label are one run of words
    assert metrics.span_scores([gold], [adjacent]).true_positives == 1  # strict: only the second one
    partial = [Entity(6, 12, "place")]  # overlaps both words of the first
    scores, right = metrics.massive_slot_scores([text], [gold], [partial])
    assert (scores.true_positives, scores.predicted, scores.gold, right) == (1, 1, 2, [False])


def test_exact_match_needs_intent_and_every_span():
    spans = [[Entity(0, 2, "a")], [], [Entity(0, 2, "a")]]
    assert metrics.exact_match("xyx", "xyx", spans, spans) == 1.0
    assert metrics.exact_match("xyx", "xxx", spans, [[], [], [Entity(0, 2, "b")]]) == 0.0
    by_label = metrics.span_scores_by_label(spans, [[], [Entity(1, 2, "b")], [Entity(0, 2, "a", 0.4)]])
    assert (by_label["a"].recall, by_label["b"].predicted, by_label["b"].gold) == (0.5, 1, 0)
