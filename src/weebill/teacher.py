"""A teacher's embeddings of many texts, kept on disk so that each text is read once per teacher. Trains nothing."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from weebill.artifact import StoredModel
from weebill.errors import ConfigError
from weebill.files import write_whole
from weebill.geometry import unit_rows
from weebill.golden import GOLDEN_TEXTS

Vectors = npt.NDArray[np.float16]
BLOCK_TEXTS = 1024  # on average
DIGEST_BYTES = 16


def cache_folder() -> Path:
    """Return where teacher embeddings are kept: $WEEBILL_CACHE, or weebill under the user's cache folder."""
    named = os.environ.get("WEEBILL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "weebill"


def model_fingerprint(model: StoredModel) -> str:
    """Return a digest of what decides a model's embeddings: shape, weights, and how it tokenizes a few texts."""
    shape = model.config.model_dump_json(exclude_defaults=True)  # a setting that comes later changes no older model
    digest = hashlib.sha256(shape.encode())
    for name in sorted(model.arrays):
        digest.update(name.encode() + model.arrays[name].tobytes())
    for text in GOLDEN_TEXTS:
        digest.update(repr(model.tokenizer.encode(text).token_ids).encode())
    return digest.hexdigest()


def teacher_vectors(
    embed: Callable[[Sequence[str]], npt.NDArray[np.float32]],
    fingerprint: str,
    texts: Sequence[str],
    folder: Path,
    show_progress: bool = True,
) -> Vectors:
    """Return the teacher's embeddings scaled to length 1, float16, in the order of the texts.

    Texts that it has not read before are read in blocks of similar length, each kept as soon as it is there: a run that
    was stopped goes on where it was, and another mix of known texts costs nothing.

    Args:
        embed: texts -> float32 (N, D).
        fingerprint: what names the teacher; another teacher needs another one.
        texts: distinct texts.
        folder: where blocks are kept, as .npz files of text digests and vectors.
        show_progress: a progress bar on standard error.

    Shape: (len(texts), D)
    """
    folder = folder / "teacher" / hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
    wanted = {_digest(text): i for i, text in enumerate(texts)}
    found: dict[int, Vectors] = {}
    for path in sorted(folder.glob("*.npz")):
        for digest, vector_D in _read_block(path):
            if digest in wanted:
                found[wanted[digest]] = vector_D
    missing = [i for i in range(len(texts)) if i not in found]
    for rows in track(
        blocks_by_length([texts[i] for i in missing]),
        description="teacher reads texts",
        console=Console(stderr=True),
        disable=not show_progress or not missing,
    ):
        numbers = [missing[row] for row in rows]
        block = [texts[i] for i in numbers]
        vectors_BD: Vectors = unit_rows(embed(block)).astype(np.float16)
        found |= zip(numbers, vectors_BD, strict=True)
        _write_block(folder, block, vectors_BD)
    return np.stack([found[i] for i in range(len(texts))])


def blocks_by_length(texts: Sequence[str]) -> list[list[int]]:
    """Return the numbers of the texts in blocks of similar length, the same for the same texts in any order.

    The texts themselves say where a block ends: one more, or one less, changes its own block and not all behind it.
    """
    blocks: list[list[int]] = [[]]
    for i in sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i])):
        blocks[-1].append(i)
        ends = crc32(texts[i].encode("utf-8", "surrogatepass")) % BLOCK_TEXTS == 0
        if ends or len(blocks[-1]) == 4 * BLOCK_TEXTS:
            blocks.append([])
    return [block for block in blocks if block]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


def _write_block(folder: Path, texts: Sequence[str], vectors_BD: Vectors) -> None:
    digests = b"".join(map(_digest, texts))
    buffer = io.BytesIO()
    np.savez(buffer, digests=np.frombuffer(digests, np.uint8).reshape(len(texts), DIGEST_BYTES), vectors=vectors_BD)
    write_whole(folder / f"{hashlib.sha256(digests).hexdigest()[:32]}.npz", buffer.getvalue())


def _read_block(path: Path) -> Iterable[tuple[bytes, Vectors]]:
    """Return digests and vectors of a block; none of a damaged one, whose texts are read again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as block:
            digests_BN, vectors_BD = block["digests"], block["vectors"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return ()
    if vectors_BD.dtype != np.float16 or vectors_BD.ndim != 2 or digests_BN.shape != (len(vectors_BD), DIGEST_BYTES):
        return ()
    return zip(map(bytes, digests_BN), vectors_BD, strict=True)


def fit_width(vectors_ND: Vectors, dim: int, projection: str) -> Vectors:
    """Return the teacher's embeddings in the student's width.

    Args:
        vectors_ND: float16, rows of length 1.
        dim: the student's embedding_dim.
        projection: "none" expects that width; "pca" keeps the `dim` directions through the origin along which the
            vectors are longest, so that similarities change least.

    Raises:
        ConfigError: another width without a projection, or a teacher narrower than the student.
    """
    width = vectors_ND.shape[1]
    if width == dim:
        return vectors_ND
    if projection == "none" or width < dim:
        remedy = (f'set encoder.embedding_dim = {width}, or loss.teacher_projection = "pca"' if width > dim else
                  f"set encoder.embedding_dim to at most {width}")  # fmt: skip
        raise ConfigError(f"teacher: expected embeddings of the student's {dim} dimensions, got {width}; {remedy}")
    wide_ND = vectors_ND.astype(np.float32)
    _, directions_DD = np.linalg.eigh(wide_ND.T @ wide_ND)  # ascending eigenvalues
    narrow: Vectors = (wide_ND @ directions_DD[:, : -dim - 1 : -1]).astype(np.float16)
    return narrow
