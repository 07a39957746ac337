"""What is frozen stays as it is, bit for bit: weights, buffers and dropout; what is cached gives what is not."""

import itertools

import numpy as np
import pytest
import torch

from weebill import finetuning, templates
from weebill import train as train_module
from weebill.config import FinetuneRecipe, FreezingConfig
from weebill.errors import ConfigError
from weebill.features import FrozenBackend, TokenStates
from weebill.freezing import first_epochs
from weebill.recipe_files import parse_recipe
from weebill.sent_transformer import SentenceTransformer
from weebill.tokenizer import Tokenizer

SMALL = {"num_layers": 3, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64, "dropout": 0.2}
ROWS = templates.generate()[0][::60]
EMBEDDINGS = {"word embeddings", "embedding norm"}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train((u.text for u in ROWS), 600)


def _recipe(freezing, **more):
    training = {"epochs": 1, "evals": 2, "batch_size": 16, "learning_rate": 3e-3} | more.pop("training", {})
    return parse_recipe({"encoder": SMALL, "freezing": freezing, "training": training} | more, FinetuneRecipe, "test")


def _part(name):
    if "layers." in name:
        return f"layer {name.split('layers.')[1][0]}"
    parts = {"intent_head": "intent_head", "tag_head": "tag_head", "projection": "projection",
             "word_embeddings": "word embeddings", "position": "buffer"}  # fmt: skip
    return next((part for key, part in parts.items() if key in name), "embedding norm")


def _run(recipe, tokenizer, monkeypatch, watch=lambda model: None):
    """Return the parts that moved in each epoch, and the model."""
    states, moved = [], []

    def fit(model, task, *args):
        real = task.freeze

        def freeze(epoch):
            real(epoch)
            watch(model)
            while len(states) < epoch:
                states.append({n: t.clone() for n, t in model.state_dict().items()})

        object.__setattr__(task, "freeze", freeze)
        end = train_module.fit(model, task, *args)
        states.append({n: t.clone() for n, t in model.state_dict().items()})
        return end

    monkeypatch.setattr(finetuning, "fit", fit)
    model, _, _ = finetuning.finetune(recipe, ROWS, ROWS[:9], lambda event: None, tokenizer)
    for before, after in itertools.pairwise(states):
        moved.append({_part(n) for n in before if not torch.equal(before[n], after[n])})
    return moved, model


HEADS = {"intent_head", "tag_head"}
LAYERS = {"layer 0", "layer 1", "layer 2"}


@pytest.mark.parametrize(
    ("freezing", "moves"),
    [
        ({}, HEADS | LAYERS | EMBEDDINGS),
        ({"encoder": True}, HEADS),
        ({"encoder": True, "cached_features": True}, HEADS),
        ({"intent_head": True}, {"tag_head"} | LAYERS | EMBEDDINGS),
        ({"tag_head": True}, {"intent_head"} | LAYERS | EMBEDDINGS),
        ({"encoder": True, "tag_head": True}, {"intent_head"}),
        ({"lower_layers": 1}, HEADS | {"layer 1", "layer 2"}),
        ({"lower_layers": 3}, HEADS),
    ],
)
def test_frozen_weights_and_buffers_stay_bit_for_bit(freezing, moves, tokenizer, monkeypatch):
    moved, _ = _run(_recipe(freezing), tokenizer, monkeypatch)
    assert moved == [moves]  # never the fixed positions, nor the projection, which the heads do not read


def test_gradual_unfreezing_moves_a_layer_more_each_epoch(tokenizer, monkeypatch):
    recipe = _recipe({"epochs_per_layer": 1}, training={"epochs": 5, "evals": 5, "patience": 9})
    # the best weights come back at the end: let the last evaluation be the best
    scores = iter(range(99))
    monkeypatch.setattr(finetuning, "dev_scores", lambda *args: {"exact_match": next(scores)})
    moved, model = _run(recipe, tokenizer, monkeypatch)
    assert moved == [HEADS, HEADS | {"layer 2"}, HEADS | {"layer 1", "layer 2"}, HEADS | LAYERS,
                     HEADS | LAYERS | EMBEDDINGS]  # fmt: skip
    found = first_epochs(model, FreezingConfig(epochs_per_layer=1))
    assert found == {"projection": 2, "layer 2": 2, "layer 1": 3, "layer 0": 4, "word embeddings": 5,
                     "embedding norm": 5}  # fmt: skip


@pytest.mark.parametrize(
    ("freezing", "still"),
    [({"encoder": True}, 3), ({"lower_layers": 2}, 2), ({"epochs_per_layer": 1}, 3), ({}, 0)],
)
def test_frozen_layers_have_no_dropout(freezing, still, tokenizer, monkeypatch):
    ids, seen = torch.randint(5, 500, (2, 7)), []

    def watch(model):
        states = []
        hooks = [layer.register_forward_hook(lambda m, i, out: states.append(out)) for layer in model.encoder.layers]
        generator = torch.get_rng_state()
        for _ in range(2):
            model.encoder(ids, torch.ones_like(ids, dtype=torch.bool))
        torch.set_rng_state(generator)
        for hook in hooks:
            hook.remove()
        seen.append([torch.equal(a, b) for a, b in zip(states[:3], states[3:], strict=True)])

    _run(_recipe(freezing), tokenizer, monkeypatch, watch)
    # at the start, and after the evaluation in the middle of the epoch
    assert len(seen) >= 2 and all(found == [i < still for i in range(3)] for found in seen)


def test_a_frozen_head_has_no_dropout(tokenizer, monkeypatch):
    flags = []
    _run(_recipe({"tag_head": True}), tokenizer, monkeypatch,
         lambda model: flags.append((model.tag_head.dropout.training, model.intent_head.dropout.training)))  # fmt: skip
    assert set(flags) == {(False, True)}


def test_cached_features_give_what_the_slow_way_gives(tokenizer, monkeypatch):
    slow, fast = (
        _run(_recipe({"encoder": True, "cached_features": cached}, training={"epochs": 3}), tokenizer, monkeypatch)[1]
        for cached in (False, True)
    )
    for name, weight in slow.state_dict().items():
        assert torch.allclose(weight, fast.state_dict()[name], rtol=0, atol=2e-5), name
    texts = [u.text for u in ROWS]
    batch = tokenizer.encode_batch(texts[:5])
    backend, again = FrozenBackend(fast), finetuning.predictor_of_model(fast)
    for _ in range(2):
        for a, b in zip(_arrays(backend.run(batch)), _arrays(again.backend.run(batch)), strict=True):
            assert np.array_equal(a, b)


def _arrays(output):
    return output.sentence_embedding_BD, output.intent_logits_BC, output.tag_logits_BTL


def test_cached_states_are_the_encoders(tokenizer):
    encoder = SentenceTransformer(_recipe({}).encoder, tokenizer).train()
    rows = [tokenizer.encode(u.text).token_ids for u in ROWS]
    states = TokenStates(encoder, rows)
    for number in (3, 7):
        ids = torch.tensor([rows[number]])
        expected = encoder.eval()(ids, torch.ones_like(ids, dtype=torch.bool))[0][0]
        got = states(np.array([number, int(np.argmax([len(r) for r in rows]))]))[0]
        assert torch.allclose(got[: len(expected)], expected, atol=1e-5) and not got[len(expected) :].any()


def test_a_frozen_head_is_the_starts_own(tokenizer, monkeypatch, tmp_path):
    _, first = _run(_recipe({}, training={"learning_rate": 1e-2}), tokenizer, monkeypatch)
    first.save(tmp_path / "first")
    start = {"start": str(tmp_path / "first"), "training": {"epochs": 1, "evals": 1}}
    recipe = parse_recipe(start | {"freezing": {"intent_head": True}}, FinetuneRecipe, "t")
    _, second = _run(recipe, tokenizer, monkeypatch)
    assert torch.equal(second.intent_head.linear.weight, first.intent_head.linear.weight)
    assert not torch.equal(second.tag_head.mlp[0].weight, first.tag_head.mlp[0].weight)  # it trained
    fewer = parse_recipe(start | {"freezing": {"tag_head": True}, "heads": {"lstm_dim": 8}}, FinetuneRecipe, "t")
    with pytest.raises(ConfigError, match=r"freezing\.tag_head: expected start = .* to have one of the same shape"):
        _run(fewer, tokenizer, monkeypatch)


def test_what_cannot_be_frozen_is_said(tokenizer, monkeypatch):
    with pytest.raises(ConfigError, match=r"lower_layers: expected at most the encoder's 3 layers, got 4"):
        _run(_recipe({"lower_layers": 4}), tokenizer, monkeypatch)
    for freezing, message in (
        ({"cached_features": True}, "cached_features needs encoder = true"),
        ({"encoder": True, "epochs_per_layer": 1}, "encoder = true freezes all layers"),
        ({"encoder": True, "intent_head": True, "tag_head": True}, "nothing would train"),
    ):
        with pytest.raises(ConfigError, match=message):
            _recipe(freezing)
