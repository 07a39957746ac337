"""Every format: what is written is read again, with the same offsets; what a format cannot hold is counted."""

import ast
import gzip
import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weebill import formats
from weebill.conversion import convert
from weebill.errors import ArtifactError, ConfigError, DataError
from weebill.interchange import Block, Losses, Row, Span
from weebill.mending import mend
from weebill.pairs import is_pair_file, read_pairs
from weebill.rasa_files import read_markup
from weebill.schema import Entity, ScoredPair
from weebill.word_files import scheme_of

SUFFIX = {
    "spans": "x.jsonl", "massive": "x.jsonl", "bio": "folder", "conll": "x.conll", "conll-iob1": "x.conll",
    "conll-bilou": "x.conll.gz", "rasa": "x.yml", "rasa-json": "x.json", "spacy": "x.py",
}  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
TRICKY = st.text(st.sampled_from("ab[](){}:,#\"'\\|-> \t\n\r\u2028\u0085\u00a0é🎵OB"), min_size=1, max_size=24)
WORDS = st.lists(st.text("abé🎵9'-.", min_size=1, max_size=5), min_size=1, max_size=7).map(" ".join)
LABEL = st.sampled_from(["time", "date", "fromloc.city_name", "a:b", "O"])


@st.composite
def _rows(draw, texts):
    text = draw(texts)
    edges = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [Span(start, end, draw(LABEL)) for start, end in zip(edges[::2], edges[1::2], strict=False)]
    return Row(text, (draw(st.sampled_from(["alarm_set", "yes", "faq/ask", "a b"])),), tuple(spans))


@st.composite
def _rich_rows(draw):
    row = draw(_rows(st.one_of(ANY_TEXT, TRICKY)))
    optional = st.none() | st.sampled_from(["San Francisco", "to", "}]", "ü"])
    values = st.floats(0, 1) | TRICKY | st.lists(TRICKY, max_size=2)
    more = st.dictionaries(st.sampled_from(["confidence", "source", "]"]), values, max_size=2)
    spans = tuple(
        replace(s, value=draw(optional), role=draw(optional), group=draw(optional), extra=draw(more)) for s in row.spans
    )
    extra = draw(st.dictionaries(st.sampled_from(["worker_id", "scenario"]), st.integers() | st.text("ab"), max_size=2))
    row = replace(row, spans=draw(st.none() | st.just(spans)), extra=extra, id=draw(st.sampled_from(["", "1", "x"])))
    row = replace(row, intents=draw(st.none() | st.just(row.intents)), lang=draw(st.none() | st.just("en-US")))
    return replace(row, split=draw(st.none() | st.sampled_from(["train", "dev"])))


def _there_and_back(rows, format, folder):
    """Write and read rows; returns what is read, without places, and the losses."""
    path, losses = folder / format / SUFFIX[format], Losses()
    formats.write(path, rows, format, losses)
    try:
        assert formats.guess(path) == (format.partition("-")[0] if format.startswith("conll") else format)
        back = [replace(item, source="") for item in formats.stream(path, format)]
    except DataError:  # no row was left
        back = []
    return back, losses


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(rows=st.lists(_rich_rows(), min_size=1, max_size=4))
def test_span_json_lines_hold_everything(rows, tmp_path):
    back, losses = _there_and_back(rows, "spans", tmp_path)
    assert back == rows and not losses.counts


@pytest.mark.parametrize("format", ["rasa", "rasa-json"])
@quick
@given(rows=st.lists(_rich_rows(), min_size=1, max_size=4))
def test_rasa_keeps_what_it_has_a_place_for_of_spans(format, rows, tmp_path):
    """Without a loss all rows are the same again; and other keys of a span are never why a row is left out."""
    back, losses = _there_and_back(rows, format, tmp_path)
    if not losses.counts:
        assert sorted(map(repr, back)) == sorted(map(repr, rows))
    bare = [replace(row, spans=row.spans and tuple(replace(s, extra={}) for s in row.spans)) for row in rows]
    also_back, _ = _there_and_back(bare, format, tmp_path)
    assert len(back) == len(also_back)


@pytest.mark.parametrize("format", list(SUFFIX))
@quick
@given(rows=st.lists(_rows(st.one_of(ANY_TEXT, TRICKY, WORDS)), min_size=1, max_size=4))
def test_rows_come_back_or_are_counted(format, rows, tmp_path):
    """Any text at all: without a loss all rows are the same again; with one, no more rows differ than it counts."""
    back, losses = _there_and_back(rows, format, tmp_path)
    back = [replace(row, extra={}, split=None) for row in back]
    changed = sum(n for what, n in losses.counts.items() if "without a split" not in what)
    by_intent = {row.intents: n for n, row in reversed(list(enumerate(rows)))}
    wanted = sorted(rows, key=lambda row: by_intent[row.intents]) if format == "rasa" else rows
    if changed:
        assert len(back) >= len(rows) - changed
        assert sum(row not in back for row in rows) <= changed
    elif format == "rasa":  # what needs quotes stands after the rest of its intent
        assert sorted(map(repr, back)) == sorted(map(repr, wanted))
    else:
        assert back == wanted


@pytest.mark.parametrize(
    "format", ["bio", "conll", "conll-iob1", "conll-bilou", "massive", "rasa", "rasa-json", "spacy"]
)
@quick
@given(data=st.data())
def test_spans_of_whole_words_are_never_lost(format, data, tmp_path):
    text = data.draw(WORDS)
    starts = [0, *(i + 1 for i, c in enumerate(text) if c == " ")]
    ends = [*(i for i, c in enumerate(text) if c == " "), len(text)]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(starts)), max_size=6)))
    labels = st.sampled_from(["time", "date"])
    spans = [Span(starts[a], ends[b - 1], data.draw(labels)) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    row = Row(text, ("alarm",), tuple(spans), split="train" if format == "massive" else None)
    back, losses = _there_and_back([row], format, tmp_path)
    assert [(r.text, r.intents, r.spans) for r in back] == [(text, ("alarm",), tuple(spans))]
    assert not losses.counts


NLU = r"""version: "3.1"
nlu:
- intent: book_flight
  examples: |
    - fly to [Berlin](city)

    - from [SF]{"entity": "city", "role": "from", "value": "San Francisco"} 🎵 [LA](city:Los Angeles)
    # a comment
    - [new york][{"entity": "city"}, {"entity": "state"}]
- intent: greet
  examples:
  - text: |
      hi there
    metadata:
      mood: good
- synonym: San Francisco
  examples: |
    - SF
    - frisco
- regex: zip
  examples: |
    - \d{5}
- lookup: city
  examples: |
    - Berlin
stories:
- story: a
"""
FLIGHTS = [
    Row("fly to Berlin", ("book_flight",), (Span(7, 13, "city"),), source="5"),
    Row("from SF 🎵 LA", ("book_flight",),
        (Span(5, 7, "city", "San Francisco", "from"), Span(10, 12, "city", "Los Angeles")), source="7"),
    Row("new york", ("book_flight",), (Span(0, 8, "city"), Span(0, 8, "state")), source="9"),
    Row("hi there", ("greet",), (), extra={"metadata": {"mood": "good"}}, source="13"),
]  # fmt: skip


@pytest.fixture
def nlu(tmp_path):
    path = tmp_path / "nlu.yml"
    path.write_text(NLU, encoding="utf-8")
    return path


def test_rasa_yaml_is_read_as_rasa_reads_it_with_the_line_of_every_example(nlu):
    items = list(formats.stream(nlu))
    assert [i for i in items if isinstance(i, Row)] == [replace(row, source=f"{nlu}:{row.source}") for row in FLIGHTS]
    assert [(b.kind, b.name, b.values) for b in items if isinstance(b, Block)] == [
        ("synonym", "San Francisco", ("SF", "frisco")), ("regex", "zip", (r"\d{5}",)), ("lookup", "city", ("Berlin",)),
        ("section", "stories", ()),
    ]  # fmt: skip


def test_a_folder_of_rasa_files_is_read_in_order_of_name(nlu):
    (nlu.parent / "data").mkdir()
    nlu.rename(nlu.parent / "data" / "nlu.yml")
    (nlu.parent / "data" / "a.yaml").write_text("nlu:\n- intent: bye\n  examples: |\n    - ciao\n")
    (nlu.parent / "endpoints.yml").write_text("# nothing yet\n")
    texts = [row.text for row in formats.stream(nlu.parent) if isinstance(row, Row)]
    assert texts == ["ciao", *(row.text for row in FLIGHTS)]


def test_rasa_yaml_and_json_keep_roles_values_and_blocks(nlu, tmp_path):
    through = tmp_path / "nlu.json"
    first = convert(nlu, through, target_format="rasa-json")
    assert first.losses.counts == {"key 'metadata' left out": 1, "section 'stories' left out": 1}
    assert not convert(through, tmp_path / "again.yml").losses.counts
    convert(nlu, tmp_path / "direct.yml")
    assert (tmp_path / "again.yml").read_text() == (tmp_path / "direct.yml").read_text()
    document = yaml.safe_load((tmp_path / "again.yml").read_text())  # another reader of YAML agrees
    assert [item.get("intent") for item in document["nlu"]] == ["book_flight", "greet", None, None, None]
    examples = json.loads(through.read_text())["rasa_nlu_data"]["common_examples"]
    assert examples[1]["entities"][1] == {"start": 10, "end": 12, "value": "Los Angeles", "entity": "city"}


def test_keys_of_spans_that_mean_nothing_here_are_kept_or_listed(tmp_path):
    source, again = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    span = {"start": 3, "end": 5, "label": "city", "role": "to", "confidence": 0.5, "entity": "place", "by": ["a]"]}
    row = {"text": "to SF", "intent": "book", "spans": [span]}
    source.write_text(f"{json.dumps(row)}\n")
    assert not convert(source, again, target_format="spans").losses.counts
    assert json.loads(again.read_text()) == row
    for target in ("a.yml", "rasa.json"):
        rasa = convert(source, tmp_path / target, target_format="rasa-json" if target == "rasa.json" else "rasa")
        lost = {"entity"} if target == "rasa.json" else {"entity", "by"}  # the label there; no place in the markup
        assert rasa.losses.counts == {f"key {key!r} of a span left out": 1 for key in lost}
        convert(tmp_path / target, again, target_format="spans")
        assert json.loads(again.read_text())["spans"] == [{k: v for k, v in span.items() if k not in lost}]
    conll = convert(source, tmp_path / "a.conll", target_format="conll").losses.counts
    lost = ("role", "key 'confidence'", "key 'entity'", "key 'by'")
    assert conll == {f"{what} of a span left out": 1 for what in lost}


def test_what_a_target_cannot_hold_is_listed_with_counts_and_places(nlu, tmp_path):
    done = convert(nlu, tmp_path / "x.conll")
    report = "\n".join(done.lines())
    for line in (
        f"{nlu}: Rasa YAML (guessed)",
        "CoNLL columns, BIO, 4 rows of 4",
        f"role of a span left out: 1 ({nlu}:7)",
        f"value of a span left out: 2 ({nlu}:7, {nlu}:7)",
        f"overlapping span left out, the one that starts first is kept: 1 ({nlu}:9)",
        f"synonym left out: 1 ({nlu}:16)",
        f"lookup left out: 1 ({nlu}:23)",
    ):
        assert line in report
    spacy = tmp_path / "several.jsonl"
    spacy.write_text(
        '["a b", {"entities": [], "cats": {"x": 1.0, "y": true, "z": 0.1}}]\n["c", {"cats": {"x": 1}}]\n["d", {}]\n'
    )
    done = convert(spacy, tmp_path / "m.jsonl", "spacy", "massive")
    assert done.losses.counts == {
        "several intents: only the first is kept": 1, "entities not annotated, written as none": 1,
        "row without a split, written as partition train": 2, "row left out: its intent is not annotated": 1,
    }  # fmt: skip
    assert done.written == 2 and done.rows == 3


CONLL = {
    "BIO": "B-time I-time B-time I-date O B-date",
    "IOB1": "I-time I-time B-time I-date O I-date",
    "BILOU": "B-time L-time U-time U-date O U-date",
}


@pytest.mark.parametrize("scheme", CONLL)
def test_tagging_schemes_by_hand(scheme, tmp_path):
    words, spans = (
        ["a", "b", "c", "d", "e", "f"],
        (Span(0, 3, "time"), Span(4, 5, "time"), Span(6, 7, "date"), Span(10, 11, "date")),
    )
    path = tmp_path / "x.txt"
    columns = [f"{word} NN {tag}\n" for word, tag in zip(words, CONLL[scheme].split(), strict=True)]
    path.write_text("-DOCSTART- -X- O\n\n" + "".join(columns) + "\n# intent: b\ng\tO\n")
    assert [(r.text, r.intents, r.spans, r.source) for r in formats.stream(path)] == [
        ("a b c d e f", None, spans, f"{path}:3"), ("g", ("b",), (), f"{path}:10")
    ]  # fmt: skip
    assert scheme_of(path) == scheme
    if scheme == "BILOU":
        bioes = path.with_name("bioes")
        bioes.write_text(path.read_text().replace(" L-", " E-").replace(" U-", " S-"))
        assert scheme_of(bioes) == "BIOES" and next(iter(formats.stream(bioes))).spans == spans
    target = {"BIO": "conll", "IOB1": "conll-iob1", "BILOU": "conll-bilou"}[scheme]
    formats.write(tmp_path / "y", formats.stream(path), target, Losses())
    written = (tmp_path / "y").read_text().split("\n\n")[0]
    wanted = CONLL[scheme].replace("I-date O", "B-date O") if scheme == "BIO" else CONLL[scheme]
    assert [line.split("\t")[1] for line in written.splitlines()] == wanted.split()


def test_python_lists_are_read_as_literals_and_run_no_code(tmp_path):
    path = tmp_path / "train.py"
    path.write_text('import os\nTRAIN_DATA = [  # mine\n  ("Uber, [we] blew",\n   {"entities": [(0, 4, "ORG")],}),\n'
                    '  ("it\'s " "on", {"cats": {"x": 1.0}}),\n  (open("x"), {}),\n]\n')  # fmt: skip
    errors = []
    rows = list(formats.stream(path, on_error=errors.append))
    assert [(r.text, r.spans, r.intents, r.source) for r in rows] == [
        ("Uber, [we] blew", (Span(0, 4, "ORG"),), None, f"{path}:3"), ("it's on", None, ("x",), f"{path}:5")
    ]  # fmt: skip
    assert f"{path}:6: expected a tuple of literals" in str(errors[0])
    formats.write(path, rows, "spacy", Losses())
    assert ast.literal_eval(path.read_text().removeprefix("TRAIN_DATA = "))[0] == (
        "Uber, [we] blew", {"entities": [(0, 4, "ORG")]}
    )  # fmt: skip


def test_large_json_is_streamed_with_lines_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("weebill.json_items._PIECE", 7)
    examples = [{"text": f"é🎵 {i}", "intent": "x", "entities": []} for i in range(50)]
    path = tmp_path / "nlu.json"
    path.write_text(json.dumps({"rasa_nlu_data": {"common_examples": examples}}, indent=2, ensure_ascii=False))
    rows = list(formats.stream(path))
    assert [row.text for row in rows] == [e["text"] for e in examples]
    assert [row.source for row in rows][:3] == [f"{path}:{line}" for line in (4, 9, 14)]
    path.write_text(path.read_text().replace('"text": "é🎵 40"', '"text" "é🎵 40"'))
    with pytest.raises(DataError, match=r"nlu\.json:205: expected JSON, got Expecting ':' delimiter"):
        list(formats.stream(path))


INTENT = "nlu:\n- intent: a\n  examples: |\n"
BROKEN = {
    "x.yml": [
        (INTENT + "    - hi\n    ho\n", r"x\.yml:5: expected an example that begins with '- '"),
        (INTENT + "    - [x]{\"role\": 1}\n", r'x\.yml:4: expected \{"entity": "city"'),
        (INTENT + "    - [x]{role}\n", r"x\.yml:4: expected the attributes of an entity as JSON"),
        ("nlu:\n- intent: a\n", r"x\.yml:2: expected examples as a block of lines after 'examples: \|', got none"),
        ("nlu:\n- examples: |\n    - hi\n", r"x\.yml:2: expected an item under nlu with a named intent"),
        ("nlu:\n- intent: [a\n", r"x\.yml:3: expected YAML, got .*"),
        ("- a\n", "expected a mapping with the key nlu"),
        ("version: '3.1'\nintents:\n- a\n", "expected examples under the key nlu, got version, intents; name the file"),
        ("nlu: &a\n- intent: *a\n", r"x\.yml:2: expected values written out, got an alias"),
    ],
    "x.conll": [
        ("a O\nb\n", r"x\.conll:2: expected a word and a tag"),
        ("a X-time\n", r"x\.conll:1: expected a word and a tag"),
        ("# text = a b\na O\nc O\n", r"x\.conll:1: expected the words of the text 'a b', got 'c' at character 2"),
    ],
    "x.json": [
        ('[["a", {"entities": [[0, 9, "x"]]}]]', r"x\.json:1: expected spans within the text's 1 characters"),
        ('[["a", {"entities": [[0, "x"]]}]]', r"x\.json:1: expected entities as \(14, 21"),
        ('[["a", {"cats": ["x"]}]]', r'x\.json:1: expected "cats" as'),
        ('[["a"]]', r"x\.json:1: expected \(text, "),
        ('[["a", {}]] x', r"x\.json:1: expected nothing after the end, got 'x"),
        ('[["a", {}]', r"expected ',', got the end of the file"),
        ('{"rasa_nlu_data": {"common_examples": [{"text": "a", "entities": [{"start": 0}]}]}}',
         r"x\.json:1: expected entities as"),
        ('{"rasa_nlu_data": {"common_examples": ["a"]}}', r"x\.json:1: expected Rasa's"),
        ('{"rasa_nlu_data": {"lookup_tables": [{"name": "a", "elements": "f.txt"}]}}', "expected a list of texts"),
    ],
    "x.py": [
        ("TRAIN = [('a', {})", r"x\.py:\d: expected a Python list of tuples, got .*EOF"),
        ("x = 1\n", "expected a Python list of tuples, as in TRAIN_DATA"),
    ],
    "x.jsonl": [('{"text": "\\ud800"}\n', r"x\.jsonl:1: expected whole characters under 'text', got half a surrogate")],
}  # fmt: skip


@pytest.mark.parametrize(("name", "body", "message"), [(n, *case) for n, cases in BROKEN.items() for case in cases])
def test_broken_files_are_named_and_nothing_is_written(name, body, message, tmp_path):
    (tmp_path / name).write_text(body)
    old = tmp_path / "out" / "x.jsonl"
    formats.write(old, [Row("old")], "spans", Losses())
    for target in (old, tmp_path / "out" / "new.conll", tmp_path / "bio"):
        with pytest.raises(DataError, match=message):
            convert(tmp_path / name, target, target_format=None if target.suffix else "bio")
    assert old.read_text() == '{"text": "old"}\n'
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.jsonl"]
    assert not [path for path in (tmp_path / "bio").rglob("*") if path.is_file()]


def test_reading_goes_on_after_a_broken_row_when_errors_are_asked_for(tmp_path):
    path = tmp_path / "x.conll"
    path.write_bytes(b"a O\nb\n\nc\tO\n\nd\xe9 O\n")
    errors = []
    assert [row.text for row in formats.stream(path, on_error=errors.append)] == ["c", "d\ufffd"]
    assert len(errors) == 1


def test_formats_and_names_that_do_not_fit(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\t0.5\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    for source, target, options, message in (
        ("a.jsonl", "x.json", {}, r"x\.json: expected a name that tells its format"),
        ("a.jsonl", "x.tsv", {"target_format": "qqp"}, "--to: expected a format of utterances .*, got 'qqp'"),
        (
            "a.tsv",
            "x.yml",
            {"target_format": "rasa"},
            r"--to: expected a format of pairs .*, got 'rasa'",
        ),
        ("a.tsv", "x.csv", {"split": "dev"}, "--split: expected none, as pairs have no splits"),
        ("absent", "x.jsonl", {}, "absent: expected a data file, got nothing there"),
    ):
        with pytest.raises(DataError, match=message):
            convert(tmp_path / source, tmp_path / target, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="expected a place to write"):
        convert(tmp_path / "a.jsonl", tmp_path / "file" / "x.jsonl")


def test_what_is_read_is_never_written_over(tmp_path):
    """The rows that an option leaves out, and stories beside examples, would be gone."""
    rows = [Row("a b", ("x",), (Span(0, 1, "t"),), split=split) for split in ("train", "dev", "dev")]
    data, link = tmp_path / "all.jsonl", tmp_path / "link.jsonl"
    formats.write(data, rows, "spans", Losses())
    link.symlink_to(data)
    (tmp_path / "hard.jsonl").hardlink_to(data)
    before = data.read_bytes()
    for target in (data, tmp_path / "x" / ".." / "all.jsonl", link, tmp_path / "hard.jsonl"):
        with pytest.raises(ConfigError, match=r"--output: expected another place than what is read, .*choose another"):
            convert(data, target, split="train")
    with pytest.raises(ConfigError, match="--output: expected another place"):
        convert(link, data, split="train")
    assert data.read_bytes() == before
    bio = tmp_path / "bio"
    formats.write(bio, rows, "bio", Losses())
    for target in (bio, bio / "dev"):
        with pytest.raises(ConfigError, match=r"got .*bio.*, which is .*seq\.in; choose another name"):
            convert(bio, target, split="train")
    with pytest.raises(ConfigError, match="expected a place outside of the folder that is read"):
        convert(bio, bio / "more", split="train")
    assert convert(bio, bio / "train.conll", split="train").written == 1


def test_a_rasa_file_is_not_mended_onto_itself(nlu):
    project, before = nlu.parent, nlu.read_bytes()
    for target in (nlu, project / ".." / project.name / "nlu.yml"):
        with pytest.raises(ConfigError, match="--fix: expected another place than what is read"):
            mend(nlu, target)
        with pytest.raises(ConfigError, match="--fix: expected another place than what is read"):
            mend(project, target)
    with pytest.raises(ConfigError, match=r"--fix: .*clean\.yml, which would be read with .* the next time"):
        mend(project, project / "clean.yml")
    assert nlu.read_bytes() == before and mend(project, project / "clean.jsonl")


def test_splits_become_folders_and_gz_is_the_same_each_time(tmp_path):
    rows = [Row("a b", ("x",), (Span(0, 1, "t"),), split="train"), Row("c", ("x",), (), split="dev")]
    formats.write(tmp_path / "bio", rows, "bio", Losses())
    assert (tmp_path / "bio" / "train" / "seq.out").read_text() == "B-t O\n"
    assert [(r.text, r.split) for r in formats.stream(tmp_path / "bio", split="dev")] == [("c", "dev")]
    with pytest.raises(DataError, match=r"expected rows with a split, .* got both; give every row a split in"):
        formats.write(tmp_path / "mixed", [*rows, Row("d", ("x",), ())], "bio", Losses())
    with pytest.raises(DataError, match=r"expected a split whose name can be a folder's, got '../x'"):
        formats.write(tmp_path / "out", [replace(rows[0], split="../x")], "bio", Losses())
    packed = []
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        formats.write(tmp_path / name, rows, "spans", Losses())
        packed.append((tmp_path / name).read_bytes())
    assert packed[0] == packed[1] and len(gzip.decompress(packed[0]).splitlines()) == 2


PAIRS = st.lists(
    st.builds(ScoredPair, st.text("ab,\"' é🎵", min_size=1), st.text("xy\"'", min_size=1),
              st.sampled_from([0.0, 0.2, 0.56, 1.0])),
    min_size=1, max_size=4,
)  # fmt: skip


@quick
@given(pairs=PAIRS)
def test_pairs_come_back(pairs, tmp_path):
    pairs = [pair for pair in pairs if pair.a.strip() and pair.a != pair.b]
    for name, format in (
        ("p.csv", "pairs"),
        ("p.jsonl", "pairs"),
        ("p.tsv.gz", "pairs"),
        ("s.csv", "sts"),
        ("q.tsv", "qqp"),
    ):
        source = tmp_path / "source.jsonl"
        source.write_text("".join(json.dumps([p.a, p.b, p.score]) + "\n" for p in pairs) or '["a", "b", 0]\n')
        done = convert(source, tmp_path / name, target_format=format)
        held = [p for p in read_pairs(source) if format != "qqp" or p.score in (0, 1)]
        assert done.written == len(held)
        back = read_pairs(tmp_path / name, format) if held else []
        assert [(p.a, p.b) for p in back] == [(p.a, p.b) for p in held]
        assert [p.score for p in back] == pytest.approx([p.score for p in held])


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("nlu.md", "## intent:greet\n- hi\n", r"nlu\.md: expected data in a format that is read \(spans, .*"
         r"got none of them, as the first line is '## intent:greet'; Rasa 2's `rasa data convert nlu` makes YAML"),
        ("nlu.txt", "hello\nthere\n", r"first line is 'hello'; name its --format, or convert it"),
    ],
)  # fmt: skip
def test_a_format_that_is_not_read_is_said(name, body, message, tmp_path):
    (tmp_path / name).write_text(body)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / name, tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=message):
        formats.read_utterances(tmp_path / name)


@pytest.mark.parametrize("header", ["a,b,score", "sentence_1,sentence_2,similarity"])
def test_names_of_columns_are_no_pair(header, tmp_path):
    (tmp_path / "p.csv").write_text(f"{header}\nx,y,0.5\n")
    assert [(p.a, p.b, p.score) for p in read_pairs(tmp_path / "p.csv")] == [("x", "y", 0.5)]


@pytest.mark.parametrize(
    ("name", "body", "losses"),
    [
        ("sts.csv", "main\tMSRvid\t\t7\t5.0\ta b\tc d\nmain\tx\t2012\t8\t0.0\ta\tb\tCC\n",
         {"genre": 2, "file": 2, "year": 1, "id": 2, "fields behind the texts": 1}),
        ("q.tsv", "id\tqid1\tquestion1\tquestion2\tis_duplicate\n1\t\ta?\tb?\t1\n2\t5\tc?\td?\t0\n",
         {"id": 2, "qid1": 1}),
    ],
)  # fmt: skip
def test_what_pairs_cannot_hold_is_listed(name, body, losses, tmp_path):
    (tmp_path / name).write_text(body)
    done = convert(tmp_path / name, tmp_path / "p.jsonl")
    assert done.losses.counts == {f"{what} of a row left out": count for what, count in losses.items()}
    assert done.written == done.rows == 2


def test_triplets_become_pairs_and_that_is_said(tmp_path):
    (tmp_path / "t.tsv").write_text("anchor\tpositive\tnegative\na\tb\tc\n")
    done = convert(tmp_path / "t.tsv", tmp_path / "p.csv")
    assert f"triplet written as two pairs, scored 1 and 0: 1 ({tmp_path / 't.tsv'}:2)" in "\n".join(done.lines())
    assert (tmp_path / "p.csv").read_text() == "sentence1,sentence2,score\na,b,1.0\na,c,0.0\n"


@pytest.mark.parametrize("format", list(SUFFIX))
def test_commands_read_every_format_alike(format, tmp_path):
    rows = [
        Row("at nine am", ("alarm",), (Span(3, 10, "time"),)),
        Row("hi", ("greet",), ()),
    ]
    split = "train" if "split" in formats.FORMATS[format].holds else None
    path = tmp_path / SUFFIX[format]
    formats.write(path, [replace(row, split=split) for row in rows], format, Losses())
    read = formats.read_utterances(path, split=split)
    assert [(u.text, u.intent, u.entities) for u in read] == [
        ("at nine am", "alarm", (Entity(3, 10, "time"),)), ("hi", "greet", ())
    ]  # fmt: skip
    assert path.is_dir() or not is_pair_file(path)


def test_what_a_model_does_not_learn_is_said(nlu, caplog):
    nlu.write_text(NLU.replace('[{"entity": "city"}, {"entity": "state"}]', "(city)"))
    assert len(formats.read_utterances(nlu)) == 4
    for part in ("a model does not learn these", f"row with a role of a span: 1 ({nlu}:7)", "synonym: 1", "lookup: 1"):
        assert part in caplog.text


def test_massive_keeps_its_keys_and_reads_locales_without_spaces(tmp_path):
    row = {"id": "1", "locale": "zh-CN", "partition": "dev", "scenario": "alarm", "intent": "alarm_set",
           "utt": "请在明早八点叫我", "annot_utt": "请在 [time : 明早八点] 叫我", "worker_id": "7"}  # fmt: skip
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    first = convert(tmp_path / "m.jsonl", tmp_path / "spans.jsonl")
    again = convert(tmp_path / "spans.jsonl", tmp_path / "m2.jsonl", target_format="massive")
    assert not first.losses.counts and not again.losses.counts
    assert json.loads((tmp_path / "m2.jsonl").read_text()) == row | {"annot_utt": "请在[time : 明早八点]叫我"}
    assert json.loads((tmp_path / "spans.jsonl").read_text())["spans"] == [{"start": 2, "end": 6, "label": "time"}]


def test_markup_of_one_example():
    text, spans = read_markup("[9 am](time) to [SF](city:San Francisco)")
    assert text == "9 am to SF" and spans == (Span(0, 4, "time"), Span(8, 10, "city", "San Francisco"))


def test_a_folder_of_files_is_answered_with_its_files(tmp_path):
    with pytest.raises(
        DataError, match=r"expected a folder with seq\.in, seq\.out, label, got one without; name the folder"
    ):
        list(formats.stream(tmp_path))
    (tmp_path / "train.jsonl").write_text('{"text": "hi"}')
    (tmp_path / "dev.jsonl").write_text('{"text": "ho"}')
    with pytest.raises(
        DataError, match=r"got one with dev\.jsonl, train\.jsonl; name one of its files, as in .*dev.jsonl"
    ):
        list(formats.stream(tmp_path))
