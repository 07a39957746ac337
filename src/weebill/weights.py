"""The weights of a model as arrays: names and shapes, read from safetensors and checked. Runs no model; no torch."""

import math
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from weebill.config import EncoderConfig
from weebill.encodings import ModelTokenizer
from weebill.errors import ArtifactError
from weebill.graph_weights import Arrays


def read_arrays(path: Path) -> Arrays:
    """Read weights as float32.

    Raises:
        ArtifactError: missing, damaged, or of numbers that numpy does not have (bfloat16).
    """
    try:
        arrays = load_file(path)
        for array in arrays.values():
            if array.dtype.kind == "V":  # where a library such as onnx has taught numpy more types
                raise TypeError(f"data type {array.dtype.name!r}")
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: expected a safetensors file, got {error}; copy the folder again") from error
    except TypeError as error:
        raise ArtifactError(f"{path}: expected weights as float32 or float16, got: {error}; save them as one of "
                            f"those") from error  # fmt: skip
    with np.errstate(over="ignore"):
        arrays = {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ArtifactError(f"{path}: expected finite weights, got NaN or infinity in {name!r}; copy the folder "
                                f"again, or train the model again")  # fmt: skip
    return arrays


def check_weights(folder: Path, arrays: Arrays, config: EncoderConfig, tokenizer: ModelTokenizer) -> None:
    """Check that `arrays` holds every weight of an encoder of this shape; `folder` names it in errors.

    Raises:
        ArtifactError: a weight is missing or has another shape.
    """
    for name, shape in weight_shapes(config, tokenizer.vocab_size).items():
        if name not in arrays:
            raise ArtifactError(f"{folder}: expected the weight {name!r}, got none of that name; copy the "
                                f"folder again")  # fmt: skip
        if arrays[name].shape != shape:
            raise ArtifactError(f"{folder}: expected the weight {name!r} of shape {shape}, got {arrays[name].shape}; "
                                f"weights, configuration and tokenizer are not of one model")  # fmt: skip


def weight_shapes(config: EncoderConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight of an encoder: BertModel's names, and `linear.*` for the projection."""
    dim, ffn_dim = config.hidden_dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocab_size, dim),
        "embeddings.position_embeddings.weight": (config.max_seq_len, dim),
    }
    linears = {"linear": (config.embedding_dim, dim)} if config.projection else {}
    norms = ["embeddings.LayerNorm"]
    for n in range(config.num_layers):
        prefix = f"encoder.layer.{n}"
        square = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        linears |= {f"{prefix}.{name}": (dim, dim) for name in square}
        linears |= {f"{prefix}.intermediate.dense": (ffn_dim, dim), f"{prefix}.output.dense": (dim, ffn_dim)}
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    shapes |= {f"{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    return shapes | {f"{name}.{kind}": (dim,) for name in norms for kind in ("weight", "bias")}


def count_parameters(config: EncoderConfig, vocab_size: int, heads: Arrays | None = None) -> int:
    """Return how many numbers a model computes with, everything counted: embeddings, fixed positions and heads too.

    Example:
        >>> count_parameters(EncoderConfig(), vocab_size=8192)
        736704
    """
    encoder = sum(math.prod(shape) for shape in weight_shapes(config, vocab_size).values())
    return encoder + sum(array.size for array in (heads or {}).values())
