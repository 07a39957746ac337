"""A tokenizer as a .tiktoken file, read and written, and what such a file cannot hold. Encodes no text.

A line is a token in base64 and its rank, which is its id. Special tokens, split pattern and normalizers have no place
in it: tiktoken is told the first two by hand and does not know the third.
"""

import base64
import binascii
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from weebill import bpe
from weebill.errors import ArtifactError, ConfigError
from weebill.files import write_whole
from weebill.tokenizer import SPECIAL_TOKENS, Tokenizer

SHOWN_IDS = 10


def write_tiktoken(tokenizer: Tokenizer, path: Path) -> None:
    """Write base64 token and rank a line; `tiktoken_losses` says what is not in the file.

    Raises:
        ConfigError: merging by tiktoken's rule would give other tokens.
        ArtifactError: the file cannot be written.
    """
    ranks = {tokenizer.token_bytes(i): i for i in _ordinary_ids(tokenizer)}
    order = list(tokenizer.merges.values())
    if any(a >= b for a, b in pairwise(order)):
        raise ConfigError(f"{path}: expected merges in the order of their token ids, which is all tiktoken can hold, "
                          f"got others; save the tokenizer as tokenizer.json")  # fmt: skip
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()]
    write_whole(path, b"".join(lines))


def tiktoken_losses(tokenizer: Tokenizer) -> list[str]:
    """Return what a .tiktoken file of the tokenizer does not hold and reading it would not give back, in words.

    Example:
        >>> tiktoken_losses(Tokenizer({}, normalizers=("lowercase",)))
        ['the normalizers lowercase: apply them before']
        >>> tiktoken_losses(Tokenizer({}))
        []
    """
    special_tokens = _assumed_special_tokens(_ordinary_ids(tokenizer))
    again = Tokenizer({}, special_tokens=special_tokens, byte_ids=tokenizer.byte_ids)
    losses = []
    if tokenizer.normalizers:
        losses.append(f"the normalizers {', '.join(tokenizer.normalizers)}: apply them before")
    if tokenizer.split_pattern != again.split_pattern:
        losses.append(f"the split pattern {tokenizer.split_pattern}: name it when you read the file")
    if tokenizer.special_tokens != again.special_tokens:
        losses.append(f"the special tokens {_listed(tokenizer.special_tokens)}")
    if tokenizer.frame != again.frame:
        before, after = (" ".join(map(tokenizer.token_name, ids)) for ids in tokenizer.frame)
        losses.append(f"the frame of a text: {before or 'nothing'} before it, {after or 'nothing'} after it")
    if tokenizer.trim_offsets != again.trim_offsets:
        losses.append("that offsets hold the spaces at the edges of tokens")
    return losses


def read_tiktoken(body: bytes, split_pattern: str | None, where: str) -> tuple[Tokenizer, list[str]]:
    """Return the tokenizer of a file, and in words what was assumed as no such file says it.

    Tokens carry no merges: each one's are found by merging its bytes with the tokens before it. Where four ids are free
    they are taken for [PAD], [CLS], [SEP] and [MASK], as in weebill's own files; of any other number none has a name.

    Args:
        body: of the file.
        split_pattern: None = assume gpt2.
        where: of it, for messages.

    Raises:
        ArtifactError: damaged, or not of a BPE.
    """
    ranks = _read_ranks(body, where)
    merges: bpe.Merges = {}
    found: dict[bpe.Pair, tuple[int, int]] = {}
    byte_ids = [ranks[bytes([byte])] for byte in range(256)]
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = bpe.apply_merges([byte_ids[byte] for byte in token], found)
        if len(parts) != 2:
            raise ArtifactError(f"{where}: expected tokens that two smaller ones make, got {token!r}, which takes "
                                f"{len(parts)}; the file is damaged or not of a BPE")  # fmt: skip
        pair = (parts[0], parts[1])
        merges[pair] = rank
        found[pair] = (rank, rank)
    special_tokens = _assumed_special_tokens(ranks.values())
    assumed = []
    if split_pattern is None:
        assumed.append("the split pattern gpt2, unless you name another (GPT-4's files have gpt4)")
    if special_tokens:
        assumed.append(f"the special tokens {_listed(special_tokens)}")
    elif free := _free_ids(ranks.values()):
        more = f" and {len(free) - SHOWN_IDS} more" if len(free) > SHOWN_IDS else ""
        assumed.append(f"no special tokens, though no token has the ids {', '.join(map(str, free[:SHOWN_IDS]))}{more}")
    return Tokenizer(merges, split_pattern or "gpt2", special_tokens, byte_ids), assumed


def _read_ranks(body: bytes, where: str) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            encoded, number_text = line.split()
            ranks[base64.b64decode(encoded, validate=True)] = int(number_text)
        except (ValueError, binascii.Error) as error:
            raise ArtifactError(f"{where}:{number}: expected a base64 token and its rank, got {line[:60]!r}; copy the "
                                f"file again") from error  # fmt: skip
    missing = next((byte for byte in range(256) if bytes([byte]) not in ranks), None)
    if missing is not None:
        raise ArtifactError(f"{where}: expected a token for each of the 256 bytes, got none for {missing:#04x}; copy "
                            f"the file again")  # fmt: skip
    taken = set(ranks.values())
    if len(taken) < len(ranks) or min(taken) < 0 or max(taken) >= bpe.MAX_TOKENS:
        raise ArtifactError(f"{where}: expected distinct ranks from 0 to {bpe.MAX_TOKENS - 1:,}, got others; copy the "
                            f"file again")  # fmt: skip
    return ranks


def _ordinary_ids(tokenizer: Tokenizer) -> list[int]:
    special = set(tokenizer.special_tokens.values())
    return [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) and i not in special]


def _free_ids(taken: Collection[int]) -> list[int]:
    taken = set(taken)
    return [i for i in range(max(taken)) if i not in taken]


def _assumed_special_tokens(taken: Collection[int]) -> dict[str, int]:
    free = _free_ids(taken)
    return dict(zip(SPECIAL_TOKENS, free, strict=True)) if len(free) == len(SPECIAL_TOKENS) else {}


def _listed(special_tokens: dict[str, int]) -> str:
    return ", ".join(f"{name} = {token_id}" for name, token_id in special_tokens.items()) or "(none)"
