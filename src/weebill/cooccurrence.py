"""Word vectors by counting: tokens that stand near the same tokens get similar ones. Trains nothing, reads no files."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from weebill.counting import blocks_of

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

WINDOW = 5  # tokens to either side
SMOOTHING = 0.75  # of how often a token is a neighbour: rare neighbours would tell too much
MOST_NEIGHBOURS = 8192  # the most frequent tokens count as neighbours, all of them where the vocabulary is no larger
LARGEST_TABLE = 2**27  # numbers: of a larger vocabulary, fewer neighbours
NO_TOKEN = -1
TOGETHER = 500_000  # tokens, counted at once
ROUNDS = 4  # of the randomised SVD


def neighbour_vectors(texts: Iterable[Sequence[int]], vocab_size: int, dim: int) -> Floats:
    """Return vectors of tokens, such that products of two show which neighbours they share; 0 for a token with none.

    Positive pointwise mutual information of tokens and their neighbours, factored by an SVD: what word2vec's skip-gram
    with negative samples approaches step by step. Draws from torch's generator.

    Args:
        texts: token ids, without special tokens.
        vocab_size: one more than the highest id.
        dim: width of the vectors; more than tokens that were seen is filled up with 0.

    Shape: -> (V, D)

    Source: Levy and Goldberg 2014; smoothing and weights as in Levy, Goldberg and Dagan 2015.
    """
    blocks = [_joined(some) for some in blocks_of(texts, TOGETHER)]
    times_V = sum((np.bincount(ids[ids != NO_TOKEN], minlength=vocab_size) for ids in blocks), np.zeros(vocab_size))
    most = min(MOST_NEIGHBOURS, max(dim, LARGEST_TABLE // vocab_size))
    contexts = np.sort((-times_V).argsort(kind="stable")[:most])
    pmi_VC = torch.from_numpy(positive_pmi(neighbour_counts(blocks, vocab_size, contexts)))
    size = min(dim, *pmi_VC.shape)
    u_VD, s_D, _ = torch.svd_lowrank(pmi_VC, min(size + 10, *pmi_VC.shape), ROUNDS)
    vectors_VD = np.zeros((vocab_size, dim), np.float32)
    told_V = pmi_VC.any(dim=1)  # of other tokens the SVD has rounding errors
    vectors_VD[told_V, :size] = (u_VD * s_D.sqrt())[told_V, :size].numpy()
    return vectors_VD


def neighbour_counts(blocks: Iterable[Ints], vocab_size: int, contexts: npt.NDArray[np.intp]) -> Floats:
    """Return how often each token has each context within WINDOW tokens; one at a distance of d counts 1 / d.

    Args:
        blocks: token ids; NO_TOKEN, WINDOW times, between texts.
        vocab_size: one more than the highest id.
        contexts: the tokens that count as neighbours.

    Shape: -> (V, C)

    Example:
        >>> neighbour_counts([np.array([0, 1, 2])], 3, np.arange(3)).tolist()
        [[0.0, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.0]]
    """
    counts_VC = np.zeros((vocab_size, len(contexts)), np.float32)
    number_of = np.full(vocab_size + 1, NO_TOKEN)  # and of NO_TOKEN itself, the last
    number_of[contexts] = np.arange(len(contexts))
    for ids_N in blocks:
        for distance in range(1, WINDOW + 1):
            earlier_N, later_N = ids_N[:-distance], ids_N[distance:]
            for tokens_N, near_N in ((earlier_N, number_of[later_N]), (later_N, number_of[earlier_N])):
                both_N = (tokens_N != NO_TOKEN) & (near_N != NO_TOKEN)
                pairs = tokens_N[both_N].astype(np.int64) * len(contexts) + near_N[both_N]
                found, times = np.unique(pairs, return_counts=True)
                counts_VC.reshape(-1)[found] += times / np.float32(distance)
    return counts_VC


def positive_pmi(counts_VC: Floats) -> Floats:
    """Return max(0, log p(c | v) / p(c)), where p(c) is smoothed; 0 where a token never has a context.

    Example:
        >>> positive_pmi(np.array([[2.0, 0.0], [0.0, 2.0]])).round(2).tolist()
        [[0.69, 0.0], [0.0, 0.69]]
    """
    smoothed_C = counts_VC.sum(axis=0) ** SMOOTHING
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_VC: Floats = counts_VC / counts_VC.sum(axis=1, keepdims=True)
        ratio_VC /= smoothed_C / smoothed_C.sum()
        np.log(ratio_VC, out=ratio_VC)
    np.nan_to_num(ratio_VC, copy=False, nan=0, neginf=0)  # where a token or a context was not seen
    np.maximum(ratio_VC, 0, out=ratio_VC)
    return ratio_VC


def _joined(texts: Sequence[Sequence[int]]) -> Ints:
    gap = [NO_TOKEN] * WINDOW
    return np.fromiter(chain.from_iterable(chain(text, gap) for text in texts), np.int32)
