"""Backends: EncodedBatch in, ModelOutput out. They neither tokenize nor decode."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from weebill.errors import MissingExtraError
from weebill.schema import EncodedBatch, ModelOutput

if TYPE_CHECKING:
    from weebill.multitask import MultiTaskModel
    from weebill.sent_transformer import SentenceTransformer


class Backend(Protocol):
    """What runs a model: the same two inputs and three outputs whatever the library."""

    def run(self, batch: EncodedBatch) -> ModelOutput:
        """Return embeddings and logits for every row of the batch."""


class TorchBackend:
    """Runs a torch model on the device its weights are on."""

    def __init__(self, model: "MultiTaskModel | SentenceTransformer"):
        self.model = model.eval()

    def run(self, batch: EncodedBatch) -> ModelOutput:
        """Return embeddings and logits as float32 numpy arrays."""
        import torch

        device = next(self.model.parameters()).device
        with torch.inference_mode():
            out = self.model(
                torch.from_numpy(batch.input_ids_BT).to(device), torch.from_numpy(batch.attention_mask_BT).to(device)
            )
        if len(out) == 2:  # an encoder without heads: token states and embedding
            return ModelOutput(out[1].float().cpu().numpy(), None, None)
        embedding, intents, tags = (t.float().cpu().numpy() for t in out)
        return ModelOutput(embedding, intents, tags)


def load_torch(folder: Path, with_heads: bool) -> TorchBackend:
    """Load a model folder on CPU with torch.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torch", "train", f"loading {folder}") from error
    from weebill.multitask import MultiTaskModel
    from weebill.sent_transformer import SentenceTransformer

    return TorchBackend(MultiTaskModel.load(folder) if with_heads else SentenceTransformer.load(folder))
