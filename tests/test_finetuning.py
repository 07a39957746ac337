"""What fine-tuning can be asked for: weights and balance of losses, rows of one task, a CRF, a threshold."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import weebill
from weebill import data, finetuning, label_facts, templates
from weebill import train as train_module
from weebill.batching import read_texts
from weebill.config import FinetuneRecipe, HeadsConfig, PretrainRecipe, TrainingConfig
from weebill.distill_config import DistillRecipe
from weebill.errors import ArtifactError, ConfigError
from weebill.evaluate import evaluate
from weebill.export import export_onnx
from weebill.finetuning import check_metric
from weebill.joint_teacher import read_joint_teacher
from weebill.metrics import refusal_threshold
from weebill.multitask import MultiTaskModel
from weebill.pictures import training_curves
from weebill.predictor import predictor_of_model
from weebill.recipe_files import load_recipe, parse_recipe, recipe_names
from weebill.runs import rates_that_wipe_out
from weebill.schema import OUT_OF_SCOPE, Entity, Utterance
from weebill.serve import _parsed
from weebill.starting import start_heads
from weebill.tags import MISSING, tag_vocabulary
from weebill.task import Plan, Task
from weebill.tokenizer import Tokenizer

SMALL = {"num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64}
ROWS = templates.generate()[0][::60]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train((u.text for u in ROWS), 600)


def _recipe(**sections):
    training = {"epochs": 1, "evals": 1, "batch_size": 16, "learning_rate": 3e-3} | sections.pop("training", {})
    return parse_recipe({"encoder": SMALL, "training": training} | sections, FinetuneRecipe, "test")


def _weights(model, prefix=""):
    return {name: t.clone() for name, t in model.state_dict().items() if name.startswith(prefix)}


@pytest.fixture
def train(tokenizer, monkeypatch):
    """Return a function: sections of a recipe -> weights before training, the model after it, events."""

    def run(rows=ROWS, dev=ROWS[:20], **sections):
        before, events = {}, []

        def fit(model, *args):
            before.update(_weights(model))
            return train_module.fit(model, *args)

        monkeypatch.setattr(finetuning, "fit", fit)
        model, _, _ = finetuning.finetune(_recipe(**sections), rows, dev, events.append, tokenizer)
        return before, model, events

    return run


def _moved(before, model):
    """Return the parts of the model of which some weight is not what it was."""
    return {n.split(".")[0] for n, t in model.state_dict().items() if not torch.equal(t, before[n])}


def test_rows_annotated_for_one_task_train_that_head_only(train, tokenizer):
    intents = [Utterance(u.text, u.intent) for u in ROWS]
    before, model, _ = train(intents, metric="intent_accuracy")
    assert _moved(before, model) == {"encoder", "intent_head"}
    entities = [Utterance(u.text, None, u.entities) for u in ROWS[:-1]] + [ROWS[-1]]
    model = train(entities, metric="span_f1")[1]
    recipe = _recipe()
    work = finetuning._Joint(recipe, model, data.label_rows(entities, tokenizer, 64, model.intents, model.tags))

    def gradients(rows):
        model.zero_grad()
        plan = Plan(0, np.array(rows))
        batch = work.collate(plan, np.random.default_rng(0))
        sum(work.weigh(work.losses(model, plan, batch)).values()).backward()
        return {
            n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None
        }, model.intent_head.linear.weight.grad

    assert gradients([0, 1, 2])[0] == {"encoder", "tag_head"}
    parts, alone = gradients([len(entities) - 1])
    assert parts == {"encoder", "intent_head", "tag_head"}
    mixed = gradients([0, len(entities) - 1])[1]
    assert torch.allclose(alone, mixed, atol=1e-6)  # a mean over the rows that have an intent


def test_a_weight_of_zero_leaves_a_head_as_it_is_and_static_weights_scale(train):
    assert _moved(*train(loss={"tag_weight": 0.0})[:2]) == {"encoder", "intent_head"}
    assert _moved(*train(loss={"intent_weight": 0.0})[:2]) == {"encoder", "tag_head"}
    entities = [Utterance(u.text, None, u.entities) for u in ROWS[:-1]] + [ROWS[-1]]
    few = {"batch_size": 2, "learning_rate": 1e-2}
    assert _moved(*train(entities, loss={"tag_weight": 0.0, "intent_sampling_power": 0}, training=few)[:2]) == {
        "encoder", "intent_head",
    }  # fmt: skip
    plain, heavy = (
        train(loss={"intent_weight": w}, encoder=SMALL | {"dropout": 0}, heads={"dropout": 0},
              training={"epochs": 1, "batch_size": 512})[2][-2] for w in (1.0, 4.0)
    )  # fmt: skip
    assert plain["losses"] == heavy["losses"]  # unweighted, of the first step
    ratio = {name: heavy["grad_norms"][name] / plain["grad_norms"][name] for name in plain["grad_norms"]}
    assert ratio == {"intent": pytest.approx(4.0, rel=1e-4), "tags": pytest.approx(1.0, rel=1e-4)}
    with pytest.raises(ConfigError, match="both 0: nothing would train"):
        _recipe(loss={"intent_weight": 0, "tag_weight": 0})


def test_gradient_norms_are_those_of_each_loss_alone(train):
    model, seen = torch.nn.Linear(2, 2), []
    x = torch.tensor([[1.0, 2.0]])
    task = Task(
        lambda epoch, rng: [Plan(0, np.array([0]))], lambda plan, rng: {},
        lambda m, plan, batch: {"a": m(x)[0, 0], "b": 3 * m(x)[0, 1]}, lambda: {"score": 0.0}, "score",
    )  # fmt: skip
    train_module.fit(model, task, TrainingConfig(epochs=1, evals=1), 0, seen.append)
    size = 6.0**0.5  # of (1, 2) and the bias's 1
    assert seen[-2]["grad_norms"] == {"a": pytest.approx(size), "b": pytest.approx(3 * size)}
    assert training_curves(train(training={"evals": 2})[2]).startswith(b"\x89PNG")


def test_uncertainty_weighting_trains_its_variances_and_leaves_no_trace_on_disk(train, tmp_path):
    before, model, _ = train(loss={"balance": "uncertainty"}, training={"epochs": 4})
    assert before["log_variances"].tolist() == [0.0, 0.0]
    assert (model.log_variances != 0).all()
    model.save(tmp_path / "model")
    assert MultiTaskModel.load(tmp_path / "model").log_variances is None and weebill.verify(tmp_path / "model").ok


def test_a_crf_goes_with_its_model_to_disk_and_to_onnx(train, tmp_path):
    before, model, _ = train(heads={"crf": True, "lstm_dim": 16, "mlp_dim": 16}, training={"epochs": 4})
    assert not torch.equal(before["tag_head.crf.transitions_LL"], model.tag_head.crf.transitions_LL)
    model.tag_head.crf.transitions_LL.data.normal_(0, 3, generator=torch.Generator().manual_seed(0))  # they must count
    model.save(tmp_path / "model")
    texts = [u.text for u in ROWS]
    expected = predictor_of_model(model).parse(texts)
    plain = predictor_of_model(model)
    plain._grammar.chain = None
    assert [p.entities for p in plain.parse(texts)] != [p.entities for p in expected]
    assert weebill.verify(tmp_path / "model").ok
    assert export_onnx(tmp_path / "model", tmp_path / "onnx", ROWS).ok
    for folder in ("model", "onnx"):
        got = weebill.load(tmp_path / folder).parse(texts)
        assert [(p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in got] == [
            (p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in expected
        ]
    meta = json.loads((tmp_path / "model" / "weebill.json").read_text())
    assert meta["parameters"] == sum(t.numel() for t in model.state_dict().values())
    with pytest.raises(ConfigError, match="teachers: expected models that say what each token is by itself"):
        read_joint_teacher(tmp_path / "model")
    (tmp_path / "onnx" / "heads" / "transitions.safetensors").write_bytes(save({"start_L": np.zeros(3, np.float32)}))
    with pytest.raises(ArtifactError, match="expected start_L, transitions_LL, end_L of the shapes"):
        weebill.load(tmp_path / "onnx")


def test_labels_that_touch_in_the_rows_alone_may_touch(train, tmp_path):
    row = Utterance("call anna bob", "call", (Entity(5, 9, "who"), Entity(10, 13, "who")))
    _, model, _ = train([*ROWS, row], heads={"lstm_dim": 16, "mlp_dim": 16})
    model.save(tmp_path / "model")
    assert export_onnx(tmp_path / "model", tmp_path / "onnx", ROWS).ok
    assert [weebill.load(tmp_path / name).touching for name in ("model", "onnx")] == [["who"]] * 2
    assert train(heads={"touching": "any"})[1].config.settled_touching is None


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"heads\.crf has a loss of its own"):
        _recipe(heads={"crf": True}, loss={"tag_focal_gamma": 2})
    with pytest.raises(ConfigError, match=r"reads each text once, so loss\.bpe_dropout must be 0"):
        _recipe(freezing={"encoder": True, "cached_features": True}, loss={"bpe_dropout": 0.1})
    with pytest.raises(ConfigError, match=r"reads each text once, so loss\.token_dropout must be 0"):
        _recipe(freezing={"encoder": True, "cached_features": True}, loss={"token_dropout": 0.1})
    for heads in ({"crf": True}, {"intent_threshold": "dev"}):
        with pytest.raises(ConfigError, match="are for `weebill finetune`"):
            parse_recipe({"teachers": ["t"], "heads": heads}, DistillRecipe, "test")


def _collate(tokenizer, rows, monkeypatch, **sections):
    """Return the function that makes batches, and all rows as one plan."""
    found = []

    def fit(model, task, *_):
        found.append(task)
        return {}

    monkeypatch.setattr(finetuning, "fit", fit)
    finetuning.finetune(_recipe(**sections), rows, rows[:5], lambda event: None, tokenizer)
    return found[0].collate


def test_bpe_dropout_cuts_texts_anew_and_their_tags_with_them(tokenizer, monkeypatch):
    rows = label_facts.sort_intents([u for u in ROWS if u.text.isascii()][:40], None)
    plan = Plan(0, np.arange(len(rows)))
    collate = _collate(tokenizer, rows, monkeypatch, loss={"bpe_dropout": 0.5})
    plain = _collate(tokenizer, rows, monkeypatch)(plan, np.random.default_rng(0))
    batches = [collate(plan, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    assert batches[0]["input_ids"].shape[1] > plain["input_ids"].shape[1]
    assert not torch.equal(batches[0]["input_ids"], batches[2]["input_ids"])
    assert torch.equal(batches[0]["intents"], plain["intents"])
    names = tag_vocabulary({e.label for u in rows for e in u.entities})
    for utterance, ids, labels in zip(rows, batches[0]["input_ids"].tolist(), batches[0]["tags"].tolist(), strict=True):
        assert tokenizer.decode(ids) == utterance.text
        start = 0
        for token_id, label in zip(ids, labels, strict=True):
            piece = "" if token_id in tokenizer.special_tokens.values() else tokenizer.token_bytes(token_id).decode()
            at, end = start + len(piece) - len(piece.lstrip()), start + len(piece)
            start = end
            inside = [e for e in utterance.entities if e.start <= at < e.end]
            if not piece.strip():
                assert label == MISSING  # special tokens, and spaces by themselves
            else:
                want = f"{'B' if at == inside[0].start else 'I'}-{inside[0].label}" if inside else "O"
                assert names[label] == want


def test_bpe_dropout_leaves_windows_and_texts_without_room_as_they_are(tokenizer, monkeypatch):
    word = max((tokenizer.token_bytes(i) for i in range(600)), key=len).decode().strip()
    text = " ".join([word] * 12)
    assert 10 < len(tokenizer.encode(text).token_ids) <= 16
    rows = [Utterance(text, "a", ()), Utterance(text + " " + text, "b", ()), *ROWS[:8]]
    sections = {"encoder": SMALL | {"max_seq_len": 16}, "loss": {"bpe_dropout": 0.9}}
    collate = _collate(tokenizer, rows, monkeypatch, **sections)
    batch = collate(Plan(0, np.arange(3)), np.random.default_rng(0))
    assert batch["input_ids"][0].tolist()[:13] == tokenizer.encode(text).token_ids[:13]
    assert batch["input_ids"][1].tolist() == [*tokenizer.encode(rows[1].text).token_ids[:15], tokenizer.sep_id]


def test_without_bpe_dropout_no_number_is_drawn_for_it(tokenizer, monkeypatch):
    rng, fresh = np.random.default_rng(0), np.random.default_rng(0)
    _collate(tokenizer, ROWS, monkeypatch)(Plan(0, np.arange(8)), rng)
    assert rng.random() == fresh.random()


def test_the_threshold_refuses_what_is_out_of_scope(train, tmp_path):
    dev = [*ROWS[:20], *(Utterance(t, OUT_OF_SCOPE, ()) for t in ("qwerty asdf", "my hovercraft is full", "zzz zz"))]
    with pytest.raises(ConfigError, match="expected dev rows with the intent out_of_scope, got none"):
        train(heads={"intent_threshold": "dev"})
    _, model, events = train(ROWS, dev, heads={"intent_threshold": "dev"}, training={"epochs": 8})
    found = next(e for e in events if e["event"] == "threshold")
    assert found["threshold"] == model.config.intent_threshold > 0
    before, after = found["intent_accuracy"]
    assert before <= after == evaluate(predictor_of_model(model), dev, show_progress=False).intent_accuracy
    assert not any(row.get("label") == OUT_OF_SCOPE for row in events[0]["rows"])
    model.config = model.config.model_copy(update={"intent_threshold": 0.999})
    model.save(tmp_path / "model")
    predictor = weebill.load(tmp_path / "model")
    assert predictor("qwerty asdf").intent == OUT_OF_SCOPE and predictor("qwerty asdf").score < 0.999
    answer = _parsed(read_texts(predictor, ["qwerty asdf"], labels=True)[0], predictor.intents, utf16=False)
    assert answer["intent"]["name"] == answer["intent_ranking"][0]["name"] == OUT_OF_SCOPE
    assert answer["intent_ranking"][1]["name"] in predictor.intents
    assert weebill.verify(tmp_path / "model").ok


def test_the_threshold_is_the_best_there_is():
    rng = np.random.default_rng(0)
    for _ in range(50):
        score = rng.integers(0, 8, 12) / 8
        outside = rng.random(12) < 0.4
        right = (rng.random(12) < 0.7) & ~outside
        rate = lambda t: (np.where(score < t, outside, right)).mean()  # noqa: B023, E731
        assert rate(refusal_threshold(score, right, outside)) == max(rate(t) for t in np.linspace(0, 1, 33))
    sure = np.array([1.0, 1.0, 0.5])  # to refuse a score of 1 there is no threshold
    assert refusal_threshold(sure, np.array([False, False, True]), np.array([True, True, False])) == 0


@pytest.mark.parametrize(
    ("start", "rates", "message"),
    [("tiny", {"embedding_learning_rate": 5e-2}, r"^training.embedding_learning_rate = 0.05: so much is for random "
      r"weights, and wipes out what tiny has learnt; try --set training.embedding_learning_rate=0.007$"),
     ("bert", {"learning_rate": 2e-3, "embedding_learning_rate": 2e-4}, "^training.learning_rate = 0.002: .*=0.0002$"),
     ("tiny", {"learning_rate": 2e-3, "embedding_learning_rate": 7e-3}, None),
     (None, {"embedding_learning_rate": 5e-2}, None)],
)  # fmt: skip
def test_rates_that_wipe_a_start_out_are_said(start, rates, message):
    found = rates_that_wipe_out(FinetuneRecipe(start=start, training=TrainingConfig(**rates)))
    assert found is None if message is None else re.search(message, found)


@pytest.mark.parametrize("name", recipe_names())
def test_no_shipped_recipe_wipes_its_start_out(name):
    kind = {"finetune": FinetuneRecipe, "distill": DistillRecipe, "pretrain": PretrainRecipe}
    text = tomllib.loads((Path(weebill.__file__).parent / "recipes" / f"{name}.toml").read_text(encoding="utf-8"))
    assert rates_that_wipe_out(parse_recipe(text, kind[text["task"]], name)) is None


def test_the_model_that_comes_along_is_a_start():
    train, dev = templates.generate(40)
    recipe = load_recipe("joint-tiny", FinetuneRecipe, ["training.min_steps=0", "training.epochs=2"])
    model, end, _ = finetuning.finetune(recipe, train, dev[:40], lambda event: None)
    assert end["metrics"]["intent_accuracy"] > 0.15  # of 32 intents, after some steps
    assert model.encoder.tokenizer.vocab_size == 5376


def test_a_metric_needs_one_row_annotated_for_it_not_the_first():
    predictor = weebill.load()
    dev = [Utterance("wake me", None, ()), *[Utterance("wake me up", "alarm_set", ())] * 3]
    for metric in ("exact_match", "intent_accuracy", "span_f1"):
        check_metric(metric, predictor, dev)
    with pytest.raises(ConfigError, match=r"accuracy' needs .*, and these are not; --set metric=span_f1"):
        check_metric("intent_accuracy", predictor, [Utterance("wake me", None, ())])


@pytest.mark.parametrize("crf", [True, False])
def test_heads_begin_as_the_start_has_them_for_labels_that_both_know(crf, tmp_path):
    heads = HeadsConfig(lstm_dim=8, mlp_dim=8, crf=crf)
    torch.manual_seed(0)
    encoder = weebill.SentenceTransformer.load(Path(__file__).parent / "folders/today")
    first = MultiTaskModel(encoder, ["a", "b", "c"], tag_vocabulary("xyz"), heads)
    if crf:
        torch.nn.init.normal_(first.tag_head.crf.transitions_LL)
    first.save(tmp_path / "first")
    start = parse_recipe({"start": str(tmp_path / "first")}, FinetuneRecipe, "t")
    torch.manual_seed(1)
    second = MultiTaskModel(first.encoder, ["b", "d"], tag_vocabulary("zw"), heads)
    new = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    assert start_heads(start, second).intents == ["a", "b", "c"]
    assert torch.equal(second.intent_head.linear.weight[0], first.intent_head.linear.weight[1])
    assert torch.equal(second.intent_head.linear.weight[1], new["intent_head.linear.weight"][1])
    assert torch.equal(second.tag_head.forward_lstm.weight_hh_l0, first.tag_head.forward_lstm.weight_hh_l0)
    ours, theirs = (model.state_dict()["tag_head.mlp.3.bias"] for model in (second, first))
    for here, tag in enumerate(second.tags):
        expected = theirs[first.tags.index(tag)] if tag in first.tags else new["tag_head.mlp.3.bias"][here]
        assert ours[here] == expected
    if crf:
        ours, theirs = (model.tag_head.crf.transitions_LL for model in (second, first))
        assert ours[second.tags.index("O"), second.tags.index("B-z")] == theirs[0, first.tags.index("B-z")]
    wider = MultiTaskModel(first.encoder, ["b"], tag_vocabulary("z"), HeadsConfig(lstm_dim=9, mlp_dim=8))
    before = wider.tag_head.mlp[3].weight.clone()
    start_heads(start, wider)
    assert torch.equal(wider.tag_head.mlp[3].weight, before)
    assert torch.equal(wider.intent_head.linear.weight[0], first.intent_head.linear.weight[1])
