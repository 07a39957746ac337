import importlib
import itertools
import math

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
    anchor, positive, negative = _rows(0, 1), _rows(1, 1), _rows(2, 1)
    candidates, groups = torch.cat([positive, negative]), torch.tensor([0, 1])
    batch = losses.batch_triplet_loss(anchor, candidates, groups[:1], groups, margin=0.4)
    assert torch.allclose(batch, losses.triplet_loss(anchor, positive, negative, 0.4), atol=1e-6)


def test_batch_triplet_loss_equals_a_loop_over_all_triplets():
    anchor, candidates = _rows(0), torch.cat([_rows(1), _rows(2)])
    groups, temperature, margin = [0, 0, 1, 2, 3, 3, 4], 0.3, 0.6
    candidate_groups = [*groups, 5, 1, 0, 6, 7, 7, 8]
    total = 0.0
    for i in range(7):
        others = [candidates[j] for j in range(14) if candidate_groups[j] != groups[i]]
        distances = [losses.cosine_distance(anchor[i : i + 1], other[None]).item() for other in others]
        weights = torch.softmax(-torch.tensor(distances) / temperature, 0)
        own = losses.cosine_distance(anchor[i : i + 1], candidates[i : i + 1]).item()
        total += sum(w.item() * max(0.0, own - d + margin) for w, d in zip(weights, distances, strict=True))
    got = losses.batch_triplet_loss(
        anchor, candidates, torch.tensor(groups), torch.tensor(candidate_groups), margin, temperature
    )
    assert got.item() == pytest.approx(total / 7, abs=1e-6)


def _sentence_transformers_loss(name, *args, **kwargs):
    """The peer's loss object over embeddings given to it directly."""
    module = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    return getattr(module, name)(torch.nn.Identity(), *args, **kwargs)


@pytest.mark.parametrize("margin", [0.1, 0.5, 2.0])
def test_mined_triplet_losses_equal_sentence_transformers(margin):
    embeddings, groups = _rows(0, 12), torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4])
    distance = importlib.import_module(
        "sentence_transformers.sentence_transformer.losses"
    ).BatchHardTripletLossDistanceFunction.cosine_distance
    hard = _sentence_transformers_loss("BatchHardTripletLoss", distance, margin)
    semi_hard = _sentence_transformers_loss("BatchSemiHardTripletLoss", distance, margin)
    ours = losses.batch_hard_triplet_loss(embeddings, groups, margin)
    assert torch.allclose(ours, hard.batch_hard_triplet_loss(groups, embeddings), atol=1e-6)
    ours = losses.semi_hard_triplet_loss(embeddings, groups, margin)
    assert torch.allclose(ours, semi_hard.batch_semi_hard_triplet_loss(groups, embeddings), atol=1e-6)


@pytest.mark.parametrize("mined", [losses.batch_hard_triplet_loss, losses.semi_hard_triplet_loss])
def test_texts_without_a_positive_or_a_negative_do_not_count(mined):
    embeddings, groups = _rows(0, 5), torch.tensor([0, 0, 1, 1, 2])
    alone = embeddings.clone().requires_grad_()
    assert mined(alone, torch.arange(5)) == 0 and mined(alone, torch.zeros(5)) == 0
    mined(alone, torch.zeros(5)).backward()
    assert torch.equal(alone.grad, torch.zeros(5, 5))
    assert mined(embeddings, groups) > 0


def test_in_batch_negatives_loss_equals_sentence_transformers():
    anchor, positive, negative, groups = _rows(0), _rows(1), _rows(2), torch.arange(14)
    peer = _sentence_transformers_loss("MultipleNegativesRankingLoss", scale=20.0)
    expected = peer.compute_loss_from_embeddings([anchor, positive, negative], None)
    ours = losses.in_batch_negatives_loss(anchor, torch.cat([positive, negative]), groups[:7], groups, 0.05)
    assert torch.allclose(ours, expected, atol=1e-5)
    both_ways = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    peer = _sentence_transformers_loss("MultipleNegativesRankingLoss", scale=20.0, **both_ways)
    expected = peer.compute_loss_from_embeddings([anchor, positive], None)
    ours = losses.in_batch_negatives_loss(anchor, positive, groups[:7], groups[:7], 0.05, symmetric=True)
    assert torch.allclose(ours, expected, atol=1e-5)


def test_in_batch_negatives_of_the_same_group_neither_help_nor_hurt():
    anchor, positive, groups = _rows(0), _rows(1), torch.tensor([0, 0, 1, 2, 3, 4, 5])
    moved = positive.clone()
    moved[1] = anchor[0]  # the other text of group 0, now at the first anchor
    kept = [losses.in_batch_negatives_loss(anchor[:1], p, groups[:1], groups) for p in (positive, moved)]
    assert torch.equal(*kept)
    alone = [losses.in_batch_negatives_loss(anchor[:1], p, groups[:1], torch.arange(7)) for p in (positive, moved)]
    assert alone[1] > alone[0]


def test_cosent_loss_equals_sentence_transformers_and_orders_by_score():
    a, b, scores = _rows(0), _rows(1), torch.rand(7, generator=torch.Generator().manual_seed(3))
    peer = _sentence_transformers_loss("CoSENTLoss", scale=20.0)
    expected = peer.compute_loss_from_embeddings([a, b], scores)
    assert torch.allclose(losses.cosent_loss(a, b, scores, 0.05), expected, atol=1e-5)
    similarity = torch.nn.functional.cosine_similarity(a, b)
    assert losses.cosent_loss(a, b, similarity) < losses.cosent_loss(a, b, -similarity)
    assert losses.cosent_loss(a, b, torch.ones(7)) == 0  # no order to learn


def test_distillation_losses_fall_as_the_student_comes_to_its_teacher():
    student, teacher = _rows(0), _rows(1)
    nearer = student + 0.3 * (teacher - student)
    for loss in (losses.distillation_loss, losses.similarity_distillation_loss):
        assert loss(nearer, teacher) < loss(student, teacher)
        assert loss(3.0 * teacher, teacher).item() == pytest.approx(0.0, abs=1e-6)  # length does not matter
    rotation = torch.linalg.qr(_rows(5, 5))[0]
    assert losses.similarity_distillation_loss(teacher @ rotation, teacher).item() == pytest.approx(0.0, abs=1e-5)
    wide = torch.cat([teacher, torch.zeros(7, 3)], dim=1)
    narrow = losses.similarity_distillation_loss(student, teacher).item()
    assert losses.similarity_distillation_loss(student, wide).item() == pytest.approx(narrow, rel=1e-6)


def test_similarity_distillation_equals_a_loop():
    student, teacher, temperature = _rows(0), _rows(1), 0.2
    total = 0.0
    for i in range(7):
        others = [j for j in range(7) if j != i]
        near = [torch.nn.functional.cosine_similarity(x[i], x[others], dim=-1) for x in (teacher, student)]
        p, q = ((n / temperature).softmax(0) for n in near)
        total += float((p * (p / q).log()).sum())
    got = losses.similarity_distillation_loss(student, teacher, temperature)
    assert got.item() == pytest.approx(total / 7, abs=1e-5)


def test_similarities_are_as_exact_under_autocast():
    student, teacher = _rows(0, count=16, dim=64), _rows(1, count=16, dim=64)
    groups = torch.arange(16)
    calls = [
        lambda: losses.similarity_distillation_loss(student, teacher, 0.05),
        lambda: losses.in_batch_negatives_loss(student, teacher, groups, groups, temperature=0.05),
        lambda: losses.batch_triplet_loss(student, teacher, groups, groups, margin=0.3, temperature=0.05),
    ]
    for call in calls:
        expected = call()
        with torch.autocast("cpu", torch.bfloat16):
            assert call().item() == pytest.approx(expected.item(), rel=1e-5)


def test_masked_lm_loss_equals_torch():
    logits, targets = _rows(0, 4, 9), torch.tensor([1, 0, 8, 3])
    assert torch.allclose(losses.masked_lm_loss(logits, targets), torch.nn.CrossEntropyLoss()(logits, targets))
    assert losses.masked_lm_loss(logits[:0], targets[:0]) == 0


def test_matryoshka_equals_sentence_transformers_mean_of_prefixes():
    a, b, scores = _rows(0, 7, 8), _rows(1, 7, 8), torch.rand(7, generator=torch.Generator().manual_seed(3))

    def loss(x, y):
        return losses.cosent_loss(x, y, scores)

    expected = sum(loss(a[:, :d], b[:, :d]) for d in (2, 4, 8)) / 3
    assert torch.allclose(losses.matryoshka(loss, [a, b], [2, 4, 8]), expected)
    assert losses.matryoshka(loss, [a, b], []) == loss(a, b)
    rest = torch.cat([a[:, :2], 5 + a[:, 2:]], dim=1)
    assert losses.matryoshka(loss, [rest, b], [2]) == losses.matryoshka(loss, [a, b], [2])


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, p, n: losses.triplet_loss(a, p, n, 2.0),
        lambda a, p, n: losses.batch_triplet_loss(a, torch.cat([p, n]), torch.arange(1), torch.arange(2), 2.0),
        lambda a, p, n: losses.in_batch_negatives_loss(a, torch.cat([p, n]), torch.arange(1), torch.arange(2), 1.0),
        lambda a, p, n: losses.batch_hard_triplet_loss(torch.cat([a, p, n]), torch.tensor([0, 0, 1]), 2.0),
        lambda a, p, n: losses.semi_hard_triplet_loss(torch.cat([a, p, n]), torch.tensor([0, 0, 1]), 2.0),
        lambda a, p, n: losses.cosent_loss(torch.cat([a, a]), torch.cat([p, n]), torch.tensor([1.0, 0.0]), 1.0),
    ],
    ids=["triplet", "batch_triplet", "in_batch_negatives", "batch_hard", "semi_hard", "cosent"],
)
def test_every_contrastive_loss_has_the_right_sign(loss):
    anchor, near, middle, far, further = (torch.tensor([[math.cos(t), math.sin(t)]]) for t in (0.0, 0.2, 0.6, 1.2, 1.6))
    base = loss(anchor, middle, further)
    assert loss(anchor, near, further) < base  # positive closer: better
    assert loss(anchor, middle, far) > base  # negative closer: worse


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


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_soft_label_loss_equals_torchs_divergence_of_softened_logits(temperature):
    student, teacher = _rows(0), _rows(1)
    oracle = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(student / temperature, 1), torch.softmax(teacher / temperature, 1)
    )
    got = losses.soft_label_loss(student, torch.log_softmax(teacher, 1), temperature)  # log-probabilities do as well
    assert got.item() == pytest.approx(temperature**2 * oracle.item(), abs=1e-6)
    assert losses.soft_label_loss(student, torch.log_softmax(student, 1), temperature).item() == pytest.approx(
        0, abs=1e-6
    )


def test_soft_label_loss_falls_towards_the_teacher_and_rises_away_from_it():
    teacher = torch.log(torch.tensor([[0.6, 0.3, 0.1]]))
    values = [
        losses.soft_label_loss((1 - t) * torch.zeros(1, 3) + t * teacher, teacher, 2.0).item() for t in (0, 0.5, 1)
    ]
    assert values[0] > values[1] > values[2]
    assert losses.soft_label_loss(-teacher, teacher, 2.0).item() > values[0]


def test_soft_label_loss_pulls_down_what_the_teacher_rules_out():
    teacher = torch.tensor([[math.log(0.5), math.log(0.5), -math.inf]])
    student = torch.zeros(1, 3, requires_grad=True)
    loss = losses.soft_label_loss(student, teacher, 2.0)
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad[0, 2] > 0 > student.grad[0, 0]
    assert losses.soft_label_loss(student[:0], teacher[:0], 2.0).item() == 0.0


def test_the_gradient_of_soft_labels_keeps_its_size_as_the_temperature_grows():
    norms = []
    for temperature in (5.0, 50.0):
        student = _rows(0).requires_grad_()
        losses.soft_label_loss(student, torch.log_softmax(_rows(1), 1), temperature).backward()
        norms.append(student.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.2)


def test_focal_tag_loss_of_two_classes_is_torchvisions():
    # softmax over the logits (0, x) is sigmoid(x); the formula is torchvision.ops.sigmoid_focal_loss, alpha < 0
    x, right, gamma = _rows(3)[:, 0], torch.tensor([1, 0, 1, 1, 0, 0, 1]), 2.0
    p, target = x.sigmoid(), right.float()
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(x, target, reduction="none")
    oracle = (cross_entropy * (1 - (p * target + (1 - p) * (1 - target))) ** gamma).mean()
    logits = torch.stack([torch.zeros_like(x), x], dim=1)[None]
    assert losses.tag_loss(logits, right[None], torch.ones(2), focal_gamma=gamma) == pytest.approx(oracle.item())
    plain = torch.nn.functional.cross_entropy(logits[0], right)
    assert losses.tag_loss(logits, right[None], torch.ones(2)) == pytest.approx(plain.item())


def test_focal_tag_loss_turns_to_what_is_read_badly():
    logits, tags = torch.tensor([[[4.0, 0.0], [0.0, 0.5], [9.0, 9.0]]]), torch.tensor([[0, 0, -100]])
    weights = torch.tensor([1.0, 3.0])

    def pull(gamma):  # of the badly read token, as a share of both
        leaf = logits.clone().requires_grad_()
        losses.tag_loss(leaf, tags, weights, focal_gamma=gamma).backward()
        assert leaf.grad[0, 2].abs().sum() == 0  # not annotated
        size = leaf.grad[0].abs().sum(1)
        return (size[1] / size.sum()).item()

    assert pull(0.0) < pull(1.0) < pull(3.0)
    better = logits.clone()
    better[0, 1, 0] += 0.3
    assert losses.tag_loss(better, tags, weights, focal_gamma=2.0) < losses.tag_loss(
        logits, tags, weights, focal_gamma=2.0
    )


def test_uncertainty_weighting_finds_the_variance_and_eases_the_harder_task():
    hard, easy = torch.tensor(3.0), torch.tensor(0.1)
    s = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([s], lr=0.3)
    for _ in range(400):
        optimizer.zero_grad()
        (losses.uncertainty_weighted(hard, s[0]) + losses.uncertainty_weighted(easy, s[1])).backward()
        optimizer.step()
    assert s.exp().tolist() == pytest.approx([6.0, 0.2], rel=1e-3)  # where -L exp(-s) + 1/2 = 0
    at = torch.tensor(0.4)
    assert losses.uncertainty_weighted(hard - 1, at) < losses.uncertainty_weighted(hard, at)
    sigma = at.exp().sqrt()
    assert losses.uncertainty_weighted(hard, at) == pytest.approx((hard / sigma**2 + sigma.log()).item())


def _chain(seed, num_tags):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in ((num_tags,), (num_tags, num_tags), (num_tags,))]


def _score(emissions, tags, start, transitions, end):
    inner = sum(transitions[a, b] for a, b in itertools.pairwise(tags))
    return start[tags[0]] + end[tags[-1]] + sum(row[t] for row, t in zip(emissions, tags, strict=True)) + inner


def test_crf_loss_equals_enumeration_of_all_sequences():
    num_tags, chain = 3, _chain(0, 3)
    emissions = torch.randn(4, 6, num_tags, generator=torch.Generator().manual_seed(1)) * 2
    tags = torch.tensor([[-100, 0, 2, 1, 2, -100], [-100, 1, -100, -100, -100, -100], [-100] * 6,
                         [-100, 2, -100, 2, 0, -100]])  # fmt: skip
    total, count = 0.0, 0
    for row, gold in zip(emissions, tags.tolist(), strict=True):
        places = [t for t, tag in enumerate(gold) if tag != -100]
        if places:
            alternatives = [_score(row[places], seq, *chain)
                            for seq in itertools.product(range(num_tags), repeat=len(places))]  # fmt: skip
            right = _score(row[places], [gold[t] for t in places], *chain)
            total, count = total + torch.logsumexp(torch.stack(alternatives), 0) - right, count + len(places)
    assert losses.crf_loss(emissions, tags, *chain) == pytest.approx((total / count).item(), rel=1e-5)
    padded = torch.cat([emissions, torch.full((4, 3, num_tags), 50.0)], dim=1)
    more = torch.cat([tags, torch.full((4, 3), -100)], dim=1)
    assert losses.crf_loss(padded, more, *chain) == pytest.approx((total / count).item(), rel=1e-5)
    none = torch.full_like(tags, -100)
    assert losses.crf_loss(emissions, none, *chain).item() == 0.0


def test_crf_loss_without_transitions_is_cross_entropy():
    emissions, tags = _rows(0)[None], torch.tensor([[0, 4, 1, 1, 2, -100, 3]])
    zero = torch.zeros(5), torch.zeros(5, 5), torch.zeros(5)
    oracle = torch.nn.functional.cross_entropy(emissions[0], tags[0])
    assert losses.crf_loss(emissions, tags, *zero) == pytest.approx(oracle.item(), rel=1e-5)


def test_crf_loss_falls_as_what_is_right_scores_more_and_survives_large_scores():
    emissions, tags, (start, transitions, end) = _rows(0)[None], torch.tensor([[0, 1, 1, 2, 3, 4, 0]]), _chain(1, 5)
    base = losses.crf_loss(emissions, tags, start, transitions, end)
    right, wrong = transitions.clone(), transitions.clone()
    right[0, 1] += 1
    wrong[0, 2] += 1
    assert losses.crf_loss(emissions, tags, start, right, end) < base
    assert losses.crf_loss(emissions, tags, start, wrong, end) > base
    large = (emissions * 1e4).requires_grad_()
    losses.crf_loss(large, tags, start, (transitions * 100).requires_grad_(), end).backward()
    assert torch.isfinite(large.grad).all()
