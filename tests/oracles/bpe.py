"""Slow, readable twins of weebill.bpe: recount everything in every round, look at every pair before every merge."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from weebill.bpe import SYMBOL_BYTES, Merges, Pair, symbols_of


def learn_merges(pretoken_counts: Mapping[str, int], num_symbols: int) -> Merges:
    words = {tuple(symbols_of(pretoken)): 0 for pretoken in pretoken_counts}
    for pretoken, count in pretoken_counts.items():
        words[tuple(symbols_of(pretoken))] += count
    values = [bytes([byte]) for byte in SYMBOL_BYTES]
    merges: Merges = {}
    while len(values) < num_symbols:
        counts: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        value = values[best[0]] + values[best[1]]
        if value not in values:
            values.append(value)
        merges[best] = values.index(value)
        words = {tuple(_merge_all(word, best, merges[best])): count for word, count in words.items()}
    return merges


def _merge_all(word: Sequence[int], pair: Pair, merged: int) -> list[int]:
    out: list[int] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(merged)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def apply_merges(symbols: Sequence[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    out = list(symbols)
    while True:
        found = [(*ranks[pair], i) for i, pair in enumerate(pairwise(out)) if pair in ranks]
        if not found:
            return out
        _, merged, i = min(found)
        out[i : i + 2] = [merged]
