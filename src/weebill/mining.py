"""Hard negatives: for each anchor the closest text that does not mean the same. Embeddings in, row numbers out."""

import numpy as np

from weebill.data import Ints
from weebill.geometry import Vectors, unit_rows


def mine_negatives(
    anchors_ND: Vectors,
    positives_ND: Vectors,
    groups_N: Ints,
    candidates_MD: Vectors,
    candidate_groups_M: Ints,
    nearest: int,
    max_similarity: float,
    rng: np.random.Generator,
    block: int = 1024,
) -> Ints:
    """Return for each anchor the number of a candidate among its `nearest`, or -1 where none may be taken.

    A candidate of the anchor's group is never taken, nor one whose cosine similarity to the anchor exceeds
    `max_similarity` times the positive's: at that closeness it is more likely a paraphrase nobody labelled than a
    negative. Of what is left one is drawn at random, so that each search brings others.

    Shape: (N, D), (N, D), (N,), (M, D), (M,) -> (N,)
    Source: Moreira et al. 2024 (NV-Retriever), section 4.1, "TopK-PercPos"; sentence-transformers'
        `mine_hard_negatives(relative_margin=…)`.

    Example:
        >>> anchor, near, far = np.float32([[1, 0]]), np.float32([[1, 0.2]]), np.float32([[1, 1]])
        >>> candidates, rng = np.concatenate([near, far]), np.random.default_rng(0)
        >>> mine_negatives(anchor, near, np.array([0]), candidates, np.array([0, 1]), 2, 0.95, rng).tolist()
        [1]
    """
    anchors_ND, positives_ND, candidates_MD = (unit_rows(x) for x in (anchors_ND, positives_ND, candidates_MD))
    limit_N = max_similarity * (anchors_ND * positives_ND).sum(axis=1)
    nearest = min(nearest, len(candidates_MD))
    found = np.full(len(anchors_ND), -1, dtype=np.int64)
    for start in range(0, len(anchors_ND), block):
        rows = slice(start, start + block)
        similarity_BM = anchors_ND[rows] @ candidates_MD.T
        similarity_BM[groups_N[rows, None] == candidate_groups_M[None, :]] = -np.inf
        similarity_BM[similarity_BM > limit_N[rows, None]] = -np.inf
        closest_BK = np.argpartition(-similarity_BM, nearest - 1, axis=1)[:, :nearest]
        allowed_BK = np.take_along_axis(similarity_BM, closest_BK, axis=1) > -np.inf
        draw_BK = np.where(allowed_BK, rng.random(closest_BK.shape), -1.0)
        best_B1 = draw_BK.argmax(axis=1)[:, None]
        chosen_B = np.take_along_axis(closest_BK, best_B1, axis=1)[:, 0]
        found[rows] = np.where(allowed_BK.any(axis=1), chosen_B, -1)
    return found
