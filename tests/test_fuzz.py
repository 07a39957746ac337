"""Readers refuse what they cannot read, and nothing else goes through: bytes of Hypothesis, and what fuzzing found."""

import base64
import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weebill
from weebill import files
from weebill.errors import DataError
from weebill.formats import read_utterances

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))
from targets import FOLDER, TARGETS, try_one  # noqa: E402

ASSETS = Path(weebill.__file__).parent / "assets"
SMALL = Path(__file__).parent / "folders" / "today"
SPANS = (
    b'{"id": "1", "text": "wake me at nine", "intent": "alarm", "spans": [{"start": 11, "end": 15, "label": "time"}]}\n'
)
CONLL = b"# intent = alarm\nwake\tO\nat\tO\nnine\tB-time\nam\tI-time\n\nhi\tO\n"
SEEDS = {
    "format-spans": SPANS,
    "format-spans-gz": gzip.compress(SPANS, mtime=0),
    "format-massive": b'{"id": "1", "locale": "en-US", "partition": "train", "intent": "alarm", '
    b'"utt": "wake me at nine", "annot_utt": "wake me at [time : nine]"}\n',
    "format-conll": CONLL, "format-conll-iob1": CONLL, "format-conll-bilou": CONLL.replace(b"I-", b"L-"),
    "format-rasa": b'version: "3.1"\nnlu:\n- intent: alarm\n  examples: |\n    - wake me at [nine am](time)\n'
    b'    - to [SF]{"entity": "city", "role": "to"}\n- synonym: nine\n  examples: |\n    - 9\n',
    "format-rasa-json": b'{"rasa_nlu_data": {"common_examples": [{"text": "at nine", "intent": "alarm", "entities": '
    b'[{"start": 3, "end": 7, "value": "nine", "entity": "time"}]}]}}',
    "format-spacy": b'[["at nine", {"entities": [[3, 7, "time"]], "cats": {"alarm": 1.0}}]]',
    "format-spacy-py": b'TRAIN = [("at nine", {"entities": [(3, 7, "time")], "cats": {"alarm": 1.0}})]\n',
    "format-table": b'text,label,split\n"at nine, please",alarm,train\nhi,,dev\n',
    "pairs-tsv": b"a dog\tone dog\t0.9\na cat\tthe sea\t0.1\n",
    "pairs-jsonl": b'{"anchor": "a dog", "positive": "one dog", "negative": "the sea"}\n',
    "grammar": b"slots: {city: [Rome, /2/ New York]}\nintents:\n  go: ['take me to {city} [please]', '<x> (a|b)']\n"
    b"rules: {x: [go, run]}\n",
    "recipe": b'task = "finetune"\nseed = 3\n[training]\nepochs = 2\nlearning_rate = 1e-3\n[data]\ntrain = ["a"]\n',
    "tokenizer-json": (SMALL / "tokenizer.json").read_bytes(),
    "tokenizer-tiktoken": b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)) + b"YWI= 256\n",
    "text": "Ｗake me\u2028at\r\n9 café cafe\u0301 🏳️‍🌈 [CLS] שלום".encode(),
    "golden": (SMALL / "golden.jsonl").read_bytes()[:1500],
    "json": b'{"a": [1, 2.5e3, "x", {"b": null}], "c": true}',
    "graph": (ASSETS / "tiny" / "model.onnx").read_bytes()[:4000],
}  # fmt: skip
TOKENS = [
    *(b"[ ] { } \" ' : , | < > ( ) - &a *a \\u \\ud800 1e999 NaN -1 <<: !!python/object/apply:os.system".split()),
    b"\n", b"\t", b"- ", b"\xff", b"\x00", "\u2028".encode(), b"[" * 3000, b'{"a":' * 3000, b"- " * 3000,
]  # fmt: skip


def test_every_target_has_a_seed_that_is_read():
    assert set(SEEDS) == set(TARGETS)
    for name, seed in SEEDS.items():
        if name not in ("graph", "golden"):  # cut short
            TARGETS[name](seed)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(body=st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_anything_is_read_or_refused(body):
    for name in TARGETS:
        try_one(name, body)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_are_read_or_refused(name):
    rng, seed = random.Random(name), SEEDS[name]
    for _ in range(60):
        body = bytearray(seed)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(4):
                case 0:
                    body[at:at] = rng.choice(TOKENS)
                case 1:
                    del body[at : at + rng.randint(1, 20)]
                case 2:
                    body[at:at] = body[at : at + rng.randint(1, 40)]
                case 3:
                    body[at : at + 1] = bytes([rng.randrange(256)])
        try_one(name, bytes(body))


FOUND = sorted(path for path in (FUZZ / "found").rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_fuzzing_found_is_refused(path):
    try_one(path.parent.name, path.read_bytes())


def test_a_packed_file_that_grows_is_refused_before_memory_is_gone(monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1_000_000)
    bomb = FOLDER / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(b" " * 50_000_000))
    with pytest.raises(DataError, match=r"bomb\.jsonl\.gz:1: expected lines of at most 1,000,000 bytes, got a longer"):
        read_utterances(bomb, "spans")


def test_the_fuzzer_runs_where_atheris_is_installed():
    pytest.importorskip("atheris", reason="make fuzz installs it")
    command = [sys.executable, FUZZ / "readers.py", "-runs=500", "-seed=1"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr[-2000:]
