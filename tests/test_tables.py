"""Tables of texts and intents: read by their columns' names, read as they were written, never taken for pairs."""

import csv
import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weebill import formats
from weebill.config import PretrainRecipe
from weebill.conversion import convert
from weebill.errors import DataError
from weebill.interchange import Losses, Row, Span
from weebill.pairs import is_pair_file
from weebill.recipe_files import parse_recipe
from weebill.sources import read_mix
from weebill.tables import is_table

TABLE = '\nID,Utterance,Label,split,note\n7,"where, please,\nis my ""parcel""?",parcel,train,x\n\n8,hello,,dev,\n'


def rows_of(path):
    return list(formats.stream(path))


def test_columns_are_found_by_name(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text(TABLE)
    text = 'where, please,\nis my "parcel"?'
    assert rows_of(path) == [
        Row(text, ("parcel",), None, "7", "train", None, {"note": "x"}, f"{path}:3"),
        Row("hello", None, None, "8", "dev", source=f"{path}:6"),
    ]
    assert [u.text for u in formats.read_utterances(path, split="dev")] == ["hello"]
    with gzip.open(tmp_path / "all.csv.gz", "wt") as file:
        file.write(TABLE)
    assert [row.text for row in rows_of(tmp_path / "all.csv.gz")] == [text, "hello"]
    (tmp_path / "all.tsv").write_text('query\tcategory\n"where", please\tparcel\n')
    assert [(r.text, r.intents) for r in rows_of(tmp_path / "all.tsv")] == [('"where", please', ("parcel",))]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1).filter(str.strip)
INTENTS = st.none() | st.text('ab ,"', min_size=1, max_size=5).filter(str.strip)
ROWS = st.tuples(TEXTS, INTENTS, st.sampled_from(["", "7"]), st.sampled_from([None, "train"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(found=st.lists(ROWS, min_size=1, max_size=5), name=st.sampled_from(["t.csv", "t.csv.gz"]))
def test_a_table_is_read_as_it_was_written(found, name, tmp_path):
    rows = [Row(text, intent and (intent,), None, id, split) for text, intent, id, split in found]
    losses = Losses()
    formats.write(tmp_path / name, rows, formats.format_to_write(tmp_path / name), losses)
    assert not losses.counts
    assert formats.guess(tmp_path / name) == "table" and not is_pair_file(tmp_path / name)
    assert [(r.text, r.intents, r.id, r.split) for r in rows_of(tmp_path / name)] == [
        (r.text, r.intents, r.id, r.split) for r in rows
    ]


def test_what_a_table_cannot_hold_is_listed(tmp_path):
    rows = [Row("at nine", ("a", "b"), (Span(3, 7, "time"),)), Row("hi", ("a",), ())]
    losses = Losses()
    formats.write(tmp_path / "t.csv", rows, "table", losses)
    assert losses.counts == {
        "several intents: only the first is kept": 1, "entities of a row left out": 1, "that a row has no entities": 1
    }  # fmt: skip
    with (tmp_path / "t.csv").open(newline="") as file:
        assert next(csv.DictReader(file)) == {"text": "at nine", "intent": "a", "id": "", "split": "", "lang": ""}


@pytest.mark.parametrize(
    "header",
    [
        "sentence1,sentence2,score",
        "text,score",
        "label",
        "a\tb",
        '"text,label',
        "x",
        "query,answer,label",
        "query\tsentence\tlabel",
        "sentence,paraphrase,label",
    ],
)
def test_other_headers_are_none(header, tmp_path):
    assert not is_table(header)


def test_mistakes_have_their_place(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,intent\nwhere, please,parcel\nhi,greet\na,b,c\n")
    with pytest.raises(DataError) as error:
        formats.read_utterances(path)
    assert str(error.value).count("expected 2 fields, as the header has, got 3; put a text with a separator in") == 2
    assert f"{path}:2: " in str(error.value) and f"{path}:4: " in str(error.value)
    path.write_text('text,intent\nhi,greet\n"hi,greet\nbye,bye\n')
    with pytest.raises(DataError, match=r"t\.csv:3: expected fields with CSV quoting, got .* in the row that begins"):
        formats.read_utterances(path)
    path.write_text("text,intent,text\nhi,greet,other\n")
    with pytest.raises(DataError, match=r"t\.csv:1: expected columns of different names, got 'text,intent,text'"):
        formats.read_utterances(path)
    path.write_text("text;intent\nhi, you;greet\n")
    assert formats.read_utterances(path)[0].text == "hi, you"
    path.write_text("sentence,score\nhi,1\n")
    with pytest.raises(DataError, match=r"t\.csv:1: expected a header with a column of texts .* got 'sentence,score'"):
        formats.read_utterances(path, format="table")


def test_it_is_converted_to_what_holds_entities_too(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nhi,greet\nbye,leave\n")
    assert "a table of texts and intents (guessed)" in convert(tmp_path / "t.csv", tmp_path / "t.jsonl").lines()[0]
    assert [(u.text, u.intent, u.entities) for u in formats.read_utterances(tmp_path / "t.jsonl")] == [
        ("hi", "greet", None), ("bye", "leave", None)
    ]  # fmt: skip


def test_a_table_to_pretrain_on_gives_its_texts(tmp_path):
    (tmp_path / "t.csv").write_text('text,label\nreset my password,password\n"where, please",parcel\n')
    (tmp_path / "p.csv").write_text(
        "query,answer,label\nhow to reset,press the button,1\nwhere is it,in the attic,0.5\n"
    )
    recipe = {"data": {"train": [{"path": "t.csv", "loss": "masked_lm"}, "p.csv"], "dev": "p.csv"}}
    mix = read_mix(parse_recipe(recipe, PretrainRecipe, "t"), tmp_path)
    assert {"reset my password", "where, please", "press the button"} <= set(mix.texts)
    assert not any("," in text and text != "where, please" for text in mix.texts)


def test_a_docbin_is_named(tmp_path):
    (tmp_path / "train.spacy").write_bytes(b"\x78\x9c\x00\xff")
    for convert_or_read in (formats.read_utterances, lambda path: convert(path, tmp_path / "x.jsonl")):
        with pytest.raises(DataError, match="a DocBin, which spaCy alone reads; write its docs as tuples"):
            convert_or_read(tmp_path / "train.spacy")
