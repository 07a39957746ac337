"""What each attention head of an encoder looks at in one text, as numbers to draw. Trains and draws nothing."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from weebill.sent_transformer import EncoderLayer, SentenceTransformer


@torch.no_grad()
def attention_maps(model: SentenceTransformer, text: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Return the tokens of a text as they can be read, and the attention weights of every head of every layer.

    Row s of a map is how token s shares its attention out: its entries are not negative and sum to 1.

    Args:
        model: an encoder; of a `MultiTaskModel`, its `encoder`.
        text: cut to the model's `max_seq_len` tokens.

    Shape: T names, float32 (num_layers, H, T, T)
    Source: Vaswani et al. 2017, equation 1, without the values; equals transformers' BertModel with
        output_attentions=True.

    Example:
        >>> from weebill import Tokenizer
        >>> from weebill.config import EncoderConfig
        >>> model = SentenceTransformer(EncoderConfig(num_layers=2), Tokenizer.packaged())
        >>> names, maps = attention_maps(model, "play jazz")
        >>> names, maps.shape
        (['[CLS]', 'play', 'jazz', '[SEP]'], (2, 8, 4, 4))
    """
    encoding = model.tokenizer.encode(text, max_length=model.config.max_seq_len)
    special = {token_id: name for name, token_id in model.tokenizer.special_tokens.items()}
    names = [
        special[token_id] if token_id in special else text[start:end] or "␣"
        for token_id, (start, end) in zip(encoding.token_ids, encoding.offsets, strict=True)
    ]
    states: list[Tensor] = []  # what each layer reads, (T, 1, D)
    layers = [layer for layer in model.layers if isinstance(layer, EncoderLayer)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])) for layer in layers]
    was_training = model.training
    try:
        ids_1T = torch.tensor([encoding.token_ids], device=model.word_embeddings.weight.device)
        model.eval()(ids_1T, torch.ones_like(ids_1T, dtype=torch.bool))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    maps = [_weights(layer, state_T1D[:, 0]) for layer, state_T1D in zip(layers, states, strict=True)]
    return names, torch.stack(maps).float().cpu().numpy()


def _weights(layer: EncoderLayer, state_TD: Tensor) -> Tensor:
    """Shape: (T, D) -> (H, T, T)."""
    q_TD, k_TD, _ = layer.qkv(state_TD).chunk(3, dim=-1)
    q_HTK, k_HTK = (x.view(len(x), layer.num_heads, -1).transpose(0, 1) for x in (q_TD, k_TD))
    weights_HTT: Tensor = (q_HTK @ k_HTK.mT / q_HTK.shape[-1] ** 0.5).softmax(dim=-1)
    return weights_HTT
