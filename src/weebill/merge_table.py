"""MergeTable: applies merges to many short words in lock step, one merge a word and round. Keeps no words.

A round is two dozen numpy calls, whatever the number of words. On the 600 words that 64 articles of Wikipedia bring
after the first 5 MB this takes 1.5 µs a word, where `bpe.apply_merges` takes 7.5; `bpe.apply_merges_to_all`, which goes
through the merges instead of the words, is made for fewer and longer ones.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
NOTHING = 2**30  # in place of a rank: these two do not merge
GONE = -1  # second half of a merged pair
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio spreads keys evenly (Knuth, vol. 3, 6.4)


class MergeTable:
    """Ranks of all pairs as a hash table in numpy, so that a thousand pairs are looked up in one go.

    A pair is found by the number (first << 32 | second), at the slot its hash says or one of the next few (linear
    probing); np.searchsorted on the sorted numbers takes three times as long.

    Args:
        ranks: {pair: (rank, merged symbol)}, from `bpe.merge_ranks`.
        byte_symbols: the symbol of each of the 256 bytes.
    """

    def __init__(self, ranks: Mapping[tuple[int, int], tuple[int, int]], byte_symbols: Sequence[int]):
        pairs = np.array([*ranks], np.int64).reshape(-1, 2)
        rank_and_merged = np.array([*ranks.values()], np.int64).reshape(-1, 2)
        self._edge = max(pairs.max(initial=0), rank_and_merged.max(initial=0), *byte_symbols) + 1  # around every word
        self._byte_symbols = np.array(byte_symbols, np.int64)
        self._byte_symbols[0xFF] = self._edge  # this byte occurs in no UTF-8
        self._merged = np.zeros(len(ranks), np.int64)
        self._merged[rank_and_merged[:, 0]] = rank_and_merged[:, 1]
        numbers = pairs[:, 0] << 32 | pairs[:, 1]
        self._shift = np.uint64(64 - (8 * len(numbers) + 1).bit_length())  # at most one slot in eight is taken
        homes = self._homes(numbers)
        order = np.argsort(homes)
        one_by_one = np.arange(len(order))
        slots = np.maximum.accumulate(homes[order] - one_by_one) + one_by_one  # the first free one from home on
        self._farthest = int((slots - homes[order]).max(initial=0))
        size = 2 ** (64 - int(self._shift)) + len(order)
        self._numbers, self._ranks = np.full(size, -1), np.full(size, NOTHING)
        self._numbers[slots] = numbers[order]
        self._ranks[slots] = rank_and_merged[order, 0]
        self._byte_ranks = self._ranks_of(self._byte_symbols[:, None], self._byte_symbols[None, :])

    def apply(self, words: Collection[str]) -> list[bytes]:
        """Return the symbols of each word after merging, packed as int32: what `bpe.apply_merges` gives.

        Takes as many rounds as the word with most merges has merges: keep long words away.

        Example:
            >>> table = MergeTable({(97, 98): (0, 256), (256, 97): (1, 257)}, range(256))
            >>> [np.frombuffer(packed, np.int32).tolist() for packed in table.apply(["abab", "aba", "b"])]
            [[256, 256], [257], [98]]
        """
        if not words:
            return []
        body = "\udcff".join(("", *words, "")).encode("utf-8", "surrogateescape")  # that becomes the byte 0xFF
        bytes_N = np.frombuffer(body, np.uint8)
        symbols_N = self._byte_symbols[bytes_N]
        next_N, previous_N = np.arange(1, len(body) + 1), np.arange(-1, len(body) - 1)
        starts_W = np.flatnonzero(symbols_N == self._edge)[:-1] + 1
        # of the pair that starts here: the smallest in a word has the lowest rank, and is the leftmost that has it
        rank_and_place_N = self._byte_ranks[bytes_N, np.roll(bytes_N, -1)] << 32 | np.arange(len(body))
        while True:
            best_W = np.minimum.reduceat(rank_and_place_N, starts_W)
            best_W = best_W[best_W < NOTHING << 32]  # W: words that are not finished
            if not len(best_W):
                break
            firsts_W, merged_W = best_W & 0xFFFFFFFF, self._merged[best_W >> 32]
            seconds_W, before_W = next_N[firsts_W], previous_N[firsts_W]
            after_W = next_N[seconds_W]
            symbols_N[firsts_W], symbols_N[seconds_W] = merged_W, GONE
            next_N[firsts_W], previous_N[after_W] = after_W, firsts_W
            rank_and_place_N[seconds_W] = NOTHING << 32
            places = np.concatenate((before_W, firsts_W))
            ranks = self._ranks_of(
                np.concatenate((symbols_N[before_W], merged_W)), np.concatenate((merged_W, symbols_N[after_W]))
            )
            rank_and_place_N[places] = ranks << 32 | places
        left_M = symbols_N[symbols_N != GONE].astype(np.int32)
        packed, edges = left_M.tobytes(), np.flatnonzero(left_M == self._edge) * left_M.itemsize
        return [packed[edge + left_M.itemsize : next_edge] for edge, next_edge in pairwise(edges.tolist())]

    def _ranks_of(self, firsts: Ints, seconds: Ints) -> Ints:
        """Return the rank of each pair, NOTHING for pairs that do not merge."""
        numbers = firsts << 32 | seconds
        slots = self._homes(numbers)
        for _ in range(self._farthest):
            slots += self._numbers[slots] != numbers
        return np.where(self._numbers[slots] == numbers, self._ranks[slots], NOTHING)

    def _homes(self, numbers: Ints) -> Ints:
        return (numbers.view(np.uint64) * MULTIPLIER >> self._shift).view(np.int64)
