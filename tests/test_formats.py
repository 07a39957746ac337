"""Readers: what they read by hand, what they refuse with file and line, and the real files where they are present."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from weebill.errors import ArtifactError, DataError
from weebill.files import numbered_lines, write_whole
from weebill.formats import read_texts, read_utterances, write_spans
from weebill.pairs import holds_pairs, is_pair_file, read_pairs
from weebill.schema import Entity, Utterance

SHARED = Path(os.environ.get("WEEBILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
real = pytest.mark.skipif(not (SHARED / "massive").is_dir(), reason="no folder of real data; name one in WEEBILL_DATA")

MASSIVE = {
    "id": "1", "locale": "en-US", "partition": "train", "scenario": "alarm", "intent": "alarm_set",
    "utt": "wake me up at nine am", "annot_utt": "wake me up at [time : nine am]", "worker_id": "1",
}  # fmt: skip


def _write(path, *rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def test_massive_rows_and_splits(tmp_path):
    path = _write(tmp_path / "m.jsonl", MASSIVE, MASSIVE | {"partition": "dev", "id": "2"})
    dev = read_utterances(path, split="dev")
    assert [(u.text, u.intent, u.id, u.source) for u in dev] == [
        ("wake me up at nine am", "alarm_set", "2", f"{path}:2")
    ]
    assert dev[0].entities == (Entity(14, 21, "time"),)
    assert len(read_utterances(path)) == 2
    with pytest.raises(DataError, match=r"m\.jsonl: expected split 'test', got 'train', 'dev'"):
        read_utterances(path, split="test")


def test_span_json_lines_round_trip(tmp_path):
    rows = [
        Utterance("wake me at nine 🎵", "alarm", (Entity(11, 15, "time"),), id="a"),
        Utterance("hi", "greet", (), id="b"),
        Utterance("only a text", id="c"),
    ]
    write_spans(tmp_path / "x.jsonl", rows)
    again = read_utterances(tmp_path / "x.jsonl")
    assert [(u.text, u.intent, u.entities, u.id) for u in again] == [(u.text, u.intent, u.entities, u.id) for u in rows]


def test_an_empty_intent_is_none(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "hi", "intent": "", "spans": []}\n', encoding="utf-8")
    assert read_utterances(tmp_path / "x.jsonl")[0].intent is None


def test_bio_folder(tmp_path):
    for split in ("train", "dev"):
        (tmp_path / split).mkdir()
        _write(tmp_path / split / "seq.in", "wake me at nine am ", "hi ")
        _write(tmp_path / split / "seq.out", "O O O B-time I-time ", "O ")
        _write(tmp_path / split / "label", "alarm", f"greet-{split}")
    rows = read_utterances(tmp_path, split="dev")
    assert [(u.text, u.intent) for u in rows] == [("wake me at nine am", "alarm"), ("hi", "greet-dev")]
    assert rows[0].entities == (Entity(11, 18, "time"),)
    assert len(read_utterances(tmp_path)) == 4 and len(read_utterances(tmp_path / "train")) == 2
    with pytest.raises(DataError, match="expected split 'tset', got 'dev', 'train'"):
        read_utterances(tmp_path, split="tset")
    _write(tmp_path / "dev" / "seq.out", "O O O B-time", "O")
    with pytest.raises(DataError, match=r"seq\.out:1: expected 5 tags, one per word of seq\.in, got 4"):
        read_utterances(tmp_path / "dev")
    _write(tmp_path / "dev" / "seq.out", "O")
    with pytest.raises(DataError, match=r"expected as many lines in each of seq\.in, seq\.out, label, got 2, 1 and 2"):
        read_utterances(tmp_path / "dev")
    _write(tmp_path / "dev" / "seq.out", "O O O X-time O", "O")
    with pytest.raises(DataError, match=r"seq\.out:1: expected tags O, B-x and I-x, got 'X-time'"):
        read_utterances(tmp_path / "dev")


def _span(start, end, label="x"):
    return {"text": "hi there you", "intent": "greet", "spans": [{"start": start, "end": end, "label": label}]}


MALFORMED = {
    "not json": ('{"text": ', r"d\.jsonl:2: expected one JSON object, got '{\"text\": '"),
    "no object": ("[1, 2]", r"d\.jsonl:2: expected one JSON object, got '\[1, 2\]'"),
    "no text": ({"utterance": "hi"}, r"d\.jsonl:2: expected a text under 'text', got only utterance"),
    "text is a number": ({"text": 3}, r"d\.jsonl:2: expected a text under 'text', got int '3'"),
    "intent is a list": ({"text": "a", "intent": []}, r"d\.jsonl:2: expected a text under 'intent', got list"),
    "spans no list": ({"text": "a", "spans": 1}, r"d\.jsonl:2: expected a list under 'spans'"),
    "span without label": ({"text": "a", "spans": [{"start": 0, "end": 1}]}, r"d\.jsonl:2: expected spans as"),
    "span no object": ({"text": "a", "spans": ["a"]}, r"d\.jsonl:2: expected spans as"),
    "outside": (_span(3, 99), r"d\.jsonl:2: expected spans within the text's 12 characters.*got span 3–99 \(x\)"),
    "negative": (_span(-2, 2), r"got span -2–2"),
    "backwards": (_span(3, 3), r"start before end, got span 3–3"),
    "white space": (_span(2, 8), r"expected spans that start and end on a visible character.*over ' there'"),
    "label": (_span(0, 2, "a b"), r"expected a label without white space, got 'a b'"),
    "overlap": (
        {"text": "hi there", "spans": [{"start": 0, "end": 5, "label": "a"}, {"start": 3, "end": 8, "label": "b"}]},
        r"expected spans that do not overlap, got span 3–8 \(b\) and span 0–5 \(a\)",
    ),
    "massive without its intent": ({k: v for k, v in MASSIVE.items() if k != "intent"}, "under 'text', got only"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_lines_are_named(case, tmp_path):
    row, message = MALFORMED[case]
    path = _write(tmp_path / "d.jsonl", {"text": "fine"}, row)
    with pytest.raises(DataError, match=message):
        read_utterances(path)


def test_missing_empty_and_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="expected a data file, got nothing there"):
        read_utterances(tmp_path / "absent")
    for name, body, message in (
        ("empty", b"", "expected lines of text, got an empty file"),
        ("blank", b"\n\n", "expected utterances, got only blank lines"),
        ("latin", b'{"text": "ok"}\n\xe9\n', "latin:2: expected UTF-8, got byte 0xe9 at byte offset 15"),
        ("x.gz", b"not gzip", "expected a readable file, got Not a gzipped file"),
    ):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(DataError, match=message):
            read_utterances(tmp_path / name)
    cut = gzip.compress(b'{"text": "a"}\n' * 1000)[:-20]
    (tmp_path / "cut.gz").write_bytes(cut)
    with pytest.raises(DataError, match="expected a readable file"):
        read_utterances(tmp_path / "cut.gz")
    with pytest.raises(DataError, match=r"expected one of spans, massive, bio, conll.*, got 'xml'"):
        read_utterances(tmp_path / "latin", format="xml")
    with pytest.raises(DataError, match="expected a file, got a folder"):
        read_texts(tmp_path)


def test_lines_end_at_newlines_alone(tmp_path):
    (tmp_path / "t").write_bytes("\ufeffone\r\n\ntwo\u2028still two\rand on\n".encode())
    assert read_texts(tmp_path / "t") == ["one", "", "two\u2028still two\rand on"]
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"a\nb"))
    assert list(numbered_lines(tmp_path / "t.gz")) == [(1, "a"), (2, "b")]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_whole(tmp_path / "new" / "a.txt", b"one")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"one"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="expected a place to write"):
        write_whole(tmp_path / "folder", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "new"]


def test_pair_formats(tmp_path):
    sts = _write(tmp_path / "sts.csv", 'main\tx\t2012\t01\t2.500\ta "man\tthe man\textra', "main\tx\t2012\t02\t5\tb\tc")
    assert [(p.a, p.b, p.score) for p in read_pairs(sts)] == [('a "man', "the man", 0.5), ("b", "c", 1.0)]
    qqp = _write(tmp_path / "qqp.tsv", "id\tquestion1\tquestion2\tis_duplicate", '1\t"say ""hi"""\tb\t1', "2\tc\td\t0")
    assert [(p.a, p.b, p.score) for p in read_pairs(qqp)] == [('say "hi"', "b", 1.0), ("c", "d", 0.0)]
    assert read_pairs(_write(tmp_path / "2", "a\tb"))[0].score == 1.0
    assert [p.score for p in read_pairs(_write(tmp_path / "3", "a\tb\t0.25", "c\td\t1"))] == [0.25, 1.0]
    assert [(p.b, p.score) for p in read_pairs(_write(tmp_path / "n", "a\tb\tnot a"))] == [("b", 1.0), ("not a", 0.0)]


def test_pairs_come_by_column_order_whatever_separates_the_columns(tmp_path):
    rows = [["a plays, now", 'he said "b"', "not so"], ["c", "d", "e"]]
    scored = [("a plays, now", 'he said "b"', 1.0), ("a plays, now", "not so", 0.0), ("c", "d", 1.0), ("c", "e", 0.0)]
    header = ["anchor", "positive", "negative"]
    quoted = "".join(",".join('"' + f.replace('"', '""') + '"' for f in row) + "\n" for row in [header, *rows])
    (tmp_path / "t.csv").write_text(quoted, encoding="utf-8")
    (tmp_path / "t.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "arrays.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    objects = "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
    with gzip.open(tmp_path / "objects.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(objects)
    for name in ("t.csv", "t.tsv", "arrays.jsonl", "objects.jsonl.gz"):
        assert [(p.a, p.b, p.score) for p in read_pairs(tmp_path / name)] == scored, name
        assert is_pair_file(tmp_path / name)
    (tmp_path / "s.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 1}\n["c", "d", 0.25]\n')
    assert [p.score for p in read_pairs(tmp_path / "s.jsonl")] == [1.0, 0.25]
    (tmp_path / "u.jsonl").write_text('{"text": "a", "intent": "b"}\n')
    assert not is_pair_file(tmp_path / "u.jsonl")
    for name, body, message in (
        ("x.jsonl", '["a", "b"]\n["a"\n', r"x\.jsonl:2: expected one JSON array or object"),
        ("x.jsonl", '["a", null]\n', r"x\.jsonl:1: expected an array or object of two texts"),
        ("x.csv", 'a,b\n"c,d\n', r"x\.csv:\d: expected fields separated by commas with CSV quoting"),
        ("x.csv", "anchor,positive\na\n", r"x\.csv:2: expected 2 or 3 fields, got 1"),
    ):
        (tmp_path / name).write_text(body, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_pairs(tmp_path / name)


def test_published_rows_may_pair_a_text_with_itself(tmp_path):
    sts = _write(tmp_path / "sts.csv", "main\tx\t2012\t01\t5\tthe same\tthe same")
    qqp = _write(tmp_path / "qqp.tsv", "question1\tquestion2\tis_duplicate", "the same\tthe same\t1")
    assert [read_pairs(path)[0].score for path in (sts, qqp)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("body", "format", "message"),
    [
        (
            "text\tintent\nbye\tbye\n",
            None,
            r"p:1: expected pairs of texts, as columns are read, got the columns text, in",
        ),
        (
            "id\tText\tLabel\nbye\tbye\tx\n",
            None,
            r"got the columns id, Text, Label; write .*\"intent\": \"goodbye\"}, or",
        ),
        ("hi\tgreet\nbye\tbye\n", None, r"p:2: .* twice: 'bye'; .*if the second column is no text but a label, write"),
        ("a\tb\tc\td\t9\te\tf\n", None, r"p:1: expected a score from 0 to 5, got '9'"),
        ("a\tb\tc\td\tx\te\tf\n", None, r"p:1: expected a score from 0 to 5, got 'x'"),
        ("a\tb\n", "sts", r"p:1: expected at least 7 fields separated by tabs, got 2"),
        ("question1\tquestion2\tis_duplicate\na\tb\tmaybe\n", None, r"p:2: expected is_duplicate 0 or 1, got 'maybe'"),
        ("question1\tquestion2\tis_duplicate\na\n", None, r"p:2: expected at least 3 fields"),
        ('question1\tquestion2\tis_duplicate\n"a\tb\t1\n', None, r"expected tab-separated fields with CSV quoting"),
        ("a\tb\n", "qqp", r"p:1: expected a header with question1, question2, is_duplicate"),
        ("only one\n", None, r"p:1: expected 2 or 3 fields, got 1"),
        ("a\tb\t0.5\na\tb\n", None, r"p:2: expected 3 fields, got 2"),
        ("a\tb\tc\td\te\tf\n", None, r"p:1: expected 2 or 3 fields, got 6; an STS file has 7"),
        ("question1\tquestion2\na\tb\n", None, r"p:1: expected a header with question1, question2, is_duplicate, got"),
        ("a\tb\n\tb\n", None, r"p:2: expected two texts, got an empty first one; correct or remove the line"),
        ("a\tb\n a\t \n", None, r"p:2: expected two texts, got an empty second one"),
        ("m\tx\ty\t1\t5\tb\t\n", None, r"p:1: expected two texts, got an empty second one"),
        ("question1\tquestion2\tis_duplicate\n\tb\t1\n", None, r"p:2: expected two texts, got an empty first one"),
        ("a\tb\t0.5\na\tb\t\n", None, r"p:2: expected a score or a negative text in field 3, got nothing"),
        ("a\tb\nc\tc\n", None, r"p:2: expected two different texts, got the same text twice: 'c'"),
        ("a\ta\t1\n", None, r"p:1: expected two different texts, got the same text twice: 'a'"),
        ("a\tb\ta\n", None, r"p:1: expected two different texts, got the same text twice scored 0 of 1: 'a'"),
        ("a\tb\tb\n", None, r"p:1: expected a negative that differs from the positive, got 'b' as both"),
        ("m\tx\ty\t1\t2.5\tb\tb\n", None, r"p:1: expected two different texts, got the same .* scored 0.5 of 1: 'b'"),
        ("question1\tquestion2\tis_duplicate\na\ta\t0\n", None, r"p:2: expected two different texts, got the same"),
        (
            "left\tright\tgrade\na\tb\t0.5\n",
            None,
            r"p:2: expected a negative text .*; if line 1 names the columns, call them sentence1, sentence2 and score",
        ),
        ("a\tb\tnan\n", None, r"p:1: expected a score from 0 to 1, got 'nan'"),
        ("a\tb\t-0.1\n", None, r"p:1: expected a score from 0 to 1, got '-0.1'"),
        ("a\tb\t0.5\na\tb\tc\n", None, r"p:2: expected a score from 0 to 1, got 'c'"),
        ("a\tb\n", "csv", "expected one of sts, qqp, pairs, got 'csv'"),
    ],
)
def test_malformed_pairs_are_named(body, format, message, tmp_path):
    (tmp_path / "p").write_text(body)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "p", format)


@real
def test_real_files_read_whole():
    train = read_utterances(SHARED / "massive" / "en-US.jsonl", split="train")
    dev = read_utterances(SHARED / "massive" / "en-US.jsonl", split="dev")
    assert (len(train), len(dev)) == (11_514, 2_033)
    assert len({u.intent for u in train}) == 60 and len({e.label for u in train for e in u.entities}) == 55
    assert [len(read_pairs(SHARED / "stsb" / f"sts-{s}.csv")) for s in ("train", "dev")] == [5_749, 1_500]
    qqp = read_pairs(SHARED / "qqp" / "dev.tsv")
    assert len(qqp) == 6_888 and Counter(p.score for p in qqp).keys() == {0.0, 1.0}
    assert len(read_utterances(SHARED / "snips", split="dev")) == 700


def test_what_parse_writes_is_read_and_an_array_of_objects(tmp_path):
    rows = [{"text": "wake me at nine", "intent": "a", "intent_score": 0.9,
             "entities": [{"start": 11, "end": 15, "label": "time", "text": "nine", "score": 0.8}]},
            {"text": "hello", "intent": "b", "entities": []}]  # fmt: skip
    wanted = [("wake me at nine", (Entity(11, 15, "time"),)), ("hello", ())]
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(rows, indent=indent), encoding="utf-8")
        assert [(u.text, u.entities) for u in read_utterances(tmp_path / "a.json")] == wanted
    other = rows[0] | {"entities": [{"from": 11, "to": 15}]}  # of another tool
    (tmp_path / "b.jsonl").write_text(json.dumps(other) + "\n", encoding="utf-8")
    assert read_utterances(tmp_path / "b.jsonl")[0].entities is None
    both = rows[0] | {"spans": []}
    (tmp_path / "b.jsonl").write_text(json.dumps(both) + "\n", encoding="utf-8")
    assert read_utterances(tmp_path / "b.jsonl")[0].entities == ()
    (tmp_path / "c.json").write_text('[{"text": "hi", "intent": "a"},\n 3]', encoding="utf-8")
    with pytest.raises(DataError, match=r"c\.json:2: expected one array of JSON objects, got .*3"):
        read_utterances(tmp_path / "c.json")


def test_labelled_rows_are_not_taken_for_pairs(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"txt": "hi", "intent": "greet"}\n', encoding="utf-8")
    assert not holds_pairs(tmp_path / "a.jsonl", None)
    with pytest.raises(DataError, match=r"a\.jsonl:1: expected a text under 'text', got only intent, txt"):
        read_utterances(tmp_path / "a.jsonl")
    (tmp_path / "b.csv").write_text("sentence,foo\nhello,bar\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"b\.csv:1: expected columns whose names say what they hold.*got sentence, foo"
    ):
        read_pairs(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("hello there,greet\nbye now,bye\n", encoding="utf-8")
    assert len(read_pairs(tmp_path / "c.csv")) == 2
    assert "every second text is a single word, such as 'greet', 'bye'; if these are labels" in caplog.text
    caplog.clear()
    (tmp_path / "d.csv").write_text("hello there,hi you\nbye now,bye\n", encoding="utf-8")
    (tmp_path / "e.csv").write_text("big,large\nsmall,tiny\n", encoding="utf-8")
    assert len(read_pairs(tmp_path / "d.csv")) == 2 == len(read_pairs(tmp_path / "e.csv")) and not caplog.text
