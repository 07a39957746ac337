"""A model whose answers are known beforehand: labels by a table of words, and an embedding of its own for each text.

It runs behind weebill's predictor like any other backend, without torch, so what a server answers can be compared with
what it has to be.
"""

import zlib

import numpy as np

from weebill.encodings import EncodedBatch
from weebill.predictor import Predictor
from weebill.schema import ModelOutput
from weebill.tokenizer import Tokenizer

EMBEDDING_DIM = 16
MAX_SEQ_LEN = 32
INTENTS = ["play_music", "set_alarm", "other"]
TAGS = ["O", "B-genre", "I-genre", "B-time", "I-time"]
INTENT_OF = {"play": "play_music", "wake": "set_alarm"}  # the first such word decides
LABEL_OF = {"jazz": "genre", "nine": "time", "am": "time", "🎵": "genre"}


def expected_entities(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, label) for each run of words of one label, single spaces between words."""
    found: list[tuple[int, int, str]] = []
    at = 0
    for word in text.split(" "):
        label = LABEL_OF.get(word)
        if label and found and found[-1][2] == label and found[-1][1] == at - 1:
            found[-1] = (found[-1][0], at + len(word), label)
        elif label:
            found.append((at, at + len(word), label))
        at += len(word) + 1
    return found


class WordTable:
    """The backend."""

    workers = 1

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.passes = 0

    def run(self, batch: EncodedBatch) -> ModelOutput:
        """Return logits of ±8 by the tables, and a unit vector that depends on every token id."""
        self.passes += 1
        rows, length = batch.input_ids_BT.shape
        embedding_BD = np.zeros((rows, EMBEDDING_DIM), np.float32)
        intents_BC = np.full((rows, len(INTENTS)), -8, np.float32)
        tags_BTL = np.full((rows, length, len(TAGS)), -8, np.float32)
        for i, encoding in enumerate(batch.encodings):
            ids = encoding.token_ids
            seed = zlib.crc32(np.array(ids, np.int64).tobytes())
            embedding_BD[i] = np.random.default_rng(seed).normal(size=EMBEDDING_DIM)
            text = self.tokenizer.decode(ids)
            intent = next((INTENT_OF[w] for w in text.split(" ") if w in INTENT_OF), "other")
            intents_BC[i, INTENTS.index(intent)] = 8
            for t, (start, end) in enumerate(encoding.offsets):
                tags_BTL[i, t, self._tag(text, start, end)] = 8
        return ModelOutput(embedding_BD, intents_BC, tags_BTL)

    def _tag(self, text: str, start: int, end: int) -> int:
        for first, last, label in expected_entities(text):
            if first <= start < end <= last:
                return TAGS.index(f"{'B' if start == first else 'I'}-{label}")
        return 0


def word_table_predictor() -> Predictor:
    """Return a predictor over the table."""
    tokenizer = Tokenizer.packaged()
    return Predictor(tokenizer, WordTable(tokenizer), MAX_SEQ_LEN, EMBEDDING_DIM, INTENTS, TAGS)
