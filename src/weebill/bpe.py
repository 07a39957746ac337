"""Byte-level BPE as pure functions: pretokenize, count pairs, learn merges, apply merges. Knows no files and no ids.

A *symbol* is an int: 0..255 are the bytes, in the order of the printable characters GPT-2 gave them; from 256 on, each
merge adds one. The order matters because ties between equally frequent pairs go to the smaller symbols.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise

import regex

from weebill.errors import ConfigError

Pair = tuple[int, int]
Merges = dict[Pair, int]
Progress = Callable[[int, int], None]

SPLIT_PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
}


def _byte_characters() -> list[str]:
    """Return GPT-2's printable character for each byte: itself where it is visible, else the next free one from U+0100.

    Source: openai/gpt-2 src/encoder.py, bytes_to_unicode.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(0x100 + hidden.index(byte)) if byte not in visible else chr(byte) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()
SYMBOL_BYTES = sorted(range(256), key=BYTE_CHARACTERS.__getitem__)  # symbol -> byte
BYTE_SYMBOLS = sorted(range(256), key=SYMBOL_BYTES.__getitem__)  # byte -> symbol


@cache
def compile_pattern(split_pattern: str) -> "regex.Pattern[str]":
    """Return the compiled split pattern for a name in SPLIT_PATTERNS or a regular expression.

    Raises:
        ConfigError: not a regular expression.
    """
    try:
        return regex.compile(SPLIT_PATTERNS.get(split_pattern, split_pattern))
    except regex.error as error:
        raise ConfigError(f"split_pattern: expected {', '.join(SPLIT_PATTERNS)} or a regular expression, got "
                          f"{split_pattern!r}: {error}; correct it") from error  # fmt: skip


def pretokenize(text: str, split_pattern: str = "gpt2") -> list[str]:
    """Return the pretokens of a text; joined they give the text. What the pattern does not match stays, as own pieces.

    Example:
        >>> pretokenize("it's nine am")
        ['it', "'s", ' nine', ' am']
        >>> pretokenize("a-b", "[a-z]")
        ['a', '-', 'b']
    """
    pieces, last = [], 0
    for match in compile_pattern(split_pattern).finditer(text):
        start, end = match.span()
        if start > last:
            pieces.append(text[last:start])
        if end > start:
            pieces.append(text[start:end])
        last = end
    if last < len(text):
        pieces.append(text[last:])
    return pieces


def symbols_of(pretoken: str) -> list[int]:
    """Return the byte symbols of a pretoken's UTF-8."""
    return [BYTE_SYMBOLS[byte] for byte in pretoken.encode("utf-8")]


def count_pairs(words: Iterable[tuple[Sequence[int], int]]) -> dict[Pair, int]:
    """Return how often each pair of neighbours occurs; words come as (symbols, count).

    Example:
        >>> count_pairs([([1, 2, 1, 2], 10), ([2, 1], 1)])
        {(1, 2): 20, (2, 1): 11}
    """
    counts: dict[Pair, int] = {}
    for symbols, count in words:
        for pair in pairwise(symbols):
            counts[pair] = counts.get(pair, 0) + count
    return counts


def learn_merges(
    pretoken_counts: Mapping[str, int], num_symbols: int, min_frequency: int = 0, progress: Progress | None = None
) -> Merges:
    """Return the merges that take 256 bytes to `num_symbols` symbols, in order: {pair: symbol it becomes}.

    Each round merges the most frequent pair, the smallest one among equals. A merge whose bytes are a symbol already
    (reached through other pairs) becomes that symbol. Ends early when no pair is left that occurs `min_frequency`
    times. Deterministic, whatever the order of the counts.

    Args:
        pretoken_counts: how often each pretoken occurs.
        num_symbols: 256 + number of distinct merged symbols wanted.
        min_frequency: pairs rarer than this are not merged.
        progress: called with (symbols so far, num_symbols), about a hundred times.

    Source:
        Sennrich et al. 2016; gives the merges of Hugging Face tokenizers' BpeTrainer, including that the count of a
        pair is adjusted by its neighbours only.
    """
    words = [symbols_of(pretoken) for pretoken in pretoken_counts]
    counts = list(pretoken_counts.values())
    pair_counts = count_pairs(zip(words, counts, strict=True))
    places: dict[Pair, set[int]] = {}
    for number, symbols in enumerate(words):
        for pair in pairwise(symbols):
            places.setdefault(pair, set()).add(number)
    queue = [(-pair_counts[pair], pair, where) for pair, where in places.items()]
    heapq.heapify(queue)
    symbol_bytes = [bytes([byte]) for byte in SYMBOL_BYTES]
    known = {value: symbol for symbol, value in enumerate(symbol_bytes)}
    merges: Merges = {}
    report_every = max(1, (num_symbols - 256) // 100)
    while len(symbol_bytes) < num_symbols and queue:
        negative_count, pair, where = heapq.heappop(queue)
        count = pair_counts[pair]
        if count != -negative_count:  # neighbours were merged since: file it under its present count
            heapq.heappush(queue, (-count, pair, where))
            continue
        if count < max(1, min_frequency):
            break
        value = symbol_bytes[pair[0]] + symbol_bytes[pair[1]]
        merged = known.setdefault(value, len(symbol_bytes))
        if merged == len(symbol_bytes):
            symbol_bytes.append(value)
            if progress and merged % report_every == 0:
                progress(merged + 1, num_symbols)
        merges.pop(pair, None)  # a pair learned again takes its later place
        merges[pair] = merged
        grown: dict[Pair, set[int]] = {}
        for number in where:
            _merge_word(words[number], pair, merged, counts[number], pair_counts, grown, number)
        for new_pair, new_places in grown.items():
            if pair_counts[new_pair] > 0:
                heapq.heappush(queue, (-pair_counts[new_pair], new_pair, new_places))
    if progress:
        progress(len(symbol_bytes), len(symbol_bytes))
    return merges


def _merge_word(
    symbols: list[int],
    pair: Pair,
    merged: int,
    count: int,
    pair_counts: dict[Pair, int],
    grown: dict[Pair, set[int]],
    number: int,
) -> None:
    """Merge `pair` in one word in place; adjust the counts of its neighbours and note where new pairs arose."""
    first, second = pair
    i = 0
    while i < len(symbols) - 1:
        if symbols[i] == first and symbols[i + 1] == second:
            symbols[i : i + 2] = [merged]
            if i > 0:
                before = symbols[i - 1]
                pair_counts[(before, first)] = pair_counts.get((before, first), 0) - count
                pair_counts[(before, merged)] = pair_counts.get((before, merged), 0) + count
                grown.setdefault((before, merged), set()).add(number)
            if i + 1 < len(symbols):
                after = symbols[i + 1]
                pair_counts[(second, after)] = pair_counts.get((second, after), 0) - count
                pair_counts[(merged, after)] = pair_counts.get((merged, after), 0) + count
                grown.setdefault((merged, after), set()).add(number)
        i += 1


def merge_ranks(merges: Merges) -> dict[Pair, tuple[int, int]]:
    """Return {pair: (rank, merged symbol)}, what `apply_merges` looks up; rank 0 is merged first."""
    return {pair: (rank, merged) for rank, (pair, merged) in enumerate(merges.items())}


def apply_merges(symbols: Sequence[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """Return the symbols after merging: always the pair of lowest rank, the leftmost among equals, until none is left.

    Takes O(n log n) for n symbols, so that one long word costs no more than many short ones.

    Example:
        >>> apply_merges([1, 2, 1, 2, 3], {(1, 2): (0, 256), (256, 3): (1, 257)})
        [256, 257]
    """
    out = list(symbols)
    if len(out) < 2:
        return out
    following = [*range(1, len(out)), -1]
    previous = list(range(-1, len(out) - 1))
    queue = [
        (*found, i) for i in range(len(out) - 1) if (found := ranks.get((out[i], out[i + 1]))) is not None
    ]  # fmt: skip
    heapq.heapify(queue)
    while queue:
        rank, merged, i = heapq.heappop(queue)
        j = following[i]
        if out[i] < 0 or j < 0 or ranks.get((out[i], out[j])) != (rank, merged):
            continue  # one of the two was merged elsewhere
        out[i], out[j] = merged, -1
        after = following[i] = following[j]
        if after >= 0:
            previous[after] = i
            if (found := ranks.get((merged, out[after]))) is not None:
                heapq.heappush(queue, (*found, i))
        before = previous[i]
        if before >= 0 and (found := ranks.get((out[before], merged))) is not None:
            heapq.heappush(queue, (*found, before))
    return [symbol for symbol in out if symbol >= 0]
