"""Where unit vectors lie: alignment, uniformity, neighbours, the plane that shows most of them. Runs no model.

Axis letters: N rows · D embedding dimension · R resamples · Q queries · C candidates.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 10_000_000  # similarities held at a time: 40 MB


def unit_rows(vectors_ND: Vectors) -> Vectors:
    """Return each row scaled to length 1; a row of zeros stays."""
    unit_ND: Vectors = vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
    return unit_ND


def squared_distances(first_ND: Vectors, second_ND: Vectors) -> Floats:
    """Return the squared distance of each row to its partner; their mean over positive pairs is the alignment.

    Less = closer: 0 for equal directions, 2 for right angles.

    Source: Wang & Isola 2020 (arXiv 2005.10242), section 4.1.1: E ‖f(x) − f(y)‖^α with α = 2; `align_loss` of
    github.com/SsnL/align_uniform.
    """
    distances_N: Floats = ((first_ND.astype(np.float64) - second_ND) ** 2).sum(axis=1)
    return distances_N


def uniformity(vectors_ND: Vectors, counts_RN: Floats, t: float = 2.0) -> Floats:
    """Return log of the mean Gaussian kernel over pairs of different rows, in each resample: less = more spread out.

    0 when all rows are equal; −2t where all stand at right angles. Draws of one row are no pair.

    Source: Wang & Isola 2020, section 4.1.2: log E exp(−t ‖f(x) − f(y)‖²) with t = 2; `uniform_loss` of
    github.com/SsnL/align_uniform, whose numbers these are for one count each.
    """
    kernel_NN = np.exp(2 * t * (vectors_ND @ vectors_ND.T - 1))
    np.fill_diagonal(kernel_NN, 0)
    total_R = ((counts_RN.astype(np.float32) @ kernel_NN) * counts_RN).sum(axis=1)
    num_pairs_R = counts_RN.sum(axis=1) ** 2 - (counts_RN**2).sum(axis=1)
    uniformity_R: Floats = np.log(np.divide(total_R, num_pairs_R, out=np.ones(len(counts_RN)), where=num_pairs_R > 0))
    return uniformity_R


def partner_ranks(
    queries_QD: Vectors, candidates_CD: Vectors, partners: Sequence[Ints], left_out: Sequence[Ints]
) -> Iterator[Ints]:
    """Yield for each query the ranks of its partners among the candidates by similarity, ascending, 1 = nearest.

    Args:
        partners: for each query, rows of `candidates_CD` to be found, at least one; ranked among each other too.
        left_out: for each query, rows neither right nor wrong: they take no rank.

    A wrong candidate as near as a partner goes first, so that equal vectors for everything find nothing.

    Example:
        >>> candidates = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
        >>> next(partner_ranks(candidates[:1], candidates, [np.array([1])], [np.array([0])])).tolist()
        [2]
    """
    rows = max(1, _CHUNK // len(candidates_CD))
    for start in range(0, len(queries_QD), rows):
        for offset, similarity_C in enumerate(queries_QD[start : start + rows] @ candidates_CD.T):
            right = partners[start + offset]
            found = np.sort(similarity_C[right])[::-1]
            similarity_C[right] = -np.inf
            similarity_C[left_out[start + offset]] = -np.inf
            yield np.array([place + (similarity_C >= one).sum() for place, one in enumerate(found, start=1)])


def principal_plane(vectors_ND: Vectors) -> tuple[Floats, tuple[float, float]]:
    """Return the rows' places on the two axes of most variance, (N, 2), and the share of the variance on each.

    The sign of an axis is fixed so that its largest component is positive.

    Source: principal component analysis, as scikit-learn's PCA(2) up to sign.
    """
    centred_ND = vectors_ND.astype(np.float64) - vectors_ND.mean(axis=0, dtype=np.float64)
    with_zeros = np.pad(centred_ND, ((0, 1), (0, 0)))  # changes no axis, and gives even one row two
    _, spread_K, axes_KD = np.linalg.svd(with_zeros, full_matrices=False)
    axes_2D = axes_KD[:2]
    axes_2D *= np.sign(axes_2D[np.arange(2), np.abs(axes_2D).argmax(axis=1)])[:, None]
    shares_K = spread_K**2 / max((spread_K**2).sum(), 1e-300)
    return centred_ND @ axes_2D.T, (float(shares_K[0]), float(shares_K[1]))
