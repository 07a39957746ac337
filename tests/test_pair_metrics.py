"""Pair scores and their bootstrap against scipy, scikit-learn and brute force; counts against repeated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score

from weebill import pair_metrics
from weebill.bootstrap import NUM_RESAMPLES, estimate

_TIED = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # few values, so that ties are common
_ROWS = st.lists(st.tuples(_TIED, _TIED, st.booleans(), st.integers(0, 3)), min_size=1, max_size=20)


def _once(values):
    return np.ones((1, len(values)))


@given(_ROWS)
@settings(max_examples=80, deadline=None)
@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning", "ignore:No positive class found")
@pytest.mark.filterwarnings("ignore::scipy.stats.NearConstantInputWarning")
def test_scores_of_counts_are_the_libraries_scores_of_repeated_rows(rows):
    gold, similarity, positive, counts = map(np.array, zip(*rows, strict=True))
    counts[0] += 2  # at least two rows in all
    many = [np.repeat(column, counts) for column in (gold, similarity, positive)]
    counts_RN = np.stack([counts, counts[::-1]]).astype(float)  # the second resample must not disturb the first
    wanted = {
        "spearman": np.nan_to_num(stats.spearmanr(many[0], many[1]).statistic),
        "pearson": np.nan_to_num(stats.pearsonr(many[0], many[1]).statistic),
    }
    for name, value in wanted.items():
        assert getattr(pair_metrics, name)(gold, similarity, counts_RN)[0] == pytest.approx(value, abs=1e-9)
    assert pair_metrics.average_precision(positive, similarity, counts_RN)[0] == pytest.approx(
        average_precision_score(many[2], many[1])
    )
    best = max(accuracy_score(many[2], many[1] >= edge) for edge in (*many[1], 9))
    assert pair_metrics.best_accuracy(positive, similarity, counts_RN)[0] == pytest.approx(best)
    assert pair_metrics.mean(similarity, counts_RN)[0] == pytest.approx(many[1].mean())


@given(st.lists(st.tuples(_TIED, st.booleans()), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_best_threshold_reaches_the_best_accuracy(rows):
    similarity, positive = map(np.array, zip(*rows, strict=True))
    threshold = pair_metrics.best_threshold(positive, similarity)
    best = pair_metrics.best_accuracy(positive, similarity, _once(rows))[0]
    assert accuracy_score(positive, similarity >= threshold) == pytest.approx(best)


def test_average_precision_by_hand():
    """Order: positive, negative, positive. Precision is 1/1 at the first positive, 2/3 at the second: mean 5/6."""
    positive, similarity = np.array([True, False, True]), np.array([0.9, 0.8, 0.1])
    assert pair_metrics.average_precision(positive, similarity, _once(positive))[0] == pytest.approx(5 / 6)
    assert pair_metrics.best_accuracy(positive, similarity, _once(positive))[0] == pytest.approx(2 / 3)
    assert pair_metrics.best_threshold(positive, similarity) == pytest.approx(0.85)  # the highest of the equally good


def test_scores_rise_when_a_positive_comes_closer_and_a_negative_goes_away():
    gold, positive = np.array([1.0, 1.0, 0.0, 0.0]), np.array([True, True, False, False])
    before, after = np.array([0.9, 0.3, 0.4, 0.6]), np.array([0.9, 0.5, 0.2, 0.6])
    for score, truth in (
        (pair_metrics.spearman, gold),
        (pair_metrics.pearson, gold),
        (pair_metrics.average_precision, positive),
    ):
        assert score(truth, after, _once(gold))[0] > score(truth, before, _once(gold))[0]
    assert pair_metrics.best_accuracy(positive, np.array([0.9, 0.7, 0.2, 0.6]), _once(gold))[0] == 1.0
    assert pair_metrics.spearman(gold, -gold, _once(gold))[0] == pytest.approx(-1.0)
    assert pair_metrics.spearman(gold, np.full(4, 0.7), _once(gold))[0] == 0.0  # one answer for everything


def test_interval_is_that_of_scipy():
    rng = np.random.default_rng(1)
    gold = rng.random(300)
    similarity = 0.6 * gold + 0.4 * rng.random(300)
    value, (low, high) = estimate(lambda counts_RN: pair_metrics.pearson(gold, similarity, counts_RN), 300)
    theirs = stats.bootstrap(
        (gold, similarity), lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic, paired=True, vectorized=True,
        n_resamples=NUM_RESAMPLES, method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert value == pytest.approx(stats.pearsonr(gold, similarity).statistic)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.15 * (high - low))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        values = rng.normal(size=50)
        _, (low, high) = estimate(lambda counts_RN, v=values: pair_metrics.mean(v, counts_RN), 50)
        hits += low <= 0 <= high
    assert 178 <= hits <= 198  # 95 % of 200 is 190; the percentile interval is a little narrow at 50 rows


def test_interval_is_narrow_with_many_rows_and_fixed_by_its_seed():
    values = np.random.default_rng(0).normal(size=6_000)

    def interval(count, seed=0):
        return estimate(lambda counts_RN: pair_metrics.mean(values[:count], counts_RN), count, seed)[1]

    (few_low, few_high), (many_low, many_high) = interval(60), interval(6_000)
    assert (few_high - few_low) / (many_high - many_low) == pytest.approx(10, rel=0.25)
    assert interval(60) == interval(60) != interval(60, seed=1)
