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

        from weebill.sent_transformer import SentenceTransformer

        device = next(self.model.parameters()).device
        ids_BT = torch.from_numpy(batch.input_ids_BT).to(device)
        mask_BT = torch.from_numpy(batch.attention_mask_BT).to(device)
        with torch.inference_mode():
            if isinstance(self.model, SentenceTransformer):  # no heads: nobody asks for token states
                return ModelOutput(self.model.embed(ids_BT, mask_BT).float().cpu().numpy(), None, None)
            embedding, intents, tags = (t.float().cpu().numpy() for t in self.model(ids_BT, mask_BT))
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
