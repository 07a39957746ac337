"""`weebill tokenizer …` as a user meets it: what is lost, assumed or refused is on the terminal."""

import gzip
import json
import os
import re

import pytest

from test_cli import run
from weebill import templates
from weebill.artifact import find_model
from weebill.formats import write_spans
from weebill.tokenizer import SPECIAL_TOKENS, Tokenizer

LINES = "Wake me up at nine\n" * 50


def _ids(shown):
    """Return the ids of the table that `encode` prints."""
    return [int(row) for row in re.findall(r"│ +(\d+) +│ +\d+ +│ +\d+ +│", shown)]


def test_converting_says_what_the_format_cannot_hold(tmp_path):
    Tokenizer.train([LINES], 270, normalizers=("nfc", "lowercase")).save(tmp_path / "lower")
    done = run("tokenizer", "convert", tmp_path / "lower", "--output", tmp_path / "x.tiktoken")
    assert done.returncode == 0 and (tmp_path / "x.tiktoken").is_file()
    assert "not in a .tiktoken file: the normalizers nfc, lowercase: apply them before" in done.stderr
    done = run("tokenizer", "convert", tmp_path / "lower", "--output", tmp_path / "x.json")
    assert done.returncode == 0 and "not in" not in done.stderr
    assert Tokenizer.load(tmp_path / "x.json").normalizers == ("nfc", "lowercase")
    Tokenizer.train([LINES], 270, special_tokens=(*SPECIAL_TOKENS, "<user>")).save(tmp_path / "five")
    done = run("tokenizer", "convert", tmp_path / "five", "--output", tmp_path / "five.tiktoken")
    assert done.returncode == 0 and "[PAD] = 0, [CLS] = 1, [SEP] = 2, [MASK] = 3, <user> = 4" in done.stderr
    (tmp_path / "corpus.txt").write_text(LINES)
    done = run("tokenizer", "curve", tmp_path / "five.tiktoken", "--input", tmp_path / "corpus.txt", "--output",
               tmp_path / "c.svg")  # fmt: skip
    assert done.returncode == 2 and "a .tiktoken file does not hold special tokens" in done.stderr


def test_every_command_that_reads_a_tiktoken_file_can_be_told_its_split_pattern(tmp_path):
    trained = Tokenizer.train(["in nine days.\n"] * 50, 290, split_pattern="gpt4")
    trained.save_tiktoken(tmp_path / "x.tiktoken")
    (tmp_path / "corpus.txt").write_text("in nine days.\n" * 9)
    gpt2, gpt4 = (Tokenizer.load(tmp_path / "x.tiktoken", p).encode("days.\nin") for p in ("gpt2", "gpt4"))
    assert gpt2.token_ids != gpt4.token_ids
    told = ("--split-pattern", "gpt4")
    encode = ("tokenizer", "encode", tmp_path / "x.tiktoken", "days.\nin")
    assert _ids(run(*encode, *told).stdout) == gpt4.token_ids
    guessed = run(*encode)
    assert _ids(guessed.stdout) == gpt2.token_ids
    assert "assumed: the split pattern gpt2, unless you name another (GPT-4's files have gpt4)" in guessed.stderr
    for command in (("stats",), ("curve", "--output", tmp_path / "c.svg")):
        arguments = ("tokenizer", command[0], tmp_path / "x.tiktoken", *command[1:], "--input", tmp_path / "corpus.txt")
        told_so, untold = run(*arguments, *told), run(*arguments)
        assert told_so.returncode == untold.returncode == 0, told_so.stderr
        assert "assumed: the split pattern gpt2" in untold.stderr and "gpt2" not in told_so.stderr


def test_bytes_that_are_no_utf8_are_named_with_the_option_that_passes_over_them(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9 x\n")
    for command in (("stats", "tiny"), ("curve", "tiny", "--output", tmp_path / "c.svg"),
                    ("train", "--vocab-size", "262", "--output", tmp_path / "t")):  # fmt: skip
        done = run("tokenizer", *command, "--input", tmp_path / "x.txt")
        assert done.returncode == 2 and "got byte 0xe9 at byte offset 6; save the file as UTF-8, or go on with " \
            "--errors replace" in done.stderr  # fmt: skip
        done = run("tokenizer", *command, "--input", tmp_path / "x.txt", "--errors", "replace")
        assert done.returncode == 0, done.stderr
    done = run("tokenizer", "stats", "tiny", "--input", tmp_path / "x.txt", "--errors", "ignore")
    assert done.returncode == 2 and "--errors: expected strict or replace, got 'ignore'" in done.stderr


def test_packed_labelled_data_is_labelled_data(tmp_path):
    write_spans(tmp_path / "rows.jsonl", templates.generate()[1][:20])
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    shown = [run("tokenizer", "stats", "tiny", "--input", tmp_path / name) for name in ("rows.jsonl", "rows.jsonl.gz")]
    assert [done.returncode for done in shown] == [0, 0] and "pieces" in shown[1].stdout + shown[1].stderr
    assert shown[1].stdout.replace(".gz", "").split() == shown[0].stdout.split()
    done = run("tokenizer", "stats", "tiny", "--input", tmp_path / "rows.jsonl", "--errors", "replace")
    assert done.returncode == 2 and "--errors: expected texts, got labelled data" in done.stderr


def test_tiny_is_known_by_its_name(tmp_path):
    done = run("tokenizer", "encode", "tiny", "hi", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("hi"), done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--field", "nope"], "got only text; correct the line or name the key that holds the text with --field"),
        (["--field", "text", "--min-frequency", "-3"], "min_frequency: expected 0 or more, got -3"),
        (["--field", "empty"], "expected text to train a tokenizer on, got white space alone"),
    ],
    ids=["field", "frequency", "empty"],
)  # fmt: skip
def test_training_refuses(arguments, message, tmp_path):
    body = '{"empty": ""}\n' if "empty" in arguments else '{"text": "hi"}\n'
    (tmp_path / "x.jsonl").write_text(body)
    done = run("tokenizer", "train", "--input", tmp_path / "x.jsonl", *arguments, "--output", tmp_path / "t")
    assert done.returncode == 2 and message in done.stderr and not (tmp_path / "t").exists()


def test_pieces_are_coloured_on_a_terminal_that_can(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "FORCE_COLOR", "1")
    monkeypatch.setitem(os.environ, "TERM", "xterm-256color")
    shown = run("tokenizer", "encode", "tiny", "wake me up", no_color=False).stdout.splitlines()[0]
    assert len(set(re.findall(r"\x1b\[[\d;]+m", shown)) - {"\x1b[0m"}) >= 2  # neighbours in different colours
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == "wake me up"
    monkeypatch.delitem(os.environ, "FORCE_COLOR")
    assert "\x1b" not in run("tokenizer", "encode", "tiny", "wake me up", no_color=False).stdout  # a pipe


def test_a_special_token_that_texts_have_is_refused_before_it_is_saved(tmp_path):
    (tmp_path / "corpus.txt").write_text("hello hello hello\n" * 50)
    for token, said in (
        ("hello", "got 'hello', which they made one; write it otherwise, as [hello]"),
        ("h", "got 'h'"),
    ):
        done = run("tokenizer", "train", "--input", tmp_path / "corpus.txt", "--vocab-size", 300,
                   "--special-token", token, "--output", tmp_path / "out")  # fmt: skip
        assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_takes_no_models_place_and_no_other_kinds_name(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(LINES)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weebill.json").write_text("{}")
    done = run("tokenizer", "train", "--input", corpus, "--output", tmp_path / "model")
    assert done.returncode == 2 and "got a model, which belongs to the tokenizer in it" in " ".join(done.stderr.split())
    done = run("tokenizer", "convert", "tiny", "--output", tmp_path / "x" / "tokenizer.json")
    assert done.returncode == 2 and "or another name for a merge map" in " ".join(done.stderr.split())


def test_a_short_vocabulary_says_why_and_a_mistyped_pattern_is_no_pattern(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(LINES)
    train = ("tokenizer", "train", "--input", corpus, "--output", tmp_path / "out")
    done = run(*train, "--min-frequency", 20)
    assert "the texts have no more pairs that occur 20 times)" in " ".join(done.stderr.split())
    done = run(*train, "--split-pattern", "gpt-4")
    assert done.returncode == 2 and "expected gpt2, gpt4 or a regular expression, got 'gpt-4'" in done.stderr


def test_stats_count_all_inputs_and_read_a_folder_of_words_as_labelled(tmp_path):
    (tmp_path / "one.txt").write_text("wake me up\n")
    (tmp_path / "two.txt").write_text("play some jazz\n")
    done = run("tokenizer", "stats", "tiny", "--input", tmp_path / "one.txt", "--input", tmp_path / "two.txt",
               "--output", tmp_path / "stats.json")  # fmt: skip
    assert done.returncode == 0 and json.loads((tmp_path / "stats.json").read_text())["texts"] == 2
    folder = tmp_path / "words"
    folder.mkdir()
    for name, line in (("seq.in", "play jazz"), ("seq.out", "O B-genre"), ("label", "play")):
        (folder / name).write_text(line + "\n")
    done = run("tokenizer", "stats", "tiny", "--input", folder, "--output", tmp_path / "stats.json")
    found = json.loads((tmp_path / "stats.json").read_text())
    assert done.returncode == 0 and found["texts"] == 1 and "genre" in json.dumps(found)


def test_decode_gives_the_text_back_and_refuses_ids_that_are_none():
    tokenizer = Tokenizer.load(find_model("tiny"))
    ids = [str(i) for i in tokenizer.encode("wake me up at caf\u00e9 nine").token_ids]
    assert run("tokenizer", "decode", "tiny", *ids).stdout == "wake me up at caf\u00e9 nine\n"
    assert run("tokenizer", "decode", "tiny", *ids, "--special").stdout == "[CLS]wake me up at caf\u00e9 nine[SEP]\n"
    done = run("tokenizer", "decode", "tiny", "5", "999999")
    assert done.returncode == 2 and "got 999999 at position 1" in done.stderr
