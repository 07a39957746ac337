"""Bad data is reported once, together, with places, before training; every label that is lost has a line."""

import io
import json

import pytest
from rich.console import Console

from weebill import report, templates
from weebill.config import FinetuneRecipe
from weebill.data import label_rows
from weebill.errors import DataError
from weebill.formats import read_utterances, write_spans
from weebill.label_facts import labels_of
from weebill.ledger import evaluation_ledger, excerpt, training_ledger
from weebill.recipe_files import parse_recipe
from weebill.runs import run_finetune
from weebill.schema import Entity, Utterance
from weebill.tags import MISSING, tag_vocabulary
from weebill.tokenizer import Tokenizer

SMALL = {"num_layers": 1, "hidden_dim": 16, "num_heads": 2, "ffn_dim": 16, "max_seq_len": 24}
SHORT = {"epochs": 1, "evals": 1}
CUT = Utterance("wake me at nine am", "alarm", (Entity(11, 14, "time"),), source="train.jsonl:1")


def _recipe(**values):
    return parse_recipe({"encoder": SMALL, "training": SHORT} | values, FinetuneRecipe, "t")


def _ledger(train, dev, on_overflow="window", longest=24):
    intents, labels = labels_of(train)
    rows = label_rows(train, Tokenizer.packaged(), longest, intents, tag_vocabulary(labels), on_overflow)
    return rows, [entry.to_json() for entry in training_ledger([rows], train, dev, intents, labels)]


def test_a_span_inside_a_token_is_missing_and_listed_with_a_fix():
    whole = Utterance("at nine am", "alarm", (Entity(3, 7, "time"),), source="train.jsonl:2")
    rows, entries = _ledger([CUT, whole], [])
    tags = ["O", "B-time", "I-time"]
    assert MISSING in rows.tags[0][1:-1] and all(t in (0, MISSING) for t in rows.tags[0])
    pieces = Tokenizer.packaged().encode(CUT.text)
    touched = [i for i, (a, b) in enumerate(pieces.offsets) if a < 14 and b > 11]
    assert {rows.tags[0][i] for i in touched} == {MISSING} and tags.index("B-time") in rows.tags[1]
    assert entries == [
        {"kind": "entity ends inside a token", "source": "train.jsonl:1", "label": "time",
         "reason": "ends inside a token", "fix": "annotate 11–15 'nine', or put a space where the span ends in a word",
         "excerpt": "wake me at 【nin】e am", "start": 11, "end": 14}
    ]  # fmt: skip


def test_a_label_none_of_whose_entities_can_be_learnt_is_named():
    kinds = [entry["kind"] for entry in _ledger([CUT], [])[1]]
    assert kinds == ["entity ends inside a token", "label without an example"]


def test_labels_that_only_dev_has_are_named_with_places_and_what_they_may_mean():
    train = [Utterance("at nine", "set_alarm", (Entity(3, 7, "time"),))]
    dev = [Utterance("at ten", "set_alram", (Entity(3, 6, "place"),), source=f"dev.jsonl:{i}") for i in (4, 9)]
    intent, entity = _ledger(train, dev)[1]
    assert (intent["kind"], intent["label"], intent["source"]) == ("intent unknown", "set_alram",
                                                                  "dev.jsonl:4, dev.jsonl:9")  # fmt: skip
    assert intent["fix"].startswith("perhaps 'set_alarm' is meant; else add training examples of it")
    assert entity["reason"] == "entity in dev 2 times, never in train; each counts as an error"
    seen = evaluation_ledger([], [], dev, ["set_alarm"], ["time"])
    assert [(e.kind, e.label) for e in seen] == [("intent unknown", "set_alram"), ("entity unknown", "place")]


def test_dev_texts_that_are_in_train_are_named_once_they_are_many():
    train = [Utterance(f"at {i}", "alarm", ()) for i in range(9)]
    dev = [Utterance(text, "alarm", (), source=f"dev.jsonl:{n}") for n, text in enumerate(["at 5", "b", "c", "d"], 1)]
    (entry,) = _ledger(train, dev)[1]
    assert (entry["kind"], entry["source"]) == ("dev text in train", "dev.jsonl:1")
    assert entry["reason"] == "1 of 4 dev texts are in train, too: dev scores say little of new texts"
    assert _ledger(train, [*dev, dev[1]])[1] == []  # a fifth: people write alike


def test_a_cut_text_has_a_line_and_so_has_each_entity_it_loses():
    text = "go on " * 20 + "at nine"
    long = [Utterance(text, "alarm", (Entity(len(text) - 4, len(text), "time"),), source="train.jsonl:5")]
    assert _ledger(long, [])[1] == []  # in windows nothing is lost
    kinds = {entry["kind"]: entry for entry in _ledger(long, [], "truncate")[1]}
    assert set(kinds) == {"entity truncated: beyond the model's max_seq_len", "text too long",
                          "label without an example"}  # fmt: skip
    assert kinds["text too long"]["reason"] == "the last 20 tokens of the text are not read"
    assert all(entry["source"] == "train.jsonl:5" for entry in kinds.values())


def test_excerpts_show_the_span_and_where_the_text_goes_on():
    text = "a" * 100 + "SPAN" + "b" * 100
    assert excerpt(text, 100, 104) == "…" + "a" * 40 + "【SPAN】" + "b" * 40 + "…"


def test_a_run_prints_a_summary_and_keeps_every_line(tmp_path):
    train = templates.generate(60)[0]
    write_spans(tmp_path / "train.jsonl", [*train, *[CUT] * 3])
    write_spans(tmp_path / "dev.jsonl", [*train[:10], Utterance("hm", "never_seen", ())])
    shown = io.StringIO()
    data = {"train": ["train.jsonl"], "dev": "dev.jsonl"}
    run_finetune(_recipe(data=data), tmp_path / "out", tmp_path, Console(file=shown, width=200))
    lines = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text("utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["entity ends inside a token"] * 3 + [
        "dev text in train",
        "intent unknown",
    ]
    places = [f"{tmp_path}/train.jsonl:{len(train) + i}" for i in (1, 2, 3)]
    assert [line["source"] for line in lines[:3]] == places
    assert lines[3]["reason"].startswith("10 of 11 dev texts are in train") and "keep them apart" in lines[3]["fix"]
    assert lines[4]["source"] == f"{tmp_path}/dev.jsonl:11"
    for part in (
        "dev text in train",
        "entity ends inside a token",
        places[0],
        "【nin】",
        "annotate 11–15",
        "never_seen",
    ):
        assert part in shown.getvalue()


ROWS = {
    "overlap": [{"start": 3, "end": 6, "label": "a"}, {"start": 5, "end": 8, "label": "b"}],
    "white space": [{"start": 2, "end": 5, "label": "a"}],
    "outside": [{"start": 3, "end": 99, "label": "a"}],
}
GOOD = '{"text": "hi there", "intent": "greet", "spans": []}\n'


def test_all_that_is_wrong_is_said_at_once_before_training(tmp_path):
    lines = [GOOD, *(json.dumps({"text": "hi there", "intent": "x", "spans": s}) + "\n" for s in ROWS.values()), "{\n"]
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "dev.jsonl").write_text("\n\n", encoding="utf-8")
    data = {"train": ["train.jsonl", "absent.jsonl"], "dev": "dev.jsonl"}
    with pytest.raises(DataError) as caught:
        run_finetune(_recipe(data=data), tmp_path / "out", tmp_path, Console(file=io.StringIO()))
    found = str(caught.value).splitlines()
    assert [line.partition(" got")[0].removeprefix(f"{tmp_path}/") for line in found] == [
        "train.jsonl:2: expected spans that do not overlap,",
        "train.jsonl:3: expected spans that start and end on a visible character,",
        "train.jsonl:4: expected spans within the text's 8 characters, start before end,",
        "train.jsonl:5: expected one JSON object,",
        "absent.jsonl: expected the recipe's data,",
        "dev.jsonl: expected utterances,",
    ]
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.training").exists()


def test_many_wrong_rows_are_counted(tmp_path):
    row = json.dumps({"text": "hi there", "intent": "x", "spans": ROWS["overlap"]})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 50, encoding="utf-8")
    with pytest.raises(DataError, match=r"… and 30 more; `weebill data check .*rows\.jsonl` lists all$"):
        read_utterances(tmp_path / "rows.jsonl")


def test_bytes_that_are_no_text_still_stop_the_reading(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(GOOD.encode() + b'{"text": "\xff", "intent": "x", "spans": []}\n')
    with pytest.raises(DataError, match=r"^[^\n]*rows\.jsonl:2: expected UTF-8, got byte 0xff[^\n]*$"):
        read_utterances(tmp_path / "rows.jsonl")


def test_texts_too_long_are_all_named_where_the_recipe_refuses_them(tmp_path):
    long = [Utterance("go on " * 30, "alarm", ()), Utterance("hi", "alarm", ()), Utterance("so " * 40, "alarm", ())]
    write_spans(tmp_path / "rows.jsonl", long)
    data = {"train": ["rows.jsonl"], "dev": "rows.jsonl"}
    with pytest.raises(DataError, match=r"got 2 longer ones: .*rows\.jsonl:1 \(63\), .*rows\.jsonl:3 \(43\); shorten"):
        run_finetune(_recipe(data=data, on_overflow="error"), tmp_path / "out", tmp_path, Console(file=io.StringIO()))


def test_the_table_names_each_kind_once():
    entries = _ledger([CUT] * 5, [])[1]
    console = Console(file=io.StringIO(), width=160)
    console.print(report.ledger(entries, "ledger"))
    shown = console.file.getvalue()
    assert shown.count("entity ends inside a token") == 1 and " 5 " in shown and "train.jsonl:1" in shown
