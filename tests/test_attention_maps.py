"""Attention maps against transformers, which returns them with output_attentions."""

import numpy as np
import torch

from weebill.attention_maps import attention_maps
from weebill.config import EncoderConfig
from weebill.sent_transformer import SentenceTransformer
from weebill.tokenizer import Tokenizer

TEXT = "Wake me at 7, ☕ please"


def encoder(**settings):
    torch.manual_seed(0)
    model = SentenceTransformer(EncoderConfig(num_layers=3, max_seq_len=16, **settings), Tokenizer.packaged())
    for parameter in model.parameters():  # away from zeros and ones, so that a bias left out shows
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_they_are_those_of_a_bert(tmp_path):
    from transformers import BertModel

    model = encoder()
    model.save(tmp_path / "model")
    bert = BertModel.from_pretrained(tmp_path / "model", attn_implementation="eager", add_pooling_layer=False).eval()
    names, maps = attention_maps(model, TEXT)
    ids_1T = torch.tensor([model.tokenizer.encode(TEXT).token_ids])
    with torch.no_grad():
        theirs = torch.cat(bert(ids_1T, output_attentions=True).attentions).numpy()
    assert maps.shape == (3, 8, len(names), len(names))
    np.testing.assert_allclose(maps, theirs, atol=1e-5)


def test_they_explain_the_pooled_token_only_with_all_queries():
    model = encoder(pooling="cls").train()  # embed() would compute one query alone in the last layer
    names, maps = attention_maps(model, TEXT)
    assert model.training and not model.layers[0]._forward_pre_hooks
    np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-5)
    assert names[0] == "[CLS]" and names[-1] == "[SEP]" and names.count("☕") > 1


def test_a_long_text_is_cut():
    names, maps = attention_maps(encoder(), "play " * 50)
    assert len(names) == maps.shape[-1] == 16 and names[-1] == "[SEP]"
