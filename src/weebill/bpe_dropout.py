"""BPE-dropout in training: the texts of a batch tokenized anew, as the batch's random numbers say. Trains nothing."""

import random
from collections.abc import Sequence

import numpy as np

from weebill.encodings import Encoding, ModelTokenizer
from weebill.errors import ConfigError
from weebill.tokenizer import Tokenizer


class Redrawing:
    """Cuts texts in another way each time, so that a model meets rare tokens and other ways to cut a word.

    Args:
        tokenizer: weebill's own, unless dropout is 0.
        dropout: chance that a merge is put off, below 1; 0 = off.
        max_seq_len: in tokens.

    Raises:
        ConfigError: another tokenizer, which cannot draw.

    Source: Provilkov et al. 2020, BPE-dropout; 0.1 there.
    """

    def __init__(self, tokenizer: ModelTokenizer, dropout: float, max_seq_len: int):
        if dropout and not isinstance(tokenizer, Tokenizer):
            raise ConfigError(f"loss.bpe_dropout: expected a byte-level BPE tokenizer, which can draw, got the start's "
                              f"own {type(tokenizer).__name__}; set it to 0")  # fmt: skip
        self._tokenizer = tokenizer if dropout and isinstance(tokenizer, Tokenizer) else None
        self._dropout, self._max_seq_len = dropout, max_seq_len

    def __call__(self, texts: Sequence[str | None], rng: np.random.Generator) -> list[Encoding | None]:
        """Return each text's tokens, or None where its plain ones are to be read: None, or too long as drawn.

        With dropout 0 nothing is drawn from `rng`; else one number, which decides all.
        """
        if self._tokenizer is None:
            return [None] * len(texts)
        source = random.Random(int(rng.integers(2**63)))
        return [None if text is None else self._draw(self._tokenizer, text, source) for text in texts]

    def _draw(self, tokenizer: Tokenizer, text: str, source: random.Random) -> Encoding | None:
        encoding = tokenizer.encode_anew(text, self._dropout, source, self._max_seq_len)
        return None if encoding.dropped_tokens else encoding
