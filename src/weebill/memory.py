"""Memory: token ids of pieces of text that were encoded before, within a bound. Encodes nothing itself."""

from collections.abc import Callable
from itertools import islice

LARGEST_BYTES = 48 * 2**20  # of one memory, by the estimate below
ENTRY_BYTES = 240  # a dict slot, a short str and a list, without what they hold


class Memory(dict[str, list[int]]):
    """A dict that computes what it does not hold, and forgets the older half when it is full.

    A dict's own lookup is what makes a known piece of text cost a few hundredths of a microsecond.

    Args:
        compute: gives the token ids of a piece.
        refuse: called with a piece before it is computed; may raise.
    """

    def __init__(self, compute: Callable[[str], list[int]], refuse: Callable[[str], None] | None = None):
        super().__init__()
        self._compute, self._refuse = compute, refuse
        self._used_bytes = 0

    def __missing__(self, piece: str) -> list[int]:
        if self._refuse:
            self._refuse(piece)
        token_ids = self._compute(piece)
        size = _size_bytes(piece, token_ids)
        if size > LARGEST_BYTES // 1000:  # a whole document will hardly come again
            return token_ids
        if self._used_bytes + size > LARGEST_BYTES:
            for old in list(islice(self, len(self) // 2)):
                self._used_bytes -= _size_bytes(old, self.pop(old))
        self._used_bytes += size
        self[piece] = token_ids
        return token_ids


def _size_bytes(piece: str, token_ids: list[int]) -> int:
    return ENTRY_BYTES + 4 * len(piece) + 8 * len(token_ids)
