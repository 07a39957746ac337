"""Word vectors from neighbours, against plain loops and numpy's full SVD."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weebill import cooccurrence
from weebill.config import EncoderConfig, FinetuneRecipe, PretrainRecipe
from weebill.cooccurrence import NO_TOKEN, WINDOW, neighbour_counts, neighbour_vectors, positive_pmi
from weebill.errors import ConfigError
from weebill.sent_transformer import SentenceTransformer
from weebill.starting import start_by_neighbours, start_encoder
from weebill.tokenizer import Tokenizer


@given(st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=5))
def test_counts_equal_a_plain_loop(texts):
    want = np.zeros((7, 7))
    for text in texts:
        for i, a in enumerate(text):
            for j, b in enumerate(text):
                if 0 < abs(i - j) <= WINDOW:
                    want[a, b] += 1 / abs(i - j)
    block = np.array([i for text in texts for i in [*text, *[NO_TOKEN] * WINDOW]] or [NO_TOKEN], np.int32)
    assert np.allclose(neighbour_counts([block], 7, np.arange(7)), want)
    some = np.array([1, 4, 5])
    assert np.allclose(neighbour_counts([block], 7, some), want[:, some])


def test_positive_pmi_by_hand():
    counts = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    smooth = [3**0.75, 3**0.75]
    p = smooth[0] / sum(smooth)
    want = [[math.log(0.75 / p), 0.0, 0.0], [0.0, math.log(1.0 / p), 0.0], [0.0, 0.0, 0.0]]
    assert np.allclose(positive_pmi(counts), want, atol=1e-6)


def test_vectors_factor_the_matrix_as_numpys_svd_does():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 30, 12).tolist() for _ in range(200)]
    blocks = [np.array([i for text in texts for i in [*text, *[NO_TOKEN] * WINDOW]], np.int32)]
    pmi = positive_pmi(neighbour_counts(blocks, 40, np.arange(30)))
    torch.manual_seed(0)
    found = neighbour_vectors(texts, 40, 8)
    u, s, _ = np.linalg.svd(pmi.astype(np.float64), full_matrices=False)
    want = u[:, :8] * np.sqrt(s[:8])
    assert np.allclose(found @ found.T, want @ want.T, atol=0.02)
    assert not found[30:].any()  # never seen
    wide = neighbour_vectors(texts, 40, 64)
    assert wide.shape == (40, 64) and not wide[:, 40:].any()


def test_tokens_with_the_same_neighbours_are_closest(monkeypatch):
    rng = np.random.default_rng(1)
    red, blue, dog, cat, *others = range(40)
    texts = [[rng.choice([red, blue]), *rng.choice(others[:10], 3)] for _ in range(300)]
    texts += [[rng.choice([dog, cat]), *rng.choice(others[20:30], 3)] for _ in range(300)]
    for most in (8192, 20):  # with all tokens as neighbours, and with the most frequent ones alone
        monkeypatch.setattr(cooccurrence, "MOST_NEIGHBOURS", most)
        vectors = neighbour_vectors([[int(i) for i in text] for text in texts], 40, 6)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
        assert unit[red] @ unit[blue] > 0.8 > 0.3 > abs(unit[red] @ unit[dog])


def encoder(dim: int = 16) -> SentenceTransformer:
    torch.manual_seed(0)
    return SentenceTransformer(EncoderConfig(hidden_dim=dim, num_layers=1, embedding_dim=dim), Tokenizer.packaged())


def test_an_encoder_starts_by_neighbours_and_keeps_what_no_text_has():
    fresh, started = encoder(), encoder()
    texts = ["wake me up on monday", "wake me up on friday", "play some jazz"] * 3
    start_by_neighbours(started, texts)
    seen = {i for text in texts for i in started.tokenizer.encode_ordinary(text)}
    changed = (fresh.word_embeddings.weight != started.word_embeddings.weight).any(dim=1)
    days = {started.tokenizer.encode_ordinary(word)[0] for word in (" monday", " friday")}
    assert days <= set(changed.nonzero().flatten().tolist()) <= seen
    rows = started.word_embeddings.weight[changed]
    assert rows.std().item() == pytest.approx(fresh.word_embeddings.weight.std().item(), rel=1e-4)
    again = encoder()
    start_by_neighbours(again, iter(texts))
    assert torch.equal(again.word_embeddings.weight, started.word_embeddings.weight)
    with pytest.raises(ConfigError, match="word_embeddings = neighbours: expected training texts of several tokens"):
        start_by_neighbours(encoder(), ["", "a"])


def test_a_recipe_may_ask_for_it_where_nothing_else_brings_embeddings():
    recipe = FinetuneRecipe(word_embeddings="neighbours", encoder=EncoderConfig(hidden_dim=16, num_layers=1))
    torch.manual_seed(0)
    started = start_encoder(recipe, Tokenizer.packaged(), ["play jazz", "play rock"])
    torch.manual_seed(0)
    plain = start_encoder(recipe.model_copy(update={"word_embeddings": "random"}), Tokenizer.packaged())
    changed = (started.word_embeddings.weight != plain.word_embeddings.weight).any(dim=1).sum().item()
    assert 0 < changed <= 3
    with pytest.raises(ValueError, match="start brings word embeddings of its own"):
        PretrainRecipe(word_embeddings="neighbours", start="runs/encoder")
    with pytest.raises(ValueError, match="word_embeddings = teacher is for pretraining"):
        FinetuneRecipe(word_embeddings="teacher")
