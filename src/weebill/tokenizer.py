"""Tokenizer: texts <-> token ids with character offsets; trains, saves and loads. The merging itself is in bpe.py.

The only place in weebill that truncates, pads, and knows offsets.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import regex

from weebill import bpe
from weebill.errors import ArtifactError, ConfigError, DataError
from weebill.files import write_whole
from weebill.schema import EncodedBatch, Encoding

SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
MERGE_MAP_FORMAT = "weebill-merge-map"
MERGE_MAP_VERSION = 1
CACHED_PRETOKENS = 65_536
_SURROGATES = regex.compile("[\ud800-\udfff]")
_Pieces = tuple[list[int], list[tuple[int, int]]]  # token ids and offsets of one pretoken, relative to its start


class Tokenizer:
    """Byte-level BPE: any text has tokens, and decoding gives it back.

    Token ids count the special tokens first, then the 256 bytes, then one per merge.

    Args:
        merges: {pair of token ids: token id}, in order of priority, as `bpe.learn_merges` returns them but counted
            from `len(SPECIAL_TOKENS)`.
        split_pattern: "gpt2", "gpt4" or a regular expression.

    Example:
        >>> tokenizer = Tokenizer.packaged()
        >>> tokenizer.pieces("wake me up")
        ['w', 'ake', ' me', ' up']
        >>> tokenizer.decode(tokenizer.encode("wake me up").token_ids)
        'wake me up'
    """

    pad_id, cls_id, sep_id, mask_id = range(len(SPECIAL_TOKENS))

    def __init__(self, merges: bpe.Merges, split_pattern: str = "gpt2"):
        self.merges = merges
        self.split_pattern = split_pattern
        self.special_tokens = SPECIAL_TOKENS
        bpe.compile_pattern(split_pattern)
        self._ranks = bpe.merge_ranks(merges)
        self._bytes = [token.encode() for token in SPECIAL_TOKENS] + [bytes([byte]) for byte in bpe.SYMBOL_BYTES]
        for (first, second), merged in merges.items():
            if merged == len(self._bytes):
                self._bytes.append(self._bytes[first] + self._bytes[second])
        self._cache: dict[str, _Pieces] = {}

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return len(self._bytes)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token's id by its name: special tokens as they are, others with GPT-2's characters for bytes."""
        return {self._name(token_id): token_id for token_id in range(self.vocab_size)}

    def _name(self, token_id: int) -> str:
        if token_id < len(SPECIAL_TOKENS):
            return SPECIAL_TOKENS[token_id]
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
        progress: bpe.Progress | None = None,
    ) -> "Tokenizer":
        """Return a tokenizer learned from texts; it has fewer tokens than asked when the texts have no more to merge.

        Args:
            texts: any iterable; read once.
            vocab_size: tokens, special tokens and the 256 bytes included.
            split_pattern: "gpt2", "gpt4" or a regular expression; merges never cross its pieces.
            min_frequency: pairs rarer than this are not merged.
            progress: called with (tokens so far, vocab_size).

        Raises:
            ConfigError: vocab_size too small, or split_pattern is no regular expression.
            DataError: the texts are empty.
        """
        smallest = len(SPECIAL_TOKENS) + 256
        if vocab_size < smallest:
            raise ConfigError(f"vocab_size: expected at least {smallest} ({len(SPECIAL_TOKENS)} special tokens and 256 "
                              f"bytes), got {vocab_size}; raise it")  # fmt: skip
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(bpe.pretokenize(_well_formed(text), split_pattern))
        if not counts:
            raise DataError("expected text to train a tokenizer on, got none; name files that are not empty")
        shift = len(SPECIAL_TOKENS)

        def shifted(done: int, total: int) -> None:
            if progress:
                progress(done + shift, total + shift)

        merges = bpe.learn_merges(counts, vocab_size - shift, min_frequency, shifted)
        return cls({(a + shift, b + shift): merged + shift for (a, b), merged in merges.items()}, split_pattern)

    @classmethod
    def packaged(cls) -> "Tokenizer":
        """Return the tokenizer that ships with weebill: 8,192 tokens learned from English Wikipedia."""
        asset = resources.files("weebill") / "assets" / "bpe_merged.json"
        return cls._from_merge_map(json.loads(asset.read_text(encoding="utf-8")), "bpe_merged.json")

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a tokenizer from a folder with tokenizer.json, from that file, or from a merge map.

        Raises:
            ArtifactError: nothing there, or not a tokenizer weebill wrote.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ArtifactError(f"{file}: expected a tokenizer, got nothing there; `weebill tokenizer train … --output "
                                f"{path}` makes one") from error  # fmt: skip
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(f"{file}: expected a tokenizer as JSON, got {error}; copy it again") from error
        if isinstance(value, dict) and value.get("format") == MERGE_MAP_FORMAT:
            return cls._from_merge_map(value, str(file))
        return cls._from_tokenizer_json(value, str(file))

    @classmethod
    def _from_merge_map(cls, value: dict[str, Any], where: str) -> "Tokenizer":
        if value.get("format_version") != MERGE_MAP_VERSION:
            version = value.get("format_version")
            raise ArtifactError(f"{where}: expected format_version {MERGE_MAP_VERSION}, got {version!r}; upgrade "
                                f"weebill (pip install -U weebill)")  # fmt: skip
        try:
            merges, pattern = value["merges"], value["split_pattern"]
            tokenizer = cls(_merges_from_names([name.split(" ") for name in merges]), str(pattern))
            if list(tokenizer.merges.values()) != list(merges.values()):
                raise ValueError("ids that do not follow from the order of the merges")
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise ArtifactError(
                f"{where}: expected a merge map, got a damaged one: {error!r}; copy it again"
            ) from error
        return tokenizer

    @classmethod
    def _from_tokenizer_json(cls, value: Any, where: str) -> "Tokenizer":
        try:
            steps = value["pre_tokenizer"].get("pretokenizers", [value["pre_tokenizer"]])
            split = next((step["pattern"]["Regex"] for step in steps if step["type"] == "Split"), "gpt2")
            pattern = next((name for name, text in bpe.SPLIT_PATTERNS.items() if text == split), str(split))
            names = [merge.split(" ") if isinstance(merge, str) else merge for merge in value["model"]["merges"]]
            tokenizer = cls(_merges_from_names(names), pattern)
            if tokenizer.vocabulary != value["model"]["vocab"]:
                raise ValueError("a vocabulary that is not special tokens, 256 bytes and merges, in this order")
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            message = (f"{where}: expected a byte-level BPE tokenizer.json as weebill writes it, got another kind or a "
                       f"damaged one: {error!r}; train one with `weebill tokenizer train`")  # fmt: skip
            raise ArtifactError(message) from error
        return tokenizer

    # -- using it

    def encode(self, text: str, max_length: int | None = None, allow_special: bool = False) -> Encoding:
        """Return the tokens of a text between [CLS] and [SEP].

        Args:
            text: any string; a lone surrogate counts as U+FFFD.
            max_length: in tokens, [CLS] and [SEP] included; what is beyond is dropped and counted.
            allow_special: read a literal "[MASK]" in the text as the special token; by default it is ordinary text.
        """
        token_ids: list[int] = [self.cls_id]
        offsets: list[tuple[int, int]] = [(0, 0)]
        self._extend(token_ids, offsets, text, allow_special)
        dropped = 0
        if max_length is not None and len(token_ids) + 1 > max_length:
            keep = max(1, max_length - 1)
            dropped = len(token_ids) - keep
            del token_ids[keep:], offsets[keep:]
        token_ids.append(self.sep_id)
        offsets.append((0, 0))
        return Encoding(token_ids, offsets, dropped)

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the token ids of a text alone: no [CLS], no [SEP], nothing special in it."""
        token_ids: list[int] = []
        self._extend(token_ids, [], text, allow_special=False)
        return token_ids

    def encode_batch(self, texts: Sequence[str], max_length: int | None = None) -> EncodedBatch:
        """Return texts as one rectangle, padded on the right to the longest.

        Shape: input_ids_BT int64, attention_mask_BT bool (True = real)
        """
        encodings = [self.encode(text, max_length) for text in texts]
        longest = max((len(e.token_ids) for e in encodings), default=0)
        input_ids_BT = np.full((len(encodings), longest), self.pad_id, dtype=np.int64)
        attention_mask_BT = np.zeros((len(encodings), longest), dtype=np.bool_)
        for i, encoding in enumerate(encodings):
            input_ids_BT[i, : len(encoding.token_ids)] = encoding.token_ids
            attention_mask_BT[i, : len(encoding.token_ids)] = True
        return EncodedBatch(input_ids_BT, attention_mask_BT, encodings)

    def decode(self, token_ids: Iterable[int], skip_special: bool = True) -> str:
        """Return the text of token ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD."""
        first = len(SPECIAL_TOKENS) if skip_special else 0
        return b"".join(self._bytes[i] for i in token_ids if i >= first).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes a token stands for; of a special token, its name."""
        return self._bytes[token_id]

    def pieces(self, text: str) -> list[str]:
        """Return the tokens of a text as readable strings."""
        return [self._bytes[i].decode("utf-8", errors="replace") for i in self.encode_ordinary(text)]

    def _extend(self, token_ids: list[int], offsets: list[tuple[int, int]], text: str, allow_special: bool) -> None:
        parts = _SPECIALS.split(text) if allow_special else [text]
        start = 0
        for part in parts:
            if allow_special and part in SPECIAL_TOKENS:
                token_ids.append(SPECIAL_TOKENS.index(part))
                offsets.append((start, start + len(part)))
                start += len(part)
                continue
            for pretoken in bpe.pretokenize(_well_formed(part), self.split_pattern):
                pieces = self._cache.get(pretoken)
                if pieces is None:
                    pieces = self._encode_pretoken(pretoken)
                token_ids += pieces[0]
                offsets += [(start + a, start + b) for a, b in pieces[1]]
                start += len(pretoken)

    def _encode_pretoken(self, pretoken: str) -> _Pieces:
        shift = len(SPECIAL_TOKENS)
        token_ids = bpe.apply_merges([symbol + shift for symbol in bpe.symbols_of(pretoken)], self._ranks)
        owner = [i for i, character in enumerate(pretoken) for _ in character.encode("utf-8")]  # byte -> character
        offsets, at = [], 0
        for token_id in token_ids:
            value = self._bytes[token_id]
            start, end = owner[at], owner[at + len(value) - 1] + 1
            at += len(value)
            start = min(start + len(value) - len(value.lstrip(b" ")), end)  # a span never starts or ends on a space
            offsets.append((start, max(start, end - (len(value) - len(value.rstrip(b" "))))))
        if len(self._cache) >= CACHED_PRETOKENS:
            self._cache.clear()
        self._cache[pretoken] = (token_ids, offsets)
        return token_ids, offsets

    # -- keeping it

    def save(self, folder: Path | str, max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, which Hugging Face libraries load with the same ids.

        Args:
            folder: made when missing; each file is written whole or not at all.
            max_length: in tokens, of the model this tokenizer serves.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        tokens = dict(zip(("pad_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length or 10**30,  # what transformers writes for "no limit"
            "split_special_tokens": True,  # a user who types "[CLS]" gets the letters, not the token
            **tokens,
        }
        _write_json(Path(folder) / "tokenizer.json", self._tokenizer_json())
        _write_json(Path(folder) / "tokenizer_config.json", config)

    def save_merge_map(self, path: Path | str) -> None:
        """Write the merges alone, as bpe_merged.json: {"Ġ t": 260, …} in order of priority."""
        value = {
            "format": MERGE_MAP_FORMAT,
            "format_version": MERGE_MAP_VERSION,
            "split_pattern": self.split_pattern,
            "special_tokens": list(SPECIAL_TOKENS),
            "merges": {f"{self._name(a)} {self._name(b)}": merged for (a, b), merged in self.merges.items()},
        }
        _write_json(Path(path), value)

    def _tokenizer_json(self) -> dict[str, Any]:
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        pre_tokenizer: dict[str, Any] = byte_level
        if self.split_pattern != "gpt2":
            pattern = {"Regex": bpe.SPLIT_PATTERNS.get(self.split_pattern, self.split_pattern)}
            split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
            pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, byte_level | {"use_regex": False}]}
        cls_token, sep_token = SPECIAL_TOKENS[self.cls_id], SPECIAL_TOKENS[self.sep_id]

        def special(token: str, type_id: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": token, "type_id": type_id}}

        def sequence(name: str, type_id: int) -> dict[str, Any]:
            return {"Sequence": {"id": name, "type_id": type_id}}

        single = [special(cls_token, 0), sequence("A", 0), special(sep_token, 0)]
        template = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, sequence("B", 1), special(sep_token, 1)],
            "special_tokens": {
                token: {"id": token, "ids": [SPECIAL_TOKENS.index(token)], "tokens": [token]}
                for token in (cls_token, sep_token)
            },
        }
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": token} | flags for i, token in enumerate(SPECIAL_TOKENS)],
            "normalizer": None,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": {"type": "Sequence", "processors": [byte_level, template]},
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": self.vocabulary,
                "merges": [f"{self._name(a)} {self._name(b)}" for a, b in self.merges],
            },
        }


_SPECIALS = regex.compile("(" + "|".join(regex.escape(token) for token in SPECIAL_TOKENS) + ")")


def _well_formed(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 has no bytes for, as U+FFFD; the length stays."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _merges_from_names(names: Iterable[Sequence[str]]) -> bpe.Merges:
    """Return merges by token id from pairs of token names, in order; equal results share an id."""
    ids = {bpe.BYTE_CHARACTERS[byte]: len(SPECIAL_TOKENS) + i for i, byte in enumerate(bpe.SYMBOL_BYTES)}
    merges: bpe.Merges = {}
    for pair in names:
        first, second = pair
        merges[(ids[first], ids[second])] = ids.setdefault(first + second, len(ids) + len(SPECIAL_TOKENS))
    return merges


def _write_json(path: Path, value: Any) -> None:
    write_whole(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
