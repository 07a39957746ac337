"""Counts the pretokens of a stream of texts, in several processes when it is long. Learns no merges.

Memory grows with the number of distinct pretokens, not with the texts.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, cycle, islice
from typing import Any, TypeVar

from weebill.bpe import SPLIT_PATTERNS, pretokenize
from weebill.errors import WeebillError
from weebill.normalize import normalize

SizedT = TypeVar("SizedT", bound=Sized)
BLOCK_CHARACTERS = 500_000  # what one process is sent at a time
FEW_BLOCKS = 6  # not worth starting processes for
MANY_CHUNKS = 400_000  # distinct chunks kept before they are split into pretokens
UNSAFE_SPACE = re.compile(r" (?=\s|\Z)")
SAFE_SPACE = re.compile(r"(?<=\S) (?=\S)")
_WORKER = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from weebill.counting import work; work(sys.argv[2:])"
)

_SURROGATES = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 has no bytes for, as U+FFFD; the length stays."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


class PretokenCounter:
    """Adds up the pretokens of one text after another.

    The named patterns never join what a single space between two visible characters parts, so texts are cut there first
    and only distinct chunks go through the pattern: a third less time on English.
    """

    def __init__(self, split_pattern: str, normalizers: Sequence[str] = ()):
        self.split_pattern, self.normalizers = split_pattern, normalizers
        self._cuts_at_spaces = split_pattern in SPLIT_PATTERNS
        self._chunks: Counter[str] = Counter()  # each follows a space, which is not part of the key
        self._pretokens: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count the pretokens of a text."""
        text = normalize(well_formed(text), self.normalizers)
        if not self._cuts_at_spaces:
            self._pretokens.update(pretokenize(text, self.split_pattern))
            return
        first, *chunks = (SAFE_SPACE.split if UNSAFE_SPACE.search(text) else _split_at_spaces)(text)
        self._pretokens.update(pretokenize(first, self.split_pattern))
        self._chunks.update(chunks)
        if len(self._chunks) > MANY_CHUNKS:
            self._split_chunks()

    def total(self) -> Counter[str]:
        """Return how often each pretoken occurred."""
        self._split_chunks()
        return self._pretokens

    def _split_chunks(self) -> None:
        for chunk, count in self._chunks.items():
            for pretoken in pretokenize(" " + chunk, self.split_pattern):
                self._pretokens[pretoken] += count
        self._chunks.clear()


def _split_at_spaces(text: str) -> list[str]:
    return text.split(" ")


def count_pretokens(
    texts: Iterable[str], split_pattern: str, normalizers: Sequence[str] = (), processes: int | None = None
) -> Counter[str]:
    """Return how often each pretoken occurs in the texts, which are read once, a block at a time.

    Args:
        texts: any iterable.
        split_pattern: see `bpe.pretokenize`.
        normalizers: see `normalize.normalize`.
        processes: how many count; default: one per core, and none but this one for less than three million characters.
    """
    blocks = blocks_of(texts, BLOCK_CHARACTERS)
    head = list(islice(blocks, FEW_BLOCKS))
    processes = processes or os.cpu_count() or 1
    if processes == 1 or len(head) < FEW_BLOCKS:
        counter = PretokenCounter(split_pattern, normalizers)
        for block in chain(head, blocks):
            for text in block:
                counter.add(text)
        return counter.total()
    command = [sys.executable, "-c", _WORKER, json.dumps(sys.path), split_pattern, *normalizers]
    # plain child processes, not multiprocessing: that would run the caller's script again, or fork its threads
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)]
    total: Counter[str] = Counter()
    try:
        for worker, block in zip(cycle(workers), chain(head, blocks), strict=False):
            _pipe(worker.stdin).write(json.dumps(block).encode() + b"\n")
        for worker in workers:
            _pipe(worker.stdin).close()
        for worker in workers:
            total.update(json.loads(_pipe(worker.stdout).read()))
    except (BrokenPipeError, ValueError) as error:
        raise WeebillError(f"expected every counting process to answer, got one that ended early ({error}); see its "
                           f"output above, or ask for a single process") from error  # fmt: skip
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            _pipe(worker.stdout).close()
    return total


def work(arguments: Sequence[str]) -> None:
    """Run as a counting process: blocks come on standard input as JSON lines, the counts leave on standard output."""
    counter = PretokenCounter(arguments[0], arguments[1:])
    for line in sys.stdin.buffer:
        for text in json.loads(line):
            counter.add(text)
    json.dump(counter.total(), sys.stdout)


def blocks_of(texts: Iterable[SizedT], size: int) -> Iterator[list[SizedT]]:
    """Yield the texts in lists, each ended by the text that brings it to `size` characters, or tokens.

    Example:
        >>> list(blocks_of(["ab", "c", "def", "g"], 3))
        [['ab', 'c'], ['def'], ['g']]
    """
    block: list[SizedT] = []
    length = 0
    for text in texts:
        block.append(text)
        length += len(text)
        if length >= size:
            yield block
            block, length = [], 0
    if block:
        yield block


def _pipe(pipe: Any) -> Any:
    assert pipe is not None  # for the type checker
    return pipe
