"""Streams the items of one large JSON document with their lines, holding only a piece of it. Gives them no meaning."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weebill.errors import DataError
from weebill.files import numbered_lines

_PIECE = 1 << 16  # characters read at once
_SURE = 1 << 20  # an error so far from what is read so far is no sign of a cut
_MAX_VALUE = 1 << 28  # characters of one item
_WALKED_DEPTH = 2  # objects within objects, as in {"rasa_nlu_data": {"common_examples": [ … ]}}

JsonItem = tuple[str, tuple[str, ...], Any]


def json_items(path: Path, errors: str = "strict") -> Iterator[JsonItem]:
    """Yield ("file:line", keys that lead there, value) of every item of the arrays of a JSON document.

    Arrays at the top, or in an object or an object within it; any other value of these objects is an item by itself.

    Raises:
        DataError: no file there, not UTF-8 or not JSON, with its line.
    """
    document = _Document(path, errors)
    yield from document.items((), _WALKED_DEPTH)
    if document.peek():
        raise document.error("nothing after the end")


class _Document:
    """A place in a JSON document, read piece by piece."""

    def __init__(self, path: Path, errors: str):
        self.path, self.lines = path, numbered_lines(path, errors)
        self.buffer, self.at, self.line, self.ended = "", 0, 1, False
        self.decoder = json.JSONDecoder()

    def items(self, keys: tuple[str, ...], depth: int) -> Iterator[JsonItem]:
        opening = self.peek()
        if opening == "[" and (keys or depth):
            yield from self._array(keys)
        elif opening == "{" and depth:
            yield from self._object(keys, depth)
        else:
            yield f"{self.path}:{self.line}", keys, self._value()

    def _array(self, keys: tuple[str, ...]) -> Iterator[JsonItem]:
        self._skip("[")
        while self.peek() != "]":
            where = f"{self.path}:{self.line}"
            yield where, keys, self._value()
            if self.peek() != "]":
                self._skip(",")
        self._skip("]")

    def _object(self, keys: tuple[str, ...], depth: int) -> Iterator[JsonItem]:
        self._skip("{")
        while self.peek() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self.error("a key in quotes")
            self._skip(":")
            yield from self.items((*keys, key), depth - 1)
            if self.peek() != "}":
                self._skip(",")
        self._skip("}")

    def peek(self) -> str:
        """Return the next character that is no white space, "" at the end."""
        while True:
            rest = self.at
            while rest < len(self.buffer) and self.buffer[rest] in " \t\r\n":
                rest += 1
            self._advance(rest)
            if rest < len(self.buffer) or self.ended:
                return self.buffer[rest : rest + 1]
            self._read()

    def _skip(self, character: str) -> None:
        if self.peek() != character:
            raise self.error(repr(character))
        self._advance(self.at + 1)

    def _value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except (json.JSONDecodeError, RecursionError) as error:
                place = error.pos if isinstance(error, json.JSONDecodeError) else len(self.buffer)
                if self.ended or len(self.buffer) - place > _SURE:
                    line = self.line + self.buffer.count("\n", self.at, place)
                    raise DataError(f"{self.path}:{line}: expected JSON, got {error}; correct the file") from error
                if len(self.buffer) > _MAX_VALUE:
                    raise DataError(f"{self.path}:{self.line}: expected items of at most {_MAX_VALUE:,} characters, "
                                    f"got a longer one; check the file") from error  # fmt: skip
                self._read()
                continue
            if end == len(self.buffer) and not self.ended:  # a number may go on
                self._read()
                continue
            self._advance(end)
            return value

    def _advance(self, to: int) -> None:
        self.line += self.buffer.count("\n", self.at, to)
        self.at = to

    def _read(self) -> None:
        """Drop what is done and read as much again as is there, at least a piece."""
        kept, wanted = self.buffer[self.at :], max(_PIECE, len(self.buffer) - self.at)
        parts, length = [kept], 0
        for _, line in self.lines:
            parts.append(line + "\n")
            length += len(line) + 1
            if length >= wanted:
                break
        else:
            self.ended = True
        self.buffer, self.at = "".join(parts), 0

    def error(self, expected: str) -> DataError:
        got = repr(self.buffer[self.at : self.at + 20]) if self.peek() else "the end of the file"
        return DataError(f"{self.path}:{self.line}: expected {expected}, got {got}; correct the JSON")
