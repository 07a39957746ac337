"""The loop and both tasks on small real data: they learn, they repeat, and what they write can be used."""

import dataclasses
import io
import json
import math
import threading

import numpy as np
import pytest
import torch
from rich.console import Console

import weebill
from weebill import data, precision, templates
from weebill.checkpoint import Checkpoint
from weebill.config import FinetuneRecipe, PretrainRecipe, Source, TrainingConfig
from weebill.distill_config import DistillRecipe
from weebill.distilling import distill
from weebill.errors import ConfigError, DataError
from weebill.finetuning import finetune
from weebill.freezing import parameter_groups, trainable_table
from weebill.joint_teacher import read_joint_teacher
from weebill.lessons import Lesson
from weebill.pretraining import pretrain
from weebill.provenance import training_record
from weebill.recipe_files import parse_recipe
from weebill.run_display import RunDisplay
from weebill.runs import run_finetune, run_pretrain
from weebill.schedule import warmup_cosine
from weebill.schema import ScoredPair
from weebill.sent_transformer import SentenceTransformer
from weebill.sources import Mix
from weebill.task import Plan, Task, TrainingStopped
from weebill.tokenizer import Tokenizer
from weebill.train import fit

SMALL = {"num_layers": 1, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train((u.text for u in templates.generate()[0]), 800)


def _finetune_recipe(**training):
    settings = {"epochs": 60, "batch_size": 4, "learning_rate": 5e-3, "evals": 3, "patience": 3} | training
    values = {"encoder": SMALL | {"dropout": 0.0}, "training": settings}
    return parse_recipe(values, FinetuneRecipe, "test")


def test_overfits_eight_examples(tokenizer):
    eight = templates.generate()[0][::700][:8]
    _, end, ledger = finetune(_finetune_recipe(), eight, eight, lambda event: None, tokenizer)
    assert end["metrics"]["exact_match"] == 1.0
    assert [row["kind"] for row in ledger] == ["dev text in train"]
    assert {"intent_accuracy", "tag_loss", "tag_accuracy", "span_f1", "exact_match"} <= set(end["metrics"])


def test_same_seed_same_weights_other_seed_others(tokenizer):
    rows = templates.generate()[0][:24]

    def weights(seed):
        recipe = _finetune_recipe(epochs=2).model_copy(update={"seed": seed})
        model = finetune(recipe, rows, rows, lambda event: None, tokenizer)[0]
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_runs_write_a_folder_that_loads_and_chains(tmp_path, tokenizer):
    console = Console(file=io.StringIO())
    tokenizer.save(tmp_path / "tokenizer")
    short = {"encoder": SMALL, "tokenizer": str(tmp_path / "tokenizer"), "training": {"epochs": 1, "evals": 1}}
    run_pretrain(parse_recipe(short, PretrainRecipe, "t"), tmp_path / "pre", tmp_path, console)
    start = {"start": str(tmp_path / "pre"), "training": {"epochs": 1, "evals": 1}}
    run_finetune(parse_recipe(start, FinetuneRecipe, "t"), tmp_path / "nlu", tmp_path, console)
    prediction = weebill.load(tmp_path / "nlu")("wake me up at nine am on friday")
    assert prediction.intent in {u.intent for u in templates.generate()[0]}
    record = json.loads((tmp_path / "nlu" / "weebill.json").read_text())["training"]
    assert record["recipe"]["start"] == str(tmp_path / "pre") and record["result"]["metrics"]
    assert {"weebill", "python", "torch", "numpy", "accelerate", "safetensors", "regex"} == set(record["versions"])
    assert weebill.verify(tmp_path / "pre").ok and weebill.verify(tmp_path / "nlu").ok
    assert [json.loads(line)["event"] for line in (tmp_path / "nlu" / "log.jsonl").read_text().splitlines()][
        -1
    ] == "end"
    wrong = {"start": str(tmp_path / "pre"), "encoder": {"hidden_dim": 64}}
    with pytest.raises(ConfigError, match="another shape than the recipe's encoder section"):
        run_finetune(parse_recipe(wrong, FinetuneRecipe, "t"), tmp_path / "no", tmp_path, console)
    assert not (tmp_path / "no").exists()


def test_the_fingerprint_is_of_the_data_not_of_where_it_lies():
    rows = templates.generate()[0][:5]

    def fingerprint(folder, rows):
        moved = [dataclasses.replace(u, source=f"{folder}/{i}") for i, u in enumerate(rows)]
        return training_record(_finetune_recipe(), {}, moved)["data_sha256"]

    assert fingerprint("here", rows) == fingerprint("there", rows)
    assert fingerprint("here", rows) != fingerprint("here", rows[::-1])
    assert fingerprint("here", rows) != fingerprint("here", [dataclasses.replace(rows[0], intent="x"), *rows[1:]])


def _task(losses, evaluate, batches=1):
    plans = [Plan(0, np.array([i, i + 1])) for i in range(batches)]
    return Task(lambda epoch, rng: plans, lambda plan, rng: {"x": torch.ones(2, 1)}, losses, evaluate, "score")


@pytest.mark.parametrize("asked", ["no", "bf16"])
def test_a_loss_that_is_not_finite_stops_with_the_best_weights_and_names_the_batch(asked, monkeypatch):
    monkeypatch.setattr(precision, "cpu_knows_bf16", lambda: True)
    model, x = torch.nn.Linear(1, 1), torch.tensor([[1.2345]])
    before = model.weight.detach().clone()
    task = _task(lambda m, plan, batch: {"loss": m(batch["x"]).sum() * float("nan")}, lambda: {"score": 1.0})
    with pytest.raises(TrainingStopped, match=r"expected a finite loss, got nan at step 1 \(data set 0, rows \[0, 1\]"):
        fit(model, task, TrainingConfig(precision=asked), 0, lambda event: None)
    assert torch.equal(model.weight, before)
    assert torch.equal(model(x), torch.nn.functional.linear(x, model.weight, model.bias))  # out of autocast again


def test_a_run_that_goes_on_elsewhere_says_the_precision_it_has_there(tmp_path, monkeypatch):
    task = _task(lambda m, plan, batch: {"loss": m(batch["x"]).float().sum()}, lambda: {"score": 1.0})
    checkpoint, told = Checkpoint(tmp_path / "c.safetensors", "this run"), []
    for known in (True, False):
        monkeypatch.setattr(precision, "cpu_knows_bf16", lambda known=known: known)
        fit(torch.nn.Linear(1, 1), task, TrainingConfig(epochs=1, precision="bf16"), 0, told.append, checkpoint,
            resume=not known)  # fmt: skip
    starts = [event["precision"] for event in told if event["event"] == "start"]
    assert starts == ["bf16", "no"]


@pytest.mark.parametrize("finite", [True, False])
def test_an_evaluation_that_is_not_finite_is_never_the_best(finite):
    model, seen = torch.nn.Linear(1, 1), []
    before = model.weight.detach().clone()

    def evaluate():
        seen.append(model.weight.detach().clone())
        return {"score": float(len(seen)), "tag_loss": 1.0 if finite and len(seen) == 1 else float("nan")}

    task = _task(lambda m, plan, batch: {"loss": m(batch["x"]).sum()}, evaluate, batches=4)
    training = TrainingConfig(epochs=1, evals=4)
    if finite:
        end = fit(model, task, training, 0, lambda event: None)
        assert end["best_step"] == 1 and torch.equal(model.weight, seen[0])
    else:
        with pytest.raises(
            TrainingStopped, match="expected finite dev scores, got none at any evaluation up to step 4;"
        ):
            fit(model, task, training, 0, lambda event: None)
        assert torch.equal(model.weight, before)


def test_early_stopping_keeps_the_best_weights():
    model = torch.nn.Linear(1, 1)
    seen = []

    def evaluate():
        seen.append(model.weight.detach().clone())
        return {"score": -abs(len(seen) - 2)}  # the second evaluation is the best

    task = _task(lambda m, plan, batch: {"loss": m(batch["x"]).sum()}, evaluate, batches=4)
    end = fit(model, task, TrainingConfig(epochs=10, evals=20, patience=3), 0, lambda event: None)
    assert (end["best_step"], end["steps"], len(seen)) == (4, 10, 5)
    assert torch.equal(model.weight, seen[1])


def test_a_run_that_has_nothing_right_yet_goes_on_and_keeps_its_latest_weights():
    model, scores = torch.nn.Linear(1, 1), [0.0] * 8 + [0.5, 0.4, 0.4, 0.4]
    task = _task(lambda m, plan, batch: {"loss": m(batch["x"]).sum()}, lambda: {"score": scores.pop(0)})
    end = fit(model, task, TrainingConfig(epochs=12, evals=12, patience=3), 0, lambda event: None)
    assert (end["best_step"], end["steps"]) == (9, 12)
    task = _task(lambda m, plan, batch: {"loss": m(batch["x"]).sum()}, lambda: {"score": 0.0})
    end = fit(model, task, TrainingConfig(epochs=6, evals=6, patience=2), 0, lambda event: None)
    assert (end["best_step"], end["steps"]) == (6, 6)


def test_few_rows_are_read_for_more_epochs():
    def steps(batches, **settings):
        task = _task(lambda m, plan, batch: {"loss": m(batch["x"]).sum()}, lambda: {"score": 1.0}, batches)
        training = TrainingConfig(epochs=3, patience=1000, **settings)
        return fit(torch.nn.Linear(1, 1), task, training, 0, lambda event: None)["steps"]

    assert [steps(4), steps(4, min_steps=12), steps(4, min_steps=13), steps(4, min_steps=100)] == [12, 12, 16, 100]
    assert steps(5, min_steps=8, accumulation_steps=2) == 9


def test_bf16_autocasts_where_the_processor_knows_it_and_fp16_needs_a_gpu(monkeypatch, tmp_path):
    def losses(model, plan, batch):
        seen.append((batch["x"] @ batch["x"].T).dtype)
        return {"loss": model(batch["x"]).float().square().mean()}

    task = _task(losses, lambda: {"score": 1.0})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked, known, got in (("bf16", True, "bf16"), ("no", True, "no"), ("bf16", False, "no")):
        monkeypatch.setattr(precision, "cpu_knows_bf16", lambda known=known: known)
        seen, console = [], Console(file=io.StringIO(), width=200)
        with RunDisplay(console, "t", tmp_path) as display:
            fit(torch.nn.Linear(1, 1), task, TrainingConfig(epochs=1, precision=asked), 0, display)
        assert set(seen) == {torch.bfloat16 if got == "bf16" else torch.float32}
        shown = console.file.getvalue()
        assert f"precision {got}," in shown and ("this processor has no instructions" in shown) == (asked != got)
    with pytest.raises(ConfigError, match="fp16: expected a GPU, got none; set it to bf16"):
        fit(torch.nn.Linear(1, 1), task, TrainingConfig(precision="fp16"), 0, lambda event: None)


def test_auto_takes_bf16_on_gpus_that_have_it_and_fp16_on_those_that_emulate_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    for capability, settled in (((7, 5), "fp16"), ((8, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert precision.settled_precision("auto") == settled


def test_accumulated_batches_are_one_larger_batch():
    weights, x = [], torch.arange(12.0).reshape(12, 1) - 4
    for size, per_step in ((12, 1), (4, 3)):
        model = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(model.weight, 0.5)
        plans = [Plan(0, np.arange(i, i + size)) for i in range(0, 12, size)]
        task = Task(lambda epoch, rng, plans=plans: plans, lambda plan, rng: {"x": x[plan.rows]},
                    lambda m, plan, batch: {"loss": m(batch["x"]).square().mean()}, lambda: {"score": 1.0},
                    "score")  # fmt: skip
        end = fit(model, task, TrainingConfig(epochs=2, accumulation_steps=per_step), 0, lambda event: None)
        assert end["steps"] == 2
        weights.append(model.weight.item())
    assert weights[0] == pytest.approx(weights[1], abs=1e-6) and weights[0] != 0.5


@pytest.mark.parametrize(("cores", "precision"), [(1, "no"), (2, "no"), (5, "no"), (3, "bf16")])
def test_batches_side_by_side_give_the_same_bits_whichever_ends_first(cores, precision, tokenizer, monkeypatch):
    rows = templates.generate()[0][:70]
    settings = {"epochs": 2, "batch_size": 8, "accumulation_steps": 4, "evals": 2, "precision": precision}
    recipe = parse_recipe({"training": settings, "heads": {"dropout": 0.2}}, FinetuneRecipe, "t")
    threads, weights, events = set(), [], []
    collate = data.mask_tokens
    monkeypatch.setattr(data, "mask_tokens", lambda *given: (threads.add(threading.get_ident()), collate(*given))[1])
    before = torch.get_num_threads()
    for available in (1, cores):
        torch.set_num_threads(available)
        try:
            model, end, _ = finetune(recipe, rows, rows[:20], events.append, tokenizer)
            assert torch.get_num_threads() == available
        finally:
            torch.set_num_threads(before)
        weights.append(model.state_dict())
        assert end["steps"] == 2 * math.ceil(math.ceil(70 / 8) / 4)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert len(threads) == (1 if cores == 1 else 1 + min(cores, 4))  # the first run's alone is the main thread
    norms = [event["grad_norms"] for event in events if event["event"] == "eval"]
    assert norms[:2] == norms[2:] and all(set(one) == {"intent", "tags"} for one in norms)


def test_the_batches_of_a_step_are_alike_in_length_and_every_batch_is_seen():
    seen, x = [], torch.arange(14.0).reshape(14, 1)

    def collate(plan, rng):
        seen.append(int(plan.rows[0]))
        return {"x": x[plan.rows]}

    task = Task(lambda epoch, rng: [Plan(0, np.array([i])) for i in rng.permutation(14)], collate,
                lambda m, plan, batch: {"loss": m(batch["x"]).square().mean()}, lambda: {"score": 1.0}, "score",
                length=lambda plan: int(plan.rows[0]))  # fmt: skip
    settings = TrainingConfig(epochs=2, accumulation_steps=4, patience=20)
    fit(torch.nn.Linear(1, 1), task, settings, 0, lambda event: None)
    for epoch in (seen[:14], seen[14:]):
        assert sorted(epoch) == [*range(14)]
        left = [i for i in range(14) if i not in epoch[12:]]  # what makes no whole step comes last
        assert {frozenset(epoch[i : i + 4]) for i in (0, 4, 8)} == {frozenset(left[i : i + 4]) for i in (0, 4, 8)}
    assert seen[:14] != seen[14:]


@pytest.mark.parametrize("what", ["loss", "error"])
def test_what_goes_wrong_in_one_of_several_batches_stops_the_run(what):
    def losses(model, plan, batch):
        if what == "error" and plan.rows[0] == 3:
            raise DataError("row 3")
        return {"loss": model(batch["x"]).sum() * (float("nan") if plan.rows[0] == 3 else 1.0)}

    model, x = torch.nn.Linear(1, 1), torch.arange(6.0).reshape(6, 1)
    plans = [Plan(0, np.array([i])) for i in range(6)]
    task = Task(
        lambda epoch, rng: plans, lambda plan, rng: {"x": x[plan.rows]}, losses, lambda: {"score": 1.0}, "score"
    )
    with pytest.raises(DataError, match=r"row 3|rows \[3\]"):
        fit(model, task, TrainingConfig(epochs=1, accumulation_steps=3), 0, lambda event: None)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("kind", ["finetune", "pretrain", "distill"])
def test_tasks_know_the_length_of_a_batch(kind, tokenizer, tmp_path, monkeypatch):
    lengths = []

    def watched(model, task, *given):
        for plan in task.plan(1, np.random.default_rng(0)):
            batch = task.collate(plan, np.random.default_rng(0))
            lengths.append((task.length(plan), batch["input_ids"].shape[1]))
        raise TrainingStopped("seen", model, {}, {})

    rows = templates.generate()[0][:40]
    if kind == "finetune":
        monkeypatch.setattr("weebill.finetuning.fit", watched)
        with pytest.raises(TrainingStopped):
            finetune(parse_recipe({}, FinetuneRecipe, "t"), rows, rows, lambda event: None, tokenizer)
    elif kind == "pretrain":
        monkeypatch.setattr("weebill.pretraining.fit", watched)
        recipe = parse_recipe({"loss": {"kind": "in_batch_negatives"}}, PretrainRecipe, "t")
        mix = Mix(recipe)
        triplets = templates.paraphrase_triplets("train", 40)
        mix.add_pairs(Source(path="pairs"), [ScoredPair(a, b, 1.0) for a, b, _ in triplets])
        dev = [ScoredPair(a, c, 0.5 * i) for i, (a, _, c) in enumerate(triplets[:2])]
        with pytest.raises(TrainingStopped):
            pretrain(recipe, mix, dev, lambda event: None, tokenizer)
    else:
        run_finetune(parse_recipe({"encoder": SMALL, "training": {"epochs": 1, "evals": 1}}, FinetuneRecipe, "t"),
                     tmp_path / "teacher", tmp_path, Console(file=io.StringIO()), tokenizer)  # fmt: skip
        monkeypatch.setattr("weebill.distilling.fit", watched)
        monkeypatch.setenv("WEEBILL_CACHE", str(tmp_path))
        recipe = parse_recipe({"teachers": [str(tmp_path / "teacher")]}, DistillRecipe, "t")
        with pytest.raises(TrainingStopped):
            distill(recipe, [Lesson("rows", rows)], rows, [read_joint_teacher(tmp_path / "teacher")],
                    lambda event: None, tokenizer)  # fmt: skip
    assert lengths and all(known == seen for known, seen in lengths)


def test_discriminative_learning_rates_cover_every_parameter_once(tokenizer):
    recipe = parse_recipe({}, FinetuneRecipe, "t")
    rows = templates.generate()[0][:30]
    settings = TrainingConfig(
        learning_rate=1.0, layer_decay=0.5, head_learning_rate=2.0, embedding_learning_rate=3.0, epochs=1, evals=1
    )
    model, _, _ = finetune(recipe.model_copy(update={"training": TrainingConfig(epochs=1)}), rows, rows,
                           lambda event: None, tokenizer)  # fmt: skip
    groups = parameter_groups(model, settings)
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    rates = {part: rate for part, _, rate in trainable_table(groups)}
    assert (rates["layer 3"], rates["layer 2"], rates["layer 0"], rates["embedding norm"]) == (1.0, 0.5, 0.125, 0.0625)
    assert rates["intent_head"] == rates["tag_head"] == 2.0
    assert rates["word embeddings"] == 3.0
    same = parameter_groups(model, settings.model_copy(update={"embedding_learning_rate": None}))
    assert {part: rate for part, _, rate in trainable_table(same)}["word embeddings"] == 0.0625


def test_schedule_equals_torchs_cosine():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert abs(warmup_cosine(step, 20, 0) - oracle.get_last_lr()[0]) < 1e-9
        optimizer.step()
        oracle.step()


def test_a_recipe_can_train_its_tokenizer(tmp_path):
    (tmp_path / "more.txt").write_text("zyx zyx zyx zyx\n" * 400, encoding="utf-8")
    values = {"encoder": SMALL, "tokenizer": "train", "vocab_size": 500, "normalizers": ["lowercase"],
              "training": {"epochs": 1, "evals": 1}, "data": {"tokenizer_texts": ["more.txt"]}}  # fmt: skip
    run_pretrain(parse_recipe(values, PretrainRecipe, "t"), tmp_path / "pre", tmp_path, Console(file=io.StringIO()))
    trained = SentenceTransformer.load(tmp_path / "pre").tokenizer
    assert (trained.vocab_size, trained.normalizers) == (500, ("lowercase",))
    assert trained.pieces(" ZYX") == [" zyx"]


def test_a_tokenizer_without_cls_cannot_start_an_encoder():
    bare = Tokenizer.train(["a b"] * 5, 261, special_tokens=("[PAD]",))
    with pytest.raises(ConfigError, match=r"expected one with \[CLS\] and \[SEP\]"):
        finetune(_finetune_recipe(), templates.generate()[0][:9], templates.generate()[1][:9], lambda event: None, bare)


def test_a_start_keeps_its_dropout_unless_the_recipe_names_one(tmp_path, tokenizer):
    shape = parse_recipe({"encoder": SMALL | {"dropout": 0.3}}, FinetuneRecipe, "t").encoder
    encoder = SentenceTransformer(shape, tokenizer)
    encoder.save(tmp_path / "start")
    rows = templates.generate()[0][:9]
    for named, expected in (({}, 0.3), ({"encoder": {"dropout": 0.0}}, 0.0)):
        values = {"start": str(tmp_path / "start"), "training": {"epochs": 1, "evals": 1}} | named
        model, _, _ = finetune(parse_recipe(values, FinetuneRecipe, "t"), rows, rows, lambda event: None)
        assert {layer.dropout for layer in model.encoder.layers} == {expected}


def test_masking_tokens_spares_special_ones(tokenizer):
    ids = tokenizer.encode_batch(["wake me up at nine am on friday", "hi"] * 200).input_ids_BT
    masked = data.mask_tokens(ids, tokenizer, 0.25, np.random.default_rng(0))
    special = np.isin(ids, list(tokenizer.special_tokens.values()))
    assert np.array_equal(masked[special], ids[special])
    changed = masked != ids
    assert 0.2 < changed.sum() / (~special).sum() < 0.3 and set(masked[changed]) == {tokenizer.mask_id}
    assert data.mask_tokens(ids, tokenizer, 0.0, np.random.default_rng(0)) is ids


def test_positive_groups_are_connected_components():
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(0)
    ends, scores = rng.integers(60, size=(50, 2)), rng.random(50)
    group_of = data.positive_groups([ScoredPair(*map(str, e), s) for e, s in zip(ends, scores, strict=True)], 0.4)
    linked = ends[scores >= 0.4].T
    labels = connected_components(coo_array((np.ones(linked.shape[1]), linked), shape=(60, 60)), directed=False)[1]
    for a in group_of:
        assert {b for b in group_of if group_of[b] == group_of[a]} == {
            b for b in group_of if labels[int(b)] == labels[int(a)]
        }


def test_triplets_from_pairs():
    pairs = [
        ScoredPair("a", "b", 1.0), ScoredPair("b", "c", 1.0), ScoredPair("a", "x", 0.0), ScoredPair("d", "e", 0.9),
        ScoredPair("a", "c", 0.1),
    ]  # fmt: skip
    triplets = data.triplets_from_pairs(pairs, 0.7, 0.4, seed=0)
    assert [(t.anchor, t.positive) for t in triplets] == [("a", "b"), ("c", "b"), ("d", "e")]
    assert triplets[0].negative == "x"  # never "c", though scored low: it means the same as "a" through "b"
    assert triplets[0].group == triplets[1].group != triplets[2].group
    assert all(t.negative not in (t.anchor, t.positive) and t.negative_group != t.group for t in triplets)
    of_text = {text: g for t in triplets for text, g in ((t.anchor, t.group), (t.negative, t.negative_group))}
    assert of_text["x"] not in (of_text["a"], of_text["d"])
    with pytest.raises(DataError, match=r"scored at least 0\.7 as positives, got none among 1 \(highest score 0\.2\)"):
        data.triplets_from_pairs([ScoredPair("a", "b", 0.2)], 0.7, 0.4, seed=0)
    with pytest.raises(DataError, match="expected texts of different meanings, as negatives, got 2 texts"):
        data.triplets_from_pairs([ScoredPair("a", "b", 1.0)], 0.7, 0.4, seed=0)


def test_epoch_batches_hold_every_row_once_and_weights_favour_the_rare():
    lengths = np.random.default_rng(0).integers(1, 30, 1000).tolist()
    batches = data.epoch_batches(lengths, 32, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    padding = sum(max(lengths[i] for i in b) * len(b) for b in batches) / sum(lengths)
    assert padding < 1.15
    intents = np.array([0] * 900 + [1] * 100)
    drawn = np.concatenate(
        data.epoch_batches(lengths, 32, np.random.default_rng(1), data.sampling_weights(intents, 1.0))
    )
    assert 0.4 < (drawn >= 900).mean() < 0.6
    weights = data.class_weights([[0] * 90 + [1] * 10], 2, 0.5)
    assert weights[1] / weights[0] == pytest.approx(3.0, rel=1e-5)


def test_effective_numbers_weigh_tags_as_counted_by_hand():
    rows = [[0] * 7 + [1] * 3 + [-100] * 5, [2]]
    weights = data.class_weights(rows, 4, 0.0, beta=0.9)
    expected = [1 / sum(0.9**i for i in range(n)) for n in (7, 3, 1, 1)]  # the geometric series that the formula sums
    assert (weights / weights[0]).tolist() == pytest.approx([e / expected[0] for e in expected], rel=1e-6)
    assert (7 * weights[0] + 3 * weights[1] + weights[2]) / 11 == pytest.approx(1.0)  # the average token
    assert weights[0] < weights[1] < weights[2]
    assert data.class_weights(rows, 4, 0.0, beta=0.0).tolist() == [1.0] * 4


def test_batches_by_length_hold_every_text_once_as_it_is_encoded_alone(monkeypatch):
    monkeypatch.setattr(data, "WINDOW_BATCHES", 3)
    tokenizer, texts = Tokenizer.packaged(), [u.text for u in templates.generate(200)[0]]
    seen, padding, lengths = [], 0, []
    for rows, batch in data.batches_by_length(tokenizer, texts, 9, 8, show_progress=False):
        assert len(rows) <= 8
        for row, ids_T, mask_T, encoding in zip(
            rows, batch.input_ids_BT, batch.attention_mask_BT, batch.encodings, strict=True
        ):
            alone = tokenizer.encode(texts[row], max_length=9)
            assert encoding == alone and ids_T[mask_T].tolist() == alone.token_ids
            assert (ids_T[~mask_T] == tokenizer.pad_id).all()
        padding += int((~batch.attention_mask_BT).sum())
        lengths += batch.attention_mask_BT.sum(axis=1).tolist()
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(texts)))
    assert padding < 0.1 * sum(lengths) and min(lengths) < max(lengths) == 9
