"""Memory: token ids of pieces of text that were encoded before, within a bound. Encodes nothing itself."""

import sys
from collections.abc import Callable
from itertools import islice

SLOT_BYTES = 70  # of a dict, just after it has grown


class Memory(dict[str, bytes]):
    """A dict that computes what it does not hold, and forgets the older half when it is full.

    A dict's own lookup makes a known piece of text cost a few hundredths of a microsecond. Ids are held as bytes: half
    the size of a tuple, nothing for the garbage collector to visit, and many are joined in one copy.

    Args:
        compute: gives the token ids of a piece, as bytes.
        largest_bytes: bound of what is held, with Python's overhead.
        refuse: called with a piece before it is computed; may raise.
    """

    def __init__(
        self, compute: Callable[[str], bytes], largest_bytes: int, refuse: Callable[[str], None] | None = None
    ):
        super().__init__()
        self.largest_bytes = largest_bytes
        self._compute, self._refuse = compute, refuse
        self._used_bytes = 0

    def __missing__(self, piece: str) -> bytes:
        if self._refuse:
            self._refuse(piece)
        token_ids = self._compute(piece)
        size = _size_bytes(piece, token_ids)
        if size > self.largest_bytes // 1000:  # a whole document will hardly come again
            return token_ids
        if self._used_bytes + size > self.largest_bytes:
            for old in list(islice(self, len(self) // 2)):
                self._used_bytes -= _size_bytes(old, self.pop(old))
        self._used_bytes += size
        self[piece] = token_ids
        return token_ids


def _size_bytes(piece: str, token_ids: bytes) -> int:
    return SLOT_BYTES + sys.getsizeof(piece) + sys.getsizeof(token_ids)
