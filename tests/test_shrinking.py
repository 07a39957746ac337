"""A smaller start: what is left out is what the embeddings miss least, and what is left is a whole model."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

import weebill
from weebill import templates
from weebill.config import EncoderConfig, FinetuneRecipe, PretrainRecipe, ShrinkConfig
from weebill.errors import ConfigError
from weebill.hf_tokenizer import HuggingFaceTokenizer
from weebill.recipe_files import load_recipe, parse_recipe
from weebill.runs import run_finetune, run_pretrain
from weebill.sent_transformer import SentenceTransformer
from weebill.shrinking import shrink
from weebill.tokenizer import Tokenizer

TEXTS = [u.text for u in templates.generate()[0][:200]]
SHAPE = EncoderConfig(num_layers=4, hidden_dim=32, num_heads=4, ffn_dim=48, embedding_dim=32)


def _encoder():
    torch.manual_seed(0)
    return SentenceTransformer(SHAPE, Tokenizer.packaged()).eval()


@torch.no_grad()
def test_the_layer_that_changes_nothing_is_left_out():
    encoder = _encoder()
    idle = encoder.layers[1]
    for part in (idle.attention_out, idle.ffn_out):
        part.weight.zero_()
        part.bias.zero_()
    others = [layer for layer in encoder.layers if layer is not idle]
    before = encoder.encode(TEXTS)
    shrink(encoder, ShrinkConfig(num_layers=3), TEXTS)
    assert [*encoder.layers] == others and encoder.config.num_layers == 3
    assert np.abs(encoder.encode(TEXTS) - before).max() < 1e-5


@torch.no_grad()
def test_units_that_add_nothing_are_left_out():
    encoder = _encoder()
    for layer in encoder.layers:
        layer.ffn_out.weight[:, 5:25] = 0.0
    before = encoder.encode(TEXTS)
    shrink(encoder, ShrinkConfig(ffn_dim=28), TEXTS)
    assert encoder.layers[0].ffn_in.weight.shape == (28, 32) and encoder.config.ffn_dim == 28
    assert np.abs(encoder.encode(TEXTS) - before).max() < 1e-5


def test_the_first_merges_stay_and_what_they_read_reads_as_before():
    encoder = _encoder()
    smaller = encoder.tokenizer.cut(1000)
    same = [t for t in TEXTS if smaller.encode(t).token_ids == encoder.tokenizer.encode(t).token_ids]
    before = encoder.encode(same or ["a b c"])
    shrink(encoder, ShrinkConfig(vocab_size=1000), TEXTS)
    assert encoder.tokenizer.merges == smaller.merges and encoder.word_embeddings.weight.shape == (1000, 32)
    assert np.abs(encoder.encode(same or ["a b c"]) - before).max() < 1e-5


def test_a_berts_tokens_that_texts_have_stay_and_others_are_read_in_pieces(bert_folder):
    encoder = SentenceTransformer.from_bert(bert_folder)
    old = encoder.tokenizer
    assert isinstance(old, HuggingFaceTokenizer)
    often = ["wake me up at nine", "wake me up at noon"] * 10
    before = encoder.encode(often)
    needed, used = old.needed_tokens(), {i for text in often for i in old.encode(text).token_ids}
    size = len(needed | used)
    shrink(encoder, ShrinkConfig(vocab_size=max(size, 260)), often)
    new = encoder.tokenizer
    assert new.vocab_size <= max(size, 260) < old.vocab_size
    assert np.abs(encoder.encode(often) - before).max() < 1e-5
    assert [old._inner.id_to_token(i) for i in old.encode("wake").token_ids] == [
        new._inner.id_to_token(i) for i in new.encode("wake").token_ids
    ]
    rare = next(u.text for u in templates.generate()[0] if not set(old.encode(u.text).token_ids) <= needed | used)
    assert new._unknown_id not in new.encode(rare).token_ids
    assert len(new.encode(rare).token_ids) > len(old.encode(rare).token_ids)
    assert new.encode(rare).offsets[1][0] == 0 and new.frame[0] == [new.special_tokens["[CLS]"]]


def test_runs_start_shrunk_and_go_on_from_the_same(bert_folder, tmp_path):
    console = Console(file=io.StringIO())
    short = {"epochs": 1, "evals": 1, "batch_size": 256, "learning_rate": 1e-3}
    first = {"start": str(bert_folder), "training": short, "shrink": {"num_layers": 1, "ffn_dim": 16}}
    run_pretrain(parse_recipe(first, PretrainRecipe, "t"), tmp_path / "pre", tmp_path, console)
    stored = SentenceTransformer.load(tmp_path / "pre")
    assert (stored.config.num_layers, stored.config.ffn_dim) == (1, 16)
    second = {"start": str(tmp_path / "pre"), "training": short, "shrink": {"ffn_dim": 8}}
    run_finetune(parse_recipe(second, FinetuneRecipe, "t"), tmp_path / "nlu", tmp_path, console)
    nlu = weebill.load(tmp_path / "nlu")
    assert nlu("wake me up at nine am").intent in nlu.intents


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"num_layers": 5}, "shrink.num_layers: expected at most 4, which the start has, got 5"),
        ({"ffn_dim": 49}, "shrink.ffn_dim: expected at most 48"),
        ({"vocab_size": 8193}, "shrink.vocab_size: expected at most 8192"),
    ],
)
def test_sizes_that_the_start_does_not_have(wanted, message):
    with pytest.raises(ConfigError, match=message):
        shrink(_encoder(), ShrinkConfig(**wanted), TEXTS)


def test_nothing_to_choose_by_and_nothing_to_shrink(bert_folder):
    with pytest.raises(ConfigError, match="expected texts to choose by, got none"):
        shrink(_encoder(), ShrinkConfig(num_layers=1), [])
    with pytest.raises(ConfigError, match="shrink makes a start smaller, so it needs one"):
        load_recipe("sts-qqp", PretrainRecipe, ["shrink.num_layers=2"])
