"""Texts as token ids: one, a batch, and what a tokenizer of a model promises. Tokenizes nothing; no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import numpy.typing as npt

ID_BYTES = 4  # of a packed token id, an int32 in this machine's byte order


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


class Encodings(Sequence[Encoding]):
    """The encodings of a batch, each made when it is first asked for: of many batches only the ids are wanted."""

    def __init__(
        self,
        make: Callable[[str, bytes, int], Encoding],
        texts: Sequence[str],
        packed: Sequence[bytes],
        dropped: Mapping[int, int],
    ):
        self._make, self._texts, self._packed, self._dropped = make, texts, packed, dropped
        self._made: dict[int, Encoding] = {}

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, row: int) -> Encoding: ...
    @overload
    def __getitem__(self, row: slice) -> list[Encoding]: ...
    def __getitem__(self, row: int | slice) -> Encoding | list[Encoding]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        number = range(len(self))[row]
        if number not in self._made:
            self._made[number] = self._make(self._texts[number], self._packed[number], self._dropped.get(number, 0))
        return self._made[number]


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
