"""Texts longer than a model reads, as overlapping windows: where they lie, and what they say together. Runs no model.

No text is cut anew: a window is a stretch of the whole text's tokens between the tokenizer's [CLS] and [SEP], so a
word has the same tokens in every window, and all windows are full, so that they need no padding.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from weebill.encodings import EncodedBatch, Encoding, ModelTokenizer
from weebill.packed_encoder import pack
from weebill.schema import ModelOutput

Range = tuple[int, int]


def window_ranges(num_tokens: int, capacity: int) -> list[Range]:
    """Return the half-open token ranges of windows that overlap by half; the last one ends with the text.

    Example:
        >>> window_ranges(11, 4)
        [(0, 4), (2, 6), (4, 8), (6, 10), (7, 11)]
        >>> window_ranges(3, 4)
        [(0, 3)]
    """
    starts = [*range(0, num_tokens - capacity, max(1, capacity // 2)), max(0, num_tokens - capacity)]
    return [(start, min(start + capacity, num_tokens)) for start in starts]


def owned_ranges(windows: Sequence[Range]) -> list[Range]:
    """Return the tokens that each window is asked about: every token once, by the window that reads most around it.

    Between two windows that is the middle of what both read, so a quarter of a window is read on either side.

    Example:
        >>> owned_ranges([(0, 8), (4, 12), (6, 14)])
        [(0, 6), (6, 9), (9, 14)]
    """
    middles = [(right[0] + left[1]) // 2 for left, right in pairwise(windows)]
    return list(pairwise([windows[0][0], *middles, windows[-1][1]]))


class Windows:
    """The windows of one text that has more tokens than `max_seq_len`."""

    def __init__(self, tokenizer: ModelTokenizer, text: str, max_seq_len: int):
        self.whole = tokenizer.encode(text)
        self._before, self._after = tokenizer.frame
        self._pad_id = tokenizer.pad_id
        frame = len(self._before) + len(self._after)
        self.ranges = window_ranges(len(self.whole.token_ids) - frame, max_seq_len - frame)
        self.owned = owned_ranges(self.ranges)

    def encodings(self) -> list[Encoding]:
        """Return each window as the tokenizer would have framed it; offsets are those of the whole text."""
        ids, offsets, first = self.whole.token_ids, self.whole.offsets, len(self._before)
        no_span = (0, 0)
        return [
            Encoding([*self._before, *ids[first + a : first + b], *self._after],
                     [no_span] * first + offsets[first + a : first + b] + [no_span] * len(self._after))
            for a, b in self.ranges
        ]  # fmt: skip

    def batches(self, batch_size: int) -> Iterator[EncodedBatch]:
        """Yield the windows in order, `batch_size` at a time."""
        encodings = self.encodings()
        for start in range(0, len(encodings), batch_size):
            chosen = encodings[start : start + batch_size]
            yield EncodedBatch([pack(encoding.token_ids) for encoding in chosen], self._pad_id, chosen)

    def whole_batch(self) -> EncodedBatch:
        """Return the whole text as a batch of one, longer than the model reads: what `merge` is the output of."""
        return EncodedBatch([pack(self.whole.token_ids)], self._pad_id, [self.whole])

    def merge(self, outputs: Sequence[ModelOutput], several_intents: bool = False) -> ModelOutput:
        """Return what the windows, in order, say of the whole text, as if one pass had read it.

        Tags: each token's logits come from the window that owns it, and are decoded once, over the whole text.
        Embedding: the mean over the windows, weighted by the tokens each owns. Intent: as the surest window reads it,
        whose best intent is furthest ahead of the next; means of all drown a request among other talk (docs/
        evaluation.md has what was measured). Where a text may have several intents, each as the window reads it that is
        surest of it.
        """
        weights_W = np.array([b - a for a, b in self.owned], dtype=np.float32)
        weights_W /= weights_W.sum()
        embedding_D = weights_W @ np.concatenate([output.sentence_embedding_BD for output in outputs])
        intents = [o.intent_logits_BC for o in outputs if o.intent_logits_BC is not None]
        tags = [o.tag_logits_BTL for o in outputs if o.tag_logits_BTL is not None]
        if not intents or not tags:
            return ModelOutput(embedding_D[None], None, None)
        intents_WC, tags_WTL = np.concatenate(intents), np.concatenate(tags)
        best_two_W2 = np.sort(intents_WC, axis=1)[:, -2:]
        surest = (best_two_W2[:, -1] - best_two_W2[:, 0]).argmax()
        intents_C = intents_WC.max(axis=0) if several_intents else intents_WC[surest]
        first = len(self._before)
        rows = [tags_WTL[0, :first]]
        for tags_TL, (a, b), (start, _) in zip(tags_WTL, self.owned, self.ranges, strict=True):
            rows.append(tags_TL[first + a - start : first + b - start])
        rows.append(tags_WTL[-1, tags_WTL.shape[1] - len(self._after) :])
        return ModelOutput(embedding_D[None], intents_C[None], np.concatenate(rows)[None])
