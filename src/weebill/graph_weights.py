"""The weights of a graph that `weebill export` wrote, by the names they have in a model folder. Runs nothing; no torch.

onnx_graph.py backwards. A bias that it folded into others stays there, and is 0 where it was: so the model computes
what the graph does, also where it had other biases before. Weights in int8 come as the numbers a runtime makes of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weebill.config import HeadsConfig
from weebill.errors import ArtifactError, MissingExtraError
from weebill.graph_check import check_graph

Arrays = dict[str, npt.NDArray[np.float32]]
FOLDED = ("key", "output")  # parts of attention whose bias is elsewhere, or not needed


def read_graph_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], heads: HeadsConfig | None
) -> tuple[Arrays, Arrays]:
    """Return the weights of an encoder and those of its heads.

    Args:
        path: of the graph.
        shapes: of the encoder's weights, by name; see `weights.weight_shapes`.
        heads: shape of the heads, if it has some.

    Raises:
        ArtifactError: no graph, or not one as `onnx_graph.build_graph` writes it now.
        MissingExtraError: onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("onnx", "train", "reading the weights of an exported model") from error
    body = path.read_bytes()
    check_graph(body, str(path))
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            weights = _Weights({t.name: _numbers(t) for t in onnx.load_from_string(body).graph.initializer})
            arrays = {name: _encoder_weight(weights, name, shape) for name, shape in shapes.items()}
            head_arrays = _head_weights(weights, heads.lstm_dim) if heads else {}
    except KeyError as error:
        problem = f"one without {error}"
    except (IndexError, TypeError, ValueError, DecodeError) as error:
        problem = f"weights that cannot be read ({error})"
    else:
        word_dim = shapes["embeddings.word_embeddings.weight"][1]
        arrays["embeddings.token_type_embeddings.weight"] = np.zeros((2, word_dim), np.float32)  # as BERTs have
        wrong = [name for name, array in (arrays | head_arrays).items() if not np.isfinite(array).all()]
        if not wrong:
            return _contiguous(arrays), _contiguous(head_arrays)
        problem = f"numbers that are not finite in {wrong[0]!r}"
    raise ArtifactError(f"{path}: expected a graph as `weebill export` writes it, got {problem}; name the folder it "
                        f"was exported from")  # fmt: skip


def _numbers(tensor: Any) -> npt.NDArray[Any]:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64):
        raise ValueError(f"{tensor.name}: neither float32 nor int8")
    array: npt.NDArray[Any] = numpy_helper.to_array(tensor)
    return array


class _Weights:
    def __init__(self, found: Mapping[str, npt.NDArray[Any]]):
        self.found = found

    def get(self, name: str) -> npt.NDArray[np.float32]:
        scale = self.found.get(f"{name}.scale")
        array: npt.NDArray[np.float32] = self.found[name].astype(np.float32)
        if scale is None:
            return array
        if np.broadcast_shapes(array.shape, scale.shape) != array.shape:  # before it fills the memory
            raise ValueError(f"{name}: {array.shape} with scales {scale.shape}")
        array *= scale
        return array


def _encoder_weight(weights: _Weights, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    layer, mark, rest = name.partition(".attention.")
    part, _, kind = rest.removeprefix("self.").replace(".dense", "").partition(".")
    if name == "embeddings.word_embeddings.weight":
        return weights.get(name)
    if name == "embeddings.position_embeddings.weight":
        return weights.get("positions")
    if mark and "LayerNorm" not in rest:
        if kind == "bias" and part in FOLDED:
            return np.zeros(shape, np.float32)
        array = weights.get(f"{layer}.attention.{part}.{kind}")
        return array.T if kind == "weight" else array
    if name.endswith(".output.dense.bias"):
        return np.zeros(shape, np.float32)
    return weights.get(name).T if len(shape) == 2 else weights.get(name)


def _head_weights(weights: _Weights, lstm_dim: int) -> Arrays:
    arrays = {}
    for layer in ("intent_head.linear", "tag_head.mlp.0", "tag_head.mlp.3"):
        arrays[f"{layer}.weight"] = weights.get(f"{layer}.weight").T
        arrays[f"{layer}.bias"] = weights.get(f"{layer}.bias")
    taken_in, recurrent, bias = (weights.get(f"tag_head.lstm.{part}") for part in ("input", "recurrent", "bias"))
    for number, direction in enumerate(("forward", "backward")):
        in_bias, recurrent_bias = np.split(bias[number], [4 * lstm_dim])
        gates = {"weight_ih": taken_in[number], "weight_hh": recurrent[number], "bias_ih": in_bias,
                 "bias_hh": recurrent_bias}  # fmt: skip
        arrays |= {f"tag_head.{direction}_lstm.{name}_l0": _torch_gates(array) for name, array in gates.items()}
    return arrays


def _torch_gates(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return an LSTM's weights in torch's order of gates, input forget cell output; ONNX's is input output forget cell.

    Example:
        >>> _torch_gates(np.array(["i", "o", "f", "c"])).tolist()
        ['i', 'f', 'c', 'o']
    """
    taken_in, out, forget, cell = np.split(array, 4)
    return np.concatenate([taken_in, forget, cell, out])


def _contiguous(arrays: Arrays) -> Arrays:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
