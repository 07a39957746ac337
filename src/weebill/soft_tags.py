"""Tag distributions from one tokenization to another, by way of words. Numpy only; knows no models and no files.

Teacher and student cut a text into different tokens, but words are words to both. So a teacher's tokens say what each
word is, and a student's token takes the distribution of the word it begins in. Two things keep B- and I- right:

- A word of several teacher tokens begins an entity in its first token alone: the later ones say I-x in an entity x,
  whether the word begins it or goes on in it. They count as that evidence for both.
- A token that begins inside a word begins no entity: what B-x had goes to I-x. So does a teacher's token that covers
  several words, in all but its first.

Axis letters as in schema.py, and U words of a text or of many.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from weebill.decoding import TagGrammar
from weebill.tags import is_inside_word

Floats = npt.NDArray[np.floating]
Span = tuple[int, int]
NO_WORD = -1
_PIECE = re.compile(r"[^\W_]+|\S")
_CHARACTER = re.compile(r"\S")


def word_spans(text: str, whole_words: bool = True) -> list[Span]:
    """Return the spans between which entities may begin and end, in order.

    With `whole_words` a run of letters, digits and their marks, or any other character alone (see
    `tags.is_inside_word`); without, every character that is no space.

    Example:
        >>> text = "at 9am, anna's"
        >>> [text[a:b] for a, b in word_spans(text)]
        ['at', '9am', ',', 'anna', "'", 's']
        >>> [text[a:b] for a, b in word_spans(text, whole_words=False)][:5]
        ['a', 't', '9', 'a', 'm']
    """
    if not whole_words:
        return [match.span() for match in _CHARACTER.finditer(text)]
    spans: list[Span] = []
    for match in _PIECE.finditer(text):
        start, end = match.span()
        if spans and spans[-1][1] == start and is_inside_word(text, start):  # a combining mark
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def words_begun_in(offsets: Sequence[Span], words: Sequence[Span]) -> tuple[list[int], list[bool]]:
    """Return for each token the number of the word it begins in, NO_WORD if it covers no text; and whether inside it.

    Example:
        >>> words_begun_in([(0, 0), (0, 1), (1, 4), (5, 7), (0, 0)], [(0, 4), (5, 7)])
        ([-1, 0, 0, 1, -1], [False, False, True, False, False])
    """
    begun, later, at = [], [], 0
    for start, end in offsets:
        while start < end and at < len(words) and words[at][1] <= start:
            at += 1
        known = start < end and at < len(words) and words[at][0] <= start
        begun.append(at if known else NO_WORD)
        later.append(known and words[at][0] < start)
    return begun, later


def inside(log_probs_NL: Floats, grammar: TagGrammar) -> Floats:
    """Return the distributions where no entity can begin: I-x takes what B-x had.

    Example:
        >>> grammar = TagGrammar(["O", "B-a", "I-a"])
        >>> np.exp(inside(np.log([[0.5, 0.3, 0.2]]), grammar)).round(6).tolist()
        [[0.5, 0.0, 0.5]]
    """
    out = log_probs_NL.copy()
    out[:, grammar.insides] = np.logaddexp(log_probs_NL[:, grammar.begins], log_probs_NL[:, grammar.insides])
    out[:, grammar.begins] = -np.inf
    return out


def token_log_probs(log_probs_NL: Floats, later_N: npt.NDArray[np.bool_], grammar: TagGrammar) -> Floats:
    """Return the distributions of tokens, given those of the words they begin in and whether inside them.

    Shape: (N, L), (N,) -> (N, L)
    """
    out_NL = log_probs_NL.copy()
    out_NL[later_N] = inside(log_probs_NL[later_N], grammar)
    return out_NL


def word_log_probs(log_probs_TL: Floats, offsets: Sequence[Span], words: Sequence[Span], grammar: TagGrammar) -> Floats:
    """Return the tag distribution of each word, as logarithms; NaN for words that no token covers (truncation).

    A word's score for a tag is the mean over its tokens of their log-probabilities: of the tag itself for the first
    token, for B-x and I-x that of I-x for later ones; then it is scaled to sum to 1. The mean, not the sum: its best
    tag is the same, and a word in many pieces does not count as surer for that.

    Args:
        log_probs_TL: a teacher's, per token.
        offsets: its tokens' spans; of tokens with the same span the first counts, as in `Predictor.decode`.
        words: see `word_spans`.
        grammar: of the tags.

    Shape: (T, L) -> (U, L)
    Source: ours; the sum is what `TagGrammar.decode` compares within a word.

    Example:
        >>> grammar = TagGrammar(["O", "B-a", "I-a"])
        >>> two_pieces = np.log([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])  # B-a, I-a: the word is B-a
        >>> np.exp(word_log_probs(two_pieces, [(0, 2), (2, 4)], [(0, 4)], grammar)).round(3).tolist()
        [[0.085, 0.676, 0.239]]
    """
    begun, _ = words_begun_in(offsets, words)
    tokens = [t for t, word in enumerate(begun) if word != NO_WORD and (t == 0 or offsets[t] != offsets[t - 1])]
    word_K = np.array([begun[t] for t in tokens], dtype=np.int64)
    scores_KL = log_probs_TL[tokens]
    later = np.flatnonzero(np.diff(word_K, prepend=NO_WORD) == 0)
    scores_KL[later[:, None], grammar.begins] = scores_KL[later[:, None], grammar.insides]
    out_UL = np.zeros((len(words), log_probs_TL.shape[1]), dtype=log_probs_TL.dtype)
    np.add.at(out_UL, word_K, scores_KL)
    counts_U = np.bincount(word_K, minlength=len(words))
    out_UL /= np.maximum(counts_U, 1)[:, None]
    for word in np.flatnonzero(counts_U == 0).tolist():
        start = words[word][0]
        covering = [t for t, (a, b) in enumerate(offsets) if a < start < b]
        out_UL[word] = inside(log_probs_TL[covering[-1:]], grammar)[0] if covering else np.nan
    return log_softmax(out_UL)


def log_softmax(scores: Floats) -> Floats:
    """Return log-probabilities over the last axis; minus infinity stays, a row with NaN becomes NaN."""
    top = scores.max(axis=-1, keepdims=True)
    out: Floats = scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))
    return out
