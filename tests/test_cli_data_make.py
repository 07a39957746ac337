"""`weebill data split|generate|fetch` as a user meets them, and every example of docs/generate.md run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from weebill import completeness, datasets
from weebill.cli import app
from weebill.errors import ConfigError, DataError, WeebillError
from weebill.formats import read_utterances
from weebill.generator import draw_utterances
from weebill.grammar import read_grammar
from weebill.templates import generate

DOCS = Path(__file__).parent.parent / "docs"


def run(*arguments):
    """Return (standard output, standard error); a weebill error is raised, as main() would print it."""
    result = CliRunner().invoke(app, ["data", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_help_teaches():
    for command in ("split", "generate", "fetch"):
        out, _ = run(command, "--help")
        assert "Example" in out
    assert re.search(r"\[<polite>\] turn on the \{room\}", run("generate", "--help")[0])


def _examples():
    """Files and commands of docs/generate.md, in order: (kind, name or command, body or output)."""
    text = (DOCS / "generate.md").read_text(encoding="utf-8")
    for match in re.finditer(r"(?:`([\w.]+)`:\n\n)?```(\w*)\n(.*?)```", text, re.DOTALL):
        if match[1]:
            yield "file", match[1], match[3]
        elif match[2] == "console":
            command, _, output = match[3].removeprefix("$ ").partition("\n")
            yield "command", command, output


def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = 0
    for kind, name, body in _examples():
        if kind == "file":
            Path(name).write_text(body, encoding="utf-8")
        else:
            commands += 1
            assert run(*shlex.split(name)[2:])[0] == body, name
    assert commands == 3
    assert len(draw_utterances(read_grammar(Path("lights.yaml")), {"": 6}, seed=0)[""]) == 6


def test_the_mistakes_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grammar = next(body for kind, name, body in _examples() if name == "lights.yaml")
    for old, new in (
        ("lights on in the {room}", "lights on in the {rom}"),
        ("polite: [please, could you]", "{polite: [please <start>], start: [<polite> do]}"),
        ("[kitchen, living room, /0.2/ wine cellar]", "[]"),
        ("[<polite>] turn on the {room} (light|lights)", "[please turn on"),
    ):
        Path("lights.yaml").write_text(grammar.replace(old, new), encoding="utf-8")
        with pytest.raises(ConfigError) as error:
            run("generate", "lights.yaml")
        assert str(error.value) in (DOCS / "generate.md").read_text(encoding="utf-8")


def test_generate_the_embedded_data(tmp_path):
    _, said = run("generate", "embedded", "--count", "train=85", "--count", "dev=15", "--output", tmp_path / "e.jsonl")
    assert f"100 utterances in {tmp_path / 'e.jsonl'}" in said.replace("\n", "")  # a long path has a line of its own
    train, dev = generate(100)
    assert [u.text for u in read_utterances(tmp_path / "e.jsonl", split="dev")] == [u.text for u in dev]
    assert [u.entities for u in read_utterances(tmp_path / "e.jsonl", split="train")] == [u.entities for u in train]
    assert {row["template"].split("/")[1] for row in rows(tmp_path / "e.jsonl") if row["split"] == "dev"} == {"dev"}


def test_augment_from_one_split(tmp_path):
    run("generate", "embedded", "--count", "train=85", "--count", "dev=15", "--output", tmp_path / "e.jsonl")
    options = ["--augment", tmp_path / "e.jsonl", "--split", "train", "--count", "50"]
    run("generate", *options, "--output", tmp_path / "more.jsonl")
    made = rows(tmp_path / "more.jsonl")
    assert len({row["text"] for row in made} | {row["text"] for row in rows(tmp_path / "e.jsonl")}) == 150
    assert {"train"} == {row["id"].split("/")[1] for row in made}
    assert len(read_utterances(tmp_path / "more.jsonl")) == 50
    from_grammar, _ = run("generate", "embedded", *options)
    assert len(from_grammar.splitlines()) == 50


@pytest.mark.parametrize("id", [None, "doc"])
def test_ids_of_augmented_rows_are_unique_and_name_their_source(tmp_path, id):
    """Without ids the line names the source; rows with one id count on, and split --group-by id keeps a source's."""
    cities = ["Rome", "Oslo", "Lima", "Bern", "Kyiv", "Riga"]
    lines = [{"text": f"way {i} to {city}", "intent": "go", "spans": [{"start": 9, "end": 13, "label": "city"}]}
             | ({"id": id} if id else {}) for i, city in enumerate(cities)]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("generate", "--augment", tmp_path / "a.jsonl", "--count", "24", "--output", tmp_path / "more.jsonl")
    made = rows(tmp_path / "more.jsonl")
    assert len({row["id"] for row in made}) == 24
    if id:
        assert {row["id"] for row in made} == {f"doc~{i}" for i in range(1, 25)}
        return
    assert all(int(row["id"].partition("~")[0]) == int(row["text"].split()[1]) + 1 for row in made)
    run("split", tmp_path / "more.jsonl", "--group-by", "id", "--size", "dev=8", "--output", tmp_path / "parts")
    frames = [
        {row["text"].split()[1] for row in rows(tmp_path / "parts" / f"{name}.jsonl")} for name in ("train", "dev")
    ]
    assert frames[0].isdisjoint(frames[1]) and len(frames[1]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"expected a grammar or --augment FILE, got neither; try: weebill data generate embedded"),
        (["embedded", "--count", "5"], r"--count: expected SPLIT=N, as the grammar has the splits train, dev, got '5'"),
        (["embedded", "--count", "test=5"], r"got 'test=5'; as in --count train=100 --count dev=100"),
        (["lights.yaml", "--split", "dev"], r"--format, --split: expected --augment FILE with them"),
        (["nowhere.yaml"], r"nowhere.yaml: expected a file, got nothing there"),
        (["lights.yaml", "--count", "x"], r"--count: expected one number, got x"),
        (["lights.yaml", "--count", "1000"], r"expected at most \d+ distinct utterances, .* lower the count"),
    ],
)
def test_generate_mistakes(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("lights.yaml").write_text("slots: {x: [a, b]}\nintents: {i: ['go {x}']}", encoding="utf-8")
    with pytest.raises(WeebillError, match=message):
        run("generate", *arguments)


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "all.jsonl"
    lines = [
        {"id": i, "text": f"go to {city} {i % 50}", "intent": "go" if i % 3 else "stay", "speaker": i % 40, "mine": "ü",
         "spans": [{"start": 6, "end": 6 + len(city), "label": "city", "role": "to"}]}
        for i, city in enumerate(["Rome", "Oslo", "Lima", "Bern"] * 50)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_split_keeps_rows_whole_and_prints_the_shares(labelled, tmp_path):
    out, said = run("split", labelled, "--size", "dev=0.1", "--size", "test=40", "--output", tmp_path / "parts")
    parts = {name: rows(tmp_path / "parts" / f"{name}.jsonl") for name in ("train", "dev", "test")}
    assert [len(part) for part in parts.values()] == [140, 20, 40]
    originals = {row["id"]: row for row in rows(labelled)}
    for name, part in parts.items():
        assert [originals[row["id"]] | {"split": name} for row in part] == part  # every field, also unknown ones
    assert sorted(row["id"] for part in parts.values() for row in part) == list(range(200))
    texts = [{row["text"] for row in part} for part in parts.values()]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    assert re.search(r"intent go +│ 133 +│ \d+ \(\d+\.\d%\) +│", out)
    assert "entity city" in out
    assert "no label is further than" in said
    assert "train 140, dev 20, test 40 of 200 rows in" in said
    again = tmp_path / "again"
    run("split", labelled, "--size", "dev=0.1", "--size", "test=40", "--output", again, "--seed", "7")
    assert rows(again / "dev.jsonl") != parts["dev"]


def test_split_by_a_field_and_by_template(labelled, tmp_path):
    for field in ("speaker", "template", "id"):
        run("split", labelled, "--group-by", field, "--output", tmp_path / field, "--size", "dev=0.2")
    of = {name: rows(tmp_path / "speaker" / f"{name}.jsonl") for name in ("train", "dev")}
    assert {row["speaker"] for row in of["train"]}.isdisjoint(row["speaker"] for row in of["dev"])
    of = {name: rows(tmp_path / "template" / f"{name}.jsonl") for name in ("train", "dev")}
    frames = [{re.sub("Rome|Oslo|Lima|Bern", "", row["text"]) for row in part} for part in of.values()]
    assert frames[0].isdisjoint(frames[1])


def test_folds(labelled, tmp_path):
    out, said = run("split", labelled, "--folds", "4", "--output", tmp_path)
    devs = [rows(tmp_path / f"fold-{n}" / "dev.jsonl") for n in (1, 2, 3, 4)]
    assert sorted(row["id"] for dev in devs for row in dev) == list(range(200))
    for number, dev in enumerate(devs, start=1):
        train = rows(tmp_path / f"fold-{number}" / "train.jsonl")
        assert {row["id"] for row in train} == set(range(200)) - {row["id"] for row in dev}
        assert {row["split"] for row in train} == {"train"}
    assert "fold-4" in out
    assert "fold-1 50" in said


def test_split_of_another_format(tmp_path):
    folder = tmp_path / "bio"
    folder.mkdir()
    for name, line in (("seq.in", "to rome {}"), ("seq.out", "O B-city O"), ("label", "go")):
        (folder / name).write_text("".join(line.format(i) + "\n" for i in range(20)))
    run("split", folder, "--output", tmp_path / "out")
    dev = read_utterances(tmp_path / "out" / "dev.jsonl", split="dev")
    assert len(dev) == 2
    assert dev[0].intent == "go"
    assert [dev[0].text[e.start : e.end] for e in dev[0].entities] == ["rome"]
    with pytest.raises(ConfigError, match=r"seq.in:1: expected a field 'speaker' to group by, got intent, spans,"):
        run("split", folder, "--group-by", "speaker", "--output", tmp_path / "out")


RASA = """nlu:
- intent: go
  examples: |
    - from [Oslo]{"entity": "city", "role": "from"} to [SF]{"entity": "city", "value": "San Francisco", "group": "1"}
    - to [Rome](city)
    - [Lima](city) please
- intent: stay+greet
  examples: |
    - hello, no thanks
- synonym: San Francisco
  examples: |
    - SF
"""


def test_split_keeps_what_the_lines_hold_and_lists_the_rest(tmp_path):
    (tmp_path / "nlu.yml").write_text(RASA)
    _, said = run("split", tmp_path / "nlu.yml", "--size", "dev=2", "--output", tmp_path / "rasa")
    run("convert", tmp_path / "nlu.yml", "--output", tmp_path / "nlu.jsonl")
    parts = {name: rows(tmp_path / "rasa" / f"{name}.jsonl") for name in ("train", "dev")}
    converted = [row | {"split": name} for row in rows(tmp_path / "nlu.jsonl")
                 for name, part in parts.items() if row["text"] in {other["text"] for other in part}]  # fmt: skip
    assert sorted(converted, key=str) == sorted(parts["train"] + parts["dev"], key=str)
    assert [{k: span[k] for k in span if k not in ("start", "end")} for span in converted[0]["spans"]] == [
        {"label": "city", "role": "from"}, {"label": "city", "value": "San Francisco", "group": "1"},
    ]  # fmt: skip
    assert f"synonym left out: 1 ({tmp_path / 'nlu.yml'}:10)" in said and "does not learn" not in said

    massive = [{"id": str(i), "locale": "en-US", "partition": "train", "scenario": "go", "intent": "go",
                "utt": f"to {i}", "annot_utt": f"to [city : {i}]", "worker_id": i // 2} for i in range(4)]  # fmt: skip
    (tmp_path / "en-US.jsonl").write_text("".join(json.dumps(row) + "\n" for row in massive))
    run("split", tmp_path / "en-US.jsonl", "--folds", "2", "--group-by", "worker_id", "--output", tmp_path / "massive")
    fold = rows(tmp_path / "massive" / "fold-1" / "dev.jsonl")
    assert [(row["lang"], row["scenario"]) for row in fold] == [("en-US", "go")] * 2
    assert fold[0]["worker_id"] == fold[1]["worker_id"]

    cats = "".join(json.dumps([f"text {i}", {"entities": [], "cats": {"a": 1, "b": 1}}]) + "\n" for i in range(4))
    (tmp_path / "spacy.jsonl").write_text(cats)
    _, said = run("split", tmp_path / "spacy.jsonl", "--size", "dev=2", "--output", tmp_path / "spacy")
    assert "several intents: only the first is kept: 4" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "dev=0.1", "--folds", "3"], "expected --size or --folds, got both"),
        (["--folds", "1"], "--folds: expected 2 to 200, one row a fold or more, got 1"),
        (["--size", "dev"], "--size expects NAME=FRACTION or NAME=COUNT, got 'dev'; as in dev=0.1"),
        (
            ["--size", "dev=1.0"],
            "--size expects a fraction below 1 or a whole count, got 'dev=1.0'; as in dev=0.1",
        ),
        (["--size", "dev=0.1", "--size", "dev=0.4"], "--size expects each NAME once, got 'dev' again with 'dev=0.4'"),
        (["--size", "a/b=3"], "--size expects a NAME that can be a file's, got 'a/b'"),
        (
            ["--group-by", "talker"],
            r"all\.jsonl:1: expected a field 'talker' to group by, got id, intent, mine, spans",
        ),
    ],
)
def test_split_mistakes(labelled, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        run("split", labelled, "--output", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_folds_are_written_all_or_none(labelled, tmp_path):
    data = tmp_path / "folds/fold-2/train.jsonl"
    data.parent.mkdir(parents=True)
    data.write_bytes(labelled.read_bytes())
    with pytest.raises(ConfigError, match="--output: expected another place"):
        run("split", data, "--folds", "3", "--output", tmp_path / "folds")
    assert [path.name for path in (tmp_path / "folds").iterdir()] == ["fold-2"]
    assert data.read_bytes() == labelled.read_bytes()


@pytest.mark.parametrize("options", [["--size", "dev=2"], ["--folds", "2"]])
def test_a_part_that_would_be_empty_is_an_error(tmp_path, options):
    data = tmp_path / "same.jsonl"
    data.write_text('{"text": "hi", "intent": "greet"}\n' * 10)
    message = r"same\.jsonl: expected rows for every part, got none for (dev|fold-[12]), as rows with one text stay"
    with pytest.raises(DataError, match=message):
        run("split", data, *options, "--output", tmp_path / "out")
    data.write_text("".join(f'{{"text": "hi {i}", "intent": "greet", "speaker": 1}}\n' for i in range(10)))
    with pytest.raises(DataError, match=r"one text or speaker stay .*fewer parts, or another --group-by, collect"):
        run("split", data, *options, "--group-by", "speaker", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_killed_command_leaves_no_unfinished_file(tmp_path):
    if sys.platform == "win32":
        pytest.skip("no SIGTERM")
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "a.jsonl").open("w") as file:
        file.writelines(f'{{"text": "hi {i}", "intent": "x"}}\n' for i in range(600_000))
    out = tmp_path / "out"
    out.mkdir()
    arguments = [str(tmp_path / "in" / "a.jsonl"), "--output", str(out / "b.jsonl")]
    process = subprocess.Popen([sys.executable, "-m", "weebill", "data", "convert", *arguments])
    until = time.monotonic() + 60
    while not list(out.iterdir()) and time.monotonic() < until:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 143 and list(out.iterdir()) == []


def test_pairs_are_not_split_nor_augmented(tmp_path):
    (tmp_path / "sts-dev.csv").write_text("main\tx\t2012\t1\t5.0\ta\tb\n" * 30)
    (tmp_path / "mine.csv").write_text("phrase,intent\nbye,bye\n")
    for name, got in (
        ("sts-dev.csv", r"got pairs"),
        ("mine.csv", r"got pairs, as a \.csv is read; write a text and its"),
    ):
        for command in (["split"], ["check"], ["generate", "--augment"]):
            output = [] if command == ["check"] else ["--output", tmp_path / "out"]
            with pytest.raises(DataError, match=rf"^.*{name}: expected labelled utterances, {got}") as error:
                run(*command, tmp_path / name, *output)
            assert "\n" not in str(error.value)


def test_data_are_never_written_over(labelled, tmp_path):
    before = labelled.read_bytes()
    with pytest.raises(ConfigError, match=r"--output: expected another place than what is read, .*got .*all\.jsonl"):
        run("split", labelled, "--size", "all=20", "--output", tmp_path)
    for option in ("--json", "--html", "--fix"):
        with pytest.raises(ConfigError, match=f"{option}: expected another place than what is read"):
            run("check", labelled, option, labelled)
    with pytest.raises(ConfigError, match="--output: expected another place than what is read"):
        run("generate", "--augment", labelled, "--count", "2", "--output", labelled)
    assert labelled.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


def test_fetch_from_a_file_says_the_licence(tmp_path, monkeypatch):
    monkeypatch.setattr(completeness, "MASSIVE_ROWS", {})
    row = {"id": "0", "locale": "th-TH", "partition": "train", "intent": "x", "utt": "ไป", "annot_utt": "ไป"}
    (tmp_path / "th-TH.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    _, said = run(
        "fetch", "massive", "--locale", "th-TH", "--from", tmp_path / "th-TH.jsonl", "--output", tmp_path / "data"
    )
    assert "licence: CC BY 4.0" in said
    assert f"wrote {tmp_path / 'data' / 'massive' / 'th-TH.jsonl'}" in said
    assert read_utterances(tmp_path / "data" / "massive" / "th-TH.jsonl")[0].text == "ไป"
    with pytest.raises(ConfigError, match="--locale: expected none, as stsb is in English alone, got 'de'; leave it"):
        run("fetch", "stsb", "--locale", "de", "--output", tmp_path)
    with pytest.raises(ConfigError, match="or wikipedia, got 'glue'"):
        run("fetch", "glue", "--output", tmp_path)


def test_fetch_from_a_server_and_then_from_the_cache(tmp_path, monkeypatch):
    for module in ("requests", "filelock"):
        pytest.importorskip(module)
    monkeypatch.setattr(completeness, "LINES", {})
    for name, line in (("seq.in", "fly to rome"), ("seq.out", "O O B-city"), ("label", "flight")):
        for part in ("train", "valid"):
            (tmp_path / "site" / "atis" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "site" / "atis" / part / name).write_text(line + "\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    options = ["--output", tmp_path / "data", "--cache", tmp_path / "cache"]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(datasets, "_SLOT_GATED", f"http://127.0.0.1:{server.server_port}")
        _, said = run("fetch", "atis", *options)
        server.shutdown()
    assert said.count("has no published checksum; what came is sha256:") == 6
    assert "measure only, do not ship models" in said
    assert read_utterances(tmp_path / "data" / "atis", split="dev")[0].text == "fly to rome"
    assert not (tmp_path / "data" / "atis" / "test").exists()
    shutil.rmtree(tmp_path / "data")
    run("fetch", "atis", *options)  # the server is gone
    assert len(read_utterances(tmp_path / "data" / "atis")) == 2


def test_fetch_wikipedia_from_a_dump(tmp_path):
    pytest.importorskip("mwparserfromhell")
    text = "The '''weebill''' is a [[bird]]. " * 20
    page = f"<page><title>Weebill</title><ns>0</ns><revision><text>{text}</text></revision></page>"
    (tmp_path / "d.xml").write_text(f"<mediawiki>{page}</mediawiki>")
    _, said = run("fetch", "wikipedia", "--from", tmp_path / "d.xml", "--output", tmp_path)
    assert f"1 articles in {tmp_path / 'wiki' / 'simplewiki.txt.gz'}" in said
    assert "CC BY-SA 4.0" in said
    with pytest.raises(DataError, match="nothing there; check --from"):
        run("fetch", "wikipedia", "--from", tmp_path / "e.xml", "--output", tmp_path)


def test_nothing_is_written_outside_of_what_is_named(labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("split", labelled, "--output", "parts")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl", "parts"]
