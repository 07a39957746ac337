"""Several intents in one text, `heads.intent_separator`: the loss, learning, reading, disk, ONNX, HTTP, scores."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import weebill
from weebill import artifact, data, finetuning, label_facts, losses, web_export
from weebill.batching import read_texts
from weebill.cli import app
from weebill.comparison import compare_on_utterances
from weebill.config import FinetuneRecipe
from weebill.distill_config import DistillRecipe
from weebill.errors import ArtifactError, ConfigError, DataError
from weebill.evaluate import evaluate, evaluate_in_detail, statistics
from weebill.evaluation_page import page
from weebill.export import _count_sides, export_onnx
from weebill.formats import read_utterances, write_spans
from weebill.generator import draw_utterances
from weebill.grammar import parse_grammar
from weebill.joint_teacher import read_joint_teacher
from weebill.ledger import evaluation_ledger
from weebill.metrics import scores_by_intent
from weebill.multitask import MultiTaskModel
from weebill.onnx_graph import build_graph
from weebill.predictor import Predictor, predictor_of_model
from weebill.recipe_files import parse_recipe
from weebill.schema import OUT_OF_SCOPE, ModelOutput, Prediction, Utterance
from weebill.serve import _parsed
from weebill.tokenizer import Tokenizer
from weebill.windows import Windows

GRAMMAR = """\
slots:
  genre: [jazz, blues, rock, soul, opera, techno]
  room: [kitchen, bedroom, hall, cellar]
  city: [oslo, rome, paris, lima]
  time: [six, seven, nine, noon]
rules:
  please: [please, could you]
  and: [and, and then, then, and also]
  music: ["[<please>] play [some] {genre}", "put {genre} on", "i want to hear {genre}"]
  dark: ["[<please>] turn off the {room} (light|lights)", "lights out in the {room}", "make it dark in the {room}"]
  sky: ["[<please>] tell me the weather in {city}", "is it raining in {city}", "will it snow in {city}"]
  wake: ["[<please>] wake me at {time}", "set an alarm for {time}", "i must get up at {time}"]
intents:
  play_music: [<music>]
  lights_off: [<dark>]
  weather: [<sky>]
  alarm: [<wake>]
  play_music+lights_off: ["<music> <and> <dark>", "<dark> <and> <music>"]
  play_music+weather: ["<music> <and> <sky>", "<sky> <and> <music>"]
  play_music+alarm: ["<music> <and> <wake>", "<wake> <and> <music>"]
  lights_off+alarm: ["<dark> <and> <wake>", "<wake> <and> <dark>"]
  weather+alarm: ["<sky> <and> <wake>", "<wake> <and> <sky>"]
"""
PARTS = ["alarm", "lights_off", "play_music", "weather"]
SMALL = {"num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64}
TRAINING = {"epochs": 6, "evals": 1, "batch_size": 16, "learning_rate": 5e-3}


def _drawn(grammar, count):
    return draw_utterances(parse_grammar(grammar, "g.yaml"), {"": count})[""]


ROWS = _drawn(GRAMMAR, 750)
TRAIN, DEV = ROWS[:600], ROWS[600:]
NEVER_TOGETHER = _drawn('lights_off+weather: ["<dark> <and> <sky>", "<sky> <and> <dark>"]'.join(
    [GRAMMAR.partition("intents:")[0] + "intents:\n  ", "\n"]), 40)  # fmt: skip


def _finetune(train, dev, **sections):
    shared = {"encoder": SMALL, "training": TRAINING, "loss": {"token_dropout": 0.1}}
    sections = shared | {"heads": {"intent_separator": "+"}} | sections
    recipe, events = parse_recipe(sections, FinetuneRecipe, "test"), []
    tokenizer = Tokenizer.train((u.text for u in TRAIN), 600)
    return finetuning.finetune(recipe, train, dev, events.append, tokenizer)[0], events


@pytest.fixture(scope="module")
def model():
    return _finetune(TRAIN, DEV)[0]


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "model"
    model.save(folder)
    return folder


# -- the loss


def test_the_loss_is_torchs_summed_over_intents_and_averaged_over_texts():
    generator = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(6, 4, generator=generator), torch.randint(0, 2, (6, 4), generator=generator).float()
    expected = 4 * F.binary_cross_entropy_with_logits(logits, wanted)
    assert losses.several_intents_loss(logits, wanted).item() == pytest.approx(expected.item(), rel=1e-6)
    smooth = losses.several_intents_loss(logits, wanted, 0.1).item()
    two_classes = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    expected = F.cross_entropy(two_classes.flatten(0, 1), wanted.flatten().long(), label_smoothing=0.1)
    assert smooth == pytest.approx(4 * expected.item(), rel=1e-6)
    assert losses.several_intents_loss(logits[:0], wanted[:0]).item() == 0.0


def test_the_loss_falls_as_wanted_intents_rise_and_others_fall():
    logits, wanted = torch.zeros(1, 3), torch.tensor([[1.0, 1.0, 0.0]])
    before = losses.several_intents_loss(logits, wanted)
    for number, better in ((0, 1.0), (1, 1.0), (2, -1.0)):
        step = torch.zeros(1, 3)
        step[0, number] = better
        assert losses.several_intents_loss(logits + step, wanted) < before
        assert losses.several_intents_loss(logits - step, wanted) > before


def test_rows_without_an_intent_add_nothing_to_the_loss(model):
    rows = [TRAIN[0], replace(TRAIN[1], intent=None), next(u for u in TRAIN if "+" in u.intent)]
    recipe = parse_recipe({"encoder": SMALL, "heads": {"intent_separator": "+"}}, FinetuneRecipe, "test")
    rows = label_facts.sort_intents(rows, "+")
    names = label_facts.labels_of(rows)[0]
    labelled = data.label_rows(rows, model.encoder.tokenizer, 64, names, model.tags)
    parts_NC = torch.tensor([[float(x in name.split("+")) for x in model.intents] for name in names])
    work, logits = finetuning._Joint(recipe, model, labelled, parts_NC), torch.randn(3, 4)
    numbers = torch.from_numpy(labelled.intents)
    known = [0, 2]
    expected = losses.several_intents_loss(logits[known], parts_NC[numbers[known]])
    assert work._intent_loss(logits, numbers) == expected > 0
    assert work._intent_loss(logits[1:2], numbers[1:2]) == 0


# -- learning and reading


def test_pairs_of_intents_and_their_entities_are_learnt(model):
    assert model.intents == PARTS
    predictor = predictor_of_model(model)
    report = evaluate(predictor, DEV, show_progress=False)
    assert report.intent_accuracy > 0.95 and report.span_f1 > 0.95
    assert {p.intent.count("+") for p in predictor.parse([u.text for u in DEV])} == {0, 1}


def test_data_of_one_intent_a_text_are_learnt_too():
    train, dev = ([u for u in rows if "+" not in u.intent] for rows in (TRAIN, DEV))
    model = _finetune(train, dev, training=TRAINING | {"epochs": 15})[0]
    assert evaluate(predictor_of_model(model), dev, show_progress=False).intent_accuracy > 0.95


def test_the_order_of_parts_in_a_label_means_nothing():
    turned = [replace(u, intent=" + ".join(reversed(u.intent.split("+")))) for u in TRAIN]
    assert label_facts.sort_intents(turned, "+") == label_facts.sort_intents(TRAIN, "+") != turned
    assert label_facts.sort_intents(turned, None) == turned
    short = {"training": TRAINING | {"epochs": 1}}
    one, other = (_finetune(rows, DEV, **short)[0] for rows in (TRAIN, turned))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def _reader(predictor, logits, **options):
    """Return a predictor that reads these intent logits, by text."""
    by_ids = {tuple(predictor.tokenizer.encode(text).token_ids): row for text, row in logits.items()}

    class Backend:
        workers = 1

        def run(self, batch):
            out = predictor.backend.run(batch)
            rows = [by_ids[tuple(encoding.token_ids)] for encoding in batch.encodings]
            return ModelOutput(out.sentence_embedding_BD, np.array(rows, np.float32), out.tag_logits_BTL)

    options = {"intent_separator": "+"} | options
    return Predictor(predictor.tokenizer, Backend(), 128, 64, predictor.intents, predictor.tags, **options)


def test_every_intent_from_one_half_on_is_read_at_least_the_likeliest(model):
    predictor = predictor_of_model(model)

    def read(logits, **options):
        prediction = _reader(predictor, {"play jazz": logits}, **options)("play jazz")
        return prediction.intent, round(prediction.score, 4)

    assert read([-1, 0.5, 2, -3]) == ("lights_off+play_music", 0.6225)  # as sure as its less probable one
    assert read([-1, 0.0, 2, -3]) == ("lights_off+play_music", 0.5)
    assert read([-1, -0.1, 2, -3]) == ("play_music", 0.8808)
    assert read([-1, -2, -3, -4]) == ("alarm", 0.2689)
    assert read([-1, 0.5, 2, -3], intent_separator=" & ") == ("lights_off & play_music", 0.6225)
    assert read([100, 100, 100, -1000]) == ("alarm+lights_off+play_music", 1.0)
    assert read([-1, -2, -3, -4], intent_threshold=0.3) == (OUT_OF_SCOPE, 0.2689)
    assert read([-1, 0.5, 2, -3], intent_threshold=0.8) == ("lights_off+play_music", 0.6225)  # one is above it
    assert read([-1, 0.5, 1, -3], intent_threshold=0.8) == (OUT_OF_SCOPE, 0.7311)
    assert read([-1, 0.5, 2, -3], intent_separator=None)[0] == "play_music"


def test_a_text_in_windows_has_the_intents_of_all_its_windows(model):
    predictor, text = predictor_of_model(model), "play some jazz and then wake me at nine " * 6
    windows = Windows(predictor.tokenizer, text, 24)
    outputs = [predictor.backend.run(batch) for batch in windows.batches(2)]
    each_WC = np.concatenate([output.intent_logits_BC for output in outputs])
    assert len(each_WC) > 2
    merged = windows.merge(outputs, several_intents=True).intent_logits_BC
    assert np.array_equal(merged, each_WC.max(axis=0, keepdims=True))
    assert windows.merge(outputs).intent_logits_BC.tolist() in each_WC[:, None].tolist()
    heads = (predictor.intents, predictor.tags)
    reader = Predictor(predictor.tokenizer, predictor.backend, 24, 64, *heads, intent_separator="+")
    assert reader(text).intent == "alarm+play_music"


def test_the_threshold_is_chosen_on_dev_by_the_likeliest_intent(folder, monkeypatch):
    model = MultiTaskModel.load(folder)
    read = {"play it": [-9, -9, 3, -9], "play it in the dark": [-9, 0.1, 4, -9], "the dark": [-9, -9, 0.5, -9]}
    monkeypatch.setattr(finetuning, "predictor_of_model", lambda model: _reader(predictor_of_model(model), read))
    gold = ["play_music", "lights_off+play_music", OUT_OF_SCOPE]
    dev = [Utterance(text, intent) for text, intent in zip(read, gold, strict=True)]
    found = finetuning.choose_threshold(model, dev)
    assert found["intent_accuracy"] == [pytest.approx(2 / 3), 1.0]  # though an answer is less sure than what is refused
    assert found["threshold"] == model.config.intent_threshold == pytest.approx((0.6225 + 0.9526) / 2, abs=1e-4)
    reader = _reader(predictor_of_model(model), read, intent_threshold=found["threshold"])
    assert [p.intent for p in reader.parse(list(read))] == gold


# -- disk, ONNX, HTTP


def test_a_folder_and_its_export_read_as_the_model_does(model, folder, tmp_path):
    texts = [u.text for u in (*DEV[:60], *NEVER_TOGETHER)]
    expected = [(p.intent, p.entities) for p in predictor_of_model(model).parse(texts)]
    assert weebill.verify(folder).ok
    assert json.loads((folder / "heads" / "config.json").read_text())["heads"]["intent_separator"] == "+"
    report = export_onnx(folder, tmp_path / "onnx", DEV[:60])
    assert report.ok
    accuracy = next(check for check in report.checks if check.name == "intent accuracy")
    assert accuracy.exported == accuracy.original > 0.9
    assert weebill.verify(tmp_path / "onnx").ok
    assert export_onnx(folder, tmp_path / "int8", DEV[:60], int8=True).ok
    for name, backend in ((folder, "torch"), (tmp_path / "onnx", "onnx")):
        got = weebill.load(name, backend).parse(texts)
        assert [p.intent for p in got] == [intent for intent, _ in expected]
        assert [[(e.start, e.end, e.label) for e in p.entities] for p in got] == [
            [(e.start, e.end, e.label) for e in entities] for _, entities in expected
        ]


def test_an_export_that_reads_another_intent_beside_the_likeliest_is_seen():
    a = np.array([[3.0, 1.0, -1.0], [3.0, 1e-9, -2.0]], dtype=np.float32)
    assert _count_sides(a, a) == 0
    assert _count_sides(a, np.array([[3.0, -1.0, 1.0], [3.0, -1e-9, -2.0]], dtype=np.float32)) == 2


def test_the_graph_says_how_its_intents_are_to_be_read(folder):
    import onnx

    stored = artifact.read_model(folder)
    properties = {p.key: p.value for p in onnx.load_from_string(build_graph(stored, False)).metadata_props}
    assert properties["weebill.intent_separator"] == '"+"'
    plain = replace(stored.heads, config=stored.heads.config.model_copy(update={"intent_separator": None}))
    body = build_graph(replace(stored, heads=plain), False)
    assert not any("separator" in p.key for p in onnx.load_from_string(body).metadata_props)


def test_a_folder_of_a_model_without_the_option_does_not_mention_it(tmp_path):
    rows = [u for u in TRAIN if "+" not in u.intent][:32]
    _finetune(rows, rows, heads={}, training=TRAINING | {"epochs": 1})[0].save(tmp_path / "model")
    assert "separator" not in (tmp_path / "model" / "heads" / "config.json").read_text()  # as an older weebill wrote it


def test_the_server_ranks_the_answer_then_each_intent_by_its_own_probability(model):
    predictor, text = predictor_of_model(model), "play some jazz and turn off the kitchen lights"
    reading = read_texts(predictor, [text], labels=True)[0]
    answer = _parsed(reading, predictor.intents, utf16=False)
    first, *ranking = answer["intent_ranking"]
    assert answer["intent"] == first
    assert first["name"] == reading.prediction.intent == "lights_off+play_music"
    assert {row["name"] for row in ranking} == set(PARTS)
    ids, mask = (torch.tensor([x]) for x in (reading.encoding.token_ids, [True] * len(reading.encoding.token_ids)))
    with torch.inference_mode():
        chances = dict(zip(PARTS, torch.sigmoid(model(ids, mask)[1])[0].tolist(), strict=True))
    assert {row["name"]: row["confidence"] for row in ranking} == pytest.approx(chances, abs=1e-5)
    assert [row["confidence"] for row in ranking] == sorted((row["confidence"] for row in ranking), reverse=True)
    assert first["confidence"] == pytest.approx(min(chances["lights_off"], chances["play_music"]), abs=1e-5)


# -- scores


def test_scores_are_scikit_learns_of_many_labels(model):
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support
    from sklearn.preprocessing import MultiLabelBinarizer

    predictor, rows = predictor_of_model(model), [*DEV[:60], *NEVER_TOGETHER]
    turned = [replace(u, intent="+".join(reversed(u.intent.split("+")))) for u in rows]
    report = evaluate(predictor, turned, show_progress=False)
    found = predictor.parse([u.text for u in rows])
    coder = MultiLabelBinarizer(classes=PARTS)
    gold, got = (coder.fit_transform([x.intent.split("+") for x in some]) for some in (rows, found))
    assert report.intent_accuracy == pytest.approx(accuracy_score(gold, got)) and 0.5 < report.intent_accuracy < 1
    assert report.intent_macro_f1 == pytest.approx(f1_score(gold, got, average="macro", zero_division=0))
    values = precision_recall_fscore_support(gold, got, zero_division=0)
    assert list(report.by_intent) == PARTS
    for i, name in enumerate(PARTS):
        one = report.by_intent[name]
        assert (one.precision, one.recall, one.f1, one.gold) == pytest.approx([v[i] for v in values])
    # resampled, too
    drawn = np.random.default_rng(0).integers(len(rows), size=len(rows))
    counts = np.bincount(drawn, minlength=len(rows))[None].astype(float)
    macro = next(s for name, s, _ in statistics(turned, found, "+") if name == "intent_macro_f1")
    assert float(macro(counts)[0]) == pytest.approx(f1_score(gold[drawn], got[drawn], average="macro", zero_division=0))


def test_exact_match_asks_for_the_whole_set():
    rows = [Utterance("x", "b+a", ()), Utterance("y", "a+b", ()), Utterance("z", "a", ())]
    read = [Prediction("x", "a+b", 1.0), Prediction("y", "a", 1.0), Prediction("z", "a+b", 1.0)]
    found = {name: float(s(np.ones((1, n)))[0]) for name, s, n in statistics(rows, read, "+")}
    assert found["intent_accuracy"] == found["exact_match"] == pytest.approx(1 / 3)
    assert {name: float(s(np.ones((1, n)))[0]) for name, s, n in statistics(rows, read)}["exact_match"] == 0
    assert scores_by_intent([], [], "+") == {}


def test_the_page_shows_sets_and_counts_parts(model):
    evaluation = evaluate_in_detail(predictor_of_model(model), [*DEV[:20], *NEVER_TOGETHER], show_progress=False)
    body = page(evaluation, "several", "rows")
    assert "a text is right with all its intents and no other; macro-F1" in body
    assert "lights_off+weather" in body and 'class="intent wrong"' in body
    wrong = {(u.intent, p.intent) for u, p in zip(evaluation.utterances, evaluation.predictions, strict=True)
             if u.intent != p.intent}  # fmt: skip
    assert f"{len(set().union(*wrong))} of " in body


def test_the_ledger_names_parts_that_are_unknown_and_not_sets():
    rows = [Utterance("x", "alarm+weather", source="f:1"), Utterance("y", "alarm+whether", source="f:2")]
    (entry,) = evaluation_ledger([], [], rows, PARTS, [], "+")
    assert (entry.kind, entry.label, entry.source) == ("intent unknown", "whether", "f:2")
    assert "perhaps 'weather' is meant" in entry.fix


def test_models_that_join_intents_otherwise_are_not_compared():
    a, b = (SimpleNamespace(intent_separator=mark) for mark in "+|")
    with pytest.raises(ConfigError, match=r"expected models that join intents in one way, got \+ and \| as"):
        compare_on_utterances(a, b, [Utterance("x", "a+b")])
    with pytest.raises(DataError, match="expected utterances to compare on, got none"):
        compare_on_utterances(a, a, [])


def test_models_are_compared_by_sets_where_one_of_them_reads_several(model):
    plain = weebill.load()
    rows = [Utterance("play some jazz and wake me at nine", "play_music+alarm")]
    found = {d.name: (d.a, d.b) for d in compare_on_utterances(plain, predictor_of_model(model), rows)}
    assert found["intent_accuracy"] == (0.0, 1.0)


# -- what is refused


def test_labels_with_an_empty_part_are_named():
    rows = [*DEV[:20], Utterance("x", "alarm+", source="f.jsonl:7"), Utterance("y", "c++", source="f.jsonl:8")]
    with pytest.raises(DataError, match=r"separator = '\+': .* got none in f\.jsonl:7 \('alarm\+'\), f\.jsonl:8"):
        _finetune(rows, DEV)
    with pytest.raises(DataError, match="1 more"):
        label_facts.sort_intents([rows[-1]] * (label_facts.SHOWN_PLACES + 1), "+")


def test_what_does_not_go_together_is_refused(model, folder):
    with pytest.raises(ConfigError, match=r"heads\.intent_separator is for `weebill finetune`"):
        parse_recipe({"teachers": ["t"], "heads": {"intent_separator": "+"}}, DistillRecipe, "test")
    with pytest.raises(ConfigError, match="teachers: expected models that read one intent in a text"):
        read_joint_teacher(folder)
    for bad in ("", "a b"):
        with pytest.raises(ConfigError, match="intent_separator"):
            parse_recipe({"heads": {"intent_separator": bad}}, FinetuneRecipe, "test")
    with pytest.raises(ArtifactError, match="several intents of a text, which the page does not know"):
        web_export._files(predictor_of_model(model), folder, "several", [])
    head = {"start": str(folder), "freezing": {"intent_head": True}}
    _finetune(TRAIN, DEV, **head, training=TRAINING | {"epochs": 1})
    single = [u for u in TRAIN if "+" not in u.intent]
    with pytest.raises(ConfigError, match=r"freezing\.intent_head: expected start"):
        _finetune(single, single, **head, heads={})  # the same intents, read by softmax


# -- from the command line, with Rasa's labels


def test_from_rasas_file_to_answers_on_the_command_line(tmp_path, monkeypatch, caplog):
    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, (result.exception, result.output)
        return result.stdout

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.yaml").write_text(GRAMMAR)
    run("data", "generate", "pairs.yaml", "--count", 600, "--output", "train.jsonl")
    run("data", "convert", "train.jsonl", "--output", "nlu.yml")
    assert "- intent: play_music+lights_off" in (tmp_path / "nlu.yml").read_text()
    caplog.set_level(logging.WARNING, logger="weebill")
    assert {u.intent for u in read_utterances("nlu.yml")} == {u.intent for u in TRAIN}
    assert not caplog.records  # nothing of the labels is lost
    write_spans(tmp_path / "dev.jsonl", DEV)
    sets = [f"training.{key}={value}" for key, value in TRAINING.items()]
    sets += [f"encoder.{key}={value}" for key, value in SMALL.items()]
    sets += ['data.train=["nlu.yml"]', "heads.intent_separator=+", "vocab_size=600"]
    words = [word for one in sets for word in ("--set", one)]
    run("finetune", "joint", *words, "--data-root", ".", "--output", "model")
    scores = run("evaluate", "model", "--data", "dev.jsonl", "--min", "intent_accuracy=0.9", "--json", "scores.json")
    assert "a text is right with all its intents and no other" in " ".join(scores.split())
    assert set(json.loads((tmp_path / "scores.json").read_text())["by_intent"]) == set(PARTS)
    run("export", "model", "--output", "onnx", "--data", "dev.jsonl")
    answers = [json.loads(run("parse", name, "put blues on and set an alarm for six")) for name in ("model", "onnx")]
    assert [answer["intent"] for answer in answers] == ["alarm+play_music"] * 2
