"""The command line as a user meets it: real processes, exit codes, messages, files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from weebill import templates
from weebill.config import EncoderConfig, HeadsConfig
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer
from weebill.tags import tag_vocabulary
from weebill.tokenizer import Tokenizer


def run(*arguments, stdin=None, cwd=None):
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "weebill", *map(str, arguments)],
        input=stdin, capture_output=True, encoding="utf-8", env=environment, cwd=cwd,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "nlu"
    rows = templates.generate()[0]
    encoder = SentenceTransformer(EncoderConfig(num_layers=1), Tokenizer.packaged())
    tags = tag_vocabulary({e.label for u in rows for e in u.entities})
    MultiTaskModel(encoder, sorted({u.intent for u in rows}), tags, HeadsConfig()).save(folder)
    return folder


def test_help_teaches_and_imports_no_torch():
    assert "weebill demo" in run("--help").stdout
    for command in ("pretrain", "finetune", "evaluate", "parse", "embed", "demo"):
        assert run(command, "--help").returncode == 0
    code = "import sys, weebill.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parse_writes_one_row_per_input_line(model, tmp_path):
    (tmp_path / "in.txt").write_text("wake me up\n\nplay 🎵 jazz\n", encoding="utf-8")
    done = run("parse", model, "--input", tmp_path / "in.txt", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [r["text"] for r in rows] == ["wake me up", "", "play 🎵 jazz"]
    assert set(rows[0]) == {"text", "intent", "intent_score", "entities"}
    piped = run("parse", model, stdin="wake me up\n\nplay 🎵 jazz")
    assert [json.loads(line) for line in piped.stdout.splitlines()] == rows
    for row in rows:
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]


def test_embed_writes_npy(model, tmp_path):
    done = run("embed", model, "one", "two words", "--output", tmp_path / "v.npy")
    assert done.returncode == 0, done.stderr
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (2, 64) and vectors.dtype == np.float32
    lines = run("embed", model, "one").stdout.splitlines()
    assert np.allclose(json.loads(lines[0]), vectors[0], atol=1e-5)


def test_evaluate_writes_a_report(model, tmp_path):
    done = run("evaluate", model, "--output", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows"] == len(templates.generate()[1])
    assert 0 <= report["intent_accuracy"] <= 1 and "intent accuracy" in done.stdout


def test_tokenizer_commands(tmp_path):
    (tmp_path / "corpus.txt").write_text("wake me up at nine\n" * 50, encoding="utf-8")
    done = run(
        "tokenizer", "train", "--input", tmp_path / "corpus.txt", "--vocab-size", 270, "--output", tmp_path / "t"
    )
    assert done.returncode == 0, done.stderr
    assert Tokenizer.load(tmp_path / "t").vocab_size == 270
    assert "[CLS]" in run("tokenizer", "encode", tmp_path / "t", "wake me").stdout


SPAN = '{"text": "hi there", "intent": "greet", "spans": [{"start": 3, "end": 99, "label": "x"}]}\n'
BAD_INPUT = {
    "missing file": (["evaluate", "MODEL", "--data", "nowhere.jsonl"], None, "nowhere.jsonl"),
    "empty file": (["evaluate", "MODEL", "--data", "data.jsonl"], "", "data.jsonl"),
    "malformed line": (["evaluate", "MODEL", "--data", "data.jsonl"], '{"text": "a"}\n{"text": \n', "data.jsonl:2"),
    "unknown split": (
        ["evaluate", "MODEL", "--data", "data.jsonl", "--split", "deV"],
        '{"id":"1","locale":"en-US","partition":"dev","scenario":"a","intent":"i","utt":"hi","annot_utt":"hi"}\n',
        "deV",
    ),
    "span outside": (["evaluate", "MODEL", "--data", "data.jsonl"], SPAN, "data.jsonl:1"),
    "unknown format": (["evaluate", "MODEL", "--data", "data.jsonl", "--format", "xml"], SPAN, "xml"),
    "unknown key": (["finetune", "massive", "--set", "training.epoch=1", "--output", "out"], None, "training.epochs"),
    "missing data": (["finetune", "massive", "--data-root", "absent", "--output", "out"], None, "absent"),
    "missing pairs": (["pretrain", "sts-qqp", "--data-root", "absent", "--output", "out"], None, "absent"),
    "no model": (["parse", "data.jsonl", "hi"], SPAN, "expected a weebill model folder, got a file"),
    "no model to embed": (["embed", "absent", "hi"], None, "got nothing there"),
    "texts twice": (["parse", "MODEL", "hi", "--input", "data.jsonl"], SPAN, "leave one out"),
    "missing start": (["finetune", "demo-finetune", "--set", "start=absent", "--output", "out"], None, "absent"),
    "missing corpus": (["tokenizer", "train", "--input", "absent.txt", "--output", "out"], None, "absent.txt"),
    "tiny vocabulary": (
        ["tokenizer", "train", "--input", "data.jsonl", "--vocab-size", "9", "--output", "out"], SPAN, "260",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT, ids=str)
def test_bad_input_gives_one_message_and_exit_code_2(case, model, tmp_path):
    arguments, body, message = BAD_INPUT[case]
    if body is not None:
        (tmp_path / "data.jsonl").write_text(body, encoding="utf-8")
    before = sorted(p.name for p in tmp_path.iterdir())
    done = run(*[model if a == "MODEL" else a for a in arguments], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == before
