"""Memory: token ids of pieces of text that were encoded before, within a bound. Encodes nothing itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from threading import Lock, local

SLOT_BYTES = 70  # of a dict, just after it has grown
EMPTY_BYTES = b"".__sizeof__()


class Promises(dict[str, bytearray]):
    """Pieces that were asked for and not held, each with an empty bytearray that stands for its ids until it is filled.

    `made` counts every time one was given out, also the same again.
    """

    made = 0


class _OfThread(local):
    promises: Promises | None = None


class Memory(dict[str, bytes]):
    """A dict that computes what it does not hold, and forgets the older half when it is full.

    A dict's own lookup makes a known piece of text cost a few hundredths of a microsecond. Ids are held as bytes: half
    the size of a tuple, nothing for the garbage collector to visit, and many are joined in one copy.

    Args:
        compute: gives the token ids of a piece, as bytes; may raise.
        largest_bytes: bound of what is held, with Python's overhead.
    """

    def __init__(self, compute: Callable[[str], bytes], largest_bytes: int):
        super().__init__()
        self.largest_bytes = largest_bytes
        self._compute = compute
        self._used_bytes = 0
        self._of_thread = _OfThread()
        self._changing = Lock()  # lookups need none

    def __missing__(self, piece: str) -> bytes:
        if (promises := self._of_thread.promises) is not None:
            promises.made += 1
            return promises.setdefault(piece, bytearray())  # type: ignore[return-value]  # joined as if it were bytes
        token_ids = self._compute(piece)
        size = _size_bytes([piece], [token_ids])
        if size <= self.largest_bytes // 1000:  # a whole document will hardly come again
            with self._changing:
                self._make_room(size)
                self[piece] = token_ids
        return token_ids

    @contextmanager
    def promising(self) -> Iterator[Promises]:
        """Until the end of the block, give this thread promises of what is not held, for the caller to fill.

        So a text is looked up once, in C, although much of it is new; what is new can then be computed together.
        """
        self._of_thread.promises = promises = Promises()
        try:
            yield promises
        finally:
            self._of_thread.promises = None

    def keep(self, pieces: Sequence[str], token_ids: Sequence[bytes]) -> None:
        """Hold what was computed elsewhere for many pieces that were not held; nothing when they do not fit at all."""
        size = _size_bytes(pieces, token_ids)
        if size <= self.largest_bytes:
            with self._changing:
                self._make_room(size)
                self.update(zip(pieces, token_ids, strict=True))

    def _make_room(self, size: int) -> None:
        while self and self._used_bytes + size > self.largest_bytes:
            older = list(islice(self, (len(self) + 1) // 2))
            self._used_bytes -= _size_bytes(older, list(map(self.pop, older)))
        self._used_bytes = size + (self._used_bytes if self else 0)


def _size_bytes(pieces: Sequence[str], token_ids: Sequence[bytes]) -> int:
    # sys.getsizeof gives the same in seven times the time; of bytes and of ASCII, all that differs is their length
    text = "".join(pieces)
    texts = len(text) + "".__sizeof__() * len(pieces) if text.isascii() else sum(map(str.__sizeof__, pieces))
    return (SLOT_BYTES + EMPTY_BYTES) * len(pieces) + texts + len(b"".join(token_ids))
