"""Attention equals torch's, forward and backward, and the embedding alone equals the one beside the token states."""

import pytest
import torch
import torch.nn.functional as F

from weebill.attention import LONG_TOKENS, attention
from weebill.config import EncoderConfig
from weebill.sent_transformer import SentenceTransformer
from weebill.tokenizer import Tokenizer

LENGTHS = [7, 1, 4, 12]


def _inputs(length, queries, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(n, len(LENGTHS), 24, generator=generator).to(dtype).requires_grad_()
        for n in (queries, length, length)
    ]
    mask_BT = torch.arange(length) < torch.tensor(LENGTHS)[:, None]
    mask_BT[-1] = True
    return states, mask_BT, torch.zeros(mask_BT.T.shape).masked_fill_(~mask_BT.T, torch.finfo(torch.float32).min)


def _oracle(states, mask_BT, num_heads):
    q, k, v = (x.unflatten(2, (num_heads, -1)).permute(1, 2, 0, 3) for x in states)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_BT[:, None, None])
    return mixed.permute(2, 0, 1, 3).flatten(2)


@pytest.mark.parametrize("queries", ["all", "first"])
@pytest.mark.parametrize("length", [12, 17, LONG_TOKENS - 1, LONG_TOKENS])
def test_attention_and_its_gradient_equal_torchs(length, queries):
    states, mask_BT, padding_TB = _inputs(length, 1 if queries == "first" else length)
    got, want = attention(*states, padding_TB, num_heads=3), _oracle(states, mask_BT, num_heads=3)
    assert (got - want).abs().max() < 1e-6
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    for g, w in zip(*(torch.autograd.grad(out, states, upstream) for out in (got, want)), strict=True):
        assert w.abs().max() > 0.1
        assert (g - w).abs().max() < 1e-5
    with torch.inference_mode():
        assert torch.equal(attention(*states, padding_TB, num_heads=3), got)


def test_logits_that_overflow_exp_are_no_trouble():
    states, mask_BT, padding_TB = _inputs(12, 12)
    states = [100 * x.detach() for x in states]
    got = attention(*states, padding_TB, num_heads=3)
    assert torch.isfinite(got).all()
    assert (got - _oracle(states, mask_BT, num_heads=3)).abs().max() < 1e-3


def test_attention_under_autocast():
    states, mask_BT, padding_TB = _inputs(12, 12, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = attention(*states, padding_TB, num_heads=3)
    assert got.dtype == torch.bfloat16
    assert (got.float() - _oracle([x.float() for x in states], mask_BT, 3)).abs().max() < 0.05
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(got.float().sum(), states))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_embedding_alone_and_its_gradient_equal_those_beside_the_token_states(pooling):
    torch.manual_seed(0)
    config = EncoderConfig(num_layers=2, hidden_dim=32, num_heads=4, ffn_dim=48, pooling=pooling, dropout=0.0)
    model = SentenceTransformer(config, Tokenizer.packaged())
    batch = model.tokenizer.encode_batch(["wake me up at nine am on friday", "hi", ""])
    ids, mask = torch.from_numpy(batch.input_ids_BT), torch.from_numpy(batch.attention_mask_BT)
    gradients = []
    for embedding in (model.embed(ids, mask), model(ids, mask)[1]):
        gradients.append(torch.autograd.grad(embedding.square().sum(), list(model.parameters())))
    assert (model.embed(ids, mask) - model(ids, mask)[1]).abs().max() < 1e-5
    for name, alone, beside in zip(dict(model.named_parameters()), *gradients, strict=True):
        assert (alone - beside).abs().max() <= 1e-4 * beside.abs().max().clamp(min=1), name


def test_an_exported_encoder_takes_texts_of_any_length():
    torch.manual_seed(0)
    config = EncoderConfig(num_layers=1, hidden_dim=32, num_heads=4, ffn_dim=48)
    model = SentenceTransformer(config, Tokenizer.packaged()).eval()
    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=2, max=128)
    shapes = ({0: batch, 1: length}, {0: batch, 1: length})
    example = torch.ones(3, 9, dtype=torch.int64), torch.ones(3, 9, dtype=torch.bool)
    exported = torch.export.export(model, example, dynamic_shapes=shapes).module()
    for size in (9, 2 * LONG_TOKENS):
        ids = torch.randint(4, 8000, (5, size), generator=torch.Generator().manual_seed(0))
        mask = torch.arange(size) < torch.tensor([size, 5, size, 1, 7])[:, None]
        with torch.inference_mode():
            assert (exported(ids, mask)[1] - model(ids, mask)[1]).abs().max() < 1e-5
