"""MergeTable: applies merges to many short words in lock step, one merge a word and round. Keeps no words.

A round is two dozen numpy calls, whatever the number of words. On the 600 words that 64 articles of Wikipedia bring
after the first 5 MB this takes 1.5 µs a word, where `bpe.apply_merges` takes 7.5; `bpe.apply_merges_to_all`, which goes
through the merges instead of the words, is made for fewer and longer ones.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
NOTHING = 2**30  # in place of a rank: these two do not merge
EDGE = 0xFF  # around every word; this byte occurs in no UTF-8
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
        self._edge = max(pairs.max(initial=0), rank_and_merged.max(initial=0), *byte_symbols) + 1
        self._byte_symbols = np.array(byte_symbols, np.int64)
        self._byte_symbols[EDGE] = self._edge
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

    def apply(self, bytes_N: Bytes, word_starts_N: Flags, part_starts_N: Flags) -> list[bytes]:
        """Return the symbols of each part of a text, packed as int32, after merging inside its words.

        The same as `bpe.apply_merges` on each word. Takes as many rounds as the word with most merges has merges: keep
        long words away.

        Args:
            bytes_N: the text as UTF-8.
            word_starts_N: where words start; at the first byte one does.
            part_starts_N: where parts start; a word starts there too.

        Example:
            >>> table = MergeTable({(97, 98): (0, 256), (256, 97): (1, 257)}, range(256))
            >>> text = np.frombuffer(b" ab,aba ab", np.uint8)
            >>> parts = table.apply(text, np.isin(text, [32, 44]), text == 32)
            >>> [np.frombuffer(packed, np.int32).tolist() for packed in parts]
            [[32, 256, 44, 257], [32, 256]]
        """
        word_N = np.cumsum(word_starts_N)
        edge_of_parts = np.append(word_N[part_starts_N] - 1, word_N[-1])
        with_edges = np.full(len(bytes_N) + word_N[-1] + 1, EDGE, np.uint8)
        with_edges[np.arange(len(bytes_N)) + word_N] = bytes_N
        bytes_N = with_edges
        symbols_N = self._byte_symbols[bytes_N]
        next_N, previous_N = np.arange(1, len(bytes_N) + 1), np.arange(-1, len(bytes_N) - 1)
        starts_W = np.flatnonzero(bytes_N == EDGE)[:-1] + 1
        # of the pair that starts here: the smallest in a word has the lowest rank, and is the leftmost that has it
        rank_and_place_N = self._byte_ranks[bytes_N, np.roll(bytes_N, -1)] << 32 | np.arange(len(bytes_N))
        while True:
            best_W = np.minimum.reduceat(rank_and_place_N, starts_W)
            unfinished_W = (best_W < NOTHING << 32).nonzero()[0]
            if not len(unfinished_W):
                break
            best_W, starts_W = best_W[unfinished_W], starts_W[unfinished_W]  # no minimum is in what is passed over
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
        left_M = symbols_N[symbols_N != GONE]
        is_edge_M = left_M == self._edge
        ends = (np.flatnonzero(is_edge_M)[edge_of_parts] - edge_of_parts) * np.dtype(np.int32).itemsize
        packed = left_M[~is_edge_M].astype(np.int32).tobytes()
        return [packed[start:end] for start, end in pairwise(ends.tolist())]

    def _ranks_of(self, firsts: Ints, seconds: Ints) -> Ints:
        """Return the rank of each pair, NOTHING for pairs that do not merge."""
        numbers = firsts << 32 | seconds
        slots = self._homes(numbers)
        for _ in range(self._farthest):
            slots += self._numbers[slots] != numbers
        return np.where(self._numbers[slots] == numbers, self._ranks[slots], NOTHING)

    def _homes(self, numbers: Ints) -> Ints:
        return (numbers.view(np.uint64) * MULTIPLIER >> self._shift).view(np.int64)
