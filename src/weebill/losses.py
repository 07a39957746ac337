"""Losses as pure functions of tensors; no module, no state, no data. Smaller is better for every one of them."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distance(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """Return 1 - cosine similarity of each row pair, in [0, 2]: 0 = same direction.

    Shape: (N, D), (N, D) -> (N,)
    """
    return 1.0 - F.cosine_similarity(a_ND, b_ND, dim=-1)


def triplet_loss(anchor_ND: Tensor, positive_ND: Tensor, negative_ND: Tensor, margin: float = 0.5) -> Tensor:
    """Return mean(max(0, d(anchor, positive) - d(anchor, negative) + margin)) with d the cosine distance.

    Falls as the positive comes closer to the anchor, rises as the negative does.

    Shape: three of (N, D) -> ()
    Source: equals torch.nn.TripletMarginWithDistanceLoss with 1 - cosine similarity; Schroff et al. 2015, equation 1.
    """
    gap_N = cosine_distance(anchor_ND, positive_ND) - cosine_distance(anchor_ND, negative_ND)
    return F.relu(gap_N + margin).mean()


def batch_triplet_loss(
    anchor_ND: Tensor,
    candidate_MD: Tensor,
    group_N: Tensor,
    candidate_group_M: Tensor,
    margin: float = 0.5,
    temperature: float = 0.05,
) -> Tensor:
    """Return the triplet loss with every candidate of another group as a negative of every anchor.

    Candidate i < N is the positive of anchor i. Texts of one group are known to mean the same, so they are never each
    other's negatives. An anchor's triplets are weighted by softmax(similarity(anchor, negative) / temperature), without
    gradient through the weights: a low temperature counts its hardest negatives alone, a high one all alike. The
    hardest alone let the embedding collapse early in training, all alike learn little late (docs/experiments.md).

    Shape: (N, D), (M, D), (N,), (M,) -> ()
    Source: the loss of Schroff et al. 2015 over the triplets of Hermans et al. 2017 (batch all); the weighting is ours,
        after Wang and Liu 2021 (the temperature of contrastive losses as hardness).
    """
    distance_NM = 1.0 - _cosine_similarities(anchor_ND, candidate_MD)
    same_NM = group_N[:, None] == candidate_group_M[None, :]
    weight_NM = (-distance_NM.detach() / temperature).masked_fill(same_NM, -torch.inf).softmax(dim=1)
    weight_NM = weight_NM.nan_to_num()  # an anchor without any negative adds nothing
    gap_NM = distance_NM.diagonal()[:, None] - distance_NM
    return (F.relu(gap_NM + margin) * weight_NM).sum(dim=1).mean()


def batch_hard_triplet_loss(embedding_ND: Tensor, group_N: Tensor, margin: float = 0.5) -> Tensor:
    """Return the triplet loss of each text's furthest positive and closest negative of the batch.

    Positives are the other texts of its group, negatives the texts of other groups; texts that lack either are left
    out, and a batch of such texts alone gives 0.

    Shape: (N, D), (N,) -> ()
    Source: Hermans et al. 2017, equation 5; equals sentence-transformers' BatchHardTripletLoss with cosine distance.
    """
    distance_NN = 1.0 - _cosine_similarities(embedding_ND, embedding_ND)
    positive_NN, negative_NN = _positives_and_negatives(group_N)
    furthest_N = distance_NN.masked_fill(~positive_NN, -torch.inf).amax(dim=1)
    closest_N = distance_NN.masked_fill(~negative_NN, torch.inf).amin(dim=1)
    kept_N = positive_NN.any(dim=1) & negative_NN.any(dim=1)
    return _mean(F.relu(furthest_N - closest_N + margin), kept_N)


def semi_hard_triplet_loss(embedding_ND: Tensor, group_N: Tensor, margin: float = 0.5) -> Tensor:
    """Return the triplet loss of every positive pair of the batch with its semi-hard negative.

    That is the closest text of another group that is still further from the anchor than the positive is; where there
    is none, the furthest text of another group. Gentler than the hardest negative, which may be a mislabelled one.

    Shape: (N, D), (N,) -> ()
    Source: Schroff et al. 2015, section 3.2; equals sentence-transformers' BatchSemiHardTripletLoss with cosine
        distance.
    """
    distance_NN = 1.0 - _cosine_similarities(embedding_ND, embedding_ND)
    positive_NN, negative_NN = _positives_and_negatives(group_N)
    further_NPN = (distance_NN[:, None, :] > distance_NN[:, :, None]) & negative_NN[:, None, :]
    closest_NP = torch.where(further_NPN, distance_NN[:, None, :], torch.inf).amin(dim=2)
    furthest_N1 = distance_NN.masked_fill(~negative_NN, -torch.inf).amax(dim=1, keepdim=True)
    negative_NP = torch.where(further_NPN.any(dim=2), closest_NP, furthest_N1)
    kept_NP = positive_NN & negative_NN.any(dim=1, keepdim=True)
    return _mean(F.relu(distance_NN - negative_NP + margin), kept_NP)


def in_batch_negatives_loss(
    anchor_ND: Tensor,
    candidate_MD: Tensor,
    group_N: Tensor,
    candidate_group_M: Tensor,
    temperature: float = 0.05,
    symmetric: bool = False,
) -> Tensor:
    """Return InfoNCE: the cross-entropy of finding each anchor's positive among all candidates of the batch.

    Candidate i < N is the positive of anchor i; other candidates of the anchor's group are neither right nor wrong.
    Falls as the positive comes closer, rises as any other candidate does. Symmetric adds the way back, from positives
    to anchors, and halves the sum.

    Shape: (N, D), (M, D), (N,), (M,) -> ()
    Source: van den Oord et al. 2018, equation 4, with cosine similarity; equals sentence-transformers'
        MultipleNegativesRankingLoss (and its symmetric twin) with scale 1 / temperature where every group is new.
    """
    logits_NM = _cosine_similarities(anchor_ND, candidate_MD) / temperature
    count = len(anchor_ND)
    itself_NM = torch.eye(count, len(candidate_MD), dtype=torch.bool, device=logits_NM.device)
    same_NM = (group_N[:, None] == candidate_group_M[None, :]) & ~itself_NM
    logits_NM = logits_NM.masked_fill(same_NM, -torch.inf)
    right_N = torch.arange(count, device=logits_NM.device)
    loss = F.cross_entropy(logits_NM, right_N)
    return (loss + F.cross_entropy(logits_NM[:, :count].T, right_N)) / 2 if symmetric else loss


def cosent_loss(a_ND: Tensor, b_ND: Tensor, score_N: Tensor, temperature: float = 0.05) -> Tensor:
    """Return log(1 + sum exp((similarity(j) - similarity(i)) / temperature)) over pairs i scored higher than j.

    Only the order of the scores counts, as in the rank correlation it stands for: it falls as similarities come into
    the order of the scores.

    Shape: (N, D), (N, D), (N,) -> ()
    Source: Su 2022 (CoSENT), https://kexue.fm/archives/8847; equals sentence-transformers' CoSENTLoss, scale
        1 / temperature.
    """
    similarity_N = F.cosine_similarity(a_ND, b_ND, dim=-1) / temperature
    excess_NN = similarity_N[None, :] - similarity_N[:, None]
    higher_NN = score_N[:, None] > score_N[None, :]
    return torch.logsumexp(torch.cat([excess_NN.new_zeros(1), excess_NN[higher_NN]]), dim=0)


def distillation_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Return the mean cosine distance between a student's embeddings and its teacher's.

    Shape: (N, D), (N, D) -> ()
    Source: Reimers and Gurevych 2020, equation 1, by direction alone (they use the squared error), since cosine is what
        embeddings are compared with.
    """
    return cosine_distance(student_ND, teacher_ND).mean()


def similarity_distillation_loss(student_ND: Tensor, teacher_ND: Tensor, temperature: float = 0.05) -> Tensor:
    """Return how far the student's ranking of the batch's other texts is from the teacher's, for each text, in nats.

    The divergence KL(teacher || student) of softmax(similarity / temperature) over the other texts. Dimensions may
    differ: only similarities are compared.

    Shape: (N, D), (N, E) -> ()
    Source: Fang et al. 2021 (SEED), equation 3, with the batch in place of its queue.
    """
    itself_NN = torch.eye(len(student_ND), dtype=torch.bool, device=student_ND.device)
    lowest = torch.finfo(student_ND.dtype).min
    student_NN, teacher_NN = (
        (_cosine_similarities(x, x) / temperature).masked_fill(itself_NN, lowest) for x in (student_ND, teacher_ND)
    )
    return F.kl_div(student_NN.log_softmax(1), teacher_NN.log_softmax(1), log_target=True, reduction="batchmean")


def soft_label_loss(logits_NC: Tensor, teacher_log_probs_NC: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher || student), the mean over rows, both softened by the temperature T; no row gives 0.

    The teacher's softened distribution is its probabilities to the power 1/T, scaled to sum to 1: what softmax(logits
    / T) is, without the logits. T² keeps the gradient's size as T grows.

    Args:
        logits_NC: the student's.
        teacher_log_probs_NC: minus infinity for what the teacher rules out.
        temperature: T.

    Shape: (N, C), (N, C) -> ()
    Source: Hinton et al. 2015, section 2; torch.nn.functional.kl_div is the oracle.
    """
    teacher_NC = (teacher_log_probs_NC / temperature).softmax(dim=-1)
    student_NC = (logits_NC / temperature).log_softmax(dim=-1)
    return F.kl_div(student_NC, teacher_NC, reduction="sum") * temperature**2 / max(1, len(logits_NC))


def masked_lm_loss(logits_NV: Tensor, token_ids_N: Tensor) -> Tensor:
    """Return the mean cross-entropy of the masked tokens, in nats per token; no token gives 0.

    Shape: (N, V), (N,) -> ()
    Source: Devlin et al. 2019, section 3.1.
    """
    return F.cross_entropy(logits_NV, token_ids_N, reduction="sum") / max(1, len(token_ids_N))


def matryoshka(loss: Callable[..., Tensor], embeddings: Sequence[Tensor], dims: Sequence[int]) -> Tensor:
    """Return the mean of a loss over embeddings cut to their first `dims` dimensions each.

    So that a prefix of the embedding is an embedding too. No dims: the loss itself.

    Args:
        loss: a function of the embeddings alone.
        embeddings: its arguments, each (…, D).
        dims: widths, each at most D; name D itself to train the whole embedding too.

    Source: Kusupati et al. 2022, equation 1, all weights 1 / len(dims).

    Example:
        >>> first, second = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[1.0, 0.0, -9.0]])
        >>> matryoshka(lambda a, b: cosine_distance(a, b).mean(), [first, second], [2]).item()
        0.0
    """
    if not dims:
        return loss(*embeddings)
    return torch.stack([loss(*(e[..., :dim] for e in embeddings)) for dim in dims]).mean()


def _cosine_similarities(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    # in full precision: divided by a small temperature, what bf16 rounds off would be much
    with torch.autocast(a_ND.device.type, enabled=False):
        return F.normalize(a_ND, dim=-1) @ F.normalize(b_MD, dim=-1).T


def _positives_and_negatives(group_N: Tensor) -> tuple[Tensor, Tensor]:
    same_NN = group_N[:, None] == group_N[None, :]
    return same_NN & ~torch.eye(len(group_N), dtype=torch.bool, device=group_N.device), ~same_NN


def _mean(values: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept, values, 0.0).sum() / kept.sum().clamp(min=1)


def intent_loss(intent_logits_BC: Tensor, intents_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over rows with an intent; rows labelled -100 are ignored, none left gives 0.

    Shape: (B, C), (B,) -> ()
    """
    total = F.cross_entropy(intent_logits_BC, intents_B, label_smoothing=label_smoothing, reduction="sum")
    return total / (intents_B != -100).sum().clamp(min=1)


def several_intents_loss(intent_logits_BC: Tensor, intents_BC: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the binary cross-entropy of each intent, summed, the mean over rows; no row gives 0.

    That is -log of the probability of the row's set of intents, each decided by itself.

    Args:
        intent_logits_BC: of each intent; its probability is the sigmoid.
        intents_BC: 1 for an intent that the row has, else 0.
        label_smoothing: share of each decision that is taken for both answers alike.

    Shape: (B, C), (B, C) -> ()
    Source: torch.nn.BCEWithLogitsLoss; with smoothing, torch.nn.CrossEntropyLoss of two classes with its own.
    """
    target_BC = intents_BC * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(intent_logits_BC, target_BC, reduction="sum") / max(1, len(target_BC))


def tag_loss(
    tag_logits_BTL: Tensor,
    tags_BT: Tensor,
    weights_L: Tensor,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Return the class-weighted mean cross-entropy over tokens with a tag; tokens labelled -100 are ignored.

    With `focal_gamma` each token counts (1 - p) ** gamma, p = probability of its tag: the more, the worse it is read.

    Shape: (B, T, L), (B, T), (L,) -> ()
    Source: torch.nn.CrossEntropyLoss with `weight`: the sum is divided by the weights of the tokens counted. Focal: Lin
        et al. 2017, equation 5, with softmax; two classes give torchvision.ops.sigmoid_focal_loss.
    """
    tags_N = tags_BT.flatten()
    kept_N = tags_N != -100
    logits_NL = tag_logits_BTL.flatten(0, 1)
    loss_N = F.cross_entropy(
        logits_NL, tags_N, weight=weights_L, label_smoothing=label_smoothing, reduction="none" if focal_gamma else "sum"
    )
    if focal_gamma:
        right_N1 = tags_N.clamp(min=0)[:, None]
        loss_N = loss_N * (1 - logits_NL.softmax(dim=1).gather(1, right_N1)[:, 0]) ** focal_gamma
    return loss_N.sum() / weights_L[tags_N[kept_N]].sum().clamp(min=1e-9)


def uncertainty_weighted(loss: Tensor, log_variance: Tensor) -> Tensor:
    """Return loss / σ² + log σ, to be minimised over σ too: a task that stays hard counts less.

    At a loss of L the best σ² is 2·L. Unlike a loss, the sum of such terms may be negative.

    Shape: (), () -> ()
    Source: Kendall, Gal and Cipolla 2018, equation 10, in log σ² for stability.

    Example:
        >>> uncertainty_weighted(torch.tensor(3.0), torch.tensor(0.0)).item()
        3.0
    """
    return torch.exp(-log_variance) * loss + 0.5 * log_variance


def crf_loss(emissions_BTL: Tensor, tags_BT: Tensor, start_L: Tensor, transitions_LL: Tensor, end_L: Tensor) -> Tensor:
    """Return the negative log-likelihood of tag sequences under a linear chain, per tag; none gives 0.

    A sequence's score is the sum of its emissions, of the transitions from each tag to the next, of `start_L` of its
    first tag and `end_L` of its last. Tokens labelled -100 are no part of it: their neighbours follow each other.

    Args:
        emissions_BTL: a score for every token and tag.
        tags_BT: the right tags.
        start_L: scores of first tags.
        transitions_LL: scores, from row to column.
        end_L: scores of last tags.

    Shape: (B, T, L), (B, T), (L,), (L, L), (L,) -> ()
    Source: Lafferty et al. 2001; equals pytorch-crf's CRF with reduction="token_mean".
    """
    in_chain_BT = tags_BT != -100
    # chains move to the left, so that each of the B rows is read from column 0 without gaps
    order_BT = (~in_chain_BT).long().argsort(dim=1, stable=True)[:, : max(1, int(in_chain_BT.sum(1).max()))]
    emissions_BTL = emissions_BTL.gather(1, order_BT[..., None].expand(-1, -1, emissions_BTL.shape[2]))
    mask_BT, tags_BT = in_chain_BT.gather(1, order_BT), tags_BT.gather(1, order_BT).clamp(min=0)
    length_B = mask_BT.sum(dim=1)
    gold_BT = emissions_BTL.gather(2, tags_BT[..., None])[..., 0] * mask_BT
    steps_BT = transitions_LL[tags_BT[:, :-1], tags_BT[:, 1:]] * mask_BT[:, 1:]
    last_B = tags_BT.gather(1, (length_B - 1).clamp(min=0)[:, None])[:, 0]
    gold_B = gold_BT.sum(1) + steps_BT.sum(1) + start_L[tags_BT[:, 0]] + end_L[last_B]
    all_B = _log_partition(emissions_BTL, mask_BT, start_L, transitions_LL, end_L)
    return torch.where(length_B > 0, all_B - gold_B, 0.0).sum() / length_B.sum().clamp(min=1)


def _log_partition(
    emissions_BTL: Tensor, mask_BT: Tensor, start_L: Tensor, transitions_LL: Tensor, end_L: Tensor
) -> Tensor:
    """Return the log of the summed exp(score) of all sequences, by the forward algorithm.

    The sum over previous tags is a product with exp(transitions): at 111 tags a tenth of the time of a logsumexp.
    """
    largest = transitions_LL.detach().max()
    powers_LL = (transitions_LL - largest).exp()
    score_BL = start_L + emissions_BTL[:, 0]
    for emission_BL, mask_B in zip(emissions_BTL.unbind(1)[1:], mask_BT.unbind(1)[1:], strict=True):
        top_B1 = score_BL.detach().max(dim=1, keepdim=True).values
        reached_BL = ((score_BL - top_B1).exp() @ powers_LL).clamp(min=torch.finfo(score_BL.dtype).tiny)
        score_BL = torch.where(mask_B[:, None], reached_BL.log() + top_B1 + largest + emission_BL, score_BL)
    return torch.logsumexp(score_BL + end_L, dim=1)
