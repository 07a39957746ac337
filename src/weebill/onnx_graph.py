"""The model as one ONNX graph, written node by node from its weights. Runs nothing, checks nothing and needs no torch.

    input_ids, attention_mask   int64 (batch, length), any batch, any length up to max_seq_len
    sentence_embedding          float32 (batch, E), not normalised
    intent_logits               float32 (batch, C)             with heads
    slot_logits                 float32 (batch, length, L)     with heads

Only operators of the ONNX standard, so that any runtime runs it. The tag head is ONNX's LSTM with `sequence_lens`: it
reads each text backwards from its own last token, as heads.py does, so padding changes nothing.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from weebill.artifact import StoredModel
from weebill.backend import ONNX_INPUTS, ONNX_OUTPUTS
from weebill.config import EncoderConfig

OPSET = 23  # the first with Attention
IR_VERSION = 11  # what came with it: older runtimes read it
Array = npt.NDArray[Any]


def build_graph(stored: StoredModel, int8: bool = False) -> bytes:
    """Return the serialized graph of a model; the same bytes every time.

    Args:
        stored: the model with its weights.
        int8: store word embeddings and weight matrices as int8, with one scale per word or output. A runtime makes
            float32 of the matrices when it loads the graph, so every result still depends on its own text alone.
    """
    heads = stored.heads
    graph = _Graph(stored.arrays | (heads.arrays if heads else {}), int8)
    hidden_BTD = _encoder(graph, stored)
    _embedding(graph, stored, hidden_BTD)
    shapes: list[list[str | int]] = [["batch", stored.config.embedding_dim]]
    if heads:
        _heads(graph, hidden_BTD, heads.config.lstm_dim)
        shapes += [["batch", len(heads.intents)], ["batch", "length", len(heads.tags)]]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "weebill",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ONNX_INPUTS],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in zip(ONNX_OUTPUTS, shapes, strict=False)
            ],
            list(graph.constants.values()),
        ),
        producer_name="weebill",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, _metadata(stored, int8))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _metadata(stored: StoredModel, int8: bool) -> dict[str, str]:
    """Return what a program needs that has the file and not the folder; values are JSON."""
    values: dict[str, Any] = {
        "weights": "int8" if int8 else "float32",
        "max_seq_len": stored.config.max_seq_len,
        "pad_id": stored.tokenizer.pad_id,
    }
    if stored.heads:
        values |= {"intents": stored.heads.intents, "tags": stored.heads.tags}
        config = stored.heads.config
        values |= {"entity_boundaries": config.entity_boundaries, "intent_threshold": config.settled_threshold}
        if config.settled_touching is not None:
            values["touching"] = config.settled_touching
        if config.intent_separator is not None:
            values["intent_separator"] = config.intent_separator
        if stored.heads.transitions:
            values |= {name: array.tolist() for name, array in stored.heads.transitions._asdict().items()}
    return {f"weebill.{key}": json.dumps(value, ensure_ascii=False) for key, value in values.items()}


class _Graph:
    """Nodes and constants in the order they were added; a value is known by its name."""

    def __init__(self, arrays: Mapping[str, Array], int8: bool):
        self.arrays, self.int8 = arrays, int8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output: `output`, or the node's own."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Add a constant; the same name again is the same constant."""
        self.constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """Add a constant list of whole numbers."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def weight(self, name: str, array: Array, axis: int) -> str:
        """Add a weight; as int8 it has one scale for all numbers along `axis`."""
        if not self.int8:
            return self.constant(name, array)
        whole, scale = to_int8(array, axis)
        return self._to_float(self.constant(name, whole), self.constant(f"{name}.scale", scale))

    def look_up(self, name: str, ids: str) -> str:
        """Take rows of a weight; of one in int8, only these become float32."""
        if not self.int8:
            return self.add("Gather", self.constant(name, self.arrays[name]), ids)
        whole, scale = to_int8(self.arrays[name], axis=1)
        rows = [self.add("Gather", self.constant(n, a), ids) for n, a in ((name, whole), (f"{name}.scale", scale))]
        return self._to_float(*rows)

    def _to_float(self, whole: str, scale: str) -> str:
        # onnxruntime computes this once if both are constants; a DequantizeLinear it would compute in every run
        return self.add("Mul", self.add("Cast", whole, to=TensorProto.FLOAT), scale)

    def linear(
        self,
        x: str,
        name: str,
        weight_OD: Array,
        bias_O: Array | str | None,
        output: str = "",
        surplus_D: Array | None = None,
    ) -> str:
        """Add x · weight + bias; x has two axes, as onnxruntime takes 1.6 times as long for more.

        Args:
            bias_O: a constant, or the name of a value with a row for each of x.
            surplus_D: what every row of x has too much; the constant bias takes its product away again.
        """
        inputs = [x, self.weight(f"{name}.weight", weight_OD.T, axis=0)]
        if isinstance(bias_O, str):
            inputs.append(bias_O)
        elif bias_O is not None:
            if surplus_D is not None:
                bias_O = bias_O - surplus_D @ self._as_computed(weight_OD.T, axis=0)
            inputs.append(self.constant(f"{name}.bias", bias_O))
        return self.add("Gemm", *inputs, output=output)

    def _as_computed(self, array: Array, axis: int) -> Array:
        """Return the numbers that a runtime will have of a weight."""
        if not self.int8:
            return array
        whole, scale = to_int8(array, axis)
        return whole * scale

    def stored_linear(self, x: str, name: str, output: str = "", surplus_D: Array | None = None) -> str:
        """Add a linear layer by the name its weights have in the model folder."""
        return self.linear(x, name, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"], output, surplus_D)

    def norm(self, x: str, name: str, eps: float, surplus_D: Array | None = None) -> str:
        """Add a LayerNorm by the name its weights have in the model folder, and `surplus_D` to what it gives."""
        weight, bias = (self.arrays[f"{name}.{kind}"] for kind in ("weight", "bias"))
        bias = bias if surplus_D is None else bias + surplus_D
        parts = (self.constant(f"{name}.{kind}", array) for kind, array in (("weight", weight), ("bias", bias)))
        return self.add("LayerNormalization", x, *parts, axis=-1, epsilon=eps)


def _encoder(graph: _Graph, stored: StoredModel) -> str:
    """Add the encoder and return its token states, (batch, length, D); of the first token alone if only it counts.

    Between attention and attention, tokens of all texts are one axis: N, and S those that ask for others.

    A layer's output is added to its input, then normalised. The bias of that output is in the input already, a surplus
    that the LayerNorm before adds, and that linear layers take away again: so one Gemm gives the whole sum.
    """
    config = stored.config
    ids = ONNX_INPUTS[0]
    words_BTD = graph.look_up("embeddings.word_embeddings.weight", ids)
    table_TD = graph.constant("positions", graph.arrays["embeddings.position_embeddings.weight"])
    length = graph.add("Shape", ids, start=1, end=2)
    positions_TD = graph.add("Slice", table_TD, graph.ints(0), length)
    eps = config.layer_norm_eps
    layers = [f"encoder.layer.{n}" for n in range(config.num_layers)]
    surpluses = [_output_biases(graph.arrays, layer) for layer in layers]
    states_BTD = graph.add("Add", words_BTD, positions_TD)
    hidden_BTD = graph.norm(states_BTD, "embeddings.LayerNorm", eps, surpluses[0][0])
    hidden_ND = graph.add("Reshape", hidden_BTD, graph.ints(-1, config.hidden_dim))
    is_padding_BT = graph.add("Sub", graph.constant("one", np.float32(1)), _mask_as_float(graph))
    # the lowest number and not minus infinity, which times 0 is NaN
    padding_BT = graph.add("Mul", is_padding_BT, graph.constant("lowest", np.finfo(np.float32).min))
    padding_B11T = graph.add("Unsqueeze", padding_BT, graph.ints(1, 2))
    all_ask = graph.add("Concat", graph.ints(1, 1), length, graph.ints(1), axis=0)
    padding_B1ST = graph.add("Expand", padding_B11T, all_ask)  # onnxruntime asks for a row for each token that asks
    for n, (layer, (attention_surplus_D, ffn_surplus_D)) in enumerate(zip(layers, surpluses, strict=True)):
        asking_SD, asking = hidden_ND, length
        if layer == layers[-1] and config.pooling == "cls" and not stored.heads:  # nobody asks for other tokens
            hidden_BTD = graph.add("Reshape", hidden_ND, _shape(graph, length, config.hidden_dim))
            asking_SD, asking, padding_B1ST = _first(graph, hidden_BTD), graph.ints(1), padding_B11T
        sum_SD = _attention(
            graph, (asking_SD, asking), (hidden_ND, length), padding_B1ST, layer, config, attention_surplus_D
        )
        hidden_SD = graph.norm(sum_SD, f"{layer}.attention.output.LayerNorm", eps, ffn_surplus_D)
        ffn = graph.stored_linear(hidden_SD, f"{layer}.intermediate.dense", surplus_D=ffn_surplus_D)
        output = f"{layer}.output.dense"
        sum_SD = graph.linear(graph.add("Gelu", ffn), output, graph.arrays[f"{output}.weight"], hidden_SD)
        next_surplus_D = surpluses[n + 1][0] if n + 1 < len(layers) else None
        hidden_ND = graph.norm(sum_SD, f"{layer}.output.LayerNorm", eps, next_surplus_D)
    return graph.add("Reshape", hidden_ND, _shape(graph, asking, config.hidden_dim))


def _output_biases(arrays: Mapping[str, Array], layer: str) -> tuple[Array, Array]:
    """Return the biases of attention's output and of the feed-forward's.

    Attention passes the whole of the values' bias on, so it is part of the output's.
    """
    weight, bias = (arrays[f"{layer}.attention.output.dense.{kind}"] for kind in ("weight", "bias"))
    return weight @ arrays[f"{layer}.attention.self.value.bias"] + bias, arrays[f"{layer}.output.dense.bias"]


def _attention(
    graph: _Graph,
    asking: tuple[str, str],
    asked: tuple[str, str],
    padding_B1ST: str,
    layer: str,
    config: EncoderConfig,
    surplus_D: Array,
) -> str:
    """Add attention of some tokens to all, each given with how many a text has, and its output added to those that ask.

    The keys' bias and their surplus add the same to all logits of a query, which softmax does not see.
    """
    name, dim = f"{layer}.attention", config.hidden_dim
    weights = {
        part: graph.arrays[f"{name}.{part}.weight"] for part in ("self.query", "self.key", "self.value", "output.dense")
    }
    (asking_SD, asking_length), (hidden_ND, length) = asking, asked
    query_bias_D, no_bias_D = graph.arrays[f"{name}.self.query.bias"], np.zeros(dim, np.float32)
    q_SD = graph.linear(asking_SD, f"{name}.query", weights["self.query"], query_bias_D, surplus_D=surplus_D)
    k_ND = graph.linear(hidden_ND, f"{name}.key", weights["self.key"], None)
    v_ND = graph.linear(hidden_ND, f"{name}.value", weights["self.value"], no_bias_D, surplus_D=surplus_D)
    q_BSD = graph.add("Reshape", q_SD, _shape(graph, asking_length, dim))
    k_BTD, v_BTD = (graph.add("Reshape", x, _shape(graph, length, dim)) for x in (k_ND, v_ND))
    num_heads = config.num_heads
    mixed_BSD = graph.add("Attention", q_BSD, k_BTD, v_BTD, padding_B1ST, q_num_heads=num_heads, kv_num_heads=num_heads)
    mixed_SD = graph.add("Reshape", mixed_BSD, graph.ints(-1, dim))
    return graph.linear(mixed_SD, f"{name}.output", weights["output.dense"], asking_SD)


def _shape(graph: _Graph, length: str, *rest: int) -> str:
    """Add the shape (batch, length, …); the same again is the same node."""
    name = "_".join(["shape", length, *map(str, rest)])
    if all(name not in node.output for node in graph.nodes):
        graph.add("Concat", graph.ints(-1), length, graph.ints(*rest), output=name, axis=0)
    return name


def _embedding(graph: _Graph, stored: StoredModel, hidden_BTD: str) -> None:
    """Add pooling and projection."""
    if stored.config.pooling == "cls":
        pooled_BD = _first(graph, hidden_BTD)
    else:
        mask_BT = _mask_as_float(graph)
        sum_B1D = graph.add("MatMul", graph.add("Unsqueeze", mask_BT, graph.ints(1)), hidden_BTD)
        length_B1 = graph.add("ReduceSum", mask_BT, graph.ints(1), keepdims=1)
        pooled_BD = graph.add("Div", graph.add("Squeeze", sum_B1D, graph.ints(1)), length_B1)
    if stored.config.projection:
        graph.stored_linear(pooled_BD, "linear", output=ONNX_OUTPUTS[0])
    else:
        graph.add("Identity", pooled_BD, output=ONNX_OUTPUTS[0])


def _heads(graph: _Graph, hidden_BTD: str, lstm_dim: int) -> None:
    """Add intent head and tag head."""
    graph.stored_linear(_first(graph, hidden_BTD), "intent_head.linear", output=ONNX_OUTPUTS[1])
    directions = [f"tag_head.{direction}_lstm" for direction in ("forward", "backward")]
    weights = [
        np.stack([_lstm_gates(graph.arrays[f"{direction}.weight_{kind}_l0"]) for direction in directions])
        for kind in ("ih", "hh")
    ]
    biases = np.stack([
        np.concatenate([_lstm_gates(graph.arrays[f"{direction}.bias_{kind}_l0"]) for kind in ("ih", "hh")])
        for direction in directions
    ])  # fmt: skip
    length_B = graph.add("ReduceSum", ONNX_INPUTS[1], graph.ints(1), keepdims=0)
    states_T2BK = graph.add(
        "LSTM",
        graph.add("Transpose", hidden_BTD, perm=[1, 0, 2]),
        graph.weight("tag_head.lstm.input", weights[0], axis=2),
        graph.weight("tag_head.lstm.recurrent", weights[1], axis=2),
        graph.constant("tag_head.lstm.bias", biases),
        graph.add("Cast", length_B, to=TensorProto.INT32),
        direction="bidirectional",
        hidden_size=lstm_dim,
    )
    states_BT2K = graph.add("Transpose", states_T2BK, perm=[2, 0, 1, 3])
    states_NK = graph.add("Reshape", states_BT2K, graph.ints(-1, 2 * lstm_dim))
    mlp_NM = graph.add("Gelu", graph.stored_linear(states_NK, "tag_head.mlp.0"))
    logits_NL = graph.stored_linear(mlp_NM, "tag_head.mlp.3")
    shape = graph.add("Concat", graph.add("Shape", ONNX_INPUTS[0]), graph.ints(-1), axis=0)
    graph.add("Reshape", logits_NL, shape, output=ONNX_OUTPUTS[2])


def _mask_as_float(graph: _Graph) -> str:
    return graph.add("Cast", ONNX_INPUTS[1], to=TensorProto.FLOAT)


def _first(graph: _Graph, hidden_BTD: str) -> str:
    """Add the state of each text's first token, [CLS]."""
    return graph.add("Gather", hidden_BTD, graph.constant("first", np.int64(0)), axis=1)


def _lstm_gates(array: Array) -> Array:
    """Return an LSTM's weights in ONNX's order of gates, input output forget cell; torch's is input forget cell output.

    Example:
        >>> _lstm_gates(np.array(["i", "f", "c", "o"])).tolist()
        ['i', 'o', 'f', 'c']
    """
    taken_in, forget, cell, out = np.split(array, 4)
    return np.concatenate([taken_in, out, forget, cell])


def to_int8(array: Array, axis: int) -> tuple[Array, Array]:
    """Return the nearest whole numbers from -127 to 127, and the scale to multiply them with, one for all along `axis`.

    Example:
        >>> whole, scale = to_int8(np.array([[63.5, -25.0], [0.0, 254.0]]), axis=1)
        >>> whole.tolist(), scale.tolist()
        ([[127, -50], [0, 127]], [[0.5], [2.0]])
    """
    largest = np.abs(array).max(axis=axis, keepdims=True)
    smallest = 127 * np.finfo(np.float32).tiny  # a scale that is no normal number has too few digits to divide by
    scale = (np.where(largest > smallest, largest, 1) / 127).astype(np.float32)
    return np.rint(array / scale).astype(np.int8), scale
