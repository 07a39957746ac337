"""HuggingFaceTokenizer: the tokenizer a BERT came with (WordPiece, Unigram …), run by the `tokenizers` library.

Trains nothing and reads no byte-level BPE; that is what tokenizer.py does. `load_tokenizer` chooses between the two.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weebill.counting import well_formed
from weebill.encodings import EncodedBatch, Encoding, ModelTokenizer
from weebill.errors import ArtifactError, ConfigError, MissingExtraError, WeebillError
from weebill.files import write_whole
from weebill.model_files import parse_json
from weebill.packed_encoder import pack
from weebill.tokenizer import Tokenizer
from weebill.tokenizer_checks import check_text, check_texts, room_for_text
from weebill.tokenizer_files import ROLES, write_tokenizer_config

_BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast")


class HuggingFaceTokenizer:
    """Texts -> token ids with offsets of the original text, as `transformers` has them.

    Two differences: a special token typed by a user is ordinary text, and a token's span has no spaces at its edges.

    Args:
        inner: a `tokenizers.Tokenizer`; its truncation and padding are switched off.
        roles: special token by role (pad, cls, sep, mask, unk), each in the vocabulary; "pad" is needed.

    Raises:
        ArtifactError: there is no token to pad with, or none that a text begins with.
    """

    def __init__(self, inner: Any, roles: Mapping[str, str]):
        self._inner, self._roles = inner, dict(roles)
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True  # what looks like a special token in a text is text
        inner.add_special_tokens(list(self._roles.values()))  # none is new: they are marked as special
        vocabulary: dict[str, int] = inner.get_vocab(with_added_tokens=True)
        added = inner.get_added_tokens_decoder()
        self.special_tokens = {token.content: token_id for token_id, token in added.items() if token.special}
        self.vocab_size = max(vocabulary.values()) + 1
        probe = inner.encode("a")
        first = probe.special_tokens_mask.index(0) if 0 in probe.special_tokens_mask else 0
        after = len(inner.encode("a", add_special_tokens=False).ids) + first
        self.frame = (probe.ids[:first], probe.ids[after:])
        if "pad" not in self._roles or not self.frame[0]:
            missing = "[CLS] before a text" if "pad" in self._roles else "[PAD]"
            raise ArtifactError(f"expected a tokenizer with [PAD] that puts [CLS] before a text, got one without "
                                f"{missing}; use the checkpoint's own")  # fmt: skip
        self.pad_id = vocabulary[self._roles["pad"]]
        self.mask_id = vocabulary.get(self._roles.get("mask", ""))
        self._unknown_id = vocabulary.get(self._roles.get("unk", ""), self.pad_id)
        typed = inner.encode(" ".join(self.special_tokens), add_special_tokens=False).ids
        # of a WordPiece none; a Unigram has their names in its vocabulary and finds them even so
        self._forbidden = set(typed) & set(self.special_tokens.values()) - {self._unknown_id}

    def encode(self, text: str, max_length: int | None = None) -> Encoding:
        """Return the tokens of a text within its frame.

        Args:
            text: any string; a lone surrogate counts as U+FFFD.
            max_length: in tokens, [CLS] and [SEP] included; what is beyond is dropped and counted.

        Raises:
            ConfigError: no text, or max_length has no room for [CLS] and [SEP].
        """
        check_text(text)
        text = well_formed(text)
        with _library_errors("the tokenizer", "a text that it reads"):
            found = self._inner.encode(text, add_special_tokens=False)
        return self._framed(text, found, max_length)

    def encode_batch(self, texts: Sequence[str], max_length: int | None = None) -> EncodedBatch:
        """Return the tokens of many texts, each as by `encode`; the batch pads them when its rectangle is asked for.

        Raises:
            ConfigError: no list of texts, or max_length has no room for [CLS] and [SEP].
        """
        check_texts(texts)
        texts = [well_formed(text) for text in texts]
        with _library_errors("the tokenizer", "texts that it reads"):
            found = self._inner.encode_batch(texts, add_special_tokens=False)
        encodings = [self._framed(text, one, max_length) for text, one in zip(texts, found, strict=True)]
        truncated = {i: e.dropped_tokens for i, e in enumerate(encodings) if e.dropped_tokens}
        return EncodedBatch([pack(e.token_ids) for e in encodings], self.pad_id, encodings, truncated)

    def tokens_to_keep(self, vocab_size: int, counts: Sequence[int]) -> list[int]:
        """Return the ids of the tokens that a smaller vocabulary has: those that texts have most, and what any needs.

        That is special and added tokens, ASCII characters, and the characters of the tokens that the texts have, so
        that a word of theirs whose token is left out has others. What is free then goes to the lowest ids.

        Args:
            vocab_size: how many.
            counts: by token id, how often texts have it.

        Raises:
            ConfigError: not a WordPiece, whose tokens alone can be left out without more ado, or too few.
        """
        model = json.loads(self._inner.to_str())["model"]
        if model["type"] != "WordPiece":
            raise ConfigError(f"shrink.vocab_size: expected a start with WordPiece or byte-level BPE, whose tokens can "
                              f"be left out, got {model['type']}; leave it out")  # fmt: skip
        vocabulary: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        prefix = model["continuing_subword_prefix"]
        names = {token_id: name.removeprefix(prefix) for name, token_id in vocabulary.items()}
        known = {chr(c) for c in range(128)}.union(*(names[i] for i in vocabulary.values() if counts[i]))
        needed = {i for i, name in names.items() if len(name) == 1 and name in known}
        needed |= {*self._inner.get_added_tokens_decoder(), self._unknown_id}
        if len(needed) > vocab_size:
            raise ConfigError(f"shrink.vocab_size: expected at least {len(needed)}, for special tokens and characters, "
                              f"got {vocab_size}; correct it")  # fmt: skip
        others = sorted(names.keys() - needed, key=lambda i: (-counts[i], i))
        return sorted([*needed, *others[: vocab_size - len(needed)]])

    def keep(self, token_ids: Sequence[int]) -> "HuggingFaceTokenizer":
        """Return a tokenizer of some of this one's tokens, numbered anew in their order."""
        new_id = {self._inner.id_to_token(token_id): i for i, token_id in enumerate(token_ids)}
        value = json.loads(self._inner.to_str())
        value["model"]["vocab"] = {token: i for token, i in new_id.items() if token in value["model"]["vocab"]}
        for added in value["added_tokens"]:
            added["id"] = new_id[added["content"]]
        for frame in (value["post_processor"], *value["post_processor"].get("processors", ())):
            for special in frame.get("special_tokens", {}).values():
                special["ids"] = [new_id[token] for token in special["tokens"]]
            for role in ("cls", "sep"):  # as other kinds of post-processor have them
                if role in frame:
                    frame[role] = [frame[role][0], new_id[frame[role][0]]]
        return HuggingFaceTokenizer(type(self._inner).from_str(json.dumps(value)), self._roles)

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, which Hugging Face libraries load with the same ids.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        write_whole(folder / "tokenizer.json", self._inner.to_str(pretty=True).encode())
        write_tokenizer_config(folder, self._roles, max_length)

    def _framed(self, text: str, found: Any, max_length: int | None) -> Encoding:
        before, after = self.frame
        keep = len(found) if max_length is None else room_for_text(max_length, self.frame)
        ids, spans = found.ids[:keep], found.offsets[:keep]  # taken now: `found` holds many times as much
        if self._forbidden:
            ids = [self._unknown_id if token_id in self._forbidden else token_id for token_id in ids]

        def offsets() -> list[tuple[int, int]]:
            return [(0, 0)] * len(before) + [_trimmed(text, *span) for span in spans] + [(0, 0)] * len(after)

        return Encoding([*before, *ids, *after], offsets, max(0, len(found) - keep))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the spaces at its edges, which some tokenizers count as part of the word."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def load_tokenizer(folder: Path) -> ModelTokenizer:
    """Read the tokenizer of a model folder: weebill's own reader for byte-level BPE, Hugging Face's for other kinds.

    Args:
        folder: with tokenizer.json, or with a BERT's vocab.txt.

    Raises:
        ArtifactError: neither is there, damaged, or of a kind that cannot be read without more code.
        MissingExtraError: `tokenizers` is needed and not installed.
    """
    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if not path.is_file() and vocabulary.is_file():
        return _from_vocabulary(vocabulary, _options(folder))
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    parts = [value.get(key) for key in ("decoder", "model")] if isinstance(value, dict) else [None, None]
    decoder, model = (part if isinstance(part, dict) else {} for part in parts)
    if not isinstance(value, dict) or decoder.get("type") == "ByteLevel":
        return Tokenizer.load(folder)
    library, options = _library(path), _options(folder)
    with _library_errors(path, "a tokenizer.json"):
        inner = library.Tokenizer.from_str(json.dumps(value))
        if _class(options) in _BERT_CLASSES and model.get("type") == "WordPiece":
            inner.normalizer = _bert_normalizer(library, options)
        return _wrapped(inner, options, path)


def _from_vocabulary(path: Path, options: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """Build a BERT's tokenizer from one token a line."""
    kind = _class(options)
    if kind not in _BERT_CLASSES:
        raise ArtifactError(f"{path.parent}: expected a tokenizer.json, or the vocab.txt of a BertTokenizer, got the "
                            f"vocab.txt of a {kind}, which weebill cannot run; choose another checkpoint")  # fmt: skip
    library = _library(path)
    try:
        tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: expected one token a line in UTF-8, got {error}; copy it again") from error
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    roles = _roles(options, vocabulary)
    if {"unk", "cls", "sep"} - set(roles):
        raise ArtifactError(f"{path}: expected a BERT's vocabulary with [UNK], [CLS] and [SEP], got {len(vocabulary)} "
                            f"tokens without; copy it again")  # fmt: skip
    with _library_errors(path, "a BERT's vocabulary"):
        inner = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=roles["unk"]))
        inner.normalizer = _bert_normalizer(library, options)
        inner.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        inner.decoder = library.decoders.WordPiece()
        inner.post_processor = library.processors.TemplateProcessing(
            single=f"{roles['cls']} $A {roles['sep']}",
            pair=f"{roles['cls']} $A {roles['sep']} $B:1 {roles['sep']}:1",
            special_tokens=[(roles[role], vocabulary[roles[role]]) for role in ("cls", "sep")],
        )
        return _wrapped(inner, options, path)


@contextmanager
def _library_errors(where: Path | str, expected: str) -> Iterator[None]:
    """Turn what the library raises into an ArtifactError: bare Exceptions, and panics that are not even those."""
    try:
        yield
    except (WeebillError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ArtifactError(f"{where}: expected {expected}, got a damaged one: {error}; copy it again") from error


def _class(options: Mapping[str, Any]) -> str:
    return options.get("tokenizer_class") or _BERT_CLASSES[0]


def _bert_normalizer(library: Any, options: Mapping[str, Any]) -> Any:
    """Return what a BERT does to a text first; tokenizer_config.json decides, as in transformers."""
    return library.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )


def _wrapped(inner: Any, options: Mapping[str, Any], path: Path) -> HuggingFaceTokenizer:
    try:
        return HuggingFaceTokenizer(inner, _roles(options, inner.get_vocab()))
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _roles(options: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[str, str]:
    """Return the special token of each role: the one tokenizer_config.json names, or a usual one."""
    roles = {}
    for role, usual in ROLES.items():
        named = options.get(f"{role}_token")
        named = named.get("content") if isinstance(named, dict) else named
        known = [name for name in (str(named), *usual) if name in vocabulary]
        if known:
            roles[role] = known[0]
    return roles


def _options(folder: Path) -> dict[str, Any]:
    try:
        value = parse_json((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / 'tokenizer_config.json'}: expected JSON, got {error}; copy it again") from error
    return value if isinstance(value, dict) else {}


def _library(path: Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "bert", f"reading {path}") from error
    return tokenizers
