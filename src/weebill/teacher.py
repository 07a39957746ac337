"""A teacher's embeddings of many texts, kept on disk so that each text is read once per teacher. Trains nothing."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

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
BLOCK_TEXTS = 2048


def cache_folder() -> Path:
    """Return where teacher embeddings are kept: $WEEBILL_CACHE, or weebill under the user's cache folder."""
    named = os.environ.get("WEEBILL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "weebill"


def model_fingerprint(model: StoredModel) -> str:
    """Return a digest of what decides a model's embeddings: shape, weights, and how it tokenizes a few texts."""
    digest = hashlib.sha256(model.config.model_dump_json().encode())
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

    They are computed and kept in blocks of texts of similar length, so a run that was stopped goes on where it was.

    Args:
        embed: texts -> float32 (N, D).
        fingerprint: what names the teacher; another teacher needs another one.
        texts: distinct texts.
        folder: where blocks are kept, as .npy files.
        show_progress: a progress bar on standard error.

    Shape: (len(texts), D)
    """
    numbers = blocks_by_length(texts)
    blocks = []
    for rows in track(
        numbers, description="teacher reads texts", console=Console(stderr=True), disable=not show_progress
    ):
        block = [texts[i] for i in rows]
        digest = hashlib.sha256("\0".join([fingerprint, *block]).encode("utf-8", "surrogatepass")).hexdigest()
        blocks.append(_block(folder / "teacher" / f"{digest}.npy", block, embed))
    out: Vectors = np.empty((len(texts), blocks[0].shape[1]), dtype=np.float16)
    out[[i for rows in numbers for i in rows]] = np.concatenate(blocks)
    return out


def blocks_by_length(texts: Sequence[str]) -> list[list[int]]:
    """Return the numbers of the texts in blocks of similar length, the same for the same texts in any order."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
    return [order[start : start + BLOCK_TEXTS] for start in range(0, len(order), BLOCK_TEXTS)]


def _block(path: Path, texts: Sequence[str], embed: Callable[[Sequence[str]], npt.NDArray[np.float32]]) -> Vectors:
    if path.is_file():
        try:
            kept: Vectors = np.load(path, allow_pickle=False)
            if kept.dtype == np.float16 and kept.ndim == 2 and len(kept) == len(texts):
                return kept
        except (OSError, ValueError, EOFError):
            pass  # a damaged block is computed again
    block: Vectors = unit_rows(embed(texts)).astype(np.float16)
    buffer = io.BytesIO()
    np.save(buffer, block)
    write_whole(path, buffer.getvalue())
    return block


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
