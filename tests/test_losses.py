import pytest
import torch

from weebill import losses


def _rows(seed, count=7, dim=5):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.5])
def test_triplet_loss_equals_torch(margin):
    anchor, positive, negative = _rows(0), _rows(1), _rows(2)
    oracle = torch.nn.TripletMarginWithDistanceLoss(
        distance_function=lambda a, b: 1.0 - torch.nn.functional.cosine_similarity(a, b), margin=margin
    )
    assert abs(losses.triplet_loss(anchor, positive, negative, margin) - oracle(anchor, positive, negative)) < 1e-6


def test_triplet_loss_has_the_right_sign():
    anchor = torch.tensor([[1.0, 0.0]])
    near, middle, far = (torch.tensor([[torch.cos(t), torch.sin(t)]]) for t in torch.tensor([0.2, 0.9, 1.5]))
    base = losses.triplet_loss(anchor, middle, far, 1.0)
    assert losses.triplet_loss(anchor, near, far, 1.0) < base  # positive closer: better
    assert losses.triplet_loss(anchor, middle, near, 1.0) > base  # negative closer: worse


def test_one_step_moves_the_positive_closer_and_the_negative_away():
    points = [_rows(i, 1).requires_grad_() for i in range(3)]
    before = [losses.cosine_distance(points[0], p).item() for p in points[1:]]
    losses.triplet_loss(*points, margin=2.0).backward()
    with torch.no_grad():
        for p in points:
            p -= 0.05 * p.grad
    after = [losses.cosine_distance(points[0], p).item() for p in points[1:]]
    assert after[0] < before[0] and after[1] > before[1]


def test_batch_triplet_loss_is_the_triplet_loss_where_only_the_given_negative_counts():
    anchor, positive, negative = _rows(0), _rows(1), _rows(2)
    one_group = torch.zeros(7, dtype=torch.int64)
    batch = losses.batch_triplet_loss(anchor, positive, negative, one_group, margin=0.4)
    assert torch.allclose(batch, losses.triplet_loss(anchor, positive, negative, 0.4), atol=1e-6)


def test_batch_triplet_loss_equals_a_loop_over_all_triplets():
    anchor, positive, negative = _rows(0), _rows(1), _rows(2)
    groups, temperature, margin = [0, 0, 1, 2, 3, 3, 4], 0.3, 0.6
    total = 0.0
    for i in range(7):
        others = [positive[j] for j in range(7) if groups[j] != groups[i]]
        others += [negative[j] for j in range(7) if j == i or groups[j] != groups[i]]
        distances = [losses.cosine_distance(anchor[i : i + 1], other[None]).item() for other in others]
        weights = torch.softmax(-torch.tensor(distances) / temperature, 0)
        own = losses.cosine_distance(anchor[i : i + 1], positive[i : i + 1]).item()
        total += sum(w.item() * max(0.0, own - d + margin) for w, d in zip(weights, distances, strict=True))
    got = losses.batch_triplet_loss(anchor, positive, negative, torch.tensor(groups), margin, temperature)
    assert got.item() == pytest.approx(total / 7, abs=1e-6)


def test_batch_triplet_loss_has_the_right_sign():
    points = [_rows(i).requires_grad_() for i in range(3)]
    losses.batch_triplet_loss(*points, torch.arange(7), margin=2.0).backward()
    anchor, positive, negative = (p.detach() for p in points)
    toward, away = positive - 0.1 * points[1].grad, negative - 0.1 * points[2].grad
    assert losses.cosine_distance(anchor, away).mean() > losses.cosine_distance(anchor, negative).mean()
    assert losses.batch_triplet_loss(anchor, toward, negative, torch.arange(7), 2.0) < losses.batch_triplet_loss(
        anchor, positive, negative, torch.arange(7), 2.0
    )


def test_tag_loss_equals_torch_and_ignores_missing():
    logits, tags = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 2, -100]] * 2)
    weights = torch.tensor([0.5, 1.0, 2.0])
    oracle = torch.nn.CrossEntropyLoss(weight=weights, ignore_index=-100)(logits.flatten(0, 1), tags.flatten())
    assert torch.allclose(losses.tag_loss(logits, tags, weights), oracle, atol=1e-6)
    nothing = torch.full((2, 4), -100)
    assert losses.tag_loss(logits, nothing, weights) == 0.0
    assert losses.intent_loss(torch.randn(2, 3), torch.tensor([-100, -100])) == 0.0


def test_intent_loss_falls_as_the_right_logit_rises():
    low, high = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    target = torch.tensor([0])
    assert losses.intent_loss(high, target) < losses.intent_loss(low, target)
    oracle = torch.nn.functional.cross_entropy(high, target)
    assert torch.allclose(losses.intent_loss(high, target), oracle)
