"""Golden rows and `verify`: what a folder says about itself holds here and in sentence-transformers, damage is seen."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import weebill
from weebill.config import EncoderConfig, HeadsConfig
from weebill.errors import ArtifactError, ConfigError, MissingExtraError
from weebill.golden import GOLDEN_TEXTS, read_golden
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer
from weebill.tokenizer import Tokenizer

SMALL = {"num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 48, "embedding_dim": 24, "dropout": 0.5}


@pytest.fixture(scope="module")
def joint():
    torch.manual_seed(0)
    encoder = SentenceTransformer(EncoderConfig(**SMALL, pooling="mean"), Tokenizer.packaged())
    return MultiTaskModel(encoder, ["alarm", "music", "lists"], ["O", "B-time", "I-time"], HeadsConfig())


@pytest.fixture(scope="module")
def saved(joint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    joint.save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def edit_json(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_golden(folder, row, change):
    lines = (folder / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    value = json.loads(lines[row])
    change(value)
    lines[row] = json.dumps(value)
    (folder / "golden.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def edit_weight(path, name, index, by=0.5):
    arrays = load_file(path)
    arrays[name][index] += by
    save_file(arrays, path, metadata={"format": "pt"})


def test_golden_rows_are_what_the_model_gives_to_each_text_alone(joint, saved):
    rows = read_golden(saved)
    assert [row.text for row in rows] == list(GOLDEN_TEXTS)
    assert len({len(row.token_ids) for row in rows}) > 8  # so that a batch of them is padded
    nlu = weebill.load(saved)
    for row in rows:
        assert row.token_ids == joint.encoder.tokenizer.encode(row.text).token_ids
        assert np.array_equal(row.embedding, nlu.embed([row.text])[0])  # every digit is kept
        assert (row.intent, len(row.entities)) == (nlu(row.text).intent, len(nlu(row.text).entities))
    assert any(row.entities for row in rows)
    report = weebill.verify(saved)
    assert report.ok and set(report.files.values()) == {"same"} and report.max_difference < 1e-5
    assert {"model.safetensors", "heads/model.safetensors", "golden.jsonl", "tokenizer.json"} <= set(report.files)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_sentence_transformers_gives_the_golden_vectors(pooling, tmp_path):
    torch.manual_seed(1)
    SentenceTransformer(EncoderConfig(**SMALL, pooling=pooling), Tokenizer.packaged()).save(tmp_path / "model")
    report = weebill.verify(tmp_path / "model", "sentence-transformers")
    assert report.ok and report.max_difference < 1e-5, report.problems()
    edit_json(tmp_path / "model" / "config.json", lambda config: config.update(layer_norm_eps=0.1))
    problems = weebill.verify(tmp_path / "model", "sentence-transformers").problems()
    assert len(problems) == 1 + len(GOLDEN_TEXTS)  # the file, and every text
    [problem] = weebill.verify(tmp_path / "model").problems()  # weebill reads another file: its vectors are right
    assert problem.startswith("config.json: expected the file as it was written, got it changed; copy the folder again")
    (tmp_path / "model" / "config.json").write_text("{")
    failure = weebill.verify(tmp_path / "model", "sentence-transformers").failure
    assert "expected a folder that sentence-transformers runs, got from it: " in failure


def test_saving_uses_no_dropout_and_leaves_the_model_as_it_was(joint, tmp_path):
    joint.train()
    joint.encoder.layers[0].eval()
    before = [module.training for module in joint.modules()]
    state = torch.get_rng_state()
    joint.save(tmp_path / "model")
    assert [module.training for module in joint.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert weebill.verify(tmp_path / "model").ok


def test_texts_that_do_not_fit_the_model_are_left_out(tmp_path, caplog):
    SentenceTransformer(EncoderConfig(**SMALL, max_seq_len=16), Tokenizer.packaged()).save(tmp_path / "model")
    assert 1 < len(read_golden(tmp_path / "model")) < len(GOLDEN_TEXTS)
    assert weebill.verify(tmp_path / "model").ok and not caplog.messages


def test_one_changed_weight_is_noticed(folder):
    edit_weight(folder / "model.safetensors", "encoder.layer.1.attention.output.dense.bias", 3)
    report = weebill.verify(folder)
    assert report.files["model.safetensors"] == "changed" and not report.ok
    assert all(row.same_ids and row.max_difference > 1e-3 for row in report.rows)
    assert "expected its golden vector within 1e-04, got one " in report.problems()[-1]


def test_a_weight_that_no_golden_text_reaches_is_noticed_by_its_file(folder):
    edit_weight(folder / "model.safetensors", "embeddings.word_embeddings.weight", (3, 0))  # [MASK]
    report = weebill.verify(folder)
    assert report.problems() == [
        "model.safetensors: expected the file as it was written, got it changed; copy the folder again"
    ]


def test_a_changed_head_is_noticed(folder):
    edit_weight(folder / "heads" / "model.safetensors", "intent_head.linear.bias", 0, by=100.0)
    report = weebill.verify(folder)
    assert report.files["heads/model.safetensors"] == "changed"
    assert all(row.max_difference < 1e-5 and row.got.intent == "alarm" for row in report.rows)
    assert "expected intent and entities (" in report.problems()[-1]


def test_changed_merges_are_noticed(folder):
    def swap(value):
        merges = value["model"]["merges"]
        merges[:] = sorted(merges, key=lambda merge: len(merge))

    edit_json(folder / "tokenizer.json", swap)
    report = weebill.verify(folder)
    assert report.files["tokenizer.json"] == "changed"
    differing = [row for row in report.rows if not row.same_ids]
    assert differing and any("the tokenizer differs" in problem for problem in report.problems())
    assert all(row.max_difference > 1e-3 for row in differing)
    edit_json(folder / "tokenizer.json", lambda value: value["model"]["merges"].pop())  # now it cannot even be read
    files, cannot = weebill.verify(folder).problems()
    assert files.startswith("tokenizer.json: expected the file as it was written")
    assert cannot.startswith("the model as it is now cannot run: ") and "tokenizer.json" in cannot


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["embedding"].__setitem__(0, row["embedding"][0] + 0.01), "expected its golden vector"),
        (lambda row: row["embedding"].pop(), "got one inf away"),
        (lambda row: row["token_ids"].append(7), "expected the token ids"),
        (lambda row: row.update(intent="pizza"), r"expected intent and entities \('pizza'"),
        (lambda row: row.update(entities=[{"start": 0, "end": 2, "label": "x"}]), r"\[\(0, 2, 'x'\)\]"),
    ],
)
def test_tampered_golden_rows_are_noticed(folder, change, message):
    edit_golden(folder, 1, change)
    report = weebill.verify(folder)
    assert report.files["golden.jsonl"] == "changed"
    assert [bool(list(row.problems())) for row in report.rows] == [i == 1 for i in range(len(report.rows))]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(report.problems())


def test_removed_rows_and_files_are_noticed(folder):
    lines = (folder / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "golden.jsonl").write_text(lines[0] + "\n", encoding="utf-8")
    (folder / "2_Dense" / "config.json").unlink()
    assert weebill.verify(folder).problems() == [
        "2_Dense/config.json: expected the file as it was written, got it missing; copy the folder again",
        "golden.jsonl: expected the file as it was written, got it changed; copy the folder again",
    ]


def test_a_model_that_lost_its_heads_is_noticed(folder):
    shutil.rmtree(folder / "heads")
    report = weebill.verify(folder)
    assert report.files["heads/config.json"] == report.files["heads/model.safetensors"] == "missing"
    assert not any(row.same_labels for row in report.rows) and report.max_difference < 1e-5


def test_damage_that_stops_the_model_is_told_with_its_cause(folder):
    for change in (lambda row: row.pop("embedding"), lambda row: row.update(embedding=[float("nan")] * 24)):
        edit_golden(folder, 1, change)
        report = weebill.verify(folder)
        assert not report.ok and "golden.jsonl:2: expected a golden text with its token_ids" in report.failure
    (folder / "golden.jsonl").unlink()
    report = weebill.verify(folder)
    assert report.files["golden.jsonl"] == "missing" and "the folder was not copied whole" in report.failure


def test_what_cannot_be_verified_says_why(folder, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="expected a weebill model folder, got nothing there"):
        weebill.verify(tmp_path / "absent")
    with pytest.raises(ConfigError, match="one of weebill, sentence-transformers, got 'onnx'"):
        weebill.verify(folder, "onnx")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match="needs sentence-transformers, which is not installed"):
        weebill.verify(folder, "sentence-transformers")
    edit_json(folder / "weebill.json", lambda meta: meta.pop("files"))  # as weebill wrote it before there were any
    with pytest.raises(ArtifactError, match=r"weebill\.json: expected the checksums .* an older weebill wrote it"):
        weebill.verify(folder)
    assert weebill.load(folder)("hi").intent  # it still loads


def test_every_file_can_be_read_by_other_users(saved):
    assert {path.stat().st_mode & 0o777 for path in saved.rglob("*") if path.is_file()} == {0o644}
