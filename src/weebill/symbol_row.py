"""SymbolRow: the symbols of many words in one row, where a pair is merged everywhere at once. Decides no order.

What makes byte-pair merging fast without a compiled language: one merge costs a dozen numpy calls, however many words
it touches.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

EDGE = -1  # before the first word, between words, after the last
GONE = -2  # second half of a merged pair; no link leads here any more
Places = npt.NDArray[np.int32]
Groups = Iterator[tuple[int, Places, int]]  # symbol, places, total weight of the words they are in


class SymbolRow:
    """Words as symbols, each linked to the one before and after it within its word.

    Args:
        word_counts: the words; how often each counts is its weight.
        byte_symbols: the symbol of each of the 256 bytes.
    """

    def __init__(self, word_counts: Mapping[str, int], byte_symbols: Sequence[int]):
        separator = b"\xff"  # occurs in no UTF-8
        body = separator + b"".join([word.encode("utf-8") + separator for word in word_counts])
        self._bytes_N = np.frombuffer(body, np.uint8)
        is_edge_N = self._bytes_N == 0xFF
        self._symbols_N = np.asarray(byte_symbols, np.int32)[self._bytes_N]
        self._symbols_N[is_edge_N] = EDGE
        counts = np.fromiter(word_counts.values(), np.int64, len(word_counts))
        self._weights_N = np.append(counts, 0)[np.cumsum(is_edge_N) - 1]
        self._next_N = np.arange(1, len(body) + 1, dtype=np.int32)
        self._previous_N = np.arange(-1, len(body) - 1, dtype=np.int32)

    def pairs(self) -> Iterator[tuple[tuple[int, int], Places, int]]:
        """Yield every pair of neighbours as it stands before any merge: (pair, where it starts, total weight)."""
        starts = np.flatnonzero((self._symbols_N[:-1] >= 0) & (self._symbols_N[1:] >= 0)).astype(np.int32)
        two_bytes = self._bytes_N[starts].astype(np.uint16) << 8 | self._bytes_N[starts + 1]
        for _, places, weight in self._groups(two_bytes, starts):
            first, second = self._symbols_N[places[0] : places[0] + 2].tolist()
            yield (first, second), places, weight

    def merge(self, places: Places, pair: tuple[int, int], merged: int) -> tuple[Groups, Groups]:
        """Merge `pair` wherever it still stands among `places`, leftmost first where occurrences overlap.

        Returns:
            The new neighbours before, grouped by symbol with the place of that symbol (where the new pair starts); and
            the neighbours after, as they were before this merge, with the place of the merged symbol.
        """
        first, second = pair
        others = self._next_N[places]
        standing = (self._symbols_N[places] == first) & (self._symbols_N[others] == second)
        places, others = places[standing], others[standing]
        if first == second and len(places) > 1:
            places.sort()
            others = self._next_N[places]
            touching = np.concatenate(([False], places[1:] == others[:-1]))
            number = np.arange(len(places))
            run_start = np.maximum.accumulate(np.where(touching, 0, number))
            every_second = (number - run_start) % 2 == 0
            places, others = places[every_second], others[every_second]
        following = self._next_N[others]
        after = self._symbols_N[following]
        self._symbols_N[places] = merged
        self._symbols_N[others] = GONE
        self._next_N[places] = following
        self._previous_N[following] = places
        preceding = self._previous_N[places]
        return self._groups(self._symbols_N[preceding], preceding), self._groups(after, places)

    def words(self) -> Iterator[list[int]]:
        """Yield the symbols of each word as they stand now."""
        left_M = self._symbols_N[self._symbols_N != GONE]
        edges = np.flatnonzero(left_M == EDGE).tolist()
        symbols = left_M.tolist()
        for edge, next_edge in pairwise(edges):
            yield symbols[edge + 1 : next_edge]

    def _groups(self, symbols: npt.NDArray[np.integer], places: Places) -> Groups:
        """Group places by their symbol, leaving out edges."""
        order = np.argsort(symbols, kind="stable")
        symbols, places = symbols[order], places[order]
        bounds = np.flatnonzero(np.concatenate(([True], symbols[1:] != symbols[:-1]))) if len(symbols) else order
        weights = np.add.reduceat(self._weights_N[places], bounds).tolist() if len(symbols) else []
        ends = [*bounds[1:].tolist(), len(symbols)]
        for symbol, weight, start, end in zip(symbols[bounds].tolist(), weights, bounds.tolist(), ends, strict=False):
            if symbol != EDGE:
                yield symbol, places[start:end], weight
