"""Distillation: a student comes to its teachers on texts without labels, whatever their tokenizers; answers stay."""

import io
import json
import re
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file

import weebill
from weebill import MultiTaskModel, SentenceTransformer, distilling
from weebill.backend import TorchBackend
from weebill.config import FinetuneRecipe
from weebill.decoding import TagGrammar
from weebill.distill_config import AgreementConfig, DistillRecipe
from weebill.distilling import distill, teachers_scores
from weebill.errors import ArtifactError, ConfigError, DataError
from weebill.evaluate import evaluate
from weebill.finetuning import finetune
from weebill.formats import write_spans
from weebill.joint_teacher import Labels, SoftLabels, read_joint_teacher, shared_labels, soft_labels, trusted
from weebill.lessons import Lesson, read_lessons
from weebill.recipe_files import load_recipe, parse_recipe
from weebill.runs import run_distill
from weebill.schema import Entity, Utterance
from weebill.soft_tags import inside, word_spans
from weebill.tags import spans_from_tags, tag_vocabulary
from weebill.task import Plan
from weebill.teacher import blocks_by_length, teacher_vectors
from weebill.tokenizer import Tokenizer
from weebill.weights import count_parameters

SMALL = {"num_layers": 1, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64}
TRAINING = {"epochs": 6, "batch_size": 32, "learning_rate": 5e-3, "embedding_learning_rate": 3e-2, "evals": 3}


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def rows(few):
    return few[::2]


@pytest.fixture(scope="module")
def dev(few):
    """Other values in the same templates."""
    return few[1::8]


@pytest.fixture(scope="module")
def teachers(rows, dev, tmp_path_factory, bert_folder):
    """Two models with heads: one of weebill's own, one that starts from a BERT and keeps its WordPiece tokenizer."""
    folder = tmp_path_factory.mktemp("teachers")
    tokenizer = Tokenizer.train((u.text for u in rows), 700)
    own = {"encoder": SMALL, "training": TRAINING | {"epochs": 12}}
    bert = {"start": str(bert_folder), "training": {"epochs": 4, "learning_rate": 2e-3, "evals": 1}}
    for name, values in (("own", own), ("bert", bert)):
        recipe = parse_recipe(values, FinetuneRecipe, "t")
        finetune(recipe, rows, dev[:50], lambda event: None, tokenizer)[0].save(folder / name)
    return {name: read_joint_teacher(folder / name) for name in ("own", "bert")}


@pytest.fixture(scope="module")
def own(teachers):
    """The first of them as a predictor."""
    return weebill.load(teachers["own"].name)


@pytest.fixture(scope="module")
def tokenizer(rows):
    return Tokenizer.train((u.text for u in rows), 400)  # not the teachers'


def _recipe(teachers=("x",), **values):
    return parse_recipe(
        {"teachers": list(teachers), "encoder": SMALL, "training": TRAINING} | values, DistillRecipe, "t"
    )


def _unlabelled(rows):
    return Lesson("texts", [Utterance(u.text) for u in rows])


def _parses(predictor, texts):
    return [(p.intent, [(e.start, e.end, e.label) for e in p.entities]) for p in predictor.parse(texts)]


def test_a_student_learns_intents_and_entities_from_texts_without_labels(teachers, own, rows, dev, tokenizer, tmp_path):
    events = []
    model, end = distill(_recipe(training=TRAINING | {"epochs": 12}), [_unlabelled(rows)], dev, [teachers["own"]],
                         events.append, tokenizer)  # fmt: skip
    model.save(tmp_path / "student")
    texts = [u.text for u in dev]
    theirs, ours = _parses(own, texts), _parses(weebill.load(tmp_path / "student"), texts)
    assert np.mean([a[0] == b[0] for a, b in zip(theirs, ours, strict=True)]) > 0.8
    assert np.mean([a == b for a, b in zip(theirs, ours, strict=True)]) > 0.5
    evals = [event["losses"] for event in events if event["event"] == "eval"]
    assert set(evals[0]) == {"intents", "tags"}
    assert evals[-1]["intents"] < evals[0]["intents"] and evals[-1]["tags"] < evals[0]["tags"]
    lost = {"doubted": 0, "unsure": 0}
    assert end["lessons"] == [{"name": "texts", "texts": len(rows), "learnt": len(rows), "lost": lost}]


def test_an_ensemble_is_the_mean_of_its_members_by_word(teachers, dev, cache):
    texts = [u.text for u in dev[:40]]
    both = list(teachers.values())
    labels = shared_labels(both)
    mean, *members = (soft_labels(some, texts, True, cache, False) for some in (both, both[:1], both[1:]))
    order = [both[1].labels.intents.index(name) for name in labels.intents]
    alone = [np.exp(m.intents_NC.astype(np.float32)) for m in members]
    assert np.allclose(np.exp(mean.intents_NC.astype(np.float32)), (alone[0] + alone[1][:, order]) / 2, atol=2e-3)
    order = [both[1].labels.tags.index(name) for name in labels.tags]
    alone = [np.exp(m.tags_UL.astype(np.float32)) for m in members]
    assert np.allclose(np.exp(mean.tags_UL.astype(np.float32)), (alone[0] + alone[1][:, order]) / 2, atol=2e-3)
    assert len(mean.tags_UL) == sum(len(word_spans(t)) for t in texts)


@pytest.mark.parametrize("name", ["own", "bert"])
def test_soft_tags_spell_what_the_teacher_parses(teachers, name, dev, cache):
    """The likeliest tag of each word gives the entities of `parse`, wherever those tags are a legal sequence."""
    predictor, texts = weebill.load(teachers[name].name), [u.text for u in dev]
    soft, same = soft_labels([teachers[name]], texts, True, cache, False), []
    for i, prediction in enumerate(predictor.parse(texts)):
        words = word_spans(texts[i])
        tags = [predictor.tags[t] for t in soft.tags_UL[soft.first_word_N[i] :][: len(words)].argmax(axis=1)]
        steps = [*zip(["O", *tags], tags, strict=False)]
        legal = all(tag[0] != "I" or before[2:] == tag[2:] for before, tag in steps)
        if legal and not any(
            tag[0] == "B" and before[2:] == tag[2:] for before, tag in steps
        ):  # none touch in training
            got = [(e.start, e.end, e.label) for e in spans_from_tags(tags, words)]
            same.append(got == [(e.start, e.end, e.label) for e in prediction.entities])
        said_C = soft.intents_NC[i]  # in float16, where the two likeliest may be alike
        assert said_C[predictor.intents.index(prediction.intent)] == said_C.max()
    assert len(same) > 0.6 * len(texts) and np.mean(same) > 0.99


def test_answers_are_kept_and_a_damaged_block_is_read_again(teachers, dev, tmp_path, monkeypatch):
    monkeypatch.setattr("weebill.teacher.BLOCK_TEXTS", 16)
    texts, reads, read = [u.text for u in dev[:40]], [], teachers["own"].read
    teacher = replace(teachers["own"], read=lambda texts, words: reads.append(len(texts)) or read(texts, words))
    first = soft_labels([teacher], texts, True, tmp_path, False)
    blocks = len(reads)
    assert blocks > 1 and sum(reads) == len(texts) and max(reads) <= 64
    shuffled = soft_labels([teacher], texts[::-1], True, tmp_path, False)
    assert len(reads) == blocks and np.array_equal(shuffled.intents_NC[::-1], first.intents_NC)
    for i, text in enumerate(texts):
        here, there = first.first_word_N[i], shuffled.first_word_N[len(texts) - 1 - i]
        count = len(word_spans(text))
        assert np.array_equal(first.tags_UL[here : here + count], shuffled.tags_UL[there : there + count])
    block = next((tmp_path / "joint").iterdir())
    block.write_bytes(block.read_bytes()[:-10])
    again = soft_labels([teacher], texts, True, tmp_path, False)
    assert len(reads) == blocks + 1 and np.array_equal(again.tags_UL, first.tags_UL)
    soft_labels([teacher], texts, False, tmp_path, False)  # other words, other answers
    assert len(reads) == 2 * blocks + 1
    assert {array.dtype for array in load_file(block).values()} == {np.dtype(np.float16)}


def test_one_text_more_changes_the_blocks_around_it_alone(monkeypatch):
    monkeypatch.setattr("weebill.teacher.BLOCK_TEXTS", 16)
    texts = [f"number {i * i}" for i in range(500)]
    before = {frozenset(texts[i] for i in block) for block in blocks_by_length(texts)}
    for place in range(0, 500, 7):
        fewer = texts[:place] + texts[place + 1 :]
        after = {frozenset(fewer[i] for i in block) for block in blocks_by_length(fewer)}
        assert len(after - before) <= 2 and sum(map(len, after)) == 499
    assert sum(map(len, before)) == 500 and 16 < len(before) < 64


def test_how_well_teachers_read_dev_is_what_evaluate_says_of_one_alone(teachers, own, dev):
    scores, report = teachers_scores([teachers["own"]], dev, own.whole_words, False), evaluate(own, dev)
    assert scores["intent_accuracy"] == pytest.approx(report.intent_accuracy, abs=0.005)  # float16: ties
    assert scores["span_f1"] == pytest.approx(report.span_f1, abs=0.02)
    beyond = Utterance("wake me at nine " + "please " * own.max_seq_len + "at nine", "set_alarm", ())
    assert np.isfinite(list(teachers_scores([teachers["own"]], [beyond], True, False).values())).all()


def test_words_beyond_what_a_teacher_reads_are_not_learnt(teachers, tokenizer, cache):
    texts = ["wake me up at nine " * 30]
    soft = soft_labels([teachers["bert"]], texts, True, cache, False)  # reads 40 tokens
    missing = np.isnan(soft.tags_UL[:, 0])
    assert missing.any() and not missing[:10].any() and np.array_equal(missing, np.sort(missing))
    lesson = Lesson("long", [Utterance(texts[0]), Utterance("hi")])
    dev = [Utterance("wake me at nine", "set_alarm", ())]
    events = []
    distill(_recipe(training={"epochs": 1, "evals": 1}), [lesson], dev, [teachers["bert"]], events.append, tokenizer)
    assert np.isfinite(events[-1]["metrics"]["tag_loss"])


LABELS = Labels(["set", "play"], ["O", "B-time", "I-time"])


def _said(intent_probs, tag_probs, agree=True, tags_agree=True):
    intents, tags = (np.log(np.array(p, dtype=np.float32)).astype(np.float16) for p in ([intent_probs], tag_probs))
    return SoftLabels(intents, tags, np.array([0]), np.array([agree]), np.array([tags_agree]))


@pytest.mark.parametrize(
    ("said", "utterance", "rule", "kept"),
    [
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2), Utterance("at nine"), {}, True),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2), Utterance("at nine"), {"min_confidence": 0.7}, False),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2, agree=False), Utterance("at nine"), {}, True),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2, agree=False), Utterance("at nine"), {"on": "intent"}, False),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2, tags_agree=False), Utterance("at nine"), {"on": "intent"}, True),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2, tags_agree=False), Utterance("at nine"),
         {"on": "intent_and_tags"}, False),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2), Utterance("at nine", "play"), {"on": "intent"}, False),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2), Utterance("at nine", "set", (Entity(3, 7, "time"),)),
         {"on": "intent"}, True),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05]] * 2), Utterance("at nine", "set", (Entity(3, 7, "time"),)),
         {"on": "intent_and_tags"}, False),
        (_said([0.6, 0.4], [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]]), Utterance("at nine", "set", (Entity(3, 7, "time"),)),
         {"on": "intent_and_tags"}, True),
    ],
)  # fmt: skip
def test_agreement_leaves_out_what_teachers_doubt(said, utterance, rule, kept):
    keep, lost = trusted(said, [utterance], True, LABELS, AgreementConfig(**rule))
    assert keep.tolist() == [kept] and sum(lost.values()) == 1 - kept


def test_swapped_copies_are_filtered_gold_rows_are_not(teachers, rows, dev, tokenizer):
    wrong = [Utterance(u.text, rows[(i + 50) % len(rows)].intent, u.entities) for i, u in enumerate(rows[:60])]
    lessons = [Lesson("gold", wrong, doubtful=False), Lesson("generated", wrong)]
    recipe = _recipe(training={"epochs": 1, "evals": 1}, agreement={"on": "intent"})
    _, end = distill(recipe, lessons, dev[:20], [teachers["own"]], lambda event: None, tokenizer)
    gold, generated = end["lessons"]
    assert gold["learnt"] == 60 and generated["lost"]["doubted"] > 40
    assert generated["learnt"] == 60 - generated["lost"]["doubted"]


def test_a_batch_holds_what_the_teachers_said_of_its_texts(teachers, rows, tokenizer, cache):
    """Also where texts before them were left out, and where a word has several tokens."""
    wrong = [Utterance(u.text, rows[(i + 50) % len(rows)].intent, u.entities) for i, u in enumerate(rows[:40])]
    utterances = [*wrong, *rows[40:80]]
    teacher, recipe = teachers["own"], _recipe(agreement={"on": "intent"})
    heads = recipe.heads.model_copy(update={"entity_boundaries": "words"})
    intents, tags = shared_labels([teacher])
    model = MultiTaskModel(SentenceTransformer(recipe.encoder, tokenizer), intents, tags, heads)
    prepared = distilling._prepare(recipe, model, Lesson("mixed", utterances), [teacher], lambda event: None)
    work = distilling._Distillation(recipe, model, [prepared])
    assert 20 < len(prepared.numbers) < 60
    chosen = np.array([len(prepared.numbers) - 1, 3])
    batch = work.collate(Plan(0, chosen), np.random.default_rng(0))
    texts = [utterances[i].text for i in prepared.numbers[chosen].tolist()]
    soft, taken = soft_labels([teacher], texts, True, cache, False), 0
    assert np.allclose(batch["soft_intents"].numpy(), soft.intents_NC, atol=2e-2)
    for i, text in enumerate(texts):
        assert intents[int(batch["intents"][i])] == utterances[prepared.numbers[chosen[i]]].intent
        words, encoding = word_spans(text), tokenizer.encode(text)
        assert batch["tagged"][i].tolist()[: len(encoding.offsets)] == [a < b for a, b in encoding.offsets]
        for start, end in encoding.offsets:
            word = next((n for n, (a, b) in enumerate(words) if a <= start < b), None)
            if start < end:
                said, got = (
                    soft.tags_UL[soft.first_word_N[i] + word].astype(np.float32),
                    batch["soft_tags"][taken].numpy(),
                )
                expected = said if start == words[word][0] else inside(said[None], TagGrammar(tags))[0]
                assert np.allclose(np.exp(got), np.exp(expected), atol=2e-3)
                taken += 1
    assert taken == len(batch["soft_tags"])


def test_embeddings_follow_the_sentence_teacher(teachers, rows, dev, tokenizer, tmp_path):
    axes = np.random.default_rng(0).normal(size=(9, 48))  # a text is a bag of tokens of nine kinds

    def embed(texts):
        kinds = [np.array(tokenizer.encode(t).token_ids) % 9 for t in texts]
        return np.stack([axes[k].mean(axis=0) for k in kinds]).astype(np.float32)

    def sentence_teacher(texts):
        return teacher_vectors(embed, "bags", texts, tmp_path, False)

    lessons = [_unlabelled(rows[::2]), Lesson("apart", [Utterance(u.text) for u in rows[1::2]], labels=False)]
    loss = {"teacher_projection": "pca", "embedding_weight": 2.0, "similarity_weight": 1.0}
    recipe = _recipe(loss=loss, training=TRAINING | {"epochs": 12},
                     encoder=SMALL | {"embedding_dim": 24})  # fmt: skip
    events = []
    model, _ = distill(recipe, lessons, dev, [teachers["own"]], events.append, tokenizer, sentence_teacher)
    texts = [u.text for u in dev]
    theirs = sentence_teacher(texts).astype(np.float32)

    def agreement(encoder):
        ours, above = encoder.encode(texts, normalize=True), np.triu_indices(len(texts), 1)
        return np.corrcoef((ours @ ours.T)[above], (theirs @ theirs.T)[above])[0, 1]

    untrained = SentenceTransformer(recipe.encoder, tokenizer).eval()
    assert agreement(model.encoder) > agreement(untrained) + 0.2
    evals = [event["losses"] for event in events if event["event"] == "eval"]
    assert evals[-1]["embedding"] < evals[0]["embedding"] and evals[-1]["similarities"] < evals[0]["similarities"]
    narrow = _recipe(encoder=SMALL | {"embedding_dim": 64})
    with pytest.raises(ConfigError, match="expected embeddings of the student's 64 dimensions, got 48"):
        distill(narrow, lessons, dev, [teachers["own"]], lambda event: None, tokenizer, sentence_teacher)
    alone = _recipe(loss={"embedding_weight": 0.0}, encoder=SMALL | {"embedding_dim": 64},
                    training={"epochs": 1, "evals": 1})  # fmt: skip
    events.clear()
    distill(alone, lessons, dev[:9], [teachers["own"]], events.append, tokenizer, sentence_teacher)  # any width will do
    assert set(events[-2]["losses"]) == {"intents", "tags", "similarities"}
    with pytest.raises(ConfigError, match="expected a sentence_teacher and a weight for its loss"):
        distill(recipe, lessons, dev, [teachers["own"]], lambda event: None, tokenizer)


def test_a_run_reads_its_recipe_and_leaves_a_model_that_says_what_it_learnt_from(teachers, rows, dev, tmp_path):
    texts = "".join(f"{u.text}\n" for u in [*dev[:30], *rows[:40]]) + "turn it off now\nturn it off now\n\nplay it\n"
    (tmp_path / "texts.txt").write_text(texts, encoding="utf-8")
    for name, some in (("train", rows[:150]), ("dev", dev[:60])):
        write_spans(tmp_path / f"{name}.jsonl", some)
    recipe = _recipe(
        [teachers["own"].name, teachers["bert"].name], training={"epochs": 1, "evals": 1}, swapping={"copies": 1},
        tokenizer="train", vocab_size=400, agreement={"on": "intent"},
        data={"train": ["train.jsonl"], "unlabelled": ["texts.txt"], "dev": "dev.jsonl"},
    )  # fmt: skip
    out = io.StringIO()
    run_distill(recipe, tmp_path / "student", tmp_path, Console(file=out, width=200))
    assert "train.jsonl: 150 of 150 texts\n" in out.getvalue()
    record = json.loads((tmp_path / "student" / "weebill.json").read_text(encoding="utf-8"))
    lessons = record["training"]["result"]["lessons"]
    assert [x["name"] for x in lessons] == ["train.jsonl", "values swapped", "texts.txt"]
    assert lessons[2]["texts"] == 2  # what dev or train have is not taken again
    assert lessons[1]["learnt"] == lessons[1]["texts"] - sum(lessons[1]["lost"].values())
    model = MultiTaskModel.load(tmp_path / "student")
    assert record["parameters"] == sum(t.numel() for t in model.state_dict().values())
    assert f"{record['parameters']:,}" in out.getvalue()


def test_lessons_take_no_text_twice_and_swap_what_people_labelled(rows, dev, tmp_path):
    (tmp_path / "a.txt").write_text(f"{rows[0].text}\nfirst one. Second one.\n{dev[0].text}\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("".join(f"text {i}\n" for i in range(9)) + "Second one.\n", encoding="utf-8")
    more = {"path": "b.txt", "max_rows": 4, "learns": ["embedding"], "weight": 2}
    sources = [{"path": "a.txt", "sentences": True}, more]
    recipe = _recipe(swapping={"copies": 2, "weight": 0.5}, data={"unlabelled": sources})
    by_hand, generated = Lesson("people", rows[:20], doubtful=False), Lesson("machine", rows[20:40])
    *labelled, swapped, a, b = read_lessons(recipe, [by_hand, generated], dev, tmp_path)
    assert labelled == [by_hand, generated]
    assert {u.intent for u in swapped.utterances} <= {u.intent for u in by_hand.utterances}
    assert (swapped.weight, swapped.doubtful) == (0.5, True) and 20 < len(swapped.utterances) <= 40
    assert [u.text for u in a.utterances] == ["first one.", "Second one."]
    assert len(b.utterances) == 4 and all(u.text.startswith("text") for u in b.utterances)
    assert (b.labels, b.embedding, b.weight, a.labels) == (False, True, 2.0, True)
    replacing = _recipe(substitution={"copies": 3, "weight": 0.5}, data={"unlabelled": sources})
    replaced = read_lessons(replacing, [by_hand, generated], dev, tmp_path)[-1]
    known = {u.text for lesson in (by_hand, generated, a, b) for u in lesson.utterances} | {u.text for u in dev}
    assert replaced.utterances and known.isdisjoint(u.text for u in replaced.utterances)
    assert {(u.intent, u.entities) for u in replaced.utterances} == {(None, None)}
    assert (replaced.weight, replaced.doubtful, replaced.labels) == (0.5, True, True)
    assert b.record() == read_lessons(recipe, [by_hand, generated], dev, tmp_path)[-1].record() != a.record()


def test_teachers_and_data_that_do_not_fit_are_refused(teachers, rows, dev, tokenizer, tmp_path):
    own, quiet = teachers["own"], lambda event: None
    strange = [Utterance("x y", "no_such_intent", (), source="f:1")]
    with pytest.raises(ConfigError, match=r"know every label .* got intent no_such_intent, which they do not \(f:1\)"):
        distill(_recipe(), [Lesson("rows", strange, doubtful=False)], dev, [own], quiet, tokenizer)
    with pytest.raises(DataError, match="expected texts to distill on and dev utterances"):
        distill(_recipe(), [], dev, [own], quiet, tokenizer)
    sure = _recipe(agreement={"min_confidence": 0.99999})
    with pytest.raises(DataError, match=r"expected texts that the teachers are sure of, got none; ask for less"):
        distill(sure, [Lesson("noise", [Utterance("zq xv")])], dev, [own], quiet, tokenizer)
    other = parse_recipe({"encoder": SMALL, "training": {"epochs": 1, "evals": 1}}, FinetuneRecipe, "t")
    few = [u for u in rows if u.intent != rows[0].intent]
    finetune(other, few[:40], few[:5], quiet, tokenizer)[0].save(tmp_path / "few")
    with pytest.raises(ConfigError, match=r"teachers: expected .*few to know the intents of .*own, got 0 others and"):
        shared_labels([own, read_joint_teacher(tmp_path / "few")])
    SentenceTransformer(other.encoder, tokenizer).save(tmp_path / "encoder")
    with pytest.raises(ArtifactError, match="expected a model with intent and tag heads, got an encoder"):
        read_joint_teacher(tmp_path / "encoder")
    assert "alarm_set" in read_joint_teacher("tiny").labels.intents
    with pytest.raises(ConfigError, match=r"unknown key 'data.unlabelled.0.weigth'; did you mean"):
        _recipe(data={"unlabelled": [{"path": "x", "weigth": 2}]})


def test_the_same_seed_gives_the_same_student(teachers, rows, dev, tokenizer):
    recipe = _recipe(training={"epochs": 1, "evals": 1}, loss={"token_dropout": 0.2})

    def weights():
        lessons = [Lesson("gold", rows[:64], doubtful=False), _unlabelled(rows[64:128])]
        model, _ = distill(recipe, lessons, dev[:20], [teachers["own"]], lambda event: None, tokenizer)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(), weights())


def test_the_shipped_recipe_and_the_documentation_tell_the_students_true_size():
    """With the labels of MASSIVE: 60 intents, 55 entity labels."""
    intents, tags = [f"i{n}" for n in range(60)], tag_vocabulary(f"l{n}" for n in range(55))

    def size(recipe, vocab_size):
        heads = MultiTaskModel(SentenceTransformer(recipe.encoder, Tokenizer.packaged()), intents, tags, recipe.heads)
        numbers = sum(p.numel() for name, p in heads.named_parameters() if "_head." in name)
        return count_parameters(recipe.encoder, vocab_size) + numbers

    tiny = load_recipe("massive-tiny", DistillRecipe)
    count = size(tiny, tiny.vocab_size)
    header = (resources.files("weebill") / "recipes" / "massive-tiny.toml").read_text(encoding="utf-8")
    assert count <= 1_000_000 and f"{count:,} parameters" in header
    page = (Path(__file__).parent.parent / "docs" / "distill.md").read_text(encoding="utf-8")
    block = page.split("```toml\n")[1].split("```")[0]
    documented = parse_recipe(tomllib.loads(block), DistillRecipe, "docs/distill.md")
    assert (documented.agreement.on, documented.swapping.copies) == ("intent", 3)
    rows = re.findall(r"^\| (\d) × (\d+), ([\d,]+) tokens(.*?) \|.* \| ([\d,]+) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for layers, dim, tokens, other, total in rows:
        shape = {"num_layers": int(layers), "hidden_dim": int(dim), "num_heads": 4, "ffn_dim": 256, "max_seq_len": 64}
        heads = {key: int(value) for key, value in re.findall(r"`(\w+_dim) = (\d+)`", other)}
        shape |= {"embedding_dim": int(dim), "projection": "projection = false" not in other}
        recipe = _recipe(encoder=shape, heads=heads)
        assert f"{size(recipe, int(tokens.replace(',', ''))):,}" == total


def test_typing_errors_are_taught_what_the_teacher_says_of_the_clean_text(
    teachers, own, rows, dev, tokenizer, monkeypatch
):
    noise = {"typing_errors": 2, "hesitations": True}
    lessons = read_lessons(_recipe(noise=noise), [Lesson("rows", rows, doubtful=False)], dev, Path())
    assert [lesson.name for lesson in lessons] == ["rows", "typing errors", "hesitations"]
    _, wrong, hesitant = lessons
    assert all(u.text != clean for u, clean in zip(wrong.utterances, wrong.read_as, strict=True))
    assert set(wrong.read_as) <= {u.text for u in rows}
    assert list(hesitant.texts_for_teachers) == [u.text for u in hesitant.utterances]
    read = []
    ask = lambda who, texts, *rest: read.extend(texts) or soft_labels(who, texts, *rest)  # noqa: E731
    monkeypatch.setattr(distilling, "soft_labels", ask)
    unlabelled = Lesson("wrong", [Utterance(u.text) for u in wrong.utterances], read_as=wrong.read_as)
    recipe = _recipe(training=TRAINING | {"epochs": 12})
    model, end = distill(recipe, [unlabelled], dev, [teachers["own"]], lambda event: None, tokenizer)
    assert read == [*dict.fromkeys(u.text for u in dev), *wrong.read_as]
    assert end["lessons"][0]["learnt"] == len(wrong.read_as)
    heads = (model.intents, model.tags, model.whole_words)
    ours = _parses(weebill.Predictor(tokenizer, TorchBackend(model), 64, 64, *heads), [u.text for u in dev])
    theirs = _parses(own, [u.text for u in dev])
    assert np.mean([a[0] == b[0] for a, b in zip(theirs, ours, strict=True)]) > 0.8  # clean ones, which it never met
    assert np.mean([a == b for a, b in zip(theirs, ours, strict=True)]) > 0.4


def test_an_error_that_changes_the_number_of_words_is_not_learnt(teachers, rows, dev, tokenizer):
    lesson = Lesson("wrong", [Utterance("wake me atnine")], read_as=["wake me at nine"])
    with pytest.raises(DataError, match="expected texts that the teachers are sure of"):
        distill(_recipe(), [lesson], dev, [teachers["own"]], lambda event: None, tokenizer)
