"""Losses as pure functions of tensors; no module, no state, no data. Smaller is better for every one of them."""

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
    positive_ND: Tensor,
    negative_ND: Tensor,
    group_N: Tensor,
    margin: float = 0.5,
    temperature: float = 0.05,
) -> Tensor:
    """Return the triplet loss with every positive and negative of the batch as a negative of every anchor.

    An anchor's triplets are weighted by softmax(similarity(anchor, negative) / temperature), without gradient through
    the weights: a low temperature counts its hardest negatives alone, a high one all alike. The hardest alone let the
    embedding collapse early in training, all alike learn little late (docs/experiments.md). A candidate of the anchor's
    own group (texts known to mean the same) is never a negative; the negative given with the anchor is.

    Shape: three of (N, D), group ids (N,) -> ()
    Source: the loss of Schroff et al. 2015 over the triplets of Hermans et al. 2017 (batch all); the weighting is ours,
        after Wang and Liu 2021 (the temperature of contrastive losses as hardness).
    """
    candidates_MD = torch.cat([positive_ND, negative_ND])
    distance_NM = 1.0 - F.normalize(anchor_ND, dim=-1) @ F.normalize(candidates_MD, dim=-1).T
    same_NN = group_N[:, None] == group_N[None, :]
    itself_NN = torch.eye(len(group_N), dtype=torch.bool, device=group_N.device)
    forbidden_NM = torch.cat([same_NN, same_NN & ~itself_NN], dim=1)
    weight_NM = (-distance_NM.detach() / temperature).masked_fill(forbidden_NM, -torch.inf).softmax(dim=1)
    gap_NM = distance_NM.diagonal()[:, None] - distance_NM
    return (F.relu(gap_NM + margin) * weight_NM).sum(dim=1).mean()


def intent_loss(intent_logits_BC: Tensor, intents_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over rows with an intent; rows labelled -100 are ignored, none left gives 0.

    Shape: (B, C), (B,) -> ()
    """
    total = F.cross_entropy(intent_logits_BC, intents_B, label_smoothing=label_smoothing, reduction="sum")
    return total / (intents_B != -100).sum().clamp(min=1)


def tag_loss(tag_logits_BTL: Tensor, tags_BT: Tensor, weights_L: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the class-weighted mean cross-entropy over tokens with a tag; tokens labelled -100 are ignored.

    Shape: (B, T, L), (B, T), (L,) -> ()
    Source: torch.nn.CrossEntropyLoss with `weight`: the sum is divided by the weights of the tokens counted.
    """
    tags_N = tags_BT.flatten()
    kept_N = tags_N != -100
    total = F.cross_entropy(
        tag_logits_BTL.flatten(0, 1), tags_N, weight=weights_L, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / weights_L[tags_N[kept_N]].sum().clamp(min=1e-9)
