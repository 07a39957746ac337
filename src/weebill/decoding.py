"""Tag logits -> the best legal sequence of tags: no I-x but after B-x or I-x, no change inside a word. Numpy only.

Where each token's best tag makes a legal sequence, as it mostly does, that is it; Viterbi searches the rest, and all
with the transitions of a CRF.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]


class Transitions(NamedTuple):
    """Learned scores of a CRF: of first tags, of a column's tag after a row's, of last tags.

    Shape: (L,), (L, L), (L,)
    """

    start_L: npt.NDArray[np.float32]
    transitions_LL: npt.NDArray[np.float32]
    end_L: npt.NDArray[np.float32]


class TagGrammar:
    """Which BIO tag may follow which.

    On MASSIVE's dev rows one model reads strict spans with F1 69.9 by each token's best tag, 72.9 by legal sequences,
    74.3 with whole words too (docs/experiments.md).

    Args:
        tags: "O", and "B-x" with its "I-x", in any order.
        transitions: added to the logits of a sequence; default: nothing is.

    Example:
        >>> grammar = TagGrammar(["O", "B-a", "I-a"])
        >>> logits = np.log([[[0.4, 0.35, 0.25], [0.1, 0.2, 0.7]]])  # the best tags, O I-a, are no sequence
        >>> grammar.decode(logits, np.array([[True, True]]), np.array([[False, False]])).tolist()
        [[1, 2]]
    """

    def __init__(self, tags: Sequence[str], transitions: Transitions | None = None):
        number = {tag: i for i, tag in enumerate(tags)}
        self.outside = number["O"]
        self.insides = np.array([i for i, tag in enumerate(tags) if tag.startswith("I-")], dtype=np.int64)
        self.begins = np.array([number["B-" + tags[i][2:]] for i in self.insides], dtype=np.int64)
        self.begin_of = np.full(len(tags), -1)  # of an inside tag; -1 for others
        self.begin_of[self.insides] = self.begins
        self.is_begin = np.zeros(len(tags), dtype=bool)
        self.is_begin[self.begins] = True
        self.order = np.array([self.outside, *self.begins, *self.insides], dtype=np.int64)  # as Viterbi has them
        self.chain = None if transitions is None else self._legal_only(transitions)

    def decode(self, logits_BTL: npt.NDArray[np.float32], reads_BT: Bools, continues_BT: Bools) -> Ints:
        """Return the tags with the highest sum of logits and transitions among legal sequences.

        Args:
            logits_BTL: one score per token and tag.
            reads_BT: False = the token does not count (padding, special tokens); its tag means nothing.
            continues_BT: True = the token goes on with the word of the token before, so it can begin no entity and end
                none: O after O, I-x after B-x or I-x.

        Shape: (B, T, L), (B, T), (B, T) -> (B, T)
        Source: Viterbi 1967, with transitions of weight minus infinity, or 0 or what a CRF has learnt.
        """
        if self.chain is not None:
            return _best_in_chain(*self.chain, logits_BTL, reads_BT, continues_BT)
        best_BT: Ints = logits_BTL.argmax(axis=-1)
        wrong_B = self._illegal(best_BT, reads_BT, continues_BT)
        if wrong_B.any():
            best_BT[wrong_B] = self._viterbi(logits_BTL[wrong_B], reads_BT[wrong_B], continues_BT[wrong_B])
        return best_BT

    def _legal_only(self, scores: Transitions) -> tuple[Floats, Floats, Floats, Floats]:
        """Return first tags, steps to another word, steps inside a word and last tags, impossible ones minus inf."""
        numbers_L = np.arange(len(self.begin_of))
        to_inside_L = self.begin_of >= 0
        same_entity_LL = (numbers_L[:, None] == self.begin_of) | (np.diag(to_inside_L))
        legal_LL = same_entity_LL | ~to_inside_L
        inside_word_LL = same_entity_LL.copy()
        inside_word_LL[self.outside, self.outside] = True
        start_L = np.where(to_inside_L, -np.inf, scores.start_L)
        step_LL, goes_on_LL = (np.where(m, scores.transitions_LL, -np.inf) for m in (legal_LL, inside_word_LL))
        return start_L, step_LL, goes_on_LL, scores.end_L

    def _illegal(self, tags_BT: Ints, reads_BT: Bools, continues_BT: Bools) -> Bools:
        """Return which rows are no legal sequence; N counts the tokens of all rows that are read."""
        rows_N, columns_N = reads_BT.nonzero()
        tags_N = tags_BT[rows_N, columns_N]
        before_N = np.full_like(tags_N, self.outside)
        before_N[1:] = np.where(rows_N[1:] == rows_N[:-1], tags_N[:-1], self.outside)
        begin_N = self.begin_of[tags_N]
        same_N, after_begin_N = before_N == tags_N, before_N == begin_N
        legal_N = after_begin_N | same_N | (begin_N < 0)
        if continues_BT.any():
            goes_on_N = after_begin_N | (same_N & ~self.is_begin[tags_N])
            legal_N = np.where(continues_BT[rows_N, columns_N], goes_on_N, legal_N)
        wrong_B = np.zeros(len(tags_BT), dtype=bool)
        wrong_B[rows_N[~legal_N]] = True
        return wrong_B

    def _viterbi(self, logits_BTL: npt.NDArray[np.float32], reads_BT: Bools, continues_BT: Bools) -> Ints:
        """Return the best legal tags; in here they are numbered O, B-a, B-b, …, I-a, I-b, …"""
        batch, length, num_tags = logits_BTL.shape
        labels = len(self.begins)
        begins, insides = slice(1, 1 + labels), slice(1 + labels, None)
        logits_TBL = logits_BTL[:, :, self.order].transpose(1, 0, 2)
        score_BL = np.full((batch, num_tags), -np.inf)
        score_BL[:, 0] = 0.0  # before the text nothing can be continued
        best_TB = np.empty((length, batch), dtype=np.int64)  # of the token before
        begun_TBI = np.empty((length, batch, labels), dtype=bool)  # whether an inside tag is best after its begin
        for t in range(length):
            reached_BL = np.empty_like(score_BL)
            reached_BL[:, : 1 + labels] = score_BL.max(axis=1, keepdims=True)
            np.maximum(score_BL[:, begins], score_BL[:, insides], out=reached_BL[:, insides])
            best_TB[t] = score_BL.argmax(axis=1)
            np.greater_equal(score_BL[:, begins], score_BL[:, insides], out=begun_TBI[t])
            goes_on_B = continues_BT[:, t]
            if goes_on_B.any():
                reached_BL[goes_on_B, begins] = -np.inf
                reached_BL[goes_on_B, 0] = score_BL[goes_on_B, 0]
            reached_BL += logits_TBL[t]
            score_BL = np.where(reads_BT[:, t, None], reached_BL, score_BL)
        tags_BT = np.full((batch, length), self.outside)
        for row, tag in enumerate(score_BL.argmax(axis=1).tolist()):
            for t in np.flatnonzero(reads_BT[row])[::-1].tolist():
                tags_BT[row, t] = self.order[tag]
                if tag > labels:
                    tag = tag - labels if begun_TBI[t, row, tag - labels - 1] else tag
                else:
                    tag = 0 if continues_BT[row, t] else int(best_TB[t, row])
        return tags_BT


def _best_in_chain(
    start_L: Floats,
    step_LL: Floats,
    goes_on_LL: Floats,
    end_L: Floats,
    logits_BTL: Floats,
    reads_BT: Bools,
    continues_BT: Bools,
) -> Ints:
    """Return the tags with the highest sum of logits and transitions; tokens that are not read are stepped over.

    Shape: (L,), (L, L), (L, L), (L,), (B, T, L), (B, T), (B, T) -> (B, T)
    """
    batch, length, num_tags = logits_BTL.shape
    itself_L = np.arange(num_tags)
    score_BL, begun_B = np.zeros((batch, num_tags)), np.zeros(batch, dtype=bool)
    before_TBL = np.empty((length, batch, num_tags), dtype=np.int64)
    for t in range(length):
        steps_BLL = np.where(continues_BT[:, t, None, None], goes_on_LL, step_LL) + score_BL[:, :, None]
        before_TBL[t] = steps_BLL.argmax(axis=1)
        reached_BL = np.where(begun_B[:, None], steps_BLL.max(axis=1), start_L) + logits_BTL[:, t]
        reads_B1 = reads_BT[:, t, None]
        before_TBL[t] = np.where(reads_B1 & begun_B[:, None], before_TBL[t], itself_L)
        score_BL = np.where(reads_B1, reached_BL, score_BL)
        begun_B |= reads_BT[:, t]
    tags_BT = np.empty((batch, length), dtype=np.int64)
    best_B, rows_B = (score_BL + end_L).argmax(axis=1), np.arange(batch)
    for t in reversed(range(length)):
        tags_BT[:, t] = best_B
        best_B = before_TBL[t, rows_B, best_B]
    return tags_BT
