"""Bootstrap intervals of any score that can be computed from how often each row counts. Knows no score itself."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
LEVEL = 0.95
NUM_RESAMPLES = 1_000
_CHUNK = 1_000_000  # counts held at a time: 8 MB


def estimate(statistic: Statistic, num_rows: int, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """Return a score and its percentile bootstrap interval at LEVEL; deterministic by seed.

    Args:
        statistic: from `counts_RN`, how often each of N rows counts in each of R resamples, to R scores; a row of ones
            gives the score of the data as they are.
        num_rows: N, at least 1.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Example:
        >>> heights = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> value, (low, high) = estimate(lambda counts_RN: counts_RN @ heights / counts_RN.sum(axis=1), 5)
        >>> value, round(low, 1), round(high, 1)
        (3.0, 1.8, 4.2)
    """
    rng = np.random.default_rng(seed)
    scores = []
    rows = max(1, _CHUNK // num_rows)
    for start in range(0, NUM_RESAMPLES, rows):
        drawn = rng.integers(num_rows, size=(min(rows, NUM_RESAMPLES - start), num_rows))
        counts_RN = np.stack([np.bincount(row, minlength=num_rows) for row in drawn]).astype(np.float64)
        scores.append(statistic(counts_RN))
    low, high = np.percentile(np.concatenate(scores), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(statistic(np.ones((1, num_rows)))[0]), (float(low), float(high))
