"""IntentHead, TagHead (perhaps with a LinearChain) and MaskedLMHead: token states -> logits. They decode nothing and
know no labels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weebill.config import HeadsConfig
from weebill.dropout import Dropout


class IntentHead(nn.Module):
    """Dropout and one linear layer on the [CLS] state.

    Shape: (B, D) -> (B, C)
    """

    def __init__(self, hidden_dim: int, num_intents: int, config: HeadsConfig):
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.linear = nn.Linear(hidden_dim, num_intents)

    def forward(self, cls_BD: Tensor) -> Tensor:
        """Return intent logits."""
        logits_BC: Tensor = self.linear(self.dropout(cls_BD))
        return logits_BC


class TagHead(nn.Module):
    """BiLSTM over the token states, then a two-layer MLP per token.

    The backward LSTM reads each text from its own last real token, so padding changes nothing: each row is reversed
    within its length, run forwards, and reversed back. (Packed sequences give the same numbers, slower on CPU, and do
    not export.)

    Shape: (B, T, D), bool (B, T) -> (B, T, L)
    """

    def __init__(self, hidden_dim: int, num_tags: int, config: HeadsConfig):
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.forward_lstm = nn.LSTM(hidden_dim, config.lstm_dim, batch_first=True)
        self.backward_lstm = nn.LSTM(hidden_dim, config.lstm_dim, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(2 * config.lstm_dim, config.mlp_dim),
            nn.GELU(),
            Dropout(config.dropout),
            nn.Linear(config.mlp_dim, num_tags),
        )
        self.crf = LinearChain(num_tags) if config.crf else None

    def forward(self, hidden_BTD: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Return tag logits for every token; those of padding mean nothing."""
        hidden_BTD = self.dropout(hidden_BTD)
        ahead_BTK = self.forward_lstm(hidden_BTD)[0]
        reversal_BT = reversal_index(attention_mask_BT)
        behind_BTK = _gather(self.backward_lstm(_gather(hidden_BTD, reversal_BT))[0], reversal_BT)
        logits_BTL: Tensor = self.mlp(self.dropout(torch.cat([ahead_BTK, behind_BTK], dim=-1)))
        return logits_BTL


class LinearChain(nn.Module):
    """How well each tag begins a text, follows each other tag, and ends a text; `losses.crf_loss` trains the scores."""

    def __init__(self, num_tags: int):
        super().__init__()
        self.start_L = nn.Parameter(torch.zeros(num_tags))
        self.transitions_LL = nn.Parameter(torch.zeros(num_tags, num_tags))
        self.end_L = nn.Parameter(torch.zeros(num_tags))


class MaskedLMHead(nn.Module):
    """Guesses tokens from their states: dense, GELU, LayerNorm, then the word embeddings as classes, and a bias each.

    Only pretraining has it; it is not kept with the model.

    Shape: (N, D), (V, D) -> (N, V)
    Source: Devlin et al. 2019; transformers' BertLMPredictionHead.
    """

    def __init__(self, hidden_dim: int, vocab_size: int, layer_norm_eps: float):
        super().__init__()
        self.dense = nn.Linear(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim, eps=layer_norm_eps)
        self.bias_V = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden_ND: Tensor, word_embeddings_VD: Tensor) -> Tensor:
        """Return logits over the vocabulary."""
        hidden_ND = self.norm(F.gelu(self.dense(hidden_ND)))
        # embeddings start with entries near 0.7: the division brings the logits of a new model near 1
        return hidden_ND @ word_embeddings_VD.T / math.sqrt(hidden_ND.shape[-1]) + self.bias_V


def reversal_index(attention_mask_BT: Tensor) -> Tensor:
    """Return the index that reverses each row within its real length and leaves padding where it is.

    Shape: bool (B, T) -> int64 (B, T); applying it twice gives the row back.

    Example:
        >>> reversal_index(torch.tensor([[True, True, True, False]])).tolist()
        [[2, 1, 0, 3]]
    """
    position_1T = torch.arange(attention_mask_BT.shape[1], device=attention_mask_BT.device)[None, :]
    length_B1 = attention_mask_BT.sum(dim=1, keepdim=True)
    return torch.where(attention_mask_BT, length_B1 - 1 - position_1T, position_1T)


def _gather(states_BTK: Tensor, index_BT: Tensor) -> Tensor:
    return states_BTK.gather(1, index_BT.unsqueeze(-1).expand_as(states_BTK))
