"""What is fuzzed: functions of bytes that a reader takes, and may refuse with a WeebillError alone. Makes no bytes."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from weebill.bpe import pretokenize
from weebill.config import FinetuneRecipe
from weebill.counting import well_formed
from weebill.errors import WeebillError
from weebill.formats import FORMATS, stream
from weebill.golden import read_golden
from weebill.grammar import parse_grammar
from weebill.graph_check import check_graph
from weebill.model_files import parse_json
from weebill.pairs import read_pairs
from weebill.recipe_files import load_recipe
from weebill.tokenizer import Tokenizer

PACKAGED = Tokenizer.packaged()
ENDINGS = {"spans": ".jsonl", "massive": ".jsonl", "rasa": ".yml", "rasa-json": ".json", "spacy": ".json"}


def _file(body: bytes, name: str) -> Path:
    path = FOLDER / name
    path.write_bytes(body)
    return path


def _format(name: str, ending: str) -> Callable[[bytes], None]:
    def read(body: bytes) -> None:
        path = _file(body, f"data{ending}")
        list(stream(path, name, None, [].append))  # errors of rows are collected: it reads to the end
        for item in stream(path, name):
            getattr(item, "utterance", str)()

    return read


def text(body: bytes) -> None:
    """Encode any text; decoding gives it back."""
    value = body.decode("utf-8", "surrogateescape")  # what is no UTF-8 becomes half a surrogate pair
    encoding = PACKAGED.encode(value)
    assert PACKAGED.decode(encoding.token_ids) == well_formed(value)
    assert "".join(pretokenize(value)) == value
    assert all(0 <= start <= end <= len(value) for start, end in encoding.offsets)


def tokenizer(name: str) -> Callable[[bytes], None]:
    """Load a tokenizer; one that loads encodes and decodes."""

    def read(body: bytes) -> None:
        loaded = Tokenizer.load(_file(body, name))
        value = "wake me at 9, café 🎵"
        if not loaded.normalizers:
            assert loaded.decode(loaded.encode(value).token_ids) == value

    return read


def golden(body: bytes) -> None:
    """Read golden rows."""
    _file(body, "golden.jsonl")
    read_golden(FOLDER)


def json_value(body: bytes) -> None:
    """Parse JSON; what is none is a ValueError here, which every caller turns into an ArtifactError."""
    try:
        parse_json(body.decode("utf-8", "replace"))
    except ValueError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    **{f"format-{name}": _format(name, ENDINGS.get(name, ".txt")) for name in FORMATS if name != "bio"},
    "format-spacy-py": _format("spacy", ".py"),
    "format-spans-gz": _format("spans", ".jsonl.gz"),
    "pairs-tsv": lambda body: list(read_pairs(_file(body, "pairs.tsv"), None)) and None,
    "pairs-jsonl": lambda body: list(read_pairs(_file(body, "pairs.jsonl"), None)) and None,
    "grammar": lambda body: parse_grammar(body.decode("utf-8", "replace"), "g.yaml") and None,
    "recipe": lambda body: load_recipe(str(_file(body, "recipe.toml")), FinetuneRecipe) and None,
    "tokenizer-json": tokenizer("tokenizer.json"),
    "tokenizer-tiktoken": tokenizer("x.tiktoken"),
    "text": text,
    "golden": golden,
    "json": json_value,
    "graph": lambda body: check_graph(body, "graph"),
}
_TEMPORARY = tempfile.TemporaryDirectory(prefix="weebill-fuzz-")
FOLDER = Path(_TEMPORARY.name)


def try_one(name: str, body: bytes) -> None:
    """Give bytes to a target; anything but a WeebillError goes through."""
    try:
        TARGETS[name](body)
    except WeebillError as error:
        str(error).encode()  # it can be printed
