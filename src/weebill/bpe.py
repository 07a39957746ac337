"""Byte-level BPE as pure functions: pretokenize, count pairs, learn merges, apply merges. Knows no files and no ids.

A *symbol* is an int: 0..255 are the bytes, in the order of the printable characters GPT-2 gave them; from 256 on, each
merge adds one. The order matters because ties between equally frequent pairs go to the smaller symbols.
"""

import heapq
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import count as count_up
from itertools import pairwise

import numpy as np
import regex

from weebill.errors import ConfigError
from weebill.symbol_row import Places, SymbolRow

Pair = tuple[int, int]
Merges = dict[Pair, int]
Ranks = Mapping[Pair, tuple[int, int]]
Progress = Callable[[int, int], None]

SPLIT_PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
}

MAX_TOKENS = 1 << 22  # no id reaches it: many times any vocabulary
MAX_PATTERN_CHARS = 2_000
PATTERN_SECONDS = 5.0  # for a text of a split pattern that is not one of the above, and one more for CHARS_PER_SECOND
CHARS_PER_SECOND = 100_000  # a tenth of what a simple pattern does


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
        ConfigError: not a regular expression, one that takes long to compile, or a mistyped name.
    """
    try:
        if len(split_pattern) > MAX_PATTERN_CHARS or re.search(r"[{,]\s*\d{4,}", split_pattern):
            raise ValueError(f"more than {MAX_PATTERN_CHARS} characters or 999 repetitions")
        if split_pattern not in SPLIT_PATTERNS and re.fullmatch(r"\w[\w.-]*", split_pattern):
            raise ValueError("a word, which would split texts at that word alone")
        return regex.compile(SPLIT_PATTERNS.get(split_pattern, split_pattern))
    except (regex.error, ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(f"split_pattern: expected {', '.join(SPLIT_PATTERNS)} or a regular expression, got "
                          f"{split_pattern[:80]!r}: {error}; correct it") from error  # fmt: skip


@cache
def _ascii_pattern(name: str) -> "re.Pattern[str]":
    """Return what splits ASCII as the named pattern does: Python's own engine takes less than half of regex's time."""
    pattern = re.sub(
        r"\[[^]]*\]", lambda found: found[0].replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9"), SPLIT_PATTERNS[name]
    )
    return re.compile(pattern.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]"), re.ASCII)


def pretokenize(text: str, split_pattern: str = "gpt2") -> list[str]:
    """Return the pretokens of a text; joined they give the text. What the pattern does not match stays, as own pieces.

    Raises:
        ConfigError: a pattern that is not one of SPLIT_PATTERNS takes too long.

    Example:
        >>> pretokenize("it's nine am")
        ['it', "'s", ' nine', ' am']
        >>> pretokenize("a-b", "[a-z]")
        ['a', '-', 'b']
    """
    if split_pattern in SPLIT_PATTERNS:  # these match every character
        pattern = _ascii_pattern(split_pattern) if text.isascii() else compile_pattern(split_pattern)
        found: list[str] = pattern.findall(text)
        return found
    pieces, last = [], 0
    allowed = PATTERN_SECONDS + len(text) / CHARS_PER_SECOND
    try:
        for match in compile_pattern(split_pattern).finditer(text, timeout=allowed):
            start, end = match.span()
            if start > last:
                pieces.append(text[last:start])
            if end > start:
                pieces.append(text[start:end])
            last = end
    except TimeoutError as error:
        raise ConfigError(f"split_pattern: expected one that splits {len(text):,} characters within {allowed:.0f} s, "
                          f"got {split_pattern[:80]!r}; a repeat within a repeat makes it slow: correct the pattern, "
                          f"or use another tokenizer") from error  # fmt: skip
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

    Example:
        >>> a, b = BYTE_SYMBOLS[ord("a")], BYTE_SYMBOLS[ord("b")]
        >>> learn_merges({"aab": 2, "ab": 1}, 258) == {(a, b): 256, (a, 256): 257}
        True
    """
    row = SymbolRow(pretoken_counts, BYTE_SYMBOLS)
    pair_counts: dict[Pair, int] = {}
    serial = count_up()  # so that the heap never compares places
    queue: list[tuple[int, Pair, int, Places]] = []
    for pair, places, count in row.pairs():
        pair_counts[pair] = count
        queue.append((-count, pair, next(serial), places))
    heapq.heapify(queue)
    symbol_bytes = [bytes([byte]) for byte in SYMBOL_BYTES]
    known = {value: symbol for symbol, value in enumerate(symbol_bytes)}
    merges: Merges = {}
    report_every = max(1, (num_symbols - 256) // 100)
    while len(symbol_bytes) < num_symbols and queue:
        negative_count, pair, number, places = heapq.heappop(queue)
        count = pair_counts[pair]
        if count != -negative_count:  # neighbours were merged since: file it under its present count
            heapq.heappush(queue, (-count, pair, number, places))
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
        before, after = row.merge(places, pair, merged)
        grown: dict[Pair, Places] = {}
        for old, new, where, change in (
            *(((symbol, pair[0]), (symbol, merged), where, change) for symbol, where, change in before),
            *(((pair[1], symbol), (merged, symbol), where, change) for symbol, where, change in after),
        ):
            pair_counts[old] = pair_counts.get(old, 0) - change
            pair_counts[new] = pair_counts.get(new, 0) + change
            grown[new] = np.concatenate([grown[new], where]) if new in grown else where
        for new, where in grown.items():
            if pair_counts[new] > 0:
                heapq.heappush(queue, (-pair_counts[new], new, next(serial), where))
    if progress:
        progress(len(symbol_bytes), len(symbol_bytes))
    return merges


def merge_ranks(merges: Merges) -> Ranks:
    """Return {pair: (rank, merged symbol)}, what `apply_merges` looks up; rank 0 is merged first."""
    return {pair: (rank, merged) for rank, (pair, merged) in enumerate(merges.items())}


def apply_merges(symbols: Sequence[int], ranks: Ranks, keep: Callable[[], bool] | None = None) -> list[int]:
    """Return the symbols after merging: always the pair of lowest rank, the leftmost among equals, until none is left.

    Takes O(n log n) for n symbols, so that one long word costs no more than many short ones.

    Args:
        symbols: of one pretoken.
        ranks: from `merge_ranks`.
        keep: asked whenever a merge is next; False puts that one off until another was made (BPE-dropout).

    Source:
        Sennrich et al. 2016; `keep` as in Provilkov et al. 2020 and Hugging Face tokenizers' `dropout`.

    Example:
        >>> apply_merges([1, 2, 1, 2, 3], {(1, 2): (0, 256), (256, 3): (1, 257)})
        [256, 257]
    """
    out = list(symbols)
    if len(out) < 2:
        return out
    following = [*range(1, len(out)), -1]
    previous = list(range(-1, len(out) - 1))
    queue = [(*found, i) for i, pair in enumerate(pairwise(out)) if (found := ranks.get(pair)) is not None]
    put_off: list[tuple[int, int, int]] = []
    heapq.heapify(queue)
    while queue:
        rank, merged, i = heapq.heappop(queue)
        if keep is not None and not keep():
            put_off.append((rank, merged, i))
            continue
        while put_off:
            heapq.heappush(queue, put_off.pop())
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


def apply_merges_to_all(words: Iterable[str], ranks: Ranks, byte_symbols: Sequence[int]) -> dict[str, list[int]]:
    """Return {word: its symbols after merging} for many words at once, or for one of a million characters.

    Gives what `apply_merges` gives, up to ten times faster from a few thousand bytes on: a pair is merged in all words
    in one go.

    Example:
        >>> a, b = BYTE_SYMBOLS[ord("a")], BYTE_SYMBOLS[ord("b")]
        >>> apply_merges_to_all(["ab", "b"], {(a, b): (0, 256)}, BYTE_SYMBOLS) == {"ab": [256], "b": [b]}
        True
    """
    distinct = dict.fromkeys(words, 1)
    row = SymbolRow(distinct, byte_symbols)
    waiting: dict[Pair, list[Places]] = {}
    queue: list[tuple[int, int, Pair]] = []

    def wait(pair: Pair, places: Places) -> int | None:
        if (found := ranks.get(pair)) is None:
            return None
        if pair in waiting:
            waiting[pair].append(places)
        else:
            waiting[pair] = [places]
            heapq.heappush(queue, (*found, pair))
        return found[0]

    for pair, places, _ in row.pairs():
        wait(pair, places)
    while queue:
        rank, merged, pair = heapq.heappop(queue)
        before, after = row.merge(np.concatenate(waiting.pop(pair)), pair, merged)
        new_ranks = [wait((symbol, merged), places) for symbol, places, _ in before]
        new_ranks += [wait((merged, symbol), places) for symbol, places, _ in after]
        if any(new_rank is not None and new_rank < rank for new_rank in new_ranks):
            # a pair that ranks before its own parts, as lists have that were not learned in one run: go one by one
            return {word: apply_merges([byte_symbols[b] for b in word.encode()], ranks) for word in distinct}
    return dict(zip(distinct, row.words(), strict=True))
