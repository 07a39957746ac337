"""How well similarities agree with gold scores and labels, as pure functions. Embeds nothing, draws no resamples.

Every score takes `counts_RN`, how often each of N pairs counts in each of R resamples, and returns R values: a row of
ones gives the score itself, the rows of bootstrap.py its interval, by the same formula. G = distinct similarities.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean(values_N: Floats, counts_RN: Floats) -> Floats:
    """Return the means of values that each pair has by itself.

    Example:
        >>> mean(np.array([1.0, 4.0]), np.array([[1, 1], [2, 0]])).tolist()
        [2.5, 1.0]
    """
    means_R: Floats = counts_RN @ values_N / counts_RN.sum(axis=1)
    return means_R


def pearson(gold_N: Floats, similarity_N: Floats, counts_RN: Floats) -> Floats:
    """Return linear correlations in [-1, 1]; 0.0 where one side is constant.

    Example:
        >>> pearson(np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.2, 0.3]), np.ones((1, 3))).round(6).tolist()
        [1.0]
    """
    return _correlation(gold_N[None], similarity_N[None], counts_RN)


def spearman(gold_N: Floats, similarity_N: Floats, counts_RN: Floats) -> Floats:
    """Return rank correlations in [-1, 1]; ties share their mean rank; 0.0 where one side is constant.

    Example:
        >>> spearman(np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.9, 0.8]), np.ones((1, 3))).round(6).tolist()
        [0.5]
    """
    return _correlation(_ranks(gold_N, counts_RN), _ranks(similarity_N, counts_RN), counts_RN)


def average_precision(positive_N: npt.NDArray[np.bool_], similarity_N: Floats, counts_RN: Floats) -> Floats:
    """Return average precisions in [0, 1] of similarity as a sign of positive pairs; 0.0 where none is positive.

    A random order gives about the share of positives.

    Source: the sum over thresholds of (R_n - R_n-1) P_n, as scikit-learn's average_precision_score.
    """
    _, positives_RG, pairs_RG = _at_thresholds(positive_N, similarity_N, counts_RN)
    gained_RG = np.diff(positives_RG, axis=1, prepend=0.0)
    total_R = (gained_RG * positives_RG / np.maximum(pairs_RG, 1)).sum(axis=1)
    precision_R: Floats = total_R / np.maximum(positives_RG[:, -1], 1)
    return precision_R


def best_accuracy(positive_N: npt.NDArray[np.bool_], similarity_N: Floats, counts_RN: Floats) -> Floats:
    """Return the highest accuracy in [0, 1] that any one threshold on similarity reaches, "none is positive" included.

    The threshold is chosen on the pairs it is scored on, anew in each resample: a threshold fixed before gets less.
    """
    correct_RG = _correct(*_at_thresholds(positive_N, similarity_N, counts_RN)[1:])
    accuracy_R: Floats = correct_RG.max(axis=1) / counts_RN.sum(axis=1)
    return accuracy_R


def best_threshold(positive_N: npt.NDArray[np.bool_], similarity_N: Floats) -> float:
    """Return a similarity from which on calling pairs positive gives the best accuracy; the highest of equals.

    Example:
        >>> best_threshold(np.array([True, True, False]), np.array([0.9, 0.6, 0.4]))
        0.5
    """
    similarity_G, positives_RG, pairs_RG = _at_thresholds(positive_N, similarity_N, np.ones((1, len(positive_N))))
    edges = np.concatenate([similarity_G[:1] + 1, similarity_G, similarity_G[-1:] - 1])
    best = int(_correct(positives_RG, pairs_RG)[0].argmax())
    return float((edges[best] + edges[best + 1]) / 2)  # halfway to the next lower one, as sentence-transformers does


def _correct(positives_RG: Floats, pairs_RG: Floats) -> Floats:
    """Return how many pairs each threshold sorts rightly, first the one above all similarities."""
    negatives_R1 = pairs_RG[:, -1:] - positives_RG[:, -1:]
    return np.concatenate([negatives_R1, 2 * positives_RG - pairs_RG + negatives_R1], axis=1)


def _at_thresholds(
    positive_N: npt.NDArray[np.bool_], similarity_N: Floats, counts_RN: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the distinct similarities, high to low, and how many positives and pairs are at or above each."""
    order = np.argsort(-similarity_N, kind="stable")
    similarity_G, starts = np.unique(-similarity_N[order], return_index=True)
    ordered_RN = counts_RN[:, order]
    positives_RG = np.add.reduceat(ordered_RN * positive_N[order], starts, axis=1).cumsum(axis=1)
    return -similarity_G, positives_RG, np.add.reduceat(ordered_RN, starts, axis=1).cumsum(axis=1)


def _ranks(values_N: Floats, counts_RN: Floats) -> Floats:
    """Return the rank of each value in each resample, from 1; copies and equal values share their mean rank."""
    order = np.argsort(values_N, kind="stable")
    _, starts, group_N = np.unique(values_N[order], return_index=True, return_inverse=True)
    size_RG = np.add.reduceat(counts_RN[:, order], starts, axis=1)
    rank_RG = size_RG.cumsum(axis=1) - (size_RG - 1) / 2
    rank_RN = np.empty_like(counts_RN)
    rank_RN[:, order] = rank_RG[:, group_N]
    return rank_RN


def _correlation(x_RN: Floats, y_RN: Floats, counts_RN: Floats) -> Floats:
    total_R1 = counts_RN.sum(axis=1, keepdims=True)
    centred = [v_RN - (counts_RN * v_RN).sum(axis=1, keepdims=True) / total_R1 for v_RN in (x_RN, y_RN)]
    norm_x_R, norm_y_R = (np.sqrt((counts_RN * v_RN**2).sum(axis=1)) for v_RN in centred)
    constant_R = np.zeros(len(counts_RN), dtype=np.bool_)
    for norm_R, v_RN in ((norm_x_R, x_RN), (norm_y_R, y_RN)):  # what rounding leaves of a constant is no spread
        constant_R |= norm_R <= 1e-13 * np.sqrt((counts_RN * v_RN**2).sum(axis=1))
    products_R = (counts_RN * centred[0] * centred[1]).sum(axis=1)
    correlation_R: Floats = np.divide(products_R, norm_x_R * norm_y_R, out=np.zeros(len(counts_RN)), where=~constant_R)
    return correlation_R
