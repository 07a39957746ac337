"""A mix of data sets with their losses, hard negatives, a teacher: they learn, repeat, and refuse what does not fit."""

import gzip
import io
import re
from itertools import chain

import numpy as np
import pytest
import torch
from rich.console import Console

from weebill import config, precision, pretraining, runs, templates
from weebill.backend import TorchBackend
from weebill.bpe_dropout import Redrawing
from weebill.config import PretrainRecipe
from weebill.data import corrupt_tokens
from weebill.errors import ConfigError, DataError
from weebill.evaluate_pairs import pair_correlations
from weebill.mining import mine_negatives
from weebill.predictor import Predictor
from weebill.pretraining import pretrain
from weebill.recipe_files import load_recipe, parse_recipe
from weebill.runs import run_pretrain
from weebill.schema import ScoredPair
from weebill.sent_transformer import SentenceTransformer
from weebill.sources import Mix, read_mix
from weebill.starting import start_by_teacher
from weebill.task import Plan
from weebill.teacher import fit_width, teacher_vectors
from weebill.tokenizer import Tokenizer

SMALL = {"num_layers": 1, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64, "embedding_dim": 64}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train((u.text for u in templates.generate()[0]), 800)


@pytest.fixture(scope="module")
def pairs():
    triplets = templates.paraphrase_triplets("train", 600)
    return list(chain(*((ScoredPair(a, p, 1.0), ScoredPair(a, n, 0.0)) for a, p, n in triplets)))


def _recipe(kind="triplet", **values):
    training = {
        "epochs": 8,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "embedding_learning_rate": 3e-2,
        "evals": 2,
    } | values.pop("training", {})
    loss = {"kind": kind, "margin": 0.3} | values.pop("loss", {})
    return parse_recipe({"encoder": SMALL, "training": training, "loss": loss} | values, PretrainRecipe, "test")


def _mix(recipe, pairs):
    mix = Mix(recipe)
    mix.add_pairs(config.Source(path="pairs"), pairs)
    return mix


def _spearman(encoder, dev):
    return pair_correlations(Predictor(encoder.tokenizer, TorchBackend(encoder), 128, 64), dev)["spearman"]


@pytest.mark.parametrize(
    "kind",
    ["triplet", "batch_triplet", "semi_hard_triplet", "in_batch_negatives", "cosent"],
)
def test_each_loss_orders_unseen_paraphrases_better_than_an_untrained_encoder(tokenizer, pairs, kind):
    recipe, events = _recipe(kind), []
    dev = templates.paraphrase_pairs("dev", 300)
    _, end = pretrain(recipe, _mix(recipe, pairs), dev, events.append, tokenizer)
    torch.manual_seed(0)
    chance = _spearman(SentenceTransformer(recipe.encoder, tokenizer).eval(), dev)
    assert end["metrics"]["spearman"] > chance + 0.1
    losses = [e["losses"][kind] for e in events if e["event"] == "eval"]
    assert losses[-1] < losses[0]


def test_the_hardest_negatives_are_learnt_by_an_encoder_that_knows_something(tokenizer, pairs, tmp_path):
    gentle = _recipe("in_batch_negatives", training={"epochs": 2})
    dev = templates.paraphrase_pairs("dev", 100)
    pretrain(gentle, _mix(gentle, pairs), dev, lambda event: None, tokenizer)[0].save(tmp_path / "start")
    recipe, events = parse_recipe(
        {"start": str(tmp_path / "start"), "loss": {"kind": "batch_hard_triplet", "margin": 0.3},
         "training": {"epochs": 3, "evals": 3, "learning_rate": 5e-4}}, PretrainRecipe, "test"), []  # fmt: skip
    pretrain(recipe, _mix(recipe, pairs), dev, events.append)
    losses = [e["losses"]["batch_hard_triplet"] for e in events if e["event"] == "eval"]
    assert losses[-1] < losses[0]


def test_a_student_comes_to_its_teacher(tokenizer, pairs):
    rng = np.random.default_rng(0)
    bags = rng.normal(size=(tokenizer.vocab_size, 64))

    def teacher(texts):  # the mean of random token vectors: no student can know it beforehand
        means = np.stack([bags[tokenizer.encode(t).token_ids].mean(axis=0) for t in texts])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float16)

    recipe = _recipe("distillation", training={"epochs": 12})
    mix = _mix(recipe, pairs)
    dev = templates.paraphrase_pairs("dev", 300)
    encoder, _ = pretrain(recipe, mix, dev, lambda event: None, tokenizer, teacher)
    unseen = [p.a for p in dev]
    vectors = encoder.encode(unseen, normalize=True)
    assert (vectors * teacher(unseen)).sum(axis=1).mean() > 0.3  # untrained: 0
    with pytest.raises(ConfigError, match="loss distillation needs a teacher, got none"):
        pretrain(recipe, mix, dev, lambda event: None, tokenizer)


def test_words_start_where_the_teacher_puts_them(tokenizer):
    shape = config.EncoderConfig.model_validate(SMALL | {"hidden_dim": 32})
    encoder = SentenceTransformer(shape, tokenizer)
    before = encoder.word_embeddings.weight.detach().clone()
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(26, 40))

    def teacher(texts):  # a bag of letters in 40 dimensions, on 26 axes
        letters = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts])
        vectors = letters @ axes + 1e-3
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)

    start_by_teacher(encoder, teacher)
    after = encoder.word_embeddings.weight.detach()
    special = list(tokenizer.special_tokens.values())
    assert torch.equal(after[special], before[special])
    words = [tokenizer.encode_ordinary(w)[0] for w in (" the", " to", " play", " alarm", " music")]
    wanted = teacher([tokenizer.decode([w]).strip() for w in words]).astype(np.float32)
    everything = teacher(sorted({tokenizer.decode([i]).strip() for i in range(5, tokenizer.vocab_size)} - {""}))
    wanted = wanted - everything.astype(np.float32).mean(axis=0)
    similar = torch.nn.functional.cosine_similarity(after[words][:, None], after[words][None], dim=-1).numpy()
    unit = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.abs(similar - unit @ unit.T).max() < 0.1  # 26 axes fit into 32 dimensions: nothing is lost
    changed = (after != before).any(dim=1)
    assert after[changed].std() == pytest.approx(before.std().item(), rel=0.05)
    with pytest.raises(ConfigError, match="word_embeddings = teacher: expected a teacher"):
        start_by_teacher(encoder, None)


def test_masked_language_modelling_learns_words(tokenizer, pairs):
    recipe, events = _recipe("masked_lm", training={"epochs": 10}), []
    encoder, _ = pretrain(recipe, _mix(recipe, pairs), templates.paraphrase_pairs("dev", 100), events.append, tokenizer)
    losses = [e["losses"]["masked_lm"] for e in events if e["event"] == "eval"]
    assert losses[-1] < losses[0] - 0.3 and losses[0] < np.log(tokenizer.vocab_size)
    assert not hasattr(encoder, "masked_lm_head")


def test_corrupted_tokens_are_chosen_and_changed_in_berts_shares(tokenizer):
    ids = tokenizer.encode_batch(["wake me up at nine am on friday", "hi"] * 4000).input_ids_BT
    corrupted, chosen = corrupt_tokens(ids, tokenizer, 0.15, np.random.default_rng(0))
    ordinary = ~np.isin(ids, list(tokenizer.special_tokens.values()))
    assert np.array_equal(corrupted[~chosen], ids[~chosen]) and not chosen[~ordinary].any()
    assert chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.01)
    masked, kept = corrupted[chosen] == tokenizer.mask_id, corrupted[chosen] == ids[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=0.02) and kept.mean() == pytest.approx(0.1, abs=0.02)
    others = corrupted[chosen][~masked & ~kept]
    assert not np.isin(others, list(tokenizer.special_tokens.values())).any() and len(np.unique(others)) > 300


def test_two_runs_of_a_mix_agree_and_another_seed_differs(tokenizer, pairs, tmp_path):
    _write_mix(tmp_path, pairs)

    def weights(seed):
        recipe = _recipe(training={"epochs": 2}, data=_mix_section(), mining={"every_epochs": 1}, seed=seed)
        mix = read_mix(recipe, tmp_path)
        encoder, _ = pretrain(recipe, mix, templates.paraphrase_pairs("dev", 60), lambda event: None, tokenizer)
        return np.concatenate([a.ravel() for a in encoder.arrays().values()])

    assert np.array_equal(weights(0), weights(0))
    assert not np.array_equal(weights(0), weights(1))


def test_bpe_dropout_cuts_texts_anew_as_the_batchs_numbers_say(tokenizer, pairs, monkeypatch):
    def collate(**loss):
        recipe, tasks = _recipe("in_batch_negatives", loss=loss), []
        monkeypatch.setattr(pretraining, "fit", lambda model, task, *rest: tasks.append(task))
        pretrain(recipe, _mix(recipe, pairs[:40]), pairs[:10], lambda event: None, tokenizer)
        return tasks[0].collate

    plan = Plan(0, np.arange(10))
    drawn, plain = collate(bpe_dropout=0.5), collate()
    batches = [drawn(plan, np.random.default_rng(seed))["input_ids"].tolist() for seed in (0, 0, 1)]
    rng = np.random.default_rng(0)
    before = plain(plan, rng)["input_ids"].tolist()
    assert rng.random() == np.random.default_rng(0).random()  # without it no number is drawn
    assert batches[0] == batches[1] and before not in batches and batches[0] != batches[2]
    read = [[tokenizer.decode(row) for row in rows] for rows in (before, *batches)]
    assert read[0] == read[1] == read[3]


def test_bpe_dropout_needs_a_tokenizer_that_draws():
    with pytest.raises(ConfigError, match=r"loss\.bpe_dropout: expected a byte-level BPE tokenizer, .*; set it to 0"):
        Redrawing(object(), 0.1, 128)
    assert Redrawing(object(), 0.0, 128)(["a"], np.random.default_rng(0)) == [None]


def _write_mix(folder, pairs):
    lines = [f"{p.a}\t{p.b}\t{p.score}" for p in pairs]
    (folder / "scored.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with gzip.open(folder / "positives.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{p.a}\t{p.b}\n" for p in pairs if p.score == 1.0)
    (folder / "plain.txt").write_text("One sentence. Another one? Yes.\n\nA second line\n" * 2, encoding="utf-8")


def _mix_section(**first):
    sources = [
        {"path": "scored.tsv", "loss": "cosent", "weight": 0.5} | first,
        {"path": "positives.tsv.gz", "loss": "in_batch_negatives", "weight": 2.0},
        {"path": "plain.txt", "loss": "masked_lm", "sentences": True, "last_epoch": 1},
    ]
    return {"train": sources, "dev": "scored.tsv"}


def test_a_mix_is_read_and_planned_by_weight_and_epoch(tokenizer, pairs, tmp_path):
    _write_mix(tmp_path, pairs)
    recipe = _recipe(data=_mix_section())
    mix = read_mix(recipe, tmp_path)
    scored, positives, plain = mix.sources
    assert (len(scored.rows_NK), scored.rows_NK.shape[1], positives.rows_NK.shape[1]) == (1200, 2, 2)
    assert [mix.texts[i] for i in plain.rows_NK[:, 0]] == ["One sentence.", "Another one?", "Yes.", "A second line"]
    assert len(set(mix.texts)) == len(mix.texts)
    first = pairs[0]
    assert [mix.texts[i] for i in scored.rows_NK[0]] == [first.a, first.b] and scored.scores_N[0] == first.score
    assert [r.rows for r in mix.records()] == [1200, len(positives.rows_NK), 4]
    events = []
    pretrain(recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 2})}), mix,
             templates.paraphrase_pairs("dev", 60), events.append, tokenizer)  # fmt: skip
    batches = 2 * (round(38 * 0.5) + 2 * 19) + 1  # 1,200 and 600 rows in batches of 32; the texts in the first epoch
    assert events[-1]["steps"] == batches


def test_neighbouring_sentences_are_weak_positives(tmp_path):
    body = "First one. Second one. Third one. Fourth one. Fifth.\nAlone.\nThis. That.\n"
    (tmp_path / "wiki.txt").write_text(body, encoding="utf-8")
    source = {"path": "wiki.txt", "neighbours": True, "loss": "in_batch_negatives"}
    mix = read_mix(_recipe(data={"train": [source], "dev": "x"}), tmp_path)
    pairs = {frozenset(mix.texts[i] for i in row) for row in mix.sources[0].rows_NK}
    assert pairs == {frozenset(p) for p in
                     (("First one.", "Second one."), ("Third one.", "Fourth one."), ("This.", "That."))}  # fmt: skip


def test_what_does_not_fit_is_refused(pairs, tmp_path):
    _write_mix(tmp_path, pairs)

    def read(**source):
        return read_mix(_recipe(data={"train": [source], "dev": "scored.tsv"}), tmp_path)

    with pytest.raises(ConfigError, match=r"plain\.txt: loss 'triplet' expects pairs or triplets, got plain texts"):
        read(path="plain.txt")
    with pytest.raises(DataError, match="loss 'cosent' expects pairs with different scores, got 600 pairs with one"):
        read(path="positives.tsv.gz", loss="cosent")
    with pytest.raises(ConfigError, match="expected last_epoch of at least first_epoch = 3, got 2"):
        read(path="scored.tsv", first_epoch=3, last_epoch=2)
    with pytest.raises(ConfigError, match=r"expected first_epoch of at most training\.epochs = 8, got 11"):
        read(path="scored.tsv", first_epoch=11)
    with pytest.raises(ConfigError, match=r"unknown key 'data\.train\.0\.wait'; did you mean 'data\.train\.0\.weight'"):
        read(path="scored.tsv", wait=3)
    with pytest.raises(ConfigError, match="Input should be 'spearman' or 'pearson'"):
        _recipe(metric="accuracy")
    recipe = _recipe(data={"train": [{"path": "scored.tsv", "first_epoch": 2}], "dev": "scored.tsv"})
    with pytest.raises(ConfigError, match="expected a data set for every epoch, got none for epoch 1"):
        run_pretrain(recipe, tmp_path / "out", tmp_path, Console(file=io.StringIO()))
    with pytest.raises(ConfigError, match=r"matryoshka_dims: expected widths up to encoder\.embedding_dim = 64"):
        run_pretrain(_recipe(loss={"matryoshka_dims": [65]}), tmp_path / "out", tmp_path, Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_mined_negatives_are_the_closest_that_are_no_paraphrases():
    angles = {"anchor": 0.0, "same": 0.05, "paraphrase": 0.1, "positive": 0.3, "near": 0.5, "far": 2.0}
    points = {k: np.float32([[np.cos(t), np.sin(t)]]) for k, t in angles.items()}
    names = ["same", "paraphrase", "near", "far"]
    candidates, groups = np.concatenate([points[n] for n in names]), np.array([0, 1, 2, 3])

    def mine(nearest, max_similarity):
        rng = np.random.default_rng(0)
        found = mine_negatives(points["anchor"], points["positive"], np.array([0]), candidates, groups, nearest,
                               max_similarity, rng)  # fmt: skip
        return "none" if found[0] < 0 else names[found[0]]

    assert mine(1, 0.95) == "near"  # its own group and the unlabelled paraphrase are closer, and passed over
    assert mine(1, 0.0) == "far"
    assert mine(4, -2.0) == "none"


def test_mining_gives_an_encoder_harder_negatives(tokenizer, pairs):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    anchors, groups = vectors[:100], np.arange(500)
    positives = anchors + 0.1 * rng.normal(size=anchors.shape).astype(np.float32)
    found = mine_negatives(anchors, positives, groups[:100], vectors, groups, 5, 0.95, rng, block=30)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit[:100] @ unit.T
    similarity[np.arange(100), np.arange(100)] = -1
    rank = (similarity > similarity[np.arange(100), found][:, None]).sum(axis=1)
    assert rank.max() <= 5 and len(np.unique(rank)) > 2


def test_teacher_vectors_are_computed_once(tmp_path):
    calls = []

    def embed(texts):
        calls.append(len(texts))
        return np.array([[len(t), 1.0] for t in texts], dtype=np.float32)

    texts = [str(i) * (i % 7 + 1) for i in range(5000)]
    first = teacher_vectors(embed, "teacher 1", texts, tmp_path, show_progress=False)
    expected = np.array([[len(t), 1.0] for t in texts])
    assert np.allclose(first, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-3)
    assert sum(calls) == 5000
    again = teacher_vectors(embed, "teacher 1", texts, tmp_path, show_progress=False)
    assert np.array_equal(first, again) and sum(calls) == 5000
    other_mix = [*texts[4000:], "new", *texts[:10]]
    assert np.array_equal(
        teacher_vectors(embed, "teacher 1", other_mix, tmp_path, show_progress=False)[1001:], first[:10]
    )
    assert sum(calls) == 5001
    damaged = max((tmp_path / "teacher").glob("*/*.npz"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(b"not an array")
    assert np.array_equal(teacher_vectors(embed, "teacher 1", texts, tmp_path, show_progress=False), first)
    assert 5001 < sum(calls) < 10000
    teacher_vectors(embed, "teacher 2", texts[:10], tmp_path, show_progress=False)
    assert calls[-1] == 10


def test_a_teacher_reads_in_the_precision_of_the_run_and_keeps_the_two_apart(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WEEBILL_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "cpu_knows_bf16", lambda: True)
    texts = ["wake me up at nine", "play some jazz", "what is the weather"]
    exact, halved = (runs._teacher(str(bert_folder), asked)(texts) for asked in ("no", "bf16"))
    apart = np.abs(exact.astype(np.float32) - halved).max()
    assert 0 < apart < 0.1
    assert len([*tmp_path.glob("teacher/*")]) == 2
    assert np.array_equal(runs._teacher(str(bert_folder), "auto")(texts), exact)
    monkeypatch.setattr(precision, "cpu_knows_bf16", lambda: False)
    assert np.array_equal(runs._teacher(str(bert_folder), "bf16")(texts), exact)


@pytest.mark.parametrize(
    ("sets", "fetched"),
    [([], "stsb qqp massive"), (["tokenizer=packaged"], "stsb qqp massive"),
     (["start=tiny", "word_embeddings=random"], "stsb qqp"),
     (["tokenizer=packaged", "word_embeddings=random"], "stsb qqp")],
)  # fmt: skip
def test_only_files_that_the_run_reads_are_asked_for(sets, fetched, tmp_path):
    recipe = load_recipe("sts-qqp", PretrainRecipe, sets)
    with pytest.raises(DataError) as refused:
        run_pretrain(recipe, tmp_path / "out", tmp_path, Console())
    assert re.findall(r"weebill data fetch (\w+)", str(refused.value)) == fetched.split()


def test_a_teacher_of_another_width_needs_a_projection():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 24))  # four directions in 24 dimensions
    vectors = (plane / np.linalg.norm(plane, axis=1, keepdims=True)).astype(np.float16)
    with pytest.raises(
        ConfigError, match=r"student.s 8 dimensions, got 24; set encoder\.embedding_dim = 24, or loss\."
    ):
        fit_width(vectors, 8, "none")
    with pytest.raises(ConfigError, match=r"32 dimensions, got 24; set encoder\.embedding_dim to at most 24"):
        fit_width(vectors, 32, "pca")
    narrow = fit_width(vectors, 8, "pca").astype(np.float32)
    assert narrow.shape == (300, 8)
    assert np.allclose(narrow @ narrow.T, vectors.astype(np.float32) @ vectors.T.astype(np.float32), atol=0.01)
    assert fit_width(vectors, 24, "none") is vectors
