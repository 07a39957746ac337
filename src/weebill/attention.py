"""Attention: queries, keys and values in, mixed values out. Has no weights, and hides nothing but padding.

torch's fused kernel serves every case. On CPU it takes 16 keys at once and the rest of a row one by one: 12 keys cost
three times what 16 do, and most sentences are that short. So short texts on CPU have a way of their own here: batched
products with a softmax between them, laid out so that it runs along the long side.

States are time-major, (T, B, D): then a head of a text is one item of a batched product, without a copy.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# From here on torch's kernel is faster. 64 texts, 8 heads of 8, forward and backward, µs (ours, torch's): 12 tokens
# 880, 3,020; 20 tokens 1,740, 3,190; 32 tokens 3,780, 3,890; 64 tokens 16,400, 11,100.
LONG_TOKENS = 32


def attention(q_SBD: Tensor, k_TBD: Tensor, v_TBD: Tensor, padding_TB: Tensor, num_heads: int) -> Tensor:
    """Return softmax(q·k / √K + padding)·v, head by head.

    Args:
        q_SBD: queries, S for each text.
        k_TBD: keys.
        v_TBD: values.
        padding_TB: 0 for a real token, the lowest number for padding.
        num_heads: H = D / K.

    Shape: (S, B, D), (T, B, D), (T, B, D), (T, B) -> (S, B, D)
    Source: Vaswani et al. 2017, section 3.2; equals torch.nn.functional.scaled_dot_product_attention.
    """
    # in this order: an exporter that sees the length compared takes it for a constant
    if k_TBD.device.type == "cpu" and not torch.compiler.is_compiling() and len(k_TBD) < LONG_TOKENS:
        if not torch.is_grad_enabled():
            return _mix(q_SBD, k_TBD, v_TBD, padding_TB, num_heads)[0]
        mixed_SBD: Tensor = _ShortAttention.apply(q_SBD, k_TBD, v_TBD, padding_TB, num_heads)  # type: ignore[no-untyped-call]
        return mixed_SBD
    q_BHSK, k_BHTK, v_BHTK = (x.view(*x.shape[:2], num_heads, -1).permute(1, 2, 0, 3) for x in (q_SBD, k_TBD, v_TBD))
    mixed_BHSK = F.scaled_dot_product_attention(q_BHSK, k_BHTK, v_BHTK, attn_mask=padding_TB.T[:, None, None])
    return mixed_BHSK.permute(2, 0, 1, 3).flatten(2)


class _ShortAttention(torch.autograd.Function):
    """`_mix` with its derivative."""

    @staticmethod
    def forward(ctx: Any, q_SBD: Tensor, k_TBD: Tensor, v_TBD: Tensor, padding_TB: Tensor, num_heads: int) -> Tensor:
        mixed_SBD, weights_TNS = _mix(q_SBD, k_TBD, v_TBD, padding_TB, num_heads)
        ctx.save_for_backward(q_SBD, k_TBD, v_TBD, weights_TNS)
        ctx.num_heads = num_heads
        return mixed_SBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SBD: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_SBD, k_TBD, v_TBD, weights_TNS = ctx.saved_tensors
        inputs = (q_SBD, k_TBD, v_TBD, grad_SBD.contiguous())
        q_NSK, k_NTK, v_NTK, grad_NSK = (_by_head(x, ctx.num_heads) for x in inputs)
        weights_grad_TNS = torch.empty_like(weights_TNS)
        torch.mul(torch.bmm(v_NTK, grad_NSK.mT).transpose(0, 1), q_NSK.shape[2] ** -0.5, out=weights_grad_TNS)
        logits_grad_TNS = torch._softmax_backward_data(weights_grad_TNS, weights_TNS, 0, weights_TNS.dtype)
        q_grad_NSK = torch.bmm(logits_grad_TNS.permute(1, 2, 0), k_NTK)
        k_grad_NTK = torch.bmm(logits_grad_TNS.transpose(0, 1), q_NSK)
        v_grad_NTK = torch.bmm(weights_TNS.transpose(0, 1), grad_NSK)
        batch = q_SBD.shape[1]
        return _by_text(q_grad_NSK, batch), _by_text(k_grad_NTK, batch), _by_text(v_grad_NTK, batch), None, None


def _mix(q_SBD: Tensor, k_TBD: Tensor, v_TBD: Tensor, padding_TB: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Return mixed values and attention weights, (T, N, S) with N = B·H.

    In that order the softmax, along the first axis, is vectorised along the others, whatever T is. Products come out
    by head and are copied into it, scaled and masked on the way; torch would write them there ten times slower.
    """
    q_NSK, k_NTK, v_NTK = (_by_head(x, num_heads) for x in (q_SBD, k_TBD, v_TBD))
    length, batch, queries = *padding_TB.shape, len(q_SBD)
    products_BHTS = torch.bmm(k_NTK, q_NSK.mT).view(batch, num_heads, length, queries)
    logits_TBHS = torch.empty((length, batch, num_heads, queries), dtype=products_BHTS.dtype)
    torch.add(padding_TB[:, :, None, None], products_BHTS.permute(2, 0, 1, 3), alpha=q_NSK.shape[2] ** -0.5,
              out=logits_TBHS)  # fmt: skip
    weights_TNS = logits_TBHS.view(length, batch * num_heads, queries).softmax(0).to(v_TBD.dtype)
    return _by_text(torch.bmm(weights_TNS.permute(1, 2, 0), v_NTK), batch), weights_TNS


def _by_head(x_TBD: Tensor, num_heads: int) -> Tensor:
    """Shape: (T, B, D) -> (N, T, K), a view."""
    length, batch, dim = x_TBD.shape
    return x_TBD.view(length, batch * num_heads, dim // num_heads).transpose(0, 1)


def _by_text(x_NTK: Tensor, batch: int) -> Tensor:
    """Shape: (N, T, K) -> (T, B, D), a copy."""
    return x_NTK.transpose(0, 1).reshape(x_NTK.shape[1], batch, -1)
