"""The command line as a user meets it: real processes, exit codes, messages, files."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from weebill import templates
from weebill.formats import write_spans
from weebill.schema import Entity, Utterance
from weebill.tokenizer import Tokenizer


def run(*arguments, stdin=None, cwd=None, no_color=True):
    environment = os.environ | {"COLUMNS": "200"} | ({"NO_COLOR": "1"} if no_color else {})
    return subprocess.run(
        [sys.executable, "-m", "weebill", *map(str, arguments)],
        input=stdin, capture_output=True, encoding="utf-8", env=environment, cwd=cwd,
    )  # fmt: skip


def test_help_teaches_and_imports_no_torch():
    assert "weebill demo" in run("--help").stdout
    for command in (
        "pretrain",
        "finetune",
        "distill",
        "compare-freezing",
        "evaluate",
        "parse",
        "embed",
        "verify",
        "export",
        "serve",
        "demo",
    ):
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


def test_evaluate_writes_a_page_and_says_what_no_model_could_find(model, tmp_path):
    rows = [*templates.generate()[1][:20], Utterance("play jazz", "no_such_intent", (Entity(5, 7, "genre"),))]
    write_spans(tmp_path / "rows.jsonl", rows)
    arguments = ("evaluate", model, "--data", tmp_path / "rows.jsonl")
    done = run(*arguments, "--html", tmp_path / "page.html", "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert 'id="errors"' in (tmp_path / "page.html").read_text(encoding="utf-8")
    ledger = json.loads((tmp_path / "report.json").read_text())["ledger"]
    assert {entry["label"] for entry in ledger} >= {"no_such_intent"} and ledger[-1]["source"].endswith("rows.jsonl:21")
    assert "intent unknown" in done.stderr and "no_such_intent" in done.stderr
    (tmp_path / "pairs.tsv").write_text("a\tb\t0\nc\td\t1\n", encoding="utf-8")
    done = run("evaluate", model, "--data", tmp_path / "pairs.tsv", "--html", tmp_path / "page.html")
    assert done.returncode == 2 and "--html: expected labelled utterances, got pairs" in done.stderr


def test_on_overflow_says_what_becomes_of_long_texts(model):
    long = "play jazz " * 200
    read = [run("parse", model, "hi", long, "--on-overflow", policy) for policy in ("window", "truncate", "error")]
    ends = [
        max((e["end"] for e in json.loads(done.stdout.splitlines()[1])["entities"]), default=0) for done in read[:2]
    ]
    assert ends[1] < len(long) / 2 < ends[0] and "what is beyond was not read" in read[1].stderr
    assert read[2].returncode == 2 and "text 2 of 2: expected at most 128 tokens, got 403" in read[2].stderr
    done = run("embed", model, "hi", "--on-overflow", "wrap")
    assert done.returncode == 2 and "on_overflow: expected one of window, truncate, error, got 'wrap'" in done.stderr


def test_evaluate_reads_pairs(model, tmp_path):
    rows = ["a man plays\ta man is playing\t0.9", "a man plays\tit rains\t0.1", "dogs run\ta dog runs\t0.8"]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    arguments = ("evaluate", model, "--data", tmp_path / "pairs.tsv", "--pictures", tmp_path / "pictures")
    done = run(*arguments, "--output", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows"] == 3 and -1 <= report["spearman"] <= 1
    assert report["average_precision"] is None and report["recall_at_1"] in (0, 0.5, 1)
    shown = re.sub(r"[│ ]+", " ", done.stdout)
    low, high = (f"{100 * edge:.2f}" for edge in report["intervals"]["spearman"])
    assert f"Spearman (cosine) {100 * report['spearman']:.2f} {low} to {high}" in shown
    assert "average precision needs labels 0 and 1" in shown
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["map.png", "similarity.png"]


def test_evaluate_reads_positive_pairs(model, tmp_path):
    body = "a man plays\ta man is playing\ndogs run\ta dog runs\n"
    (tmp_path / "positives.tsv").write_text(body, encoding="utf-8")
    done = run("evaluate", model, "--data", tmp_path / "positives.tsv")
    assert done.returncode == 0, done.stderr
    shown = re.sub(r"[│ ]+", " ", done.stdout)
    assert "positive pairs 2 (100.0 %)" in shown and "Spearman (cosine) needs two different scores" in shown
    assert "retrieval: candidates 2" in shown and "recall@1" in shown


def test_evaluate_draws_utterances(model, tmp_path):
    write_spans(tmp_path / "rows.jsonl", templates.generate()[1][:40])
    done = run("evaluate", model, "--data", tmp_path / "rows.jsonl", "--pictures", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_minimum_decides_the_exit_code(model):
    assert run("evaluate", model, "--min", "intent_accuracy=0").returncode == 0
    done = run("evaluate", model, "--min", "intent_accuracy=0", "--min", "exact_match=1")
    assert done.returncode == 1 and "exact_match: expected at least 1, got " in done.stderr
    done = run("evaluate", model, "--min", "exactness=1")
    assert done.returncode == 2 and "--min: expected one of intent_accuracy, " in done.stderr
    done = run("evaluate", model, "--min", "exact_match")
    assert done.returncode == 2 and "--min expects NAME=VALUE, got 'exact_match'" in done.stderr
    done = run("evaluate", model, "--min", "alignment=0.5")  # less is better
    assert done.returncode == 2 and "--min: expected one of intent_accuracy, " in done.stderr


def test_compare_shows_a_model_no_better_than_itself(model):
    done = run("compare", model, model)
    assert done.returncode == 0, done.stderr
    assert "not shown" in done.stdout and "exact match" in done.stdout and "+0.00" in done.stdout


def test_verify_says_whether_a_model_is_what_was_written(model, tmp_path):
    done = run("verify", model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " texts agree, largest difference " in done.stdout and "all 13 files are as written" in done.stdout
    changed = shutil.copytree(model, tmp_path / "changed")
    rows = (changed / "golden.jsonl").read_text(encoding="utf-8").replace('"hi"', '"ho"')
    (changed / "golden.jsonl").write_text(rows, encoding="utf-8")
    done = run("verify", changed)
    assert done.returncode == 1 and done.stderr == ""
    assert "differs: golden.jsonl: expected the file as it was written" in done.stdout
    assert "differs: 'ho': expected the token ids" in done.stdout and "agree" not in done.stdout


def test_export_writes_a_model_that_every_command_reads(model, tmp_path):
    done = run("export", model, "--output", tmp_path / "onnx")
    assert done.returncode == 0, done.stderr
    assert "tokens with another tag" in done.stdout and f"written to {tmp_path / 'onnx'}" in done.stdout
    texts = ["wake me up at nine", "play 🎵 jazz"]
    expected, got = (run("parse", folder, *texts).stdout for folder in (model, tmp_path / "onnx"))
    assert got == expected != ""
    assert run("verify", tmp_path / "onnx").returncode == 0
    assert run("embed", tmp_path / "onnx", "hi").returncode == 0 and run("evaluate", tmp_path / "onnx").returncode == 0
    few = ["--set", "training.epochs=1", "--set", "training.evals=1", "--set", "training.learning_rate=1e-6",
           "--set", "training.embedding_learning_rate=1e-6"]  # fmt: skip
    done = run("finetune", "demo-finetune", "--set", f"start={tmp_path / 'onnx'}", *few, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert run("embed", tmp_path / "out", "hi").stdout != ""


def test_tokenizer_commands(tmp_path):
    (tmp_path / "corpus.txt").write_text("Wake me up at nine\n" * 50, encoding="utf-8")
    options = ["--vocab-size", 270, "--normalize", "lowercase", "--special-token", "<user>"]
    done = run("tokenizer", "train", "--input", tmp_path / "corpus.txt", *options, "--output", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    trained = Tokenizer.load(tmp_path / "t")
    assert (trained.vocab_size, trained.normalizers, trained.special_tokens["<user>"]) == (270, ("lowercase",), 4)
    shown = run("tokenizer", "encode", tmp_path / "t", "wake me", "--html", tmp_path / "pieces.html").stdout
    assert "[CLS]" in shown and shown.startswith("wake me")
    assert "<mark" in (tmp_path / "pieces.html").read_text(encoding="utf-8")
    for target in ("t.tiktoken", "map.json", "again"):
        done = run("tokenizer", "convert", tmp_path / "t", "--vocab-size", 265, "--output", tmp_path / target)
        assert done.returncode == 0, done.stderr
    assert Tokenizer.load(tmp_path / "again").merges == Tokenizer.load(tmp_path / "map.json").merges
    done = run("tokenizer", "curve", tmp_path / "t", "--input", tmp_path / "corpus.txt", "--output", tmp_path / "c.svg")
    assert done.returncode == 0 and "270" in done.stdout and "<svg" in (tmp_path / "c.svg").read_text()


def test_tokenizer_stats_reads_text_and_labelled_data(tmp_path):
    rows = templates.generate()[1][:40]
    write_spans(tmp_path / "rows.jsonl", rows)
    packaged = tmp_path / "bpe_merged.json"
    Tokenizer.packaged().save_merge_map(packaged)
    done = run("tokenizer", "stats", packaged, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / "s.json",
               "--html", tmp_path / "s.html")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert found["texts"] == 40 and {row["label"] for row in found["labels"]} == {
        e.label for u in rows for e in u.entities
    }
    assert (tmp_path / "s.html").read_text(encoding="utf-8").count("<p>") == 40
    (tmp_path / "plain.txt").write_text("".join(u.text + "\n" for u in rows), encoding="utf-8")
    done = run("tokenizer", "stats", packaged, "--input", tmp_path / "plain.txt")
    assert done.returncode == 0 and "bytes per token" in done.stdout and "label" not in done.stdout


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
    "missing data": (["finetune", "massive", "--data-root", "absent", "--output", "out"], None,
                     "weebill data fetch massive --output absent"),
    "missing pairs": (["pretrain", "sts-qqp", "--data-root", "absent", "--output", "out"], None,
                      "weebill data fetch stsb --output absent && weebill data fetch qqp --output absent && "
                      "weebill data fetch massive --output absent"),
    "no model": (["parse", "data.jsonl", "hi"], SPAN, "expected a weebill model folder, got a file"),
    "no model to embed": (["embed", "absent", "hi"], None, "got nothing there"),
    "no model to verify": (["verify", "absent"], None, "got nothing there"),
    "verify with what": (["verify", "MODEL", "--with", "onnx"], None, "weebill, sentence-transformers, got 'onnx'"),
    "export to what": (["export", "MODEL", "--format", "xml", "--output", "out"], None, "onnx, sentence-transformers,"),
    "int8 of what": (["export", "MODEL", "--int8", "--format", "tiktoken", "--output", "out"], None, "leave it out"),
    "split of what": (["export", "MODEL", "--split", "dev", "--output", "out"], None,
                      "--split: expected --data, which it is a part of, got none; name the data or leave it out"),
    "split of nothing": (["evaluate", "MODEL", "--split", "dev"], None, "--split: expected --data, which it is a part"),
    "no model to export": (["export", "absent", "--output", "out"], None, "got nothing there"),
    "texts twice": (["parse", "MODEL", "hi", "--input", "data.jsonl"], SPAN, "leave one out"),
    "missing start": (["finetune", "demo-finetune", "--set", "start=./absent", "--output", "out"], None, "absent"),
    "missing corpus": (["tokenizer", "train", "--input", "absent.txt", "--output", "out"], None, "absent.txt"),
    "empty corpus": (["tokenizer", "train", "--input", "data.jsonl", "--field", "x", "--output", "out"], "", "jsonl"),
    "json lines without a field": (["tokenizer", "train", "--input", "data.jsonl", "--output", "out"], SPAN, "--field"),
    "no such field": (
        ["tokenizer", "train", "--input", "data.jsonl", "--field", "utt", "--output", "out"], SPAN, "data.jsonl:1",
    ),
    "pairs with a split": (["evaluate", "MODEL", "--data", "data.jsonl", "--split", "x"], "a\tb\t1\n", "no splits"),
    "pair with an empty text": (["evaluate", "MODEL", "--data", "data.jsonl"], "a\tb\n\tb\n", "data.jsonl:2"),
    "pairs without an order": (["evaluate", "MODEL", "--data", "data.jsonl"], "a\tb\t0.5\n", "all scored 0.5"),
    "unknown normaliser": (
        ["tokenizer", "train", "--input", "data.jsonl", "--field", "text", "--normalize", "nfd", "--output", "out"],
        SPAN, "expected any of nfc, lowercase",
    ),
    "tiny vocabulary": (
        ["tokenizer", "train", "--input", "data.jsonl", "--field", "text", "--vocab-size", "9", "--output", "out"],
        SPAN, "260",
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


def test_parse_answers_each_line_of_a_terminal_as_it_comes():
    near, far = pty.openpty()
    command = [sys.executable, "-m", "weebill", "parse"]
    with subprocess.Popen(command, stdin=far, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(far)
        for text, intent in (("wake me up at nine", "alarm_set"), ("play jazz", "play_music")):
            os.write(near, f"{text}\n".encode())
            assert json.loads(process.stdout.readline())["intent"] == intent
        os.write(near, b"\x04")  # Ctrl-D
        assert process.wait(30) == 0 and b"Ctrl-D ends" in process.stderr.read()
    os.close(near)


def test_which_argument_is_the_model_and_which_a_text(tmp_path):
    def texts(*arguments, stdin=None):
        done = run("parse", *arguments, stdin=stdin, cwd=tmp_path)
        return [json.loads(line)["text"] for line in done.stdout.splitlines()], done.stderr

    assert texts("tiny", stdin="wake me\nplay jazz\n") == (["wake me", "play jazz"], "")
    assert texts("-", stdin="wake me\n") == (["wake me"], "") == texts("tiny", "-", stdin="wake me\n")
    assert texts("hello", stdin="") == (["hello"], "")
    found, said = texts("m11", stdin="wake me\n")
    assert found == ["m11"] and "read 'm11' as a text, as there is no such model folder" in said
    found, said = texts("wake", "me", "up")
    assert not found and "put a text of several words in quotes: 'wake me up'" in said
    assert "expected a weebill model folder, got nothing there" in texts("runs/absent", "hello")[1]


@pytest.mark.parametrize(
    "command",
    [("parse", "--input", "d.jsonl", "--output"), ("embed", "--input", "d.jsonl", "--output"),
     ("evaluate", "tiny", "--data", "d.jsonl", "--json"), ("evaluate", "tiny", "--data", "d.jsonl", "--html"),
     ("tokenizer", "stats", "tiny", "--input", "d.jsonl", "--output")],
)  # fmt: skip
def test_what_is_read_is_not_written_over(command, tmp_path):
    body = '{"text": "hello", "intent": "general_greet", "spans": []}\n'
    (tmp_path / "d.jsonl").write_text(body, encoding="utf-8")
    done = run(*command, "d.jsonl", cwd=tmp_path)
    assert done.returncode == 2 and "expected another place than what is read" in done.stderr
    assert (tmp_path / "d.jsonl").read_text(encoding="utf-8") == body


def test_what_parse_wrote_is_data(tmp_path):
    texts = "wake me up at nine am on friday\nhello\n"
    assert run("parse", "--output", "parsed.jsonl", stdin=texts, cwd=tmp_path).returncode == 0
    done = run("evaluate", "tiny", "--data", "parsed.jsonl", "--json", "scores.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores["intent_accuracy"] == scores["span_f1"] == scores["exact_match"] == 1


def test_standard_input_is_read_as_a_file_is(model, tmp_path):
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbfhello there\r\n\r\nbye")
    asked = [sys.executable, "-m", "weebill", "parse", str(model)]
    with (tmp_path / "texts.txt").open("rb") as file:
        piped = subprocess.run(asked, stdin=file, capture_output=True).stdout
    assert piped == subprocess.run([*asked, "--input", tmp_path / "texts.txt"], capture_output=True).stdout
    assert [json.loads(line)["text"] for line in piped.splitlines()] == ["hello there", "", "bye"]
    assert json.loads(run("parse", "").stdout)["text"] == ""


def test_vectors_as_json_lines_and_no_other_names(model, tmp_path):
    done = run("embed", model, "one", "--output", tmp_path / "v.jsonl")
    assert (
        done.returncode == 0 and (tmp_path / "v.jsonl").read_text(encoding="utf-8") == run("embed", model, "one").stdout
    )
    done = run("embed", model, "one", "--output", tmp_path / "v.txt")
    assert done.returncode == 2 and "ends in .npy, for an array, or .jsonl" in done.stderr


def test_data_with_labels_of_others_are_told_and_scores_are_no_percentages():
    done = run("evaluate", "tiny")
    assert done.returncode == 0 and "intents in these data are none of the model's" in done.stderr
    assert "name data with its labels by --data" in done.stderr
    done = run("evaluate", "tiny", "--min", "intent_accuracy=90")
    assert done.returncode == 2 and "expected a value of at most 1, as 0.9 for 90 %" in done.stderr


def test_the_version_and_names_that_are_nearly_right(tmp_path, model):
    assert re.fullmatch(r"weebill \d+\.\d+\.\d+\n", run("--version").stdout)
    assert "did you mean 'joint'?" in run("finetune", "jont", "--output", tmp_path / "x").stderr
    done = run("finetune", "joint", "--set", "data.train=a.jsonl", "--output", tmp_path / "x")
    assert """expected a list, got 'a.jsonl'; write --set 'data.train=["a.jsonl"]'""" in done.stderr
    assert "name its folder by --data-root" in run("finetune", "joint", "--output", tmp_path / "x", cwd=tmp_path).stderr
    shutil.copytree(model, tmp_path / "demo" / "model")
    assert f"name {tmp_path / 'demo' / 'model'}" in run("parse", tmp_path / "demo", "hi").stderr
    shutil.rmtree(tmp_path / "demo" / "model" / "heads")
    done = run("parse", tmp_path / "demo" / "model", "hi")
    assert (
        "config.json: expected a file, as weebill.json lists it, got nothing there; copy the folder again"
        in done.stderr
    )


def test_more_epochs_than_asked_for_are_told(tmp_path):
    rows = [Utterance(f"wake me at {n}", "alarm", (Entity(11, 12, "time"),)) for n in range(4)]
    rows += [Utterance(f"play song {n}", "music", ()) for n in range(4)]
    for name in ("train", "dev"):
        write_spans(tmp_path / f"{name}.jsonl", rows)
    sets = (
        "training.epochs=1",
        "training.batch_size=8",
        "training.min_steps=3",
        "encoder.num_layers=1",
        "vocab_size=270",
    )
    done = run("finetune", "joint", *(part for one in sets for part in ("--set", one)), "--data-root", tmp_path,
               "--output", tmp_path / "m")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "training.min_steps makes 3 epochs of the 1 asked for; --set training.min_steps=0" in done.stderr
