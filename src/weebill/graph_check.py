"""Refuses an ONNX file that could do more than arithmetic, before a library opens it. Runs nothing; needs no onnx.

An ONNX file is protobuf. Only what the rules need is followed: models, graphs, nodes, attributes and tensors. Refused
are weights in other files, graphs within nodes (loops and branches) and functions, of which `weebill export` writes
none; so a graph takes one pass over its nodes and reads no file.

Source: onnx/onnx.proto (field numbers); protobuf's encoding, https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator

from weebill.errors import ArtifactError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INTO = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
}
_REFUSED = {
    ("model", 25): "a function",
    ("graph", 15): "a sparse tensor",
    ("attribute", 6): "a graph within a node",
    ("attribute", 11): "a graph within a node",
    ("attribute", 22): "a sparse tensor",
    ("attribute", 23): "a sparse tensor",
    ("tensor", 13): "weights in another file",
}


def check_graph(body: bytes, where: str) -> None:
    """Refuse a graph with more than nodes and their weights.

    Raises:
        ArtifactError: no protobuf, or what is refused; `where` names the file.
    """
    try:
        for kind in _refused(memoryview(body), "model"):
            raise ArtifactError(f"{where}: expected a graph of plain nodes and weights, got {kind}; export it again "
                                f"with `weebill export`")  # fmt: skip
    except ValueError as error:
        raise ArtifactError(f"{where}: expected an ONNX graph, got: {error}; copy it again, or export it again with "
                            f"`weebill export`") from error  # fmt: skip


def _refused(message: memoryview, kind: str) -> Iterator[str]:
    """Yield what is refused in a message; of known depth, as nothing that may nest is followed."""
    for number, wire, value in _fields(message):
        if (kind, number) in _REFUSED:
            yield _REFUSED[kind, number]
        elif (kind, number, value) == ("tensor", 14, 1):
            yield "weights in another file"
        elif number in _INTO.get(kind, ()) and wire == _BYTES:
            assert isinstance(value, memoryview)
            yield from _refused(value, _INTO[kind][number])


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, value) of a message.

    Raises:
        ValueError: it ends within a field, or has a wire type that ONNX does not use.

    Example:
        >>> [(number, value if wire == 0 else bytes(value)) for number, wire, value in
        ...  _fields(memoryview(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))]
        [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32, _BYTES):
            length = 8 if wire == _FIXED64 else 4
            if wire == _BYTES:
                length, at = _varint(message, at)
            if length > len(message) - at:
                raise ValueError(f"a field of {length} bytes with {len(message) - at} left")
            value = message[at : at + length]
            at += length
        else:
            raise ValueError(f"a field of the unknown wire type {wire}")
        yield number, wire, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("an end within a number")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
