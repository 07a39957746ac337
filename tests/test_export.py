"""Export: the graph gives what torch gives, padded or not; else it is not written; other libraries read theirs."""

import json
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

import weebill
from weebill import onnx_graph, templates
from weebill.artifact import read_model
from weebill.backend import OnnxBackend, _is_finite, run_all
from weebill.cli import app
from weebill.config import EncoderConfig, HeadsConfig
from weebill.errors import ArtifactError, ConfigError, MissingExtraError
from weebill.evaluate import evaluate
from weebill.export import Check, export_onnx, export_sentence_transformers, export_tiktoken
from weebill.golden import GOLDEN_TEXTS
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer
from weebill.tags import tag_vocabulary
from weebill.tokenizer import Tokenizer

ROWS = templates.generate()[1][::14]
TEXTS = [*GOLDEN_TEXTS, *(u.text for u in ROWS[:40])]
SMALL = {"num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 48, "embedding_dim": 24}


def build(heads, **config):
    torch.manual_seed(0)
    encoder = SentenceTransformer(EncoderConfig(**SMALL | config), Tokenizer.packaged())
    model = encoder
    if heads:
        labels = {e.label for u in ROWS for e in u.entities}
        intents = sorted({u.intent for u in ROWS})
        model = MultiTaskModel(encoder, intents, tag_vocabulary(labels), HeadsConfig(lstm_dim=12, mlp_dim=20))
    for name, parameter in model.named_parameters():  # away from zeros and ones, so that a weight left out shows
        if not name.endswith("word_embeddings.weight"):
            torch.nn.init.normal_(parameter, mean=1.0 if "norm.weight" in name else 0.0, std=0.3)
    return model


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint") / "model"
    build(True, pooling="mean").save(folder)
    return folder


@pytest.fixture(scope="module")
def exported(joint):
    report = export_onnx(joint, joint.with_name("onnx"), ROWS)
    assert report.ok, report.problems()
    return joint.with_name("onnx")


def outputs(predictor, texts):
    """Return embeddings, intent logits and the tag logits of all tokens, in the order of the texts."""
    found = {}
    for rows, batch, output in predictor.outputs(texts):
        for i, row in enumerate(rows.tolist()):
            length = len(batch.encodings[i].token_ids)
            logits = (
                ()
                if output.intent_logits_BC is None
                else (output.intent_logits_BC[i], output.tag_logits_BTL[i, :length])
            )
            found[row] = [output.sentence_embedding_BD[i], *logits]
    return [np.concatenate([np.atleast_2d(found[i][k]) for i in range(len(texts))]) for k in range(len(found[0]))]


@pytest.mark.parametrize("heads", [True, False], ids=["heads", "encoder"])
@pytest.mark.parametrize(
    "config",
    [{"pooling": "cls"}, {"pooling": "mean", "layer_norm_eps": 1e-5}, {"projection": False, "embedding_dim": 32}],
    ids=["cls", "mean", "no projection"],
)
def test_the_graph_gives_what_torch_gives_alone_and_in_any_batch(heads, config, tmp_path):
    build(heads, **config).save(tmp_path / "model")
    report = export_onnx(tmp_path / "model", tmp_path / "onnx", ROWS)
    assert report.ok, report.problems()
    original, onnx_model = weebill.load(tmp_path / "model"), weebill.load(tmp_path / "onnx")
    assert isinstance(onnx_model.backend, OnnxBackend) and not isinstance(original.backend, OnnxBackend)
    expected = outputs(original, TEXTS)
    assert len(expected) == (3 if heads else 1)
    alone = [np.concatenate(rows) for rows in zip(*(outputs(onnx_model, [text]) for text in TEXTS), strict=True)]
    for want, together, one_by_one in zip(expected, outputs(onnx_model, TEXTS), alone, strict=True):
        assert np.abs(want - together).max() < 2e-5 and np.abs(want - one_by_one).max() < 2e-5
    assert weebill.verify(tmp_path / "onnx").ok
    read_back = weebill.load(tmp_path / "onnx", backend="torch")
    for want, got in zip(expected, outputs(read_back, TEXTS), strict=True):
        assert np.abs(want - got).max() < 2e-5
    if heads:
        a, b = original.parse(TEXTS), onnx_model.parse(TEXTS)
        assert [(p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in a] == [
            (p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in b
        ]
        assert any(p.entities for p in a) and len({p.intent for p in a}) > 1
        assert evaluate(original, ROWS).tag_loss == pytest.approx(evaluate(onnx_model, ROWS).tag_loss, abs=1e-5)


def test_a_bert_of_somebody_else_exports_with_its_tokenizer(bert_folder, tmp_path):
    SentenceTransformer.from_bert(bert_folder).save(tmp_path / "model")
    assert export_onnx(tmp_path / "model", tmp_path / "onnx", ROWS).ok
    original, onnx_model = weebill.load(tmp_path / "model"), weebill.load(tmp_path / "onnx")
    assert np.abs(original.embed(TEXTS) - onnx_model.embed(TEXTS)).max() < 2e-5


def test_one_file_of_standard_operators_with_its_labels_inside(joint, exported):
    assert not list(exported.rglob("*.safetensors"))
    model = onnx.load(str(exported / "model.onnx"), load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""}
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    assert [(node.name, node.type, node.shape) for node in session.get_inputs()] == [
        ("input_ids", "tensor(int64)", ["batch", "length"]), ("attention_mask", "tensor(int64)", ["batch", "length"]),
    ]  # fmt: skip
    assert [node.name for node in session.get_outputs()] == ["sentence_embedding", "intent_logits", "slot_logits"]
    metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    heads = json.loads((joint / "heads" / "config.json").read_text())
    assert metadata["weebill.intents"] == heads["intents"] and metadata["weebill.tags"] == heads["tags"]
    assert (metadata["weebill.weights"], metadata["weebill.max_seq_len"], metadata["weebill.pad_id"]) == (
        "float32",
        128,
        0,
    )
    assert onnx_graph.build_graph(read_model(joint)) == (exported / "model.onnx").read_bytes()  # the same bytes again


def test_the_folder_records_what_was_checked(joint, exported):
    meta = json.loads((exported / "weebill.json").read_text())
    checks = {check["name"]: check for check in meta["onnx"]["checks"]}
    assert checks["texts with another intent"]["exported"] == 0 and meta["onnx"]["texts"] == len(GOLDEN_TEXTS) + len(
        ROWS
    )
    assert checks["largest difference of an output"]["exported"] < 1e-5
    assert meta["encoder"] == json.loads((joint / "weebill.json").read_text())["encoder"]
    assert "model.onnx" in meta["files"]


def test_int8_is_a_third_of_the_size_and_still_knows_no_neighbours(joint, tmp_path):
    report = export_onnx(joint, tmp_path / "int8", ROWS, int8=True)
    # random weights decide by a hair, so their scores may fall by more than a trained model's
    assert {c.name for c in report.checks if not c.ok} <= {
        "intent accuracy",
        "span F1 (strict)",
        "exact match (strict)",
    }
    whole = onnx_graph.build_graph(read_model(joint))
    small = onnx_graph.build_graph(read_model(joint), int8=True)
    assert len(small) < len(whole) / 3
    batch = Tokenizer.packaged().encode_batch(TEXTS)
    backend = OnnxBackend(small)
    together = backend.run(batch)
    for i, text in enumerate(TEXTS):
        one = backend.run(Tokenizer.packaged().encode_batch([text]))
        assert np.abs(one.sentence_embedding_BD[0] - together.sentence_embedding_BD[i]).max() < 1e-5
        length = one.tag_logits_BTL.shape[1]
        assert np.abs(one.tag_logits_BTL[0] - together.tag_logits_BTL[i, :length]).max() < 1e-5
    original = OnnxBackend(whole).run(batch).sentence_embedding_BD
    apart = np.abs(original - together.sentence_embedding_BD).max() / np.abs(original).max()
    assert 1e-4 < apart < 0.1


@given(arrays(np.float32, (5, 7), elements=st.floats(-100, 100, width=32)))
@example(np.full((5, 7), 8.4e-42, np.float32))
def test_int8_is_off_by_half_a_step_at_most(array):
    whole, scale = onnx_graph.to_int8(array, axis=1)
    assert whole.dtype == np.int8 and scale.shape == (5, 1) and np.abs(whole.astype(int)).max() <= 127
    assert (np.abs(whole * scale - array) <= scale * 0.501).all()


def test_int8_needs_labels_of_the_model(joint, tmp_path):
    foreign = [weebill.Utterance("hello", "an_intent_of_others", ())]
    with pytest.raises(
        ConfigError, match=r"--int8: expected utterances with intents of this model.*got 0 of 1.*--data"
    ):
        export_onnx(joint, tmp_path / "int8", foreign, int8=True)
    assert not (tmp_path / "int8").exists()


def test_int8_that_loses_too_much_is_refused(tmp_path, monkeypatch):
    model = build(True)
    model.save(tmp_path / "model")
    learned = [weebill.Utterance(p.text, p.intent, p.entities) for p in weebill.load(tmp_path / "model").parse(TEXTS)]
    monkeypatch.setattr(
        onnx_graph, "to_int8", lambda a, axis: (np.sign(a).astype(np.int8), np.abs(a).mean(axis, keepdims=True))
    )
    report = export_onnx(tmp_path / "model", tmp_path / "int8", learned, int8=True)
    assert not report.ok and not (tmp_path / "int8").exists()
    assert any(
        problem.startswith("span F1 (strict): expected at most 0.01 lost, got ") for problem in report.problems()
    )


def test_a_graph_that_computes_something_else_is_not_written(joint, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "_lstm_gates", lambda array: array)  # torch's order of gates
    report = export_onnx(joint, tmp_path / "onnx", ROWS)
    assert {c.name for c in report.checks if not c.ok} >= {"largest difference of an output", "tokens with another tag"}
    assert not list(tmp_path.iterdir())
    shutil.copytree(joint, tmp_path / "older")
    result = CliRunner().invoke(app, ["export", str(joint), "--output", str(tmp_path / "older")])
    assert result.exit_code == 1 and "tokens with another tag: expected at most 0, got" in result.output
    assert "nothing was written" in result.output
    assert (tmp_path / "older" / "model.safetensors").is_file() and weebill.verify(tmp_path / "older").ok


def test_a_graph_that_computes_nan_is_not_written(joint, tmp_path, monkeypatch):
    norm = onnx_graph._Graph.norm  # with the root of a negative number
    monkeypatch.setattr(onnx_graph._Graph, "norm", lambda self, x, name, _, *more: norm(self, x, name, -1e9, *more))
    with pytest.raises(ArtifactError, match="expected finite outputs of the shapes"):
        export_onnx(joint, str(tmp_path / "onnx"), ROWS)
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("shape", [(1, 3, 5), (64, 16, 11)])
def test_every_number_that_is_none_is_seen(shape):
    numbers = np.full(shape, 1e30, np.float32)  # whose squares are too large
    assert _is_finite(numbers)
    for bad in (np.nan, np.inf, -np.inf):
        numbers[0, 1, 2] = bad
        assert not _is_finite(numbers)


def test_padding_that_changes_a_text_is_not_written(joint, tmp_path, monkeypatch):
    build_nodes = onnx_graph._heads

    def careless(graph, hidden, lstm_dim):  # an LSTM that reads every row to the end of the batch
        build_nodes(graph, hidden, lstm_dim)
        next(node for node in graph.nodes if node.op_type == "LSTM").input[4] = ""

    monkeypatch.setattr(onnx_graph, "_heads", careless)
    report = export_onnx(joint, tmp_path / "onnx", ROWS)
    assert "a text alone against in a batch" in {c.name for c in report.checks if not c.ok}
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        (Check("a", "share", 2e-4, allowed=1e-4), False),
        (Check("a", "share", float("nan"), allowed=1e-4), False),
        (Check("a", "fraction", 0.80, original=0.82, allowed=0.01), False),
        (Check("a", "fraction", 0.82, original=0.80, allowed=0.01), True),  # better is no loss
        (Check("a", "ms", 9.0, original=1.0), True),
    ],
)
def test_what_a_check_allows(check, ok):
    assert check.ok is ok


def test_a_changed_model_is_not_exported(joint, tmp_path):
    changed = shutil.copytree(joint, tmp_path / "changed")
    (changed / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"expected a model as it was written, got one .* changed: config\.json"):
        export_onnx(changed, tmp_path / "onnx", ROWS)
    with pytest.raises(ConfigError, match="expected another folder than the model's own"):
        export_onnx(joint, joint, ROWS)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="expected a new or empty folder, or a weebill model to replace"):
        export_onnx(joint, tmp_path / "notes", ROWS)


def test_which_backend_runs_a_folder(joint, exported, tmp_path, monkeypatch):
    both = shutil.copytree(joint, tmp_path / "both")
    shutil.copy(exported / "model.onnx", both)
    backends = [weebill.load(folder, backend).backend for folder, backend in (
        (both, None), (both, "onnx"), (both, "torch"), (exported, "onnx"))]  # fmt: skip
    assert [isinstance(backend, OnnxBackend) for backend in backends] == [False, True, False, True]
    with pytest.raises(ConfigError, match="backend: expected torch or onnx, got 'tensorflow'"):
        weebill.load(joint, "tensorflow")
    with pytest.raises(ArtifactError, match=r"expected model\.onnx for the ONNX backend.*weebill export .* --output"):
        weebill.load(joint, "onnx")
    assert not isinstance(weebill.load(exported, "torch").backend, OnnxBackend)  # its weights are read from the graph
    assert MultiTaskModel.load(exported).whole_words == MultiTaskModel.load(joint).whole_words
    monkeypatch.setitem(sys.modules, "torch", None)
    assert isinstance(weebill.load(both).backend, OnnxBackend)
    with pytest.raises(
        MissingExtraError, match=r"no model\.onnx.*'weebill\[train\]'.*weebill export.*'weebill\[onnx\]'"
    ):
        weebill.load(joint)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime, which is not installed.*'weebill\[onnx\]'"):
        weebill.load(exported)


def test_a_damaged_or_foreign_graph_is_refused(joint, exported, tmp_path):
    damaged = shutil.copytree(exported, tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes((exported / "model.onnx").read_bytes()[:5000])
    with pytest.raises(ArtifactError, match=r"model\.onnx: expected an ONNX graph, got: .*export it again"):
        weebill.load(damaged)
    problems = weebill.verify(damaged).problems()
    assert problems[0].startswith("model.onnx: expected the file as it was written, got it changed")
    (damaged / "model.onnx").write_bytes(onnx_graph.build_graph(read_model(joint)))
    labels = json.loads((damaged / "heads" / "config.json").read_text())
    (damaged / "heads" / "config.json").write_text(json.dumps(labels | {"intents": ["a", "b"]}))
    with pytest.raises(ArtifactError, match=r"expected outputs of the widths .*'intent_logits': 2.* not of one model"):
        weebill.load(damaged)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", [x], [y])
    other = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(ArtifactError, match=r"expected inputs input_ids, attention_mask and outputs .*, got x and y"):
        OnnxBackend(other.SerializeToString())


def test_batches_come_back_in_order_from_any_number_of_threads(exported):
    backend = weebill.load(exported).backend
    batches = [(i, Tokenizer.packaged().encode_batch(TEXTS[i : i + 3])) for i in range(40)]
    expected = [backend.run(batch).sentence_embedding_BD for _, batch in batches]
    for workers in (1, 3):
        backend.workers = workers
        found = list(run_all(backend, iter(batches)))
        assert [key for key, _, _ in found] == list(range(40))
        assert all(
            np.array_equal(a, output.sentence_embedding_BD) for a, (_, _, output) in zip(expected, found, strict=True)
        )


def test_sentence_transformers_export_is_the_encoder_alone(joint, tmp_path):
    from sentence_transformers import SentenceTransformer as Peer

    report = export_sentence_transformers(joint, tmp_path / "st", TEXTS)
    assert report.ok and report.notes == [] and len(report.checks) == 3
    assert not (tmp_path / "st" / "heads").exists()
    theirs = Peer(str(tmp_path / "st"), device="cpu").encode(TEXTS)
    assert np.abs(theirs - weebill.load(joint).embed(TEXTS)).max() < 1e-5
    assert weebill.load(tmp_path / "st").intents == []


def test_tiktoken_export_gives_the_same_ids_with_what_it_says(joint, bert_folder, tmp_path):
    import base64

    import tiktoken

    report = export_tiktoken(joint, tmp_path / "tiktoken", TEXTS)
    assert report.ok and report.notes == []
    settings = json.loads((tmp_path / "tiktoken" / "encoding.json").read_text())
    lines = (line.split() for line in (tmp_path / "tiktoken" / "weebill.tiktoken").read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    pattern, special = settings["pat_str"], settings["special_tokens"]
    encoding = tiktoken.Encoding("weebill", pat_str=pattern, special_tokens=special, mergeable_ranks=ranks)
    tokenizer = weebill.load(joint).tokenizer
    assert all(encoding.encode_ordinary(text) == tokenizer.encode_ordinary(text) for text in TEXTS)
    with pytest.raises(ArtifactError, match="expected a byte-level BPE"):
        export_tiktoken(bert_folder, tmp_path / "no", TEXTS)
    Tokenizer.train(TEXTS * 3, 400, split_pattern="[a-z]+").save(tmp_path / "own")  # tiktoken drops what does not match
    refused = export_tiktoken(tmp_path / "own", tmp_path / "no", TEXTS)
    assert not refused.ok and not (tmp_path / "no").exists()


def test_the_model_that_comes_along_is_exported_by_its_name(tmp_path):
    rows = templates.generate()[1][:20]
    assert export_tiktoken("tiny", tmp_path / "tiktoken", ["wake me up at nine am"]).ok
    assert export_sentence_transformers("tiny", tmp_path / "st", [u.text for u in rows]).ok
    report = export_onnx("tiny", tmp_path / "onnx", rows)
    assert report.ok  # in float32, what int8 stood for
    sizes = next(check for check in report.checks if check.name == "size of the weights")
    assert sizes.exported > 3 * sizes.original > 3_000_000
    shipped, exported = weebill.load(), weebill.load(tmp_path / "onnx")
    assert np.abs(shipped.embed([u.text for u in rows]) - exported.embed([u.text for u in rows])).max() < 1e-5
    assert (tmp_path / "onnx" / "model.onnx").stat().st_size > 3 * 2**20
