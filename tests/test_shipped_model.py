"""The model that comes with weebill: read when none is named, small, whole, and right on plain requests."""

import json
import sys
from importlib import resources
from pathlib import Path
from subprocess import run

import numpy as np
import pytest

import weebill
from weebill.artifact import SHIPPED
from weebill.verification import verify

FOLDER = Path(str(resources.files("weebill"))) / "assets" / SHIPPED


@pytest.fixture(scope="module")
def nlu():
    return weebill.load()


@pytest.mark.parametrize(
    ("text", "intent", "entities"),
    [
        ("wake me up at nine am on friday", "alarm_set", {("nine am", "time"), ("friday", "date")}),
        (
            "what's the weather like in berlin tomorrow",
            "weather_query",
            {("berlin", "place_name"), ("tomorrow", "date")},
        ),
        ("turn off the lights in the kitchen", "iot_hue_lightoff", {("kitchen", "house_place")}),
    ],
)
def test_it_reads_plain_requests(nlu, text, intent, entities):
    prediction = nlu(text)
    assert prediction.intent == intent
    assert {(text[e.start : e.end], e.label) for e in prediction.entities} == entities


def test_it_is_small_and_as_it_was_written():
    assert json.loads((FOLDER / "weebill.json").read_text())["parameters"] <= 1_000_000
    assert (FOLDER / "model.onnx").stat().st_size <= 1_500_000
    assert weebill.verify(FOLDER).problems() == []


def test_it_embeds(nlu):
    anchor, near, far = nlu.embed(["play some jazz", "put on jazz music", "how deep is the sea"])
    assert anchor @ near > anchor @ far


def test_the_command_line_reads_texts_without_a_model():
    def parse(*arguments, stdin=None):
        return run(
            [sys.executable, "-m", "weebill", "parse", *arguments], input=stdin, capture_output=True, encoding="utf-8"
        )

    text = "wake me up at nine am on friday"
    alone, piped = parse(text), parse(stdin=f"{text}\nplay jazz\n")
    assert json.loads(alone.stdout)["intent"] == "alarm_set"
    assert [json.loads(line)["text"] for line in piped.stdout.splitlines()] == [text, "play jazz"]
    assert json.loads(parse("hello").stdout)["text"] == "hello"
    for wrong in (["runs/masive", "hello"], ["runs/masive"], ["masive", text]):  # a name that is meant to be a model
        done = parse(*wrong)
        assert done.returncode == 2 and "expected a weebill model folder" in done.stderr


def test_it_is_what_it_was_by_name():
    assert verify(SHIPPED).problems() == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["a", float("nan")], r"texts\[1\]: expected a text, got nan \(float\)"), ([None], r"texts\[0\]: .* got None "),
     ("abc", "expected a list of texts, got one, 'abc'"), ((t for t in "ab"), "a list of texts, got generator")],
)  # fmt: skip
def test_what_is_no_list_of_texts_is_refused(texts, message):
    model = weebill.load()
    for call in (model.parse, model.embed):
        with pytest.raises(weebill.ConfigError, match=message):
            call(texts)
    assert len(model.parse(np.array(["hello", "wake me"]))) == 2  # np.str_ is a str
    plain, unit = model.embed(["hello", "wake me"]), model.embed(["hello", "wake me"], normalize=True)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    assert abs(np.linalg.norm(plain[0]) - 1) > 0.01
    assert repr(model) == "<weebill.Predictor: 60 intents, 55 kinds of entities, 96-dim embeddings>"
    assert "load" in dir(weebill) and "importlib" not in dir(weebill)
