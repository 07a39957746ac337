"""Plain values that travel between rooms, and what a tokenizer promises; no behaviour beyond construction, no torch.

`OUT_OF_SCOPE` is the intent of a text that has none of those a model knows.

Axis letters, used as suffixes everywhere: B batch · T tokens · D embedding or hidden dimension · C intent classes ·
L tag classes · H heads · K head dimension · N any flat list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

OUT_OF_SCOPE = "out_of_scope"
ID_BYTES = 4  # of a packed token id, an int32 in this machine's byte order
SEVERAL_FROM = 0.5  # probability from which an intent is read beside others, where a text may have several
Overflow = Literal["window", "truncate", "error"]  # what becomes of a text with more tokens than a model reads


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """One labelled span of a text; `start` and `end` are half-open code point offsets.

    `score` is the model's probability for a predicted entity and 1.0 for a gold one.
    """

    start: int
    end: int
    label: str
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """One text with what is annotated on it.

    `intent` None = intent not annotated; `entities` None = entities not annotated, () = annotated and there are none.
    `source` is where it came from, "file:line", for error messages. `key` groups utterances that must stay on one side
    of a split (the template of generated ones).
    """

    text: str
    intent: str | None = None
    entities: tuple[Entity, ...] | None = None
    id: str = ""
    source: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two texts and how similar they are: `score` in [0, 1], more = closer (STS scores / 5; duplicates 1, others 0)."""

    a: str
    b: str
    score: float
    source: str = ""


def intent_parts(intent: str, separator: str | None) -> tuple[str, ...]:
    """Return the intents that a label stands for, sorted, each once; without a separator that is the label itself.

    Example:
        >>> intent_parts("turn_off+play_music", "+"), intent_parts("turn_off+play_music", None)
        (('play_music', 'turn_off'), ('turn_off+play_music',))
    """
    return (intent,) if separator is None else tuple(sorted({part.strip() for part in intent.split(separator)}))


class Encoding:
    """One tokenized text: token ids with [CLS] … [SEP], code point offsets per token ((0, 0) for specials).

    `dropped_tokens` counts what truncation removed. Ids and offsets may be given as functions, called when they are
    first asked for: most users want only one of them, or neither.
    """

    __slots__ = ("_offsets", "_token_ids", "dropped_tokens")

    def __init__(
        self,
        token_ids: list[int] | Callable[[], list[int]],
        offsets: list[tuple[int, int]] | Callable[[], list[tuple[int, int]]],
        dropped_tokens: int = 0,
    ):
        self.dropped_tokens, self._token_ids, self._offsets = dropped_tokens, token_ids, offsets

    @property
    def token_ids(self) -> list[int]:
        """Token ids, not padded."""
        if callable(self._token_ids):
            self._token_ids = self._token_ids()
        return self._token_ids

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Half-open spans of the original text, one per token."""
        if callable(self._offsets):
            self._offsets = self._offsets()
        return self._offsets

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoding):
            return NotImplemented
        return (self.token_ids, self.offsets, self.dropped_tokens) == (
            other.token_ids, other.offsets, other.dropped_tokens,
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]  # holds lists

    def __repr__(self) -> str:
        return f"Encoding({self.token_ids}, {self.offsets}, {self.dropped_tokens})"


@dataclass(frozen=True)
class EncodedBatch:
    """Texts tokenized and truncated, and padded on the right to a rectangle when that is asked for.

    `packed` holds each text's token ids, ID_BYTES each; `encodings` the same with offsets; `truncated` has those that
    were truncated, and how many tokens each lost.
    """

    packed: Sequence[bytes]
    pad_id: int
    encodings: Sequence[Encoding]
    truncated: Mapping[int, int] = field(default_factory=dict)

    @cached_property
    def lengths_B(self) -> npt.NDArray[np.int32]:
        """Tokens of each text."""
        return np.fromiter(map(len, self.packed), np.int32, len(self.packed)) // ID_BYTES

    @cached_property
    def input_ids_BT(self) -> npt.NDArray[np.int64]:
        """Token ids, as long as the longest text."""
        if len(self.packed) == 1:
            return np.frombuffer(self.packed[0], np.int32).astype(np.int64)[None]
        ids_BT = np.zeros((len(self.packed), self.lengths_B.max(initial=0)), np.int64)  # np.full would write it all
        if self.pad_id:
            ids_BT += self.pad_id
        for ids_T, packed in zip(ids_BT, self.packed, strict=True):
            ids_T[: len(packed) // ID_BYTES] = np.frombuffer(packed, np.int32)
        return ids_BT

    @cached_property
    def attention_mask_BT(self) -> npt.NDArray[np.bool_]:
        """True where a token is real, False where it is padding."""
        if len(self.packed) == 1:
            return np.ones(self.input_ids_BT.shape, bool)
        mask_BT: npt.NDArray[np.bool_] = np.arange(self.lengths_B.max(initial=0)) < self.lengths_B[:, None]
        return mask_BT

    def select(self, rows: npt.NDArray[np.int64]) -> "EncodedBatch":
        """Return some rows, padded to the longest of them."""
        numbers = rows.tolist()
        truncated = {i: self.truncated[row] for i, row in enumerate(numbers) if row in self.truncated}
        return EncodedBatch([self.packed[i] for i in numbers], self.pad_id, [self.encodings[i] for i in numbers],
                            truncated)  # fmt: skip


class ModelTokenizer(Protocol):
    """What a model needs of its tokenizer; weebill's own is `Tokenizer`, a BERT's comes as `HuggingFaceTokenizer`."""

    @property
    def vocab_size(self) -> int:
        """One more than the highest token id."""

    @property
    def pad_id(self) -> int:
        """Token id that fills rows of a batch up."""

    @property
    def mask_id(self) -> int | None:
        """Token id that stands for a word left out, if there is one."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Names and ids of tokens that no text contains."""

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Token ids that `encode` puts before and after a text."""

    def encode(self, text: str, max_length: int | None = None) -> Encoding:
        """Return the tokens of a text within its frame, at most `max_length` of them."""

    def encode_batch(self, texts: Sequence[str], max_length: int | None = None) -> EncodedBatch:
        """Return the tokens of many texts, each as by `encode`."""

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, which Hugging Face libraries load with the same ids."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a backend returns, float32 numpy; logits are None when the model has no such head."""

    sentence_embedding_BD: npt.NDArray[np.float32]
    intent_logits_BC: npt.NDArray[np.float32] | None
    tag_logits_BTL: npt.NDArray[np.float32] | None

    def select(self, rows: npt.NDArray[np.int64], length: int) -> "ModelOutput":
        """Return some rows, and of the tags the first `length` tokens."""
        intents_BC, tags_BTL = self.intent_logits_BC, self.tag_logits_BTL
        return ModelOutput(self.sentence_embedding_BD[rows], None if intents_BC is None else intents_BC[rows],
                           None if tags_BTL is None else tags_BTL[rows, :length])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model reads in one text.

    `score` is the probability of `intent`; where it joins several, of the least probable one; out of scope, of the
    likeliest one.
    """

    text: str
    intent: str
    score: float
    entities: tuple[Entity, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the object that `weebill parse` writes as one line."""
        entities = [
            {"start": e.start, "end": e.end, "label": e.label, "text": self.text[e.start : e.end],
             "score": round(e.score, 4)}
            for e in self.entities
        ]  # fmt: skip
        return {"text": self.text, "intent": self.intent, "intent_score": round(self.score, 4), "entities": entities}
