"""PackedEncoder: text -> token ids as bytes, remembering what it met. Knows no special tokens, no frame, no offsets."""

import re
from array import array
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from itertools import chain, filterfalse, pairwise

import numpy as np

from weebill import bpe
from weebill.counting import SAFE_SPACE, UNSAFE_SPACE, blocks_of, well_formed
from weebill.encodings import ID_BYTES
from weebill.memory import Memory, Promises
from weebill.merge_table import MergeTable
from weebill.normalize import normalize

MEMORY_BYTES = 64 * 2**20  # of the largest of three memories; the others have a half and a quarter
LONG_CHARACTERS = 2_000  # from here on a chunk's pretokens are merged together
SLICE_CHARACTERS = 500_000  # of texts encoded together; what is new in them fits into the memories
FEW_WORDS = 100  # are merged sooner one by one
SHORT_CHARACTERS = 32  # longer words would keep all others waiting
SPACE, NEWLINE, LETTER, DIGIT, REST = range(5)  # kinds of characters
ASCII_KINDS = bytearray(LETTER if c.isalpha() else DIGIT if c.isdigit() else REST for c in map(chr, range(256)))
ASCII_KINDS[ord(" ")], ASCII_KINDS[ord("\n")] = SPACE, NEWLINE
LINE_START = re.compile(r"\n(?=\S)")


class PackedEncoder:
    """Encodes ordinary text: cuts it at spaces into chunks, these into pretokens, and merges each pretoken's bytes.

    Chunks and pretokens are looked up in memories first. Ids stay packed, ID_BYTES each, so that those of many chunks
    are joined in one copy.

    Args:
        ranks: from `bpe.merge_ranks`, of token ids.
        byte_ids: the token id of each of the 256 bytes.
        split_pattern: see `bpe.pretokenize`.
        normalizers: see `normalize.normalize`.

    Example:
        >>> encoder = PackedEncoder({(97, 98): (0, 256)}, range(256))
        >>> [unpack(packed) for packed in encoder.encode_all(["ab b", "abab"])]
        [[256, 32, 98], [256, 256]]
    """

    def __init__(
        self, ranks: bpe.Ranks, byte_ids: Sequence[int], split_pattern: str = "gpt2", normalizers: Sequence[str] = ()
    ):
        self._ranks, self._byte_ids = ranks, byte_ids
        self._split_pattern, self._normalizers = split_pattern, normalizers
        self._cuts_at_spaces = split_pattern in bpe.SPLIT_PATTERNS
        self._cuts_at_newlines = split_pattern == "gpt2"  # gpt4 joins a newline to the punctuation before it
        self._after_space = Memory(self._encode_after_space, MEMORY_BYTES)
        self._chunks = Memory(self._encode_chunk, MEMORY_BYTES // 4)
        self._pretokens = Memory(self._encode_pretoken, MEMORY_BYTES // 2)

    def encode(self, text: str) -> bytes:
        """Return the packed token ids of a text."""
        text = normalize(text, self._normalizers) if self._normalizers else text
        if not self._cuts_at_spaces:
            return self._encode_chunk(text)
        first, *chunks = self._cut(text)
        try:
            return self._chunks[first] + b"".join(map(self._after_space.__getitem__, chunks))
        except _UnsafeSpace:
            return self._encode_unsafe(text)

    def encode_all(self, texts: Iterable[str]) -> list[bytes]:
        """Return what `encode` returns for each text, sooner: what is new in many is split and merged together."""
        if not self._cuts_at_spaces:
            return [self.encode(text) for text in texts]
        normal = (normalize(text, self._normalizers) for text in texts) if self._normalizers else texts
        return [packed for some in blocks_of(normal, SLICE_CHARACTERS) for packed in self._encode_slice(some)]

    def byte_tokens(self, pretoken: str) -> list[int]:
        """Return the token ids of a pretoken before any merge."""
        return [self._byte_ids[byte] for byte in pretoken.encode("utf-8")]

    def _cut(self, text: str) -> list[str]:
        """Return the first chunk and those after it. No pretoken crosses a single space between visible characters.

        Under gpt2 a newline before a visible character is a pretoken of its own: a chunk that starts with one follows
        the chunk before it without a space. The last word of a paragraph and the first of the next are often known,
        the two together hardly ever.
        """
        return (LINE_START.sub(" \n", text) if self._cuts_at_newlines else text).split(" ")

    def _is_unsafe(self, chunk: str) -> bool:
        """Return whether white space follows the space before a chunk: then the text cannot be cut there."""
        first = chunk[1:2] if self._cuts_at_newlines and chunk[:1] == "\n" else chunk[:1]
        return not first or first.isspace()

    def _encode_slice(self, texts: Sequence[str]) -> list[bytes]:
        """Join what is remembered of each text; where something is not, join promises of it once they are kept."""
        packed: list[bytes] = []
        incomplete: list[tuple[int, list[bytes], int]] = []
        with self._chunks.promising() as new_firsts, self._after_space.promising() as new_chunks:
            look_up = self._after_space.__getitem__
            for number, text in enumerate(texts):
                chunks = self._cut(text)
                promised = new_firsts.made + new_chunks.made
                skip = 0
                if not self._cuts_at_newlines or not text[:1].strip():
                    ids = [self._chunks[chunks.pop(0)]]
                else:  # as if a line had ended before it: a chunk that begins a line is known sooner
                    chunks[0] = "\n" + chunks[0]
                    ids, skip = [], ID_BYTES
                ids += map(look_up, chunks)
                if new_firsts.made + new_chunks.made > promised:
                    incomplete.append((number, ids, skip))
                    packed.append(b"")
                else:
                    packed.append(b"".join(ids)[skip:])
        if not incomplete:
            return packed
        unsafe = [*filter(self._is_unsafe, filterfalse(str.isprintable, new_chunks))]  # white space is not printable
        unsafe += {""} & new_chunks.keys()
        for chunk in unsafe:
            del new_chunks[chunk]
        self._fulfil(new_firsts, new_chunks)
        for number, ids, skip in incomplete:
            cannot_be_cut = unsafe and UNSAFE_SPACE.search(texts[number])
            packed[number] = self._encode_unsafe(texts[number]) if cannot_be_cut else b"".join(ids)[skip:]
        return packed

    def _fulfil(self, new_firsts: Promises, new_chunks: Promises) -> None:
        """Fill the promises of first and other chunks and remember their ids, all split and merged together."""
        for memory, new in ((self._chunks, new_firsts), (self._after_space, new_chunks)):
            for piece in [piece for piece in new if len(piece) >= LONG_CHARACTERS]:
                promise = new.pop(piece)
                promise += memory[piece]
        plain, other = self._sort_out(new_chunks)
        in_ascii = [*filter(str.isascii, other)]  # which is split faster
        other = [*in_ascii, *filterfalse(str.isascii, other)]
        spaced = [chunk if chunk[0] == "\n" else " " + chunk for chunk in other]
        pretokens = self._split("".join(spaced[: len(in_ascii)])) + self._split("".join(spaced[len(in_ascii) :]))
        for first in new_firsts:
            pretokens += self._split(first)
        missing = filterfalse(self._pretokens.__contains__, set(pretokens))
        short = [pretoken for pretoken in missing if len(pretoken) <= SHORT_CHARACTERS]
        plain_ids: list[bytes] = []
        if plain or len(short) >= FEW_WORDS:
            ids = self._merge_together(plain, short)
            self._pretokens.keep(short, ids[len(plain) :])
            plain_ids = ids[: len(plain)]
        ids = _join_by_text([*spaced, *new_firsts], pretokens, list(map(self._pretokens.__getitem__, pretokens)))
        self._after_space.keep(plain, plain_ids)
        self._after_space.keep(other, ids[: len(other)])
        self._chunks.keep([*new_firsts], ids[len(other) :])
        promises = chain(map(new_chunks.__getitem__, plain + other), new_firsts.values())
        deque(map(bytearray.extend, promises, plain_ids + ids), maxlen=0)

    def _sort_out(self, chunks: Collection[str]) -> tuple[list[str], list[str]]:
        """Return short chunks of visible ASCII, whose pretokens gpt2 tells by kinds of characters, and the others."""
        plain: list[str] = []
        other: list[str] = []
        if not self._cuts_at_newlines or len(chunks) < FEW_WORDS:
            return plain, [*chunks]
        for chunk in chunks:
            is_plain = chunk.isascii() and "'" not in chunk and len(chunk) <= SHORT_CHARACTERS
            is_plain = is_plain and (chunk.isprintable() or (chunk[0] == "\n" and chunk[1:].isprintable()))
            (plain if is_plain else other).append(chunk)
        return plain, other

    def _merge_together(self, plain: Sequence[str], pretokens: Sequence[str]) -> list[bytes]:
        """Return the ids of plain chunks and of pretokens."""
        text = " ".join(["", *plain]).replace(" \n", "\n").encode()
        encoded = list(map(str.encode, pretokens))
        kinds_N = np.frombuffer(text.translate(ASCII_KINDS), np.uint8)
        chunk_starts_N = kinds_N <= NEWLINE
        word_starts_N = chunk_starts_N.copy()
        word_starts_N[1:] |= (kinds_N[1:] != kinds_N[:-1]) & (kinds_N[:-1] != SPACE)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        pretoken_starts = np.zeros(lengths.sum(), bool)
        pretoken_starts[np.cumsum(lengths) - lengths] = True
        return self._merge_table.apply(
            np.frombuffer(text + b"".join(encoded), np.uint8),
            np.append(word_starts_N, pretoken_starts),
            np.append(chunk_starts_N, pretoken_starts),
        )

    def _split(self, text: str) -> list[str]:
        return bpe.pretokenize(well_formed(text), self._split_pattern)

    def _encode_unsafe(self, text: str) -> bytes:
        first, *chunks = SAFE_SPACE.split(text)
        return self._chunks[first] + b"".join(map(self._after_space.__getitem__, chunks))

    def _encode_after_space(self, chunk: str) -> bytes:
        if self._is_unsafe(chunk):
            raise _UnsafeSpace
        return self._encode_chunk(chunk if chunk[0] == "\n" else " " + chunk)

    @cached_property
    def _merge_table(self) -> MergeTable:
        return MergeTable(self._ranks, self._byte_ids)

    def _encode_chunk(self, chunk: str) -> bytes:
        pretokens = self._split(chunk)
        if len(chunk) < LONG_CHARACTERS:
            return b"".join(map(self._pretokens.__getitem__, pretokens))
        merged = bpe.apply_merges_to_all(pretokens, self._ranks, self._byte_ids)
        return pack(chain.from_iterable(map(merged.__getitem__, pretokens)))

    def _encode_pretoken(self, pretoken: str) -> bytes:
        return pack(bpe.apply_merges(self.byte_tokens(pretoken), self._ranks))


def pack(token_ids: Iterable[int]) -> bytes:
    """Return token ids as bytes, ID_BYTES each."""
    return array("i", token_ids).tobytes()


def unpack(packed: bytes) -> list[int]:
    """Return the token ids that were packed."""
    token_ids = array("i")
    token_ids.frombytes(packed)
    return token_ids.tolist()


def _join_by_text(texts: Sequence[str], pretokens: Sequence[str], ids: Sequence[bytes]) -> list[bytes]:
    """Return the joined ids of each text, given all their pretokens and the ids of these, in order."""
    text_ends, pretoken_ends, id_ends = (
        np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces))) for pieces in (texts, pretokens, ids)
    )
    bounds = np.append(0, id_ends)[pretoken_ends.searchsorted(text_ends, side="right")].tolist()
    packed = b"".join(ids)
    return [packed[start:end] for start, end in pairwise([0, *bounds])]


class _UnsafeSpace(Exception):
    """A space beside other white space: the text cannot be cut there before the split pattern has seen it."""
