"""Tokenizer: texts <-> token ids with character offsets. Merging is in bpe.py, its files are in tokenizer_files.py.

The only place in weebill that truncates and pads.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import regex

from weebill import bpe
from weebill.counting import count_pretokens, well_formed
from weebill.encodings import ID_BYTES, EncodedBatch, Encoding, Encodings
from weebill.errors import ConfigError, DataError
from weebill.normalize import check_normalizers, normalize
from weebill.offsets import Offsets, ascii_offsets, edges, token_offsets
from weebill.packed_encoder import PackedEncoder, pack, unpack
from weebill.tokenizer_checks import (
    check_dropout,
    check_several,
    check_text,
    check_texts,
    check_training,
    room_for_text,
)

MANY_IDS = 100  # from here on numpy makes a list of them sooner
SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Byte-level BPE: any text has tokens, and decoding gives it back, but for lone surrogates and normalizers.

    Args:
        merges: {pair of token ids: token id}, in order of priority.
        split_pattern: "gpt2", "gpt4" or a regular expression.
        special_tokens: their names and ids; [PAD] (or <pad>), [CLS] (<s>), [SEP] (</s>), [MASK] (<mask>) have a role.
        byte_ids: the token id of each of the 256 bytes; default: after the special tokens, in the order of
            `bpe.SYMBOL_BYTES`.
        normalizers: any of "nfc" and "lowercase", applied before splitting; offsets still refer to the original text.
        framed: whether `encode` puts the text between [CLS] and [SEP].
        trim_offsets: whether a token's span leaves out the spaces at its edges.

    Example:
        >>> tokenizer = Tokenizer.packaged()
        >>> tokenizer.pieces("wake me up")
        ['w', 'ake', ' me', ' up']
        >>> tokenizer.decode(tokenizer.encode("wake me up").token_ids)
        'wake me up'
    """

    def __init__(
        self,
        merges: bpe.Merges,
        split_pattern: str = "gpt2",
        special_tokens: Sequence[str] | Mapping[str, int] = SPECIAL_TOKENS,
        byte_ids: Sequence[int] | None = None,
        normalizers: Sequence[str] = (),
        framed: bool = True,
        trim_offsets: bool = True,
    ):
        bpe.compile_pattern(split_pattern)
        self.merges, self.split_pattern, self.trim_offsets = merges, split_pattern, trim_offsets
        self.normalizers = check_normalizers(normalizers)
        if not isinstance(special_tokens, Mapping):
            special_tokens = {token: i for i, token in enumerate(special_tokens)}
        self.special_tokens = dict(special_tokens)
        shift = len(self.special_tokens)
        self.byte_ids = list(byte_ids) if byte_ids is not None else [shift + symbol for symbol in bpe.BYTE_SYMBOLS]
        self.pad_id = self._role("[PAD]", "<pad>") or 0  # without one any id will do: the mask tells what is padding
        self.cls_id, self.sep_id = self._role("[CLS]", "<s>"), self._role("[SEP]", "</s>")
        self.mask_id = self._role("[MASK]", "<mask>")
        self._prefix = [self.cls_id] if framed and self.cls_id is not None else []
        self._suffix = [self.sep_id] if framed and self.sep_id is not None else []
        self._ranks = bpe.merge_ranks(merges)
        self._bytes = _token_bytes(merges, self.special_tokens, self.byte_ids)
        self._is_special = frozenset(self.special_tokens.values())
        self._frame_tokens = len(self._prefix) + len(self._suffix)
        self._prefix_bytes, self._suffix_bytes = pack(self._prefix), pack(self._suffix)
        self._encoder = PackedEncoder(self._ranks, self.byte_ids, split_pattern, self.normalizers)

    def _role(self, *names: str) -> int | None:
        return next((self.special_tokens[name] for name in names if name in self.special_tokens), None)

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Token ids that `encode` puts before and after a text."""
        return self._prefix, self._suffix

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return len(self._bytes)

    @cached_property
    def _shared_ids(self) -> npt.NDArray[np.object_]:
        """Every token id once, as an int: to point at these takes half the time of making new ones."""
        return np.arange(self.vocab_size).astype(object)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token's id by its name: special tokens as they are, others with GPT-2's characters for bytes."""
        return {self.token_name(i): i for i in range(self.vocab_size) if self._bytes[i]}

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes a token stands for; of a special token, its name."""
        return self._bytes[token_id]

    def token_name(self, token_id: int) -> str:
        """Return a token as tokenizer.json spells it."""
        if token_id in self._is_special:
            return self._bytes[token_id].decode()
        return "".join(bpe.BYTE_CHARACTERS[byte] for byte in self._bytes[token_id])

    # -- making one

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int = 8192,
        *,
        split_pattern: str = "gpt2",
        min_frequency: int = 0,
        normalizers: Sequence[str] = (),
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        processes: int | None = None,
        progress: bpe.Progress | None = None,
    ) -> "Tokenizer":
        """Return a tokenizer learned from texts; it has fewer tokens than asked when the texts have no more to merge.

        Args:
            texts: any iterable; read once, never held as a whole.
            vocab_size: tokens, special tokens and the 256 bytes included.
            split_pattern: "gpt2", "gpt4" or a regular expression; merges never cross its pieces.
            min_frequency: pairs rarer than this are not merged.
            normalizers: any of "nfc" and "lowercase".
            special_tokens: they get the first ids, in this order.
            processes: how many count pretokens; default: one per core, when there is enough to count.
            progress: called with (tokens so far, vocab_size).

        Raises:
            ConfigError: texts is one str, vocab_size too small, min_frequency negative, split_pattern no regular
                expression, or a special token that is an ordinary one too.
            DataError: the texts are empty, or white space alone.
        """
        check_several(texts)
        shift = len(special_tokens)
        check_training(vocab_size, special_tokens, min_frequency)
        bpe.compile_pattern(split_pattern)
        counts = count_pretokens(texts, split_pattern, check_normalizers(normalizers), processes)
        if all(map(str.isspace, counts)):
            got = "white space alone" if counts else "none"
            raise DataError(f"expected text to train a tokenizer on, got {got}; name files that are not empty")

        def shifted(done: int, total: int) -> None:
            if progress:
                progress(done + shift, total + shift)

        merges = bpe.learn_merges(counts, vocab_size - shift, min_frequency, shifted)
        merges = {(a + shift, b + shift): merged + shift for (a, b), merged in merges.items()}
        trained = cls(merges, split_pattern, special_tokens, normalizers=normalizers)
        for special in special_tokens:
            if any(trained.token_name(i) == special for i in range(shift, trained.vocab_size)):
                raise ConfigError(f"special_tokens: expected names that are no token of the texts, got {special!r}, "
                                  f"which they made one; write it otherwise, as [{special}]")  # fmt: skip
        return trained

    def cut(self, vocab_size: int) -> "Tokenizer":
        """Return the tokenizer that training would have given at a smaller vocabulary: the first merges of this one.

        Raises:
            ConfigError: smaller than special tokens and bytes, larger than this one, or this one numbers its tokens
                otherwise than in the order of its merges.
        """
        smallest = len(self.special_tokens) + 256
        if not smallest <= vocab_size <= self.vocab_size:
            raise ConfigError(f"vocab_size: expected {smallest} to {self.vocab_size} to cut from, got {vocab_size}; "
                              f"correct it")  # fmt: skip
        merges: bpe.Merges = {}
        known: set[int] = set()
        for pair, merged in self.merges.items():
            if merged not in known and len(known) == vocab_size - smallest:
                break
            known.add(merged)
            merges[pair] = merged
        outside = [i for i in (*known, *self.byte_ids, *self.special_tokens.values()) if i >= vocab_size]
        nameless = [i for i in range(vocab_size) if not self._bytes[i]]
        if outside and nameless:
            raise ConfigError(f"expected a tokenizer with a token for each id, got one without for {nameless[0]} (a "
                              f".tiktoken file does not hold special tokens); cut the tokenizer.json that it was made "
                              f"from, and convert that")  # fmt: skip
        if outside:
            raise ConfigError(f"expected a tokenizer whose token ids follow its merges, got one where token "
                              f"{outside[0]} belongs to the first {vocab_size}; train one instead")  # fmt: skip
        return Tokenizer(merges, self.split_pattern, self.special_tokens, self.byte_ids, self.normalizers,
                         bool(self._prefix or self._suffix), self.trim_offsets)  # fmt: skip

    @classmethod
    def packaged(cls) -> "Tokenizer":
        """Return the tokenizer that ships with weebill: 8,192 tokens learned from English Wikipedia."""
        with resources.as_file(resources.files("weebill") / "assets" / "bpe_merged.json") as path:
            return cls.load(path)

    @classmethod
    def load(cls, path: Path | str, split_pattern: str | None = None) -> "Tokenizer":
        """Read a folder with tokenizer.json, any byte-level BPE tokenizer.json, a merge map, or a .tiktoken file.

        Args:
            path: folder or file.
            split_pattern: of a .tiktoken file, which does not say; default: "gpt2", and a warning.

        Raises:
            ArtifactError: nothing there, damaged, or not byte-level BPE.
            ConfigError: a split pattern for another kind of file, which says its own.
        """
        from weebill.tokenizer_files import read_tokenizer

        return read_tokenizer(Path(path), split_pattern)

    def save(self, folder: Path | str, max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, which Hugging Face libraries load with the same ids.

        Args:
            folder: made when missing; each file is written whole or not at all.
            max_length: in tokens, of the model this tokenizer serves.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        from weebill.tokenizer_files import write_tokenizer_json

        write_tokenizer_json(self, Path(folder), max_length)

    def save_merge_map(self, path: Path | str) -> None:
        """Write the merges alone, as bpe_merged.json: {"Ġ t": 260, …} in order of priority.

        Raises:
            ConfigError: token ids, frame or offsets are not those that a merge map stands for.
        """
        from weebill.tokenizer_files import write_merge_map

        write_merge_map(self, Path(path))

    def save_tiktoken(self, path: Path | str) -> None:
        """Write the tokens as tiktoken reads them: base64 and rank a line; a token's rank is its id.

        Special tokens, split pattern, normalizers and frame are not in the file: `tiktoken_files.tiktoken_losses`.

        Raises:
            ConfigError: tiktoken, which merges by token and not by pair, would give other ids.
        """
        from weebill.tiktoken_files import write_tiktoken

        write_tiktoken(self, Path(path))

    # -- using it

    def encode(self, text: str, max_length: int | None = None, allow_special: bool = False) -> Encoding:
        """Return the tokens of a text between [CLS] and [SEP].

        Args:
            text: any string; a lone surrogate counts as U+FFFD.
            max_length: in tokens, [CLS] and [SEP] included; what is beyond is dropped and counted.
            allow_special: read a literal "[MASK]" in the text as the special token; by default it is ordinary text.

        Raises:
            ConfigError: no text, or max_length has no room for [CLS] and [SEP].
        """
        try:
            packed, offsets = self._encode_with_special(text) if allow_special else (self._encoder.encode(text), None)
        except TypeError:
            check_text(text)
            raise
        framed, dropped = self._frame(packed, max_length)
        return self._encoding(text, framed, dropped, offsets)

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the token ids of a text alone: no [CLS], no [SEP], nothing special in it."""
        packed = self._encoder.encode(text)
        if len(packed) < MANY_IDS * ID_BYTES:
            return unpack(packed)
        token_ids: list[int] = self._shared_ids.take(np.frombuffer(packed, np.int32)).tolist()
        return token_ids

    def encode_with_dropout(self, text: str, dropout: float, rng: random.Random) -> list[int]:
        """Return token ids with merges left out at random, so that a model meets other ways to cut a word.

        Args:
            text: any string.
            dropout: chance that a merge is put off, in [0, 1]; 0 gives `encode_ordinary`, 1 single bytes.
            rng: decides, so that a seed repeats it.

        Raises:
            ConfigError: dropout is no number in [0, 1].

        Source:
            Provilkov et al. 2020, BPE-dropout.
        """
        check_dropout(dropout)
        text = well_formed(normalize(text, self.normalizers))
        return [
            token_id
            for symbols in map(self._encoder.byte_tokens, bpe.pretokenize(text, self.split_pattern))
            for token_id in bpe.apply_merges(symbols, self._ranks, lambda: rng.random() >= dropout)
        ]

    def encode_anew(self, text: str, dropout: float, rng: random.Random, max_length: int | None = None) -> Encoding:
        """Return the tokens of a text within its frame, drawn as in `encode_with_dropout`; else as `encode`."""
        framed, dropped = self._frame(pack(self.encode_with_dropout(text, dropout, rng)), max_length)
        return self._encoding(text, framed, dropped)

    def encode_batch(self, texts: Sequence[str], max_length: int | None = None) -> EncodedBatch:
        """Return the tokens of many texts, each as by `encode`; the batch pads them when its rectangle is asked for.

        Raises:
            ConfigError: no list of texts, or max_length has no room for [CLS] and [SEP].
        """
        check_texts(texts)
        if len(texts) == 1:  # as below, in a third of the time
            framed, lost = self._frame(self._encoder.encode(texts[0]), max_length)
            return EncodedBatch([framed], self.pad_id, [self._encoding(texts[0], framed, lost)],
                                {0: lost} if lost else {})  # fmt: skip
        packed: list[bytes] = []
        dropped: dict[int, int] = {}
        for row, ids in enumerate(self._encoder.encode_all(texts)):
            framed, lost = self._frame(ids, max_length)
            packed.append(framed)
            if lost:
                dropped[row] = lost
        return EncodedBatch(packed, self.pad_id, Encodings(self._encoding, list(texts), packed, dropped), dropped)

    def decode(self, token_ids: Iterable[int], skip_special: bool = True) -> str:
        """Return the text of token ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD.

        Raises:
            DataError: an id outside the vocabulary.
        """
        token_ids = list(token_ids)
        outside = next((i for i in token_ids if not 0 <= i < self.vocab_size), None)
        if outside is not None:
            raise DataError(f"expected token ids from 0 to {self.vocab_size - 1}, got {outside} at position "
                            f"{token_ids.index(outside)}; decode with the tokenizer that encoded")  # fmt: skip
        skipped = self._is_special if skip_special else frozenset[int]()
        return b"".join(self._bytes[i] for i in token_ids if i not in skipped).decode("utf-8", errors="replace")

    def pieces(self, text: str) -> list[str]:
        """Return the tokens of a text as readable strings."""
        return [self._bytes[i].decode("utf-8", errors="replace") for i in self.encode_ordinary(text)]

    # -- inside: ids travel packed, ID_BYTES each, until somebody wants to see them

    def _frame(self, packed: bytes, max_length: int | None) -> tuple[bytes, int]:
        """Return the packed ids between prefix and suffix, cut to fit between them, and how many were dropped."""
        dropped = 0
        if max_length is not None:
            keep = max_length - self._frame_tokens
            if keep < 0:
                room_for_text(max_length, self.frame)  # refuses it
            dropped = max(0, len(packed) // ID_BYTES - keep)
            packed = packed[: keep * ID_BYTES]
        return self._prefix_bytes + packed + self._suffix_bytes, dropped

    def _encoding(self, text: str, framed: bytes, dropped: int, offsets: Offsets | None = None) -> Encoding:
        return Encoding(partial(unpack, framed), partial(self._framed_offsets, text, framed, offsets), dropped)

    def _encode_with_special(self, text: str) -> tuple[bytes, Offsets]:
        token_ids: list[int] = []
        offsets: Offsets = []
        start = 0
        names = sorted(self.special_tokens, key=len, reverse=True)
        for part in regex.split("(" + "|".join(map(regex.escape, names)) + ")", text) if names else [text]:
            if part in self.special_tokens:
                token_ids.append(self.special_tokens[part])
                offsets.append((start, start + len(part)))
            else:
                found = self.encode_ordinary(part)
                token_ids += found
                offsets += [(start + a, start + b) for a, b in self._offsets(part, found)]
            start += len(part)
        return pack(token_ids), offsets

    def _framed_offsets(self, text: str, framed: bytes, offsets: Offsets | None) -> Offsets:
        token_ids = unpack(framed[len(self._prefix_bytes) : len(framed) - len(self._suffix_bytes)])
        kept = self._offsets(text, token_ids) if offsets is None else offsets[: len(token_ids)]
        return [(0, 0)] * len(self._prefix) + kept + [(0, 0)] * len(self._suffix)

    @cached_property
    def _edges(self) -> list[tuple[int, int, int]]:
        return [edges(token, self.trim_offsets) for token in self._bytes]

    def _offsets(self, text: str, token_ids: Sequence[int]) -> Offsets:
        if text.isascii():
            return ascii_offsets(map(self._edges.__getitem__, token_ids))
        tokens = (self._bytes[i] for i in token_ids)
        return token_offsets(well_formed(text), tokens, self.normalizers, self.trim_offsets)


def _token_bytes(merges: bpe.Merges, special_tokens: Mapping[str, int], byte_ids: Sequence[int]) -> list[bytes]:
    """Return the bytes of every token id; an id that nothing leads to has none."""
    highest = max(max(special_tokens.values(), default=0), max(byte_ids), max(merges.values(), default=0))
    values = [b""] * (highest + 1)
    for byte, token_id in enumerate(byte_ids):
        values[token_id] = bytes([byte])
    for token, token_id in special_tokens.items():
        values[token_id] = token.encode()
    for (first, second), merged in merges.items():
        values[merged] = values[first] + values[second]
    return values
