"""Token states of a frozen encoder, computed once and kept in memory. Trains nothing and writes nothing.

They are those of the encoder in evaluation mode, to the last bits or nearly: which texts share a batch decides how a
processor adds up.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from weebill.data import Ints, pad
from weebill.encodings import EncodedBatch
from weebill.multitask import MultiTaskModel
from weebill.schema import ModelOutput
from weebill.sent_transformer import SentenceTransformer

BATCH = 64


class TokenStates:
    """The states of rows of token ids, end to end: 4 bytes × D for each token.

    Args:
        encoder: is put into evaluation mode.
        rows: token ids, not padded.
    """

    def __init__(self, encoder: SentenceTransformer, rows: Sequence[Sequence[int]]):
        lengths_N = np.array([len(ids) for ids in rows], dtype=np.int64)
        self._starts_N = lengths_N.cumsum() - lengths_N
        self._lengths_N, self._padding = lengths_N, int(lengths_N.sum())
        self._states_MD = torch.zeros(self._padding + 1, encoder.config.hidden_dim)  # the last one is padding's
        order = lengths_N.argsort(kind="stable")
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            hidden_BTD, mask_BT = _states(encoder, pad([rows[i] for i in chosen], encoder.tokenizer.pad_id))
            self._states_MD[torch.from_numpy(self._places(chosen))[mask_BT]] = hidden_BTD[mask_BT]

    def __call__(self, rows: Ints) -> Tensor:
        """Return the states of some rows, zeros where they are padded, float32 (B, T, D).

        In memory they are time-major, as the encoder's: dropout, which is drawn in that order, falls on the same ones.
        """
        return self._states_MD[torch.from_numpy(self._places(rows).T.copy())].transpose(0, 1)

    def _places(self, rows: Ints) -> Ints:
        """Return where the states of rows are, (B, T)."""
        column_1T = np.arange(self._lengths_N[rows].max())[None, :]
        places_BT = self._starts_N[rows, None] + column_1T
        found: Ints = np.where(column_1T < self._lengths_N[rows, None], places_BT, self._padding)
        return found


class FrozenBackend:
    """A backend that runs the encoder once for each batch it ever sees, and the heads, which change, every time."""

    workers = 1

    def __init__(self, model: MultiTaskModel):
        self.model = model
        self._seen: dict[bytes, tuple[Tensor, Tensor, Tensor]] = {}

    def run(self, batch: EncodedBatch) -> ModelOutput:
        """Return embeddings and logits as float32 numpy arrays."""
        key = repr(batch.input_ids_BT.shape).encode() + batch.input_ids_BT.tobytes()
        if key not in self._seen:
            encoder = self.model.encoder
            device = encoder.word_embeddings.weight.device
            ids_BT, mask_BT = (torch.from_numpy(a).to(device) for a in (batch.input_ids_BT, batch.attention_mask_BT))
            with torch.inference_mode():
                self._seen[key] = (*encoder.eval()(ids_BT, mask_BT), mask_BT)
        hidden_BTD, embedding_BE, mask_BT = self._seen[key]
        self.model.eval()
        with torch.inference_mode():
            outputs = (embedding_BE, *self.model.read(hidden_BTD, mask_BT))
            return ModelOutput(*(t.float().cpu().numpy() for t in outputs))


def _states(encoder: SentenceTransformer, input_ids_BT: Ints) -> tuple[Tensor, Tensor]:
    device = encoder.word_embeddings.weight.device
    ids_BT = torch.from_numpy(input_ids_BT).to(device)
    mask_BT = ids_BT != encoder.tokenizer.pad_id
    with torch.no_grad():
        hidden_BTD, _ = encoder.eval()(ids_BT, mask_BT)
    return hidden_BTD.float().cpu(), mask_BT.cpu()
