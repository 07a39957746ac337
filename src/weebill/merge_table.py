"""MergeTable: applies merges to many short words in lock step, one merge a word and round. Keeps no words.

A round is some thirty numpy calls, whatever the number of words. On the 600 words that 64 articles of Wikipedia bring
after the first 5 MB this takes 0.7 µs a word, where `bpe.apply_merges` takes 5.9; `bpe.apply_merges_to_all`, which goes
through the merges instead of the words, is made for fewer and longer ones.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
NOTHING = 2**30  # in place of a rank: these two do not merge
GONE = -1  # second half of a merged pair


class MergeTable:
    """Ranks of all pairs as one array, so that a thousand pairs are looked up in one go.

    The pairs with the same first symbol are a row of a large and almost empty table. All rows are laid over each other,
    each moved so far that no two pairs meet (Tarjan and Yao 1979): a pair is found at the offset of its first symbol
    plus its second, if what is there belongs to the first. With a hash table, merging takes a third longer.

    Args:
        ranks: {pair: (rank, merged symbol)}, from `bpe.merge_ranks`.
        byte_symbols: the symbol of each of the 256 bytes.
    """

    def __init__(self, ranks: Mapping[tuple[int, int], tuple[int, int]], byte_symbols: Sequence[int]):
        pairs = np.array([*ranks], np.int64).reshape(-1, 2)
        rank_and_merged = np.array([*ranks.values()], np.int64).reshape(-1, 2)
        self._edge = int(max(pairs.max(initial=0), rank_and_merged.max(initial=0), *byte_symbols)) + 1
        self._byte_symbols = np.array(byte_symbols, np.int64)
        self._merged = np.zeros(len(ranks), np.int64)
        self._merged[rank_and_merged[:, 0]] = rank_and_merged[:, 1]
        self._offsets = self._lay_out(ranks)
        slots = self._offsets[pairs[:, 0]] + pairs[:, 1]
        nobody = self._edge + 1
        self._first_and_rank = np.full(self._offsets.max() + self._edge + 1, nobody << 32, np.int64)
        self._first_and_rank[slots] = pairs[:, 0] << 32 | rank_and_merged[:, 0]
        self._byte_ranks = self._ranks_of(self._byte_symbols[:, None], self._byte_symbols[None, :]).ravel()

    def _lay_out(self, pairs: Iterable[tuple[int, int]]) -> Ints:
        """Return the offset of each symbol's row."""
        rows: dict[int, list[int]] = {}
        for first, second in pairs:
            rows.setdefault(first, []).append(second)
        offsets = np.zeros(self._edge + 1, np.int64)
        taken: set[int] = set()
        rng, largest = random.Random(0), 4 * sum(map(len, rows.values()))
        for first, row in sorted(rows.items(), key=lambda item: -len(item[1])):  # long rows while there is room
            offset = rng.randrange(largest)
            while not taken.isdisjoint([offset + second for second in row]):
                largest += len(row)  # so that there will be room, whatever the pairs
                offset = rng.randrange(largest)
            taken.update([offset + second for second in row])
            offsets[first] = offset
        return offsets

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
        size = len(bytes_N)
        edge = size  # the place of one symbol that stands before and after every word, and merges with none
        starts_W = np.flatnonzero(word_starts_N)
        ends_W = starts_W - 1  # of the words before; of the first, the edge
        symbols_N = np.append(self._byte_symbols[bytes_N], self._edge)
        next_N, previous_N = np.arange(1, size + 2), np.arange(-1, size)
        next_N[ends_W], previous_N[starts_W] = edge, edge
        wide_N = bytes_N.astype(np.int64)
        ranks_N = np.full(size + 1, NOTHING, np.int64)
        ranks_N[: size - 1] = self._byte_ranks.take(wide_N[:-1] << 8 | wide_N[1:])
        ranks_N[ends_W] = NOTHING
        # of the pair that starts here: the smallest in a word has the lowest rank, and is the leftmost that has it
        rank_and_place_N = ranks_N << 32 | np.arange(size + 1)
        while True:
            best_W = np.minimum.reduceat(rank_and_place_N, starts_W)
            unfinished_W = np.flatnonzero(best_W < NOTHING << 32)
            if not len(unfinished_W):
                break
            best_W, starts_W = best_W.take(unfinished_W), starts_W.take(unfinished_W)  # no minimum in what is left out
            firsts_W, merged_W = best_W & 0xFFFFFFFF, self._merged.take(best_W >> 32)
            seconds_W, before_W = next_N.take(firsts_W), previous_N.take(firsts_W)
            after_W = next_N.take(seconds_W)
            symbols_N[firsts_W], symbols_N[seconds_W] = merged_W, GONE
            next_N[firsts_W], previous_N[after_W] = after_W, firsts_W
            rank_and_place_N[seconds_W] = NOTHING << 32
            places = np.concatenate((before_W, firsts_W))
            ranks = self._ranks_of(
                np.concatenate((symbols_N.take(before_W), merged_W)),
                np.concatenate((merged_W, symbols_N.take(after_W))),
            )
            rank_and_place_N[places] = ranks << 32 | places
        left_N = symbols_N[:size] != GONE
        packed = symbols_N[:size][left_N].astype(np.int32).tobytes()
        part_starts = np.flatnonzero(part_starts_N[left_N]) * np.dtype(np.int32).itemsize
        return [packed[start:end] for start, end in pairwise([*part_starts.tolist(), len(packed)])]

    def _ranks_of(self, firsts: Ints, seconds: Ints) -> Ints:
        """Return the rank of each pair, NOTHING for pairs that do not merge."""
        found: Ints = self._first_and_rank.take(self._offsets.take(firsts) + seconds)
        ranks: Ints = np.minimum(found ^ firsts << 32, NOTHING)  # of another first symbol, something large is left
        return ranks
