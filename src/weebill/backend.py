"""Backends: EncodedBatch in, ModelOutput out. They neither tokenize nor decode."""

import importlib.util
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from weebill.artifact import GRAPH, WEIGHTS, StoredModel
from weebill.encodings import EncodedBatch
from weebill.errors import ArtifactError, ConfigError, MissingExtraError
from weebill.graph_check import check_graph
from weebill.schema import ModelOutput

if TYPE_CHECKING:
    from weebill.multitask import MultiTaskModel
    from weebill.sent_transformer import SentenceTransformer

ONNX_INPUTS = ("input_ids", "attention_mask")
ONNX_OUTPUTS = ("sentence_embedding", "intent_logits", "slot_logits")  # an encoder has the first alone
MANY_NUMBERS = 10_000  # from here on a product takes several threads
BackendName = Literal["torch", "onnx"]
Key = TypeVar("Key")


class Backend(Protocol):
    """What runs a model: the same two inputs and three outputs whatever the library."""

    @property
    def workers(self) -> int:
        """How many batches are best run at the same time; `run` may be called from that many threads."""

    def run(self, batch: EncodedBatch) -> ModelOutput:
        """Return embeddings and logits for every row of the batch."""


class TorchBackend:
    """Runs a torch model on the device its weights are on; torch itself divides a batch among threads."""

    workers = 1

    def __init__(self, model: "MultiTaskModel | SentenceTransformer"):
        self.model = model.eval()

    def run(self, batch: EncodedBatch) -> ModelOutput:
        """Return embeddings and logits as float32 numpy arrays."""
        import torch

        from weebill.sent_transformer import SentenceTransformer

        device = next(self.model.parameters()).device
        ids_BT = torch.from_numpy(batch.input_ids_BT).to(device)
        mask_BT = torch.from_numpy(batch.attention_mask_BT).to(device)
        with torch.inference_mode():
            if isinstance(self.model, SentenceTransformer):  # no heads: nobody asks for token states
                return ModelOutput(self.model.embed(ids_BT, mask_BT).float().cpu().numpy(), None, None)
            embedding, intents, tags = (t.float().cpu().numpy() for t in self.model(ids_BT, mask_BT))
        return ModelOutput(embedding, intents, tags)


class OnnxBackend:
    """Runs a graph with onnxruntime on CPU; needs no torch.

    One thread runs a whole batch and several batches run beside one another: the products of a small model are not
    worth dividing.

    Args:
        graph: the file, or what is in it.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ArtifactError: no ONNX graph, or not one with weebill's inputs and outputs.
    """

    def __init__(self, graph: Path | bytes):
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx", "running an ONNX graph") from error
        self._where = where = str(graph) if isinstance(graph, Path) else "the graph"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors come as exceptions
        try:
            body = graph.read_bytes() if isinstance(graph, Path) else graph
            check_graph(body, where)
            self._session = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
        except ArtifactError:
            raise
        except Exception as error:  # onnxruntime's errors have no tree of their own
            reason = str(error).partition("\n")[0]
            raise ArtifactError(f"{where}: expected an ONNX graph, got: {reason}; copy it again, or export it again "
                                f"with `weebill export`") from error  # fmt: skip
        self.workers = os.cpu_count() or 1
        nodes = self._session.get_outputs()
        self.widths = {n.name: n.shape[-1] if n.shape and n.type == "tensor(float)" else None for n in nodes}
        self._outputs = list(self.widths)
        inputs, outputs = tuple(node.name for node in self._session.get_inputs()), tuple(self.widths)
        if inputs != ONNX_INPUTS or outputs not in (ONNX_OUTPUTS, ONNX_OUTPUTS[:1]):
            raise ArtifactError(f"{where}: expected inputs {', '.join(ONNX_INPUTS)} and outputs "
                                f"{', '.join(ONNX_OUTPUTS)}, got {', '.join(inputs)} and {', '.join(outputs)}; export "
                                f"the model with `weebill export`")  # fmt: skip

    def run(self, batch: EncodedBatch) -> ModelOutput:
        """Return embeddings and logits.

        Raises:
            ArtifactError: the graph does not compute, or not one finite number for each that is expected.
        """
        feed = dict(zip(ONNX_INPUTS, (batch.input_ids_BT, batch.attention_mask_BT.astype(np.int64)), strict=True))
        try:
            outputs = self._session.run(self._outputs, feed)
        except Exception as error:  # as above
            reason = str(error).partition("\n")[0]
            raise ArtifactError(f"{self._where}: expected a graph that runs, got: {reason}; copy it again, or export "
                                f"it again with `weebill export`") from error  # fmt: skip
        rows, length = batch.input_ids_BT.shape
        leading = [(rows,), (rows,), (rows, length)]  # zip: an encoder has the first alone
        shapes = [(*sizes, width) for sizes, width in zip(leading, self.widths.values(), strict=False)]
        if [output.shape for output in outputs] != shapes or not all(map(_is_finite, outputs)):
            raise ArtifactError(f"{self._where}: expected finite outputs of the shapes {shapes}, got others; copy it "
                                f"again, or export it again with `weebill export`")  # fmt: skip
        return ModelOutput(*outputs) if len(outputs) == len(ONNX_OUTPUTS) else ModelOutput(outputs[0], None, None)


def _is_finite(numbers: npt.NDArray[np.float32]) -> bool:
    """Return whether there is no NaN and no infinity: a sum of squares tells it of few numbers, in half the calls."""
    few = numbers.size < MANY_NUMBERS
    return (few and math.isfinite(np.vdot(numbers, numbers))) or bool(np.isfinite(numbers).all())


def run_all(
    backend: Backend, batches: Iterable[tuple[Key, EncodedBatch]]
) -> Iterator[tuple[Key, EncodedBatch, ModelOutput]]:
    """Yield every batch with its output, in order; as many run at a time as the backend has workers."""
    if backend.workers == 1:
        for key, batch in batches:
            yield key, batch, backend.run(batch)
        return
    waiting: deque[tuple[Key, EncodedBatch, Future[ModelOutput]]] = deque()
    with ThreadPoolExecutor(backend.workers) as pool:
        for key, batch in batches:
            waiting.append((key, batch, pool.submit(backend.run, batch)))
            if len(waiting) > backend.workers:
                key, batch, future = waiting.popleft()
                yield key, batch, future.result()
        for key, batch, future in waiting:
            yield key, batch, future.result()


def load_backend(folder: Path, stored: StoredModel, name: BackendName | None) -> Backend:
    """Load a model folder on CPU.

    Args:
        folder: of the model.
        stored: what `read_model` gives for it; weights are not needed.
        name: what runs it; default: torch where it is installed and the folder has weights for it, else onnxruntime.

    Raises:
        ConfigError: no such backend.
        ArtifactError: the folder has nothing for that backend, or something damaged.
        MissingExtraError: what would run it is not installed.
    """
    if name not in (None, *get_args(BackendName)):
        raise ConfigError(f"backend: expected {' or '.join(get_args(BackendName))}, got {name!r}; correct it")
    has_graph, has_weights = ((folder / file).is_file() for file in (GRAPH, WEIGHTS))
    has_torch = importlib.util.find_spec("torch") is not None
    if name == "onnx" or (name is None and has_graph and not (has_weights and has_torch)):
        if not has_graph:
            raise ArtifactError(f"{folder}: expected {GRAPH} for the ONNX backend, got a folder without; "
                                f"`weebill export {folder} --output DIR` makes one with it")  # fmt: skip
        return _load_onnx(folder, stored)
    if not has_torch:
        instead = f"or where torch is: weebill export {folder} --output DIR, and here: pip install 'weebill[onnx]'"
        purpose = f"loading {folder} with torch" if has_graph else f"{folder} has no {GRAPH}; loading its weights"
        raise MissingExtraError("torch", "train", purpose, instead)
    from weebill.multitask import MultiTaskModel
    from weebill.sent_transformer import SentenceTransformer

    return TorchBackend(MultiTaskModel.load(folder) if stored.heads else SentenceTransformer.load(folder))


def _load_onnx(folder: Path, stored: StoredModel) -> OnnxBackend:
    backend = OnnxBackend(folder / GRAPH)
    expected = {ONNX_OUTPUTS[0]: stored.config.embedding_dim}
    if stored.heads:
        expected |= {ONNX_OUTPUTS[1]: len(stored.heads.intents), ONNX_OUTPUTS[2]: len(stored.heads.tags)}
    if backend.widths != expected:
        raise ArtifactError(f"{folder / GRAPH}: expected outputs of the widths {expected}, got {backend.widths}; graph "
                            f"and labels are not of one model: export it again")  # fmt: skip
    return backend
