"""Embedding geometry against torch, scikit-learn and a slow ranking; equal vectors win nothing."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from weebill import geometry

RNG = np.random.default_rng(0)
VECTORS = geometry.unit_rows(RNG.normal(size=(60, 8)).astype(np.float32))


def test_alignment_and_uniformity_equal_the_authors_code():
    x, y = torch.from_numpy(VECTORS[:30]), torch.from_numpy(VECTORS[30:])
    align_loss = (x - y).norm(p=2, dim=1).pow(2).mean()
    uniform_loss = torch.pdist(x, p=2).pow(2).mul(-2).exp().mean().log()
    assert geometry.squared_distances(VECTORS[:30], VECTORS[30:]).mean() == pytest.approx(align_loss.item(), abs=1e-5)
    assert geometry.uniformity(VECTORS[:30], np.ones((1, 30)))[0] == pytest.approx(uniform_loss.item(), abs=1e-5)


def test_uniformity_of_counts_leaves_out_pairs_of_one_row_with_itself():
    """Rows 0, 0, 1 drawn: two pairs (0, 1) both ways and none of 0 with its copy, so the value is that of (0, 1)."""
    drawn, once = np.array([[2.0, 1.0]]), np.array([[1.0, 1.0]])
    assert geometry.uniformity(VECTORS[:2], drawn)[0] == pytest.approx(geometry.uniformity(VECTORS[:2], once)[0])
    assert geometry.uniformity(VECTORS[:2], np.array([[3.0, 0.0]]))[0] == 0.0


def test_uniformity_falls_as_vectors_spread():
    together = geometry.unit_rows(VECTORS + 3 * VECTORS[0])
    once = np.ones((1, len(VECTORS)))
    assert geometry.uniformity(VECTORS, once)[0] < geometry.uniformity(together, once)[0] < 0
    assert geometry.uniformity(np.repeat(VECTORS[:1], 5, axis=0), np.ones((1, 5)))[0] == pytest.approx(0, abs=1e-5)


def test_partner_ranks_equal_a_slow_ranking(monkeypatch):
    monkeypatch.setattr(geometry, "_CHUNK", 100)  # several chunks
    queries, candidates = VECTORS[:20], VECTORS[20:]
    partners = [RNG.choice(40, size=1 + i % 3, replace=False) for i in range(20)]
    left_out = [np.setdiff1d(RNG.choice(40, size=i % 4, replace=False), partners[i]).astype(int) for i in range(20)]
    for i, ranks in enumerate(geometry.partner_ranks(queries, candidates, partners, left_out)):
        order = [c for c in np.argsort(-(candidates @ queries[i])) if c not in left_out[i]]
        assert ranks.tolist() == sorted(order.index(p) + 1 for p in partners[i])


def test_equal_vectors_find_nothing():
    same = np.repeat(np.array([[1, 0]], dtype=np.float32), 6, axis=0)
    ranks = geometry.partner_ranks(same[:2], same, [np.array([0]), np.array([0, 1])], [np.array([], dtype=int)] * 2)
    assert [r.tolist() for r in ranks] == [[6], [5, 6]]  # behind all five, or four, wrong ones


def test_principal_plane_equals_scikit_learn():
    points, shares = geometry.principal_plane(VECTORS)
    pca = PCA(2).fit(VECTORS)
    assert np.abs(points) == pytest.approx(np.abs(pca.transform(VECTORS)), abs=1e-5)
    assert shares == pytest.approx(pca.explained_variance_ratio_, abs=1e-5)
    assert np.array_equal(geometry.principal_plane(VECTORS)[0], points)
    one_point, no_shares = geometry.principal_plane(VECTORS[:1])
    assert (one_point.tolist(), no_shares) == ([[0, 0]], (0, 0))
