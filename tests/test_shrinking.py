"""A smaller start: what is left out is what the embeddings miss least, and what is left is a whole model."""

import io
import re
from collections import Counter

import numpy as np
import pytest
import tokenizers
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


def _names(tokenizer, token_ids):
    return [tokenizer._inner.id_to_token(i) for i in token_ids]


def test_a_berts_tokens_that_texts_have_most_stay_and_others_are_read_in_pieces(bert_folder, tmp_path):
    encoder = SentenceTransformer.from_bert(bert_folder)
    old = encoder.tokenizer
    assert isinstance(old, HuggingFaceTokenizer)
    texts = ["wake me up at nine", "wake me up at noon"] * 10 + ["remind me to call mother"]
    often = texts[:20]
    counts = Counter(i for text in texts for i in old.encode(text).token_ids)
    words = {i for i in counts if len(_names(old, [i])[0].strip("#")) > 1} - {*old.special_tokens.values()}
    rare = {i for i in words if counts[i] == 1}
    size = _smallest(old, counts) + len(words - rare)
    before = encoder.encode(often)
    shrink(encoder, ShrinkConfig.model_construct(vocab_size=size), texts)
    new = encoder.tokenizer
    assert new.vocab_size == size < old.vocab_size and encoder.word_embeddings.weight.shape[0] == size
    assert np.abs(encoder.encode(often) - before).max() < 1e-5
    assert not {*_names(old, rare)} & new._inner.get_vocab().keys()  # the rarest went
    found = new.encode("remind me to call mother")
    assert new._unknown_id not in found.token_ids and len(found.token_ids) > len(old.encode(texts[-1]).token_ids)
    assert found.offsets[1][0] == 0 and _names(new, new.frame[0] + new.frame[1]) == ["[CLS]", "[SEP]"]
    encoder.save(tmp_path / "model")
    again = SentenceTransformer.load(tmp_path / "model")
    assert np.array_equal(again.encode(texts), encoder.encode(texts))


def _smallest(tokenizer, counts):
    with pytest.raises(ConfigError, match=r"shrink.vocab_size: expected at least \d+, for special tokens") as refused:
        tokenizer.tokens_to_keep(5, [counts[i] for i in range(tokenizer.vocab_size)])
    return int(re.search(r"at least (\d+)", str(refused.value))[1])


def test_a_vocabulary_as_large_as_before_stays(bert_folder):
    encoder = SentenceTransformer.from_bert(bert_folder)
    whole = encoder.tokenizer
    shrink(encoder, ShrinkConfig(vocab_size=whole.vocab_size), ["wake me up"])
    assert encoder.tokenizer is whole
    most = whole.tokens_to_keep(whole.vocab_size - 1, [0] * whole.vocab_size)
    assert len(most) == whole.vocab_size - 1  # what texts do not have fills up what is free


@pytest.mark.parametrize("prefix", ["##", "@@"])
@pytest.mark.parametrize("processor", ["template", "bert", "sequence"])
def test_other_peoples_wordpieces(prefix, processor):
    words = ["straße", "groß", "call", "mother", "brand", "new"]
    characters = sorted({*"".join(words), "é"})
    plain = [*characters, *(prefix + c for c in characters), *words]
    vocabulary = {token: i for i, token in enumerate([*plain, "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=prefix)
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    template = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    inner.post_processor = {
        "template": template,
        "bert": tokenizers.processors.BertProcessing(special[1], special[0]),
        "sequence": tokenizers.processors.Sequence([template]),
    }[processor]
    inner.add_tokens(["brandname"])
    old = HuggingFaceTokenizer(inner, {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")})
    counts = [0] * old.vocab_size
    for text in ["straße groß"] * 3:
        for token_id in old.encode(text).token_ids:
            counts[token_id] += 1
    kept = old.tokens_to_keep(old.vocab_size - 2, counts)
    new = old.keep(kept)
    assert {"straße", "groß", "brandname"} <= new._inner.get_vocab(with_added_tokens=True).keys()
    for text in ("straße groß", "call new brandname", "großmother", "maß"):
        ids = new.encode(text).token_ids
        assert new._unknown_id not in ids
        assert [kept[i] for i in (ids[0], ids[-1])] == [vocabulary["[CLS]"], vocabulary["[SEP]"]]
    assert [kept[i] for i in new.encode("straße groß brandname").token_ids] == old.encode(
        "straße groß brandname"
    ).token_ids


def test_tokens_that_cannot_be_left_out_are_refused_before_the_work(monkeypatch):
    encoder = _encoder()
    monkeypatch.setattr(encoder, "encode", lambda *args, **kwargs: pytest.fail("searched for layers first"))
    ids = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": encoder.tokenizer.vocab_size}
    encoder.tokenizer = Tokenizer(encoder.tokenizer.merges, special_tokens=ids, byte_ids=encoder.tokenizer.byte_ids)
    with pytest.raises(
        ConfigError, match=r"shrink.vocab_size: expected tokens that can be left out, .*or leave it out"
    ):
        shrink(encoder, ShrinkConfig(num_layers=1, vocab_size=1000), TEXTS)


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
    with pytest.raises(ConfigError, match="expected training texts to choose by that the start reads whole, got none"):
        shrink(_encoder(), ShrinkConfig(num_layers=1), [])
    with pytest.raises(ConfigError, match="shrink makes a start smaller, so it needs one"):
        load_recipe("sts-qqp", PretrainRecipe, ["shrink.num_layers=2"])
