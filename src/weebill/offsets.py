"""Where each token of a text starts and ends, in code points of the original. Encodes and decodes nothing."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from weebill.normalize import normalize, origins

Offsets = list[tuple[int, int]]


def token_offsets(text: str, tokens: Iterable[bytes], normalizers: Sequence[str] = (), trim: bool = True) -> Offsets:
    """Return the half-open span of each token: all characters it has a byte of, without spaces at its edges.

    Tokens that share a character have the same span; a token of spaces alone has an empty one.

    Args:
        text: the original, without lone surrogates.
        tokens: bytes that join to the UTF-8 of the normalised text, or to the beginning of it.
        normalizers: what was applied before tokenizing.
        trim: leave out spaces at the edges.

    Example:
        >>> token_offsets("at né", [b"at", b" n", bytes([0xC3]), bytes([0xA9])])
        [(0, 2), (3, 4), (4, 5), (4, 5)]
    """
    normal = normalize(text, normalizers)
    starts, ends = _character_of_byte(normal)
    offsets, at = [], 0
    for token in tokens:
        start, end = starts[at], ends[at + len(token) - 1]
        at += len(token)
        if trim and (token[0] == 32 or token[-1] == 32):
            start = min(start + len(token) - len(token.lstrip(b" ")), end)
            end = max(start, end - (len(token) - len(token.rstrip(b" "))))
        offsets.append((start, end))
    if normal == text:
        return offsets
    origin = [*origins(text, normalizers), (len(text), len(text))]
    return [(origin[a][0], origin[b - 1][1] if b > a else origin[a][0]) for a, b in offsets]


def edges(token: bytes, trim: bool = True) -> tuple[int, int, int]:
    """Return a token's length in bytes, and how many spaces at its beginning and at its end do not count.

    Example:
        >>> edges(b" at"), edges(b"  "), edges(b" at", trim=False)
        ((3, 1, 0), (2, 2, 0), (3, 0, 0))
    """
    before = len(token) - len(token.lstrip(b" ")) if trim else 0
    after = len(token) - len(token.rstrip(b" ")) if trim and before < len(token) else 0
    return len(token), before, after


def ascii_offsets(token_edges: Iterable[tuple[int, int, int]]) -> Offsets:
    """Return what `token_offsets` gives for a text in ASCII, sooner: its bytes are characters, as no normalizer moves.

    Example:
        >>> ascii_offsets([edges(b"at"), edges(b" no")])
        [(0, 2), (3, 5)]
    """
    offsets, at = [], 0
    for length, before, after in token_edges:
        end = at + length
        offsets.append((at + before, end - after))
        at = end
    return offsets


def _character_of_byte(text: str) -> tuple[Sequence[int], Sequence[int]]:
    """Return, for each byte of a text's UTF-8, where its character starts and where it ends, in code points."""
    if text.isascii():
        return range(len(text)), range(1, len(text) + 1)
    leads = [byte & 0xC0 != 0x80 for byte in text.encode("utf-8")]
    ends = list(accumulate(leads, initial=0))[1:]  # from 0 on, for the first lead alone would stay True
    return [end - 1 for end in ends], ends


def utf16_positions(text: str) -> Sequence[int]:
    """Return where each code point of a text, and its end, is in UTF-16 code units, as JavaScript and Java count.

    Example:
        >>> list(utf16_positions("a🎵b"))
        [0, 1, 3, 4]
    """
    if text.isascii():
        return range(len(text) + 1)
    return [0, *accumulate(2 if character > "\uffff" else 1 for character in text)]
