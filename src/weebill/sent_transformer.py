"""SentenceTransformer: token ids -> token states -> one sentence embedding. Knows no heads and no losses.

A post-LN BERT encoder, by default with fixed sinusoidal positions: on disk it *is* a BertModel, so others read it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weebill.artifact import StoredModel, find_model, read_model, write_model
from weebill.attention import attention
from weebill.bert import read_bert
from weebill.config import EncoderConfig
from weebill.data import batches_by_length
from weebill.dropout import dropout
from weebill.encodings import ModelTokenizer
from weebill.geometry import unit_rows
from weebill.tokenizer_checks import check_texts


def sinusoidal_table(num_positions: int, dim: int) -> Tensor:
    """Return the fixed position table: even columns sine, odd columns cosine.

    Shape: (num_positions, dim)
    Source: Vaswani et al. 2017, section 3.5.
    """
    position_T1 = torch.arange(num_positions, dtype=torch.float64)[:, None]
    frequency_K = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10_000.0) / dim))
    table_TD = torch.zeros(num_positions, dim, dtype=torch.float64)
    table_TD[:, 0::2] = torch.sin(position_T1 * frequency_K)
    table_TD[:, 1::2] = torch.cos(position_T1 * frequency_K)
    return table_TD.float()


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network, each followed by a residual sum and LayerNorm (post-LN)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        dim, eps = config.hidden_dim, config.layer_norm_eps
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(dim, 3 * dim)  # one product instead of three; split into q, k, v on disk
        self.attention_out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim, eps=eps)
        self.ffn_in = nn.Linear(dim, config.ffn_dim)
        self.ffn_out = nn.Linear(config.ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, hidden_TBD: Tensor, padding_TB: Tensor, first_only: bool = False) -> Tensor:
        """Shape: (T, B, D), (T, B), see `attention` -> (T, B, D); of the first token only: (1, B, D)."""
        q_weight, k_weight, v_weight = self.qkv.weight.chunk(3)
        q_bias, k_bias, v_bias = self.qkv.bias.chunk(3)
        k_TBD, v_TBD = F.linear(hidden_TBD, k_weight, k_bias), F.linear(hidden_TBD, v_weight, v_bias)
        if first_only:
            hidden_TBD = hidden_TBD[:1]
        q_TBD = F.linear(hidden_TBD, q_weight, q_bias)
        # no dropout on the attention weights: with it torch leaves its fused kernel, on CPU as on GPU
        mixed_TBD = self.attention_out(attention(q_TBD, k_TBD, v_TBD, padding_TB, self.num_heads))
        hidden_TBD = self.attention_norm(hidden_TBD + dropout(mixed_TBD, self.dropout, self.training))
        ffn_TBD = self.ffn_out(F.gelu(self.ffn_in(hidden_TBD)))
        out_TBD: Tensor = self.ffn_norm(hidden_TBD + dropout(ffn_TBD, self.dropout, self.training))
        return out_TBD


class SentenceTransformer(nn.Module):
    """Embeddings + positions + encoder + pooling + projection.

    Example:
        >>> from weebill import Tokenizer
        >>> model = SentenceTransformer(EncoderConfig(num_layers=1), Tokenizer.packaged())
        >>> model.encode(["wake me up", "play some jazz"]).shape
        (2, 64)
    """

    position_table_TD: Tensor

    def __init__(self, config: EncoderConfig, tokenizer: ModelTokenizer):
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.word_embeddings = nn.Embedding(tokenizer.vocab_size, config.hidden_dim, padding_idx=tokenizer.pad_id)
        table_TD = sinusoidal_table(config.max_seq_len, config.hidden_dim)
        if config.positions == "learned":
            self.position_table_TD = nn.Parameter(table_TD)  # from random weights, learning starts at the sines
        else:
            self.register_buffer("position_table_TD", table_TD)
        self.embedding_norm = nn.LayerNorm(config.hidden_dim, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.projection = nn.Linear(config.hidden_dim, config.embedding_dim) if config.projection else nn.Identity()
        self.apply(_init_weights)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return token states and the sentence embedding (not normalised).

        Shape: int64 (B, T), bool (B, T) True = real -> (B, T, D), (B, E)
        """
        hidden_BTD = self._token_states(input_ids_BT, attention_mask_BT)
        return hidden_BTD, self._embedding(hidden_BTD, attention_mask_BT)

    def embed(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Return the sentence embedding alone; with [CLS] pooling the last layer computes no other token's state.

        Shape: int64 (B, T), bool (B, T) True = real -> (B, E)
        """
        hidden_BTD = self._token_states(input_ids_BT, attention_mask_BT, first_only=self.config.pooling == "cls")
        return self._embedding(hidden_BTD, attention_mask_BT)

    def _token_states(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, first_only: bool = False) -> Tensor:
        positions_T1D = self.position_table_TD[: input_ids_BT.shape[1], None]
        hidden_TBD = self.embedding_norm(self.word_embeddings(input_ids_BT.T) + positions_T1D)
        hidden_TBD = dropout(hidden_TBD, self.config.dropout, self.training)
        lowest = torch.finfo(hidden_TBD.dtype).min
        padding_TB = torch.zeros_like(input_ids_BT.T, dtype=hidden_TBD.dtype).masked_fill_(~attention_mask_BT.T, lowest)
        for layer in self.layers[:-1]:
            hidden_TBD = layer(hidden_TBD, padding_TB)
        out_TBD: Tensor = self.layers[-1](hidden_TBD, padding_TB, first_only)
        return out_TBD.transpose(0, 1)

    def _embedding(self, hidden_BTD: Tensor, attention_mask_BT: Tensor) -> Tensor:
        if self.config.pooling == "cls":
            pooled_BD = hidden_BTD[:, 0]
        else:
            weights_BT1 = attention_mask_BT.unsqueeze(-1).to(hidden_BTD.dtype)
            pooled_BD = (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
        embedding_BE: Tensor = self.projection(pooled_BD)
        return embedding_BE

    @torch.inference_mode()
    def encode(
        self, texts: Sequence[str], *, batch_size: int = 64, normalize: bool = False, show_progress: bool | None = None
    ) -> npt.NDArray[np.float32]:
        """Return one embedding per text, in the order given; texts of similar length share a batch.

        Args:
            texts: any number of texts; longer than `max_seq_len` tokens are truncated.
            batch_size: texts per forward pass.
            normalize: scale each embedding to length 1.
            show_progress: a progress bar; default: from 2,000 texts on.

        Raises:
            ConfigError: something else than texts.

        Shape: float32 (len(texts), embedding_dim)
        """
        check_texts(texts)
        was_training = self.training
        self.eval()
        vectors_ND = np.zeros((len(texts), self.config.embedding_dim), dtype=np.float32)
        device = self.word_embeddings.weight.device
        for rows, batch in batches_by_length(
            self.tokenizer, texts, self.config.max_seq_len, batch_size, show_progress=show_progress
        ):
            ids = torch.from_numpy(batch.input_ids_BT).to(device)
            mask = torch.from_numpy(batch.attention_mask_BT).to(device)
            vectors_ND[rows] = self.embed(ids, mask).float().cpu().numpy()
        self.train(was_training)
        return unit_rows(vectors_ND) if normalize else vectors_ND

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the encoder's weights under BertModel's names, and the projection under `linear.*`."""
        return {name: t.detach().float().cpu().numpy().copy() for name, t in _to_bert(self).items()}

    def load_arrays(self, arrays: dict[str, npt.NDArray[np.float32]]) -> None:
        """Set weights from `arrays()` of a model of the same shape; those not in `arrays` stay as they are."""
        with torch.no_grad():
            for name, target in _to_bert(self).items():
                if name in arrays:
                    target.copy_(torch.from_numpy(arrays[name]))

    def save(
        self,
        folder: Path | str,
        training: dict[str, object] | None = None,
        extra_files: Mapping[str, str | bytes] | None = None,
    ) -> None:
        """Write the model folder, atomically; an older weebill model of that name is replaced."""
        from weebill.verification import golden_rows

        write_model(
            Path(folder),
            self.config,
            self.tokenizer,
            self.arrays(),
            training=training,
            extra_files=extra_files,
            golden=golden_rows(self),
        )

    @classmethod
    def load(cls, folder: Path | str) -> "SentenceTransformer":
        """Read a model folder that `save` wrote (heads, if any, are left aside).

        Raises:
            ArtifactError: the folder is not a complete weebill model.
        """
        return cls.from_stored(read_model(find_model(folder)))

    @classmethod
    def from_bert(cls, path_or_name: Path | str) -> "SentenceTransformer":
        """Read a BERT of anybody's with its tokenizer; `save` makes a weebill model of it.

        Embeddings are those of sentence-transformers, before a Normalize module.

        Args:
            path_or_name: folder of a BERT checkpoint or of a sentence-transformers model on one, or its name on the
                Hugging Face Hub, such as "sentence-transformers/all-MiniLM-L6-v2".

        Raises:
            ArtifactError: nothing there, another architecture, no tokenizer, no safetensors, weights that do not fit.
            MissingExtraError: `huggingface_hub` or `tokenizers` is needed and not installed.
        """
        return cls.from_stored(read_bert(path_or_name))

    @classmethod
    def from_stored(cls, stored: StoredModel) -> "SentenceTransformer":
        """Return the encoder of a model as read from disk; weights that were left out are random."""
        model = cls(stored.config, stored.tokenizer)
        model.load_arrays(stored.arrays)
        return model.eval()


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        # positions have entries up to 1: words must be as large, or the sum says where a token stands, not what it is
        nn.init.normal_(module.weight, std=1.0 / math.sqrt(2.0))
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def _to_bert(model: SentenceTransformer) -> dict[str, Tensor]:
    """Return views of the model's weights by BertModel name; q, k and v are thirds of one matrix."""
    embeddings = model.word_embeddings.weight
    out: dict[str, Tensor] = {
        "embeddings.word_embeddings.weight": embeddings,
        "embeddings.position_embeddings.weight": model.position_table_TD,
        "embeddings.token_type_embeddings.weight": torch.zeros(2, model.config.hidden_dim),
        "embeddings.LayerNorm.weight": model.embedding_norm.weight,
        "embeddings.LayerNorm.bias": model.embedding_norm.bias,
    }
    for n, layer in enumerate(model.layers):
        prefix = f"encoder.layer.{n}"
        assert isinstance(layer, EncoderLayer)  # for the type checker
        for kind in ("weight", "bias"):
            thirds = getattr(layer.qkv, kind).chunk(3)
            for part, third in zip(("query", "key", "value"), thirds, strict=True):
                out[f"{prefix}.attention.self.{part}.{kind}"] = third
            out[f"{prefix}.attention.output.dense.{kind}"] = getattr(layer.attention_out, kind)
            out[f"{prefix}.attention.output.LayerNorm.{kind}"] = getattr(layer.attention_norm, kind)
            out[f"{prefix}.intermediate.dense.{kind}"] = getattr(layer.ffn_in, kind)
            out[f"{prefix}.output.dense.{kind}"] = getattr(layer.ffn_out, kind)
            out[f"{prefix}.output.LayerNorm.{kind}"] = getattr(layer.ffn_norm, kind)
    if isinstance(model.projection, nn.Linear):
        out["linear.weight"], out["linear.bias"] = model.projection.weight, model.projection.bias
    return out
