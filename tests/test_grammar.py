"""Tests of the template language: what it accepts, every message with its line, and what the fillings are."""

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weebill.errors import ConfigError
from weebill.grammar import parse_grammar

LIGHTS = """\
slots:
  room: [kitchen, living room]
  level: ["<number> percent", /3/ half]
rules:
  number: [ten, /2/ twenty]
  polite: [please, "could you [kindly]"]
intents:
  set_light:
    - "[<polite>] (dim|/3/ turn down) the {room} light to {level}"
    - "lights: {room} and {other_room:room}"
"""


def only_template(expression, slots="", rules=""):
    text = f"slots: {{city: [Rome, Oslo]{slots}}}\n{rules}\nintents: {{go: [{json.dumps(expression)}]}}"
    return parse_grammar(text, "g.yaml").intents["go"][""][0]


def texts(template):
    return [template.fill(number)[0] for number in range(template.expression.size)]


def test_every_filling_of_a_small_grammar_by_hand():
    assert texts(only_template("(a|b {city}) [c]")) == ["a c", "b Rome c", "b Oslo c", "a", "b Rome", "b Oslo"]
    assert texts(only_template("x (|y) z")) == ["x z", "x y z"]
    assert texts(only_template("[[a] b] c")) == ["a b c", "b c", "c"]
    assert texts(only_template("请[再]去{city}")) == ["请再去Rome", "请去Rome", "请再去Oslo", "请去Oslo"]


def test_size_counts_the_fillings_and_spans_are_exact():
    first, second = parse_grammar(LIGHTS, "g.yaml").intents["set_light"][""]
    # polite: absent, please, could you, could you kindly; verb: 2; room: 2; level: ten or twenty percent, half
    assert first.expression.size == 4 * 2 * 2 * 3
    assert len(set(texts(first))) == first.expression.size
    for number in range(first.expression.size):
        text, entities = first.fill(number)
        assert text == " ".join(text.split())
        assert [e.label for e in entities] == ["room", "level"]
        assert text[entities[0].start : entities[0].end] in ("kitchen", "living room")
        assert text[entities[1].start : entities[1].end] in ("ten percent", "twenty percent", "half")
        assert re.fullmatch(r".*the \S.* light to \S.*", text)
    assert [e.label for e in second.fill(0)[1]] == ["room", "other_room"]


def test_draws_follow_the_weights():
    template = only_template("(/3/ a|b) [c] {n}", slots=", n: [/9/ one, two]")
    rng = random.Random(0)
    drawn = [template.fill(template.expression.draw(rng))[0].split() for _ in range(4000)]
    assert sum("a" in words for words in drawn) / 4000 == pytest.approx(0.75, abs=0.03)
    assert sum("c" in words for words in drawn) / 4000 == pytest.approx(0.5, abs=0.03)
    assert sum("one" in words for words in drawn) / 4000 == pytest.approx(0.9, abs=0.03)


def test_uniform_is_when_a_draw_gives_every_filling_equally_often():
    assert only_template("to {city}").expression.is_uniform
    assert only_template("(a|b) {city} [c]").expression.is_uniform
    assert not only_template("(a|b {city})").expression.is_uniform
    assert not only_template("(a|/2/ b)").expression.is_uniform


def test_backslashes_and_yaml_values_are_text():
    assert texts(only_template(r"\[a\] \{b\} \(c\|d\) \<e\> \\ \/3/ and/or")) == [r"[a] {b} (c|d) <e> \ /3/ and/or"]
    assert texts(only_template(r"(\/3/ a|b)")) == ["/3/ a", "b"]
    grammar = parse_grammar("slots: {x: [no, 17:45, 06:00, 1e3, null]}\nintents: {yes: ['{x}']}", "g.yaml")
    assert list(grammar.values("x")) == texts(grammar.intents["yes"][""][0]) == ["no", "17:45", "06:00", "1e3", "null"]


@given(st.text(alphabet="ab /3[](){}<>|\\:", max_size=20))
def test_any_expression_is_read_or_refused_with_its_line(expression):
    try:
        template = only_template(expression)
    except ConfigError as error:
        assert re.match(r"g\.yaml:3: expected .*; ", str(error), re.DOTALL)
    else:
        for number in {0, template.expression.size - 1}:
            text, entities = template.fill(number)
            assert text == text.strip() != ""
            assert all(0 <= e.start < e.end <= len(text) for e in entities)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("at {time}", r"g\.yaml:3: expected values for \{time\}, got none under slots; add it under slots"),
        ("to {citty}", r"g\.yaml:3: .*; did you mean \{city\}\?"),
        ("<plaese>", r"g\.yaml:3: expected alternatives for <plaese>.* under rules; add it"),
        ("to {city", r"g\.yaml:3: expected a closed \{slot\}, got '\{' alone at character 4 of 'to \{city'"),
        ("a > b", r"expected a closed <rule>, got '>' alone at character 3"),
        ("a [b", r"expected '\]' for the '\[' at character 3 of 'a \[b', got the end; close it"),
        ("(a [b) c]", r"expected '\]' for the '\[' at character 4 .*, got '\)'"),
        ("a ] b", r"expected no '\]' at character 3 of 'a \] b'; open it"),
        ("a | b", r"expected no '\|' at character 3 .*; put \( \) around"),
        ("a \\", r"expected a character after the backslash"),
        ("[a] [b]", r"g\.yaml:3: expected a template that always gives a text, got '\[a\] \[b\]', of which all is opt"),
        ("(/0/ a|b)", r"expected a weight above 0, got /0/"),
        ("{a b}", r"expected a name of letters.*got 'a b'"),
    ],
)
def test_mistakes_in_an_expression(expression, message):
    with pytest.raises(ConfigError, match=message):
        only_template(expression)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slots: {a: [b]\n", r"g\.yaml:2: expected YAML, got"),
        ("", r"g\.yaml:1: expected the keys slots, rules and intents, got nothing"),
        ("slots: {a: [b]}", r"g\.yaml: expected a key 'intents'"),
        ("intent:\n  a: [b]", r"g\.yaml:1: .*got 'intent'; did you mean intents\?"),
        ("slots:\n  a: []\nintents: {x: [y]}", r"g\.yaml:2: expected a list of texts under slots.a, got an empty"),
        ("slots:\n  a: b\nintents: {x: [y]}", r"g\.yaml:2: expected a list of texts under slots.a, got a scalar"),
        ("slots:\n  a:\n    - b\n    - b\nintents: {x: [y]}",
         r"g\.yaml:4: expected distinct values of slot 'a', got 'b' at g\.yaml:3 too"),
        ("slots:\n  a:\n    - '[b]'\nintents: {x: [y]}",
         r"g\.yaml:3: expected a value that always has text, got '\[b\]'"),
        ("slots:\n  a: ['{b}']\n  b: [c]\nintents: {x: [y]}",
         r"g\.yaml:2: expected values of slot \{a\} without slots"),
        ("rules:\n  a: [<b>]\n  b: [c, 'd <a>']\nintents: {x: [<a>]}",
         r"g\.yaml:3: expected rules that do not contain themselves, got <a> -> <b> -> <a>; break the circle"),
        ("slots: {a: [b]}\nrules: {r: ['{c}']}\nintents: {x: [y]}", r"g\.yaml:2: expected values for \{c\}"),
        ("intents:\n  x: [y]\n  x: [z]", r"g\.yaml:3: expected 'x' once, got it on line 2 too"),
        ("intents:\n  x:\n    - [please] go", r"g\.yaml:3: expected YAML, got"),
        ("intents:\n  x:\n    - [please]", r"g\.yaml:3: expected a text under intents.x, got a sequence; put quotes"),
        ("intents:\n  x: [y]\n  z: ['', a]", r"g\.yaml:3: expected a text under intents.z, got an empty one"),
        ("intents:\n  x: [same]\n  z: [same]", r"g\.yaml:3: expected each template once.*'same' at g\.yaml:2 too"),
        ("intents:\n  x: {train: [a], dev: [b]}\n  z: [c]",
         r"g\.yaml:3: expected the splits dev, train as in intent x, got a list without splits of intent z"),
        ("intents:\n  x: {train: [a], dev: [b]}\n  z: {train: [c]}", r"g\.yaml:3: .*got the splits train of intent z"),
        ("intents:\n  'two words': [a]", r"g\.yaml:2: expected an intent without white space, got 'two words'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_grammar(text, "g.yaml")
