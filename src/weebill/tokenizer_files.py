"""The files of a tokenizer, read and written: tokenizer.json and bpe_merged.json. Encodes no text.

Reading checks everything that would change token ids: a tokenizer is refused rather than read almost right. Left out on
purpose is what is not the tokenizer's but one use's of it: `truncation`, `padding`, and the model's `dropout`, which
Hugging Face draws anew at every call (weebill: `Tokenizer.encode_with_dropout`).
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weebill import bpe
from weebill.errors import ArtifactError, ConfigError
from weebill.files import write_whole
from weebill.model_files import parse_json
from weebill.normalize import NORMALIZERS, check_normalizers
from weebill.tiktoken_files import read_tiktoken
from weebill.tokenizer import Tokenizer

MERGE_MAP_FORMAT = "weebill-merge-map"
MERGE_MAP_VERSION = 1
ROLES = {
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}
_NORMALIZER_TYPES = {"NFC": "nfc", "Lowercase": "lowercase"}
Frame = tuple[list[int], list[int]]  # token ids before and after a text
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, ConfigError)
_LOG = logging.getLogger("weebill")


def read_tokenizer(path: Path, split_pattern: str | None) -> Tokenizer:
    """Read a tokenizer from a folder or a file of any of the three kinds.

    What a .tiktoken file does not say is assumed, with a warning that says so.

    Raises:
        ArtifactError: nothing there, damaged, or not byte-level BPE.
        ConfigError: a split pattern for a file that has its own.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if split_pattern is not None and file.suffix != ".tiktoken":
        raise ConfigError(f"split_pattern: expected a .tiktoken file, which does not say its own, got {path}, which "
                          f"does; leave it out")  # fmt: skip
    try:
        if file.suffix == ".tiktoken":
            tokenizer, assumed = read_tiktoken(file.read_bytes(), split_pattern, str(file))
            if assumed:
                _LOG.warning("%s: such a file holds ordinary tokens alone; assumed: %s", file, "; ".join(assumed))
            return tokenizer
        value = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{file}: expected a tokenizer, got nothing there; `weebill tokenizer train … --output "
                            f"{path}` makes one") from error  # fmt: skip
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: expected a tokenizer as JSON, got {error}; copy it again") from error
    if isinstance(value, dict) and value.get("format") == MERGE_MAP_FORMAT:
        return _from_merge_map(value, str(file))
    return _from_tokenizer_json(value, str(file))


# -- bpe_merged.json


def write_merge_map(tokenizer: Tokenizer, path: Path) -> None:
    """Write the merges and what is needed to use them.

    Raises:
        ConfigError: the token ids do not follow from the order of the merges, texts are not framed, or offsets not
            trimmed.
        ArtifactError: the file cannot be written.
    """
    value = {
        "format": MERGE_MAP_FORMAT,
        "format_version": MERGE_MAP_VERSION,
        "split_pattern": tokenizer.split_pattern,
        "normalizers": list(tokenizer.normalizers),
        "special_tokens": list(tokenizer.special_tokens),
        "merges": {_merge_name(tokenizer, pair): merged for pair, merged in tokenizer.merges.items()},
    }
    try:
        again = _from_merge_map(value, str(path))
    except ArtifactError:
        again = None
    if again is None or again.vocabulary != tokenizer.vocabulary:
        raise ConfigError(f"{path}: expected a tokenizer that numbers special tokens, then bytes, then merges, got "
                          f"another numbering; save it as tokenizer.json")  # fmt: skip
    if (again.frame, again.trim_offsets) != (tokenizer.frame, tokenizer.trim_offsets):
        raise ConfigError(f"{path}: expected a tokenizer that frames texts and trims offsets, which is all a merge map "
                          f"can hold, got one that does not; save it as tokenizer.json")  # fmt: skip
    _write_json(path, value)


def _from_merge_map(value: dict[str, Any], where: str) -> Tokenizer:
    version = value.get("format_version")
    if version != MERGE_MAP_VERSION:
        raise ArtifactError(f"{where}: expected format_version {MERGE_MAP_VERSION}, got {version!r}; upgrade weebill "
                            f"(git pull, pip install .)")  # fmt: skip
    try:
        special_tokens = [str(token) for token in value["special_tokens"]]
        shift = len(special_tokens)
        ids = {bpe.BYTE_CHARACTERS[byte]: shift + symbol for byte, symbol in enumerate(bpe.BYTE_SYMBOLS)}
        merges: bpe.Merges = {}
        for name, token_id in value["merges"].items():
            first, second = name.split(" ")
            merged = ids.setdefault(first + second, len(ids) + shift)
            if merged != token_id:
                raise ValueError(f"id {token_id!r} of {name!r}, which does not follow from the order of the merges")
            merges[(ids[first], ids[second])] = merged
        normalizers = [str(name) for name in value.get("normalizers", ())]
        return Tokenizer(merges, str(value["split_pattern"]), special_tokens, normalizers=normalizers)
    except _DAMAGE as error:
        raise ArtifactError(f"{where}: expected a merge map, got a damaged one: {error!r}; copy it again") from error


# -- tokenizer.json


def write_tokenizer_json(tokenizer: Tokenizer, folder: Path, max_length: int | None) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    _write_json(folder / "tokenizer.json", _tokenizer_json(tokenizer))
    roles = {role: name for role, names in ROLES.items() for name in names if name in tokenizer.special_tokens}
    write_tokenizer_config(folder, roles, max_length)


def write_tokenizer_config(folder: Path, roles: Mapping[str, str], max_length: int | None) -> None:
    """Write tokenizer_config.json, which tells Hugging Face libraries how to use tokenizer.json.

    Args:
        folder: where tokenizer.json is.
        roles: special token by role, of those in ROLES.
        max_length: in tokens, of the model; None = no limit.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length or 10**30,  # what transformers writes for "no limit"
        "split_special_tokens": True,  # a user who types "[CLS]" gets the letters, not the token
    } | {f"{role}_token": name for role, name in roles.items()}
    _write_json(folder / "tokenizer_config.json", config)


def _tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": tokenizer.trim_offsets, "use_regex": True,
    }  # fmt: skip
    pre_tokenizer: dict[str, Any] = byte_level
    if tokenizer.split_pattern != "gpt2":
        pattern = {"Regex": bpe.SPLIT_PATTERNS.get(tokenizer.split_pattern, tokenizer.split_pattern)}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, byte_level | {"use_regex": False}]}
    types = {name: kind for kind, name in _NORMALIZER_TYPES.items()}
    normalizers = [{"type": types[name]} for name in tokenizer.normalizers]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token} | flags for token, i in added],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {"type": "Sequence", "processors": [byte_level, *_template(tokenizer)]},
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
            "vocab": tokenizer.vocabulary,
            "merges": [_merge_name(tokenizer, pair) for pair in tokenizer.merges],
        },
    }


def _template(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return the post-processor that frames a text, if the tokenizer does."""
    before, after = ([tokenizer.token_name(i) for i in ids] for ids in tokenizer.frame)

    def special(tokens: Sequence[str], type_id: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": token, "type_id": type_id}} for token in tokens]

    def sequence(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    if not before and not after:
        return []
    single = [*special(before, 0), sequence("A", 0), *special(after, 0)]
    return [{
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), *special(after, 1)],
        "special_tokens": {
            token: {"id": token, "ids": [tokenizer.special_tokens[token]], "tokens": [token]}
            for token in dict.fromkeys((*before, *after))
        },
    }]  # fmt: skip


def _from_tokenizer_json(value: Any, where: str) -> Tokenizer:
    try:
        model = value["model"]
        _refuse_other_kinds(model)
        vocabulary: dict[str, int] = model["vocab"]
        outside = [i for i in vocabulary.values() if type(i) is not int or not 0 <= i < bpe.MAX_TOKENS]
        outside += [t["id"] for t in value.get("added_tokens") or () if not 0 <= int(t["id"]) < bpe.MAX_TOKENS]
        if outside:
            raise ValueError(f"the token id {outside[0]!r}")
        special_tokens = _read_added_tokens(value.get("added_tokens") or ())
        merges: bpe.Merges = {}
        for merge in model["merges"]:
            first, second = merge.split(" ") if isinstance(merge, str) else merge
            merges[(vocabulary[first], vocabulary[second])] = vocabulary[first + second]
        if not vocabulary.keys() >= set(bpe.BYTE_CHARACTERS):
            raise ValueError("a vocabulary without a token for each of the 256 bytes")
        byte_ids = [vocabulary[character] for character in bpe.BYTE_CHARACTERS]
        split_pattern, trim = _read_pre_tokenizer(value["pre_tokenizer"])
        frame, trim = _read_post_processor(value.get("post_processor"), trim)
        tokenizer = Tokenizer(
            merges,
            split_pattern,
            special_tokens,
            byte_ids,
            _read_normalizers(value.get("normalizer")),
            any(frame),
            trim,
        )
        _refuse_other_frame(frame, tokenizer)
        if {**vocabulary, **special_tokens} != tokenizer.vocabulary:
            raise ValueError("a vocabulary that is not special tokens, 256 bytes and merges")
    except _DAMAGE as error:
        message = (f"{where}: expected a byte-level BPE tokenizer.json, got another kind or a damaged one: {error!r}; "
                   f"train one with `weebill tokenizer train`")  # fmt: skip
        raise ArtifactError(message) from error
    return tokenizer


def _refuse_other_kinds(model: Mapping[str, Any]) -> None:
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"a model of type {model['type']}")
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(option):
            raise ValueError(f"{option} = {model[option]!r}")


def _read_pre_tokenizer(value: Mapping[str, Any]) -> tuple[str, bool]:
    """Return split pattern and whether offsets are trimmed."""
    steps = value.get("pretokenizers", [value])
    pattern = None
    if len(steps) == 2 and steps[0]["type"] == "Split":
        if steps[0].get("invert") or steps[0]["behavior"] != "Isolated":
            raise ValueError(f"a Split of behavior {steps[0]['behavior']}, invert {steps[0].get('invert')}")
        text = str(steps[0]["pattern"]["Regex"])
        pattern = next((name for name, known in bpe.SPLIT_PATTERNS.items() if known == text), text)
        steps = steps[1:]
    if len(steps) != 1:
        raise ValueError(f"the pre-tokenizers {', '.join(step['type'] for step in steps)}")
    [byte_level] = steps
    if byte_level["type"] != "ByteLevel" or byte_level.get("add_prefix_space"):
        raise ValueError(
            f"a pre-tokenizer {byte_level['type']} with add_prefix_space={byte_level.get('add_prefix_space')}"
        )
    if byte_level.get("use_regex", True) == (pattern is not None):
        raise ValueError("a pre-tokenizer that splits twice or not at all")
    return pattern or "gpt2", False


def _read_added_tokens(tokens: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return ids by name; all must be special, which those who use weebill never find in a text."""
    searched = [token["content"] for token in tokens if not token.get("special")]
    if searched:
        raise ValueError(f"the added token {searched[0]!r} with special = false, which is searched for in every text")
    return {str(token["content"]): int(token["id"]) for token in tokens}


def _read_post_processor(value: Mapping[str, Any] | None, trim: bool) -> tuple[Frame, bool]:
    """Return the token ids before and after a text, and whether offsets are trimmed."""
    before, after = list[int](), list[int]()
    for step in (value or {}).get("processors", [value] if value else []):
        if step["type"] == "ByteLevel":
            trim = trim or bool(step.get("trim_offsets", True))
        elif step["type"] == "RobertaProcessing":
            before, after = [step["cls"][1], *before], [*after, step["sep"][1]]
            trim = trim or bool(step.get("trim_offsets", True))
        elif step["type"] == "TemplateProcessing":
            more_before, more_after = _read_template(step)
            before, after = more_before + before, after + more_after
        else:
            raise ValueError(f"a post-processor {step['type']}")
    return (before, after), trim


def _read_template(step: Mapping[str, Any]) -> Frame:
    """Return the token ids that a template has before and after its text."""
    parts = [list[int]()]
    for piece in step["single"]:
        if "SpecialToken" in piece:
            parts[-1] += step["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
        else:
            parts.append([])
    if len(parts) != 2:
        raise ValueError(f"a template with {len(parts) - 1} texts")
    return parts[0], parts[1]


def _refuse_other_frame(frame: Frame, tokenizer: Tokenizer) -> None:
    """Refuse what a text would not be framed with: a tokenizer frames with its own [CLS] and [SEP], or not at all."""
    if frame != tokenizer.frame:
        before, after = ([tokenizer.token_name(i) for i in ids] for ids in frame)
        raise ValueError(f"a frame of {' '.join([*before, 'text', *after])}, where weebill puts [CLS] or <s> before "
                         f"and [SEP] or </s> after a text, as far as there are such tokens")  # fmt: skip


def _read_normalizers(value: Mapping[str, Any] | None) -> list[str]:
    steps = (value or {}).get("normalizers", [value] if value else [])
    unknown = [step["type"] for step in steps if step["type"] not in _NORMALIZER_TYPES]
    if unknown:
        raise ValueError(f"a normalizer {unknown[0]}")
    names = [_NORMALIZER_TYPES[step["type"]] for step in steps]
    if names != list(check_normalizers(names)):
        raise ValueError(f"the normalizers {', '.join(names)} in this order; weebill applies {NORMALIZERS[0]} first")
    return names


def _merge_name(tokenizer: Tokenizer, pair: Iterable[int]) -> str:
    return " ".join(map(tokenizer.token_name, pair))


def _write_json(path: Path, value: Any) -> None:
    write_whole(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
