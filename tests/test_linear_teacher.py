"""The linear teacher: what its two libraries say, by word; fitted once; a student learns from it alone."""

import dataclasses
import gc
import importlib.util
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import weebill
from weebill import linear_teacher as room
from weebill.cli import app
from weebill.distill_config import DistillRecipe, LinearConfig
from weebill.distilling import distill, teachers_scores
from weebill.errors import ConfigError, DataError, MissingExtraError
from weebill.joint_teacher import Labels, soft_labels
from weebill.lessons import Lesson
from weebill.linear_models import read_tagger, text_features, word_features
from weebill.linear_teacher import linear_teacher, word_groups
from weebill.recipe_files import parse_recipe
from weebill.schema import Entity, Utterance
from weebill.soft_tags import word_spans
from weebill.tags import spans_from_tags, tag_vocabulary

QUICK = LinearConfig(votes=1, iterations=40, groups=(5, 20))
SMALL = {"num_layers": 1, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64}


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def rows(few):
    return few[::4]


@pytest.fixture(scope="module")
def dev(few):
    return few[1::8]


@pytest.fixture(scope="module")
def labels(rows):
    return Labels(sorted({u.intent for u in rows}), tag_vocabulary(e.label for u in rows for e in u.entities))


def _teacher(rows, labels, config=QUICK, **values):
    return linear_teacher(config, rows, labels, True, [u.text for u in rows], show_progress=False, **values)


@pytest.fixture(scope="module")
def teacher(rows, labels):
    return _teacher(rows, labels)


def test_it_reads_texts_it_was_not_fitted_on(teacher, dev):
    scores = teachers_scores([teacher], dev, True, False)
    assert scores["intent_accuracy"] > 0.95 and scores["span_f1"] > 0.9 and scores["exact_match"] > 0.8


def test_its_answers_are_distributions_and_spell_the_most_likely_sequences(teacher, dev, labels):
    texts = [u.text for u in dev]
    words = [word_spans(text) for text in texts]
    intents_NC, tags_UL = (np.exp(logs.astype(np.float64)) for logs in teacher.read(texts, words))
    assert np.allclose(intents_NC.sum(axis=1), 1, atol=2e-3) and np.allclose(tags_UL.sum(axis=1), 1, atol=2e-3)
    (classifier, folder), first, same = teacher.read.__self__.fitted, 0, []
    tagger, groups = read_tagger(folder)
    for text, spans in zip(texts, words, strict=True):
        best = [labels.tags[tag] for tag in tags_UL[first : first + len(spans)].argmax(axis=1)]
        numbers = tagger.tag(word_features([text[a:b].lower() for a, b in spans], groups))
        viterbi = [labels.tags[int(number)] for number in numbers]
        same.append(spans_from_tags(best, spans) == spans_from_tags(viterbi, spans))
        first += len(spans)
    assert np.mean(same) > 0.95
    said = [" ".join(text[a:b].lower() for a, b in spans) for text, spans in zip(texts, words, strict=True)]
    assert list(classifier.predict(said)) == [labels.intents[i] for i in intents_NC.argmax(axis=1)]


def test_without_labels_of_its_rows_a_label_is_hardly_probable(rows, labels, cache):
    more = Labels([*labels.intents, "never"], [*labels.tags, "B-never", "I-never"])
    soft = soft_labels([_teacher(rows[:200], more)], ["wake me at nine"], True, cache, False)
    assert soft.intents_NC[0, -1] < -10 and (soft.tags_UL[:, -2:] < -10).all() and np.isfinite(soft.tags_UL).all()


def test_words_with_the_same_neighbours_come_into_one_group():
    days, foods = ["monday", "tuesday", "friday"], ["bread", "cheese", "butter"]
    texts = [text for day in days for n in range(4) for text in (f"wake me on {day} please", f"on {day} at {n}")]
    texts += [text for food in foods for n in range(4) for text in (f"buy some {food} now", f"{n} pieces of {food}")]
    state = torch.get_rng_state()
    groups = word_groups(texts, (2, 6))
    assert torch.equal(torch.get_rng_state(), state)  # a run that reads answers from disk draws the same
    assert len({groups[day] for day in days}) == 1 and len({groups[food] for food in foods}) == 1
    assert groups["monday"] != groups["bread"] and all(len(numbers) == 2 for numbers in groups.values())
    assert word_groups(texts, (2, 6)) == groups
    assert word_groups(["a b", "c"], (2,)) == {}  # nothing occurs three times


def test_what_the_crf_sees_of_a_word():
    _, nine, _ = word_features(["at", "9am", "sharp"], {"at": (3, 7), "9am": (1, 2)})
    assert {"0=9am", "-1=at", "1=sharp", "2=>", "-2=<", "-1=at 9am", "0=9am sharp", "-1=at 9am sharp"} <= set(nine)
    assert {"begins=9a", "ends=am", "shape=9aa", "first=at", "first two=at 9am"} <= set(nine)
    assert {"0, 0: 1", "0, 1: 2", "-1, 0: 3", "-1, 1: 7", "both, 0: 3 1", "both, 1: 7 2"} <= set(nine)


def test_it_is_fitted_once_and_read_from_disk_then(rows, labels, dev, tmp_path, monkeypatch):
    texts = [u.text for u in dev[:20]]
    first = soft_labels([_teacher(rows, labels)], texts, True, tmp_path, False)
    for name in ("fit", "read"):
        monkeypatch.setattr(room._LinearModel, name, lambda *_: pytest.fail("fitted or read again"))
    again = soft_labels([_teacher(rows, labels)], texts, True, tmp_path, False)
    assert np.array_equal(again.tags_UL, first.tags_UL) and np.array_equal(again.intents_NC, first.intents_NC)
    known = _teacher(rows, labels).fingerprint
    shown, changes = [u.text for u in rows], ({"iterations": 41}, {"groups": (5,)})
    others = [
        _teacher(rows[1:], labels),
        _teacher(rows, Labels(labels.intents[::-1], labels.tags)),
        *(_teacher(rows, labels, QUICK.model_copy(update=values)) for values in changes),
        _teacher([dataclasses.replace(rows[0], entities=()), *rows[1:]], labels),
        linear_teacher(QUICK, rows, labels, False, shown),
        linear_teacher(QUICK, rows, labels, True, shown[1:]),
    ]
    assert len({known, *(teacher.fingerprint for teacher in others)}) == 8


def test_other_processes_fit_and_read_the_same(rows, labels, dev, monkeypatch):
    texts = [u.text for u in dev]
    words = [word_spans(text) for text in texts]
    answers = []
    for cores in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda cores=cores: cores)
        teacher = _teacher(rows, labels)
        answers.append(teacher.read(texts, words))
        _, folder = teacher.read.__self__.fitted
        assert folder.is_dir()
        del teacher
        gc.collect()
        assert not folder.exists()
    assert all(np.array_equal(one, two) for one, two in zip(*answers, strict=True))


def test_votes_weigh_it_against_the_others(teacher, rows, labels, dev, cache):
    texts = [u.text for u in dev[:30]]
    other = _teacher(rows[:60], labels)
    alone = [np.exp(soft_labels([one], texts, True, cache, False).intents_NC.astype(np.float32))
             for one in (teacher, other)]  # fmt: skip
    both = soft_labels([teacher, dataclasses.replace(other, votes=3)], texts, True, cache, False)
    assert np.allclose(np.exp(both.intents_NC.astype(np.float32)), (alone[0] + 3 * alone[1]) / 4, atol=2e-3)


def test_a_student_learns_from_it_alone(few, dev):
    rows = few[::2]
    training = {"epochs": 20, "batch_size": 32, "learning_rate": 5e-3, "embedding_learning_rate": 3e-2, "evals": 3}
    recipe = parse_recipe(
        {"linear": QUICK.model_dump(), "encoder": SMALL, "training": training, "tokenizer": "train", "vocab_size": 400},
        DistillRecipe, "t",
    )  # fmt: skip
    lessons = [Lesson("rows", rows[:100], doubtful=False), Lesson("texts", [Utterance(u.text) for u in rows[100:]])]
    events = []
    tokenizer = weebill.Tokenizer.train((u.text for u in rows), 400)
    model, _ = distill(recipe, lessons, dev, [], events.append, tokenizer)
    told = next(event for event in events if event["event"] == "teachers")
    assert 0.5 < told["exact_match"] <= 1 and told["intent_accuracy"] > 0.9
    assert model.intents == sorted({u.intent for u in rows[:100]})
    scores = [event["metrics"]["exact_match"] for event in events if event["event"] == "eval"]
    assert scores[-1] > 0.4


def test_of_two_intents_it_says_the_right_one(rows):
    two = [u for u in rows if u.intent in ("set_alarm", "weather")]
    labels = Labels(["weather", "set_alarm"], tag_vocabulary(e.label for u in two for e in u.entities))
    texts = [u.text for u in two[1::2]]
    intents_NC, _ = _teacher(two[::2], labels).read(texts, [word_spans(text) for text in texts])
    assert np.allclose(np.exp(intents_NC.astype(np.float32)).sum(axis=1), 1, atol=2e-3)
    assert (
        np.mean([labels.intents[i] == u.intent for i, u in zip(intents_NC.argmax(axis=1), two[1::2], strict=True)])
        > 0.9
    )


def test_rows_that_cannot_teach_are_refused(rows, labels, dev):
    alarms = [u for u in rows if u.intent == "set_alarm"]
    with pytest.raises(DataError, match="two intents or more, and with entities, got 1 intents and"):
        _teacher(alarms, labels)
    bare = [dataclasses.replace(u, entities=()) for u in rows]
    with pytest.raises(DataError, match=r"got 5 intents and 0 rows with entities; add rows, or set linear\.votes = 0"):
        _teacher(bare, labels)
    with pytest.raises(ConfigError, match=r"teachers must name a model folder .* or linear\.votes be more than 0"):
        parse_recipe({}, DistillRecipe, "t")


def test_a_row_whose_entities_cut_words_is_left_out_and_tags_are_fitted_on_the_rest(rows, labels):
    cut = Utterance("wake me at nine", "set_alarm", (Entity(12, 15, "time"),))
    more = Labels(labels.intents, tag_vocabulary([*(t[2:] for t in labels.tags if t != "O"), "time"]))
    texts = ["wake me at nine", "what is the weather in paris"]
    words = [word_spans(text) for text in texts]
    plain = QUICK.model_copy(update={"groups": ()})
    (_, tags), (_, others) = (_teacher([*rows[:100], *more_rows], more, plain).read(texts, words)
                              for more_rows in ([cut], []))  # fmt: skip
    assert np.array_equal(tags, others) and tags.shape == (10, len(more.tags))
    bare = [dataclasses.replace(u, entities=()) for u in rows[:100]]
    with pytest.raises(DataError, match=r"where words do, got none; set heads\.entity_boundaries = 'any'"):
        _teacher([*bare, cut], more).read(texts, words)


def test_where_entities_cut_words_it_says_what_each_character_is(rows, dev, labels):
    by_word, by_character = (
        teachers_scores([linear_teacher(QUICK, rows, labels, whole, [u.text for u in rows], False)], dev, whole, False)
        for whole in (True, False)
    )
    assert by_character["intent_accuracy"] == by_word["intent_accuracy"]  # which no spans change
    assert by_character["span_f1"] > by_word["span_f1"] - 0.05
    _, nine, a, _ = text_features("at 9am"[1:], word_spans("at 9am"[1:], whole_words=False), {"9am": (4,)})
    assert {"0=9", "1=a", "first in 0=9am", "first in 0, 0: 4"} <= set(nine) and {"0=a", "later in 0=9am"} <= set(a)


def test_names_that_c_would_cut_and_texts_that_are_no_unicode_are_read(rows, labels):
    def renamed(entities):
        return tuple(dataclasses.replace(e, label=e.label + "\0x") for e in entities)

    odd = [dataclasses.replace(u, text=u.text + " \ud800", entities=renamed(u.entities)) for u in rows[:100]]
    more = Labels(labels.intents, tag_vocabulary(e.label for u in odd for e in u.entities))
    _, tags = _teacher(odd, more).read(["wake me at nine \ud800"], [word_spans("wake me at nine \ud800")])
    assert tags.shape == (5, len(more.tags)) and np.isfinite(tags).all()


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("pycrfsuite", "python-crfsuite")])
def test_its_absent_libraries_are_named_before_anything_is_written(module, package, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == module else find(name))
    (tmp_path / "r.toml").write_text('task = "distill"\n[linear]\nvotes = 1\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["distill", str(tmp_path / "r.toml"), "--output", str(tmp_path / "out")])
    assert isinstance(result.exception, MissingExtraError)
    assert f"needs {package}, which is not installed; run: pip install 'weebill[linear]'" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_line_fits_it_and_says_how_well_it_reads(tmp_path):
    (tmp_path / "r.toml").write_text(
        'task = "distill"\ntokenizer = "train"\nvocab_size = 500\n'
        "[linear]\nvotes = 1\niterations = 15\ngroups = []\n"
        "[encoder]\nnum_layers = 1\nhidden_dim = 32\nnum_heads = 4\nffn_dim = 64\n[training]\nepochs = 1\nevals = 1\n",
        encoding="utf-8",
    )
    result = CliRunner().invoke(app, ["distill", str(tmp_path / "r.toml"), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "teachers together, on dev: intent accuracy" in " ".join(result.output.split())
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    told = next(event for event in log if event["event"] == "teachers")
    assert told["intent_accuracy"] > 0.6 and told["span_f1"] > 0.5
    assert weebill.load(tmp_path / "out").parse(["wake me up at nine"])[0].intent
