"""The report against the same numbers from predictions and from torch; what is not annotated is not counted."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import accuracy_score

from weebill import metrics, templates
from weebill.backend import TorchBackend
from weebill.comparison import Difference, compare_on_pairs, compare_on_utterances
from weebill.config import EncoderConfig, HeadsConfig
from weebill.errors import ArtifactError, DataError
from weebill.evaluate import SCORES, _token_labels, evaluate, evaluate_in_detail, statistics
from weebill.evaluate_pairs import evaluate_pairs
from weebill.multitask import MultiTaskModel
from weebill.predictor import Predictor
from weebill.schema import Entity, ScoredPair, Utterance
from weebill.sent_transformer import SentenceTransformer
from weebill.tags import MISSING, align, tag_vocabulary
from weebill.tokenizer import Tokenizer

ROWS = templates.generate()[1][::20]


@pytest.fixture(scope="module")
def nlu():
    """A model with random weights: it is wrong in many ways, so every score has something to count."""
    torch.manual_seed(3)
    encoder = SentenceTransformer(EncoderConfig(num_layers=1, hidden_dim=16, num_heads=2), Tokenizer.packaged())
    tags = tag_vocabulary({e.label for u in ROWS for e in u.entities})
    model = MultiTaskModel(encoder, sorted({u.intent for u in ROWS}), tags, HeadsConfig()).eval()
    with torch.no_grad():
        model.tag_head.mlp[-1].bias[0] += 0.1  # "O" often enough that spans are short
    return Predictor(encoder.tokenizer, TorchBackend(model), 128, 64, model.intents, tags)


def test_scores_are_those_of_the_predictions(nlu):
    predictions = nlu.parse([u.text for u in ROWS])
    rows = [
        replace(u, entities=p.entities) if i % 3 else u for i, (u, p) in enumerate(zip(ROWS, predictions, strict=True))
    ]
    report = evaluate(nlu, rows)
    gold, got = [u.entities for u in rows], [p.entities for p in predictions]
    assert report.rows == len(rows)
    assert report.span_f1 == pytest.approx(metrics.span_scores(gold, got).f1) and 0 < report.span_f1 < 1
    right = [u.intent == p.intent for u, p in zip(ROWS, predictions, strict=True)]
    assert report.intent_accuracy == pytest.approx(
        accuracy_score([u.intent for u in ROWS], [p.intent for p in predictions])
    )
    words = [metrics.massive_slot_counts(u.text, a, b) for u, a, b in zip(ROWS, gold, got, strict=True)]
    assert report.massive_slot_f1 == pytest.approx(metrics.sum_counts(words).f1)
    assert report.massive_exact_match == sum(r and c.exact for r, c in zip(right, words, strict=True)) / len(ROWS)
    strict = [metrics.span_counts(a, b) for a, b in zip(gold, got, strict=True)]
    assert report.exact_match == sum(r and c.exact for r, c in zip(right, strict, strict=True)) / len(ROWS)
    assert sum(s.gold for s in report.by_label.values()) == sum(map(len, gold))


def test_intervals_are_scipys_and_hold_the_score(nlu):
    report = evaluate(nlu, ROWS, with_intervals=True)
    assert set(report.intervals) == set(SCORES)
    predictions = nlu.parse([u.text for u in ROWS])
    right = np.array([u.intent == p.intent for u, p in zip(ROWS, predictions, strict=True)], dtype=float)
    oracle = scipy.stats.bootstrap((right,), np.mean, method="percentile", n_resamples=2000, rng=0).confidence_interval
    assert report.intervals["intent_accuracy"] == pytest.approx((oracle.low, oracle.high), abs=0.02)
    for name, (low, high) in report.intervals.items():  # resampling adds noise, which a calibration error counts
        assert low <= getattr(report, name) <= high or name == "calibration_error"


def _twisted(nlu, every):
    """The same model, but every so-many texts get another intent: known to be worse by that share of the right ones."""

    class Twisted(Predictor):
        def parse(self, texts, show_progress=None):
            found = nlu.parse(texts)
            return [replace(p, intent="?") if i % every == 0 else p for i, p in enumerate(found)]

    return Twisted(nlu.tokenizer, nlu.backend, 128, 64, nlu.intents, nlu.tags)


def test_tokens_of_a_label_that_the_model_does_not_know_carry_no_score(nlu):
    text, tag_ids = "wake me up in the purple elephant", {tag: i for i, tag in enumerate(nlu.tags)}
    encoding = nlu.tokenizer.encode(text)
    labels, misaligned = _token_labels(Utterance(text, None, (Entity(18, 33, "animal"),)), encoding, tag_ids)
    expected = [MISSING if end > 18 or start == end else tag_ids["O"] for start, end in encoding.offsets]
    assert labels == expected and misaligned == [] and tag_ids["O"] in labels


def test_comparing_models_tells_a_difference_from_chance(nlu):
    predictions = nlu.parse([u.text for u in ROWS])
    rows = [replace(u, intent=p.intent, entities=p.entities) for u, p in zip(ROWS, predictions, strict=True)]
    itself = {d.name: d for d in compare_on_utterances(nlu, nlu, rows)}
    calibration = itself.pop("calibration_error")
    assert calibration.a == calibration.b > 0 and calibration.better is None
    assert all((d.a, d.b, d.interval, d.better) == (1.0, 1.0, (0.0, 0.0), None) for d in itself.values())
    worse = {d.name: d for d in compare_on_utterances(nlu, _twisted(nlu, 4), rows)}
    accuracy = worse["intent_accuracy"]
    assert accuracy.better == "a" and accuracy.b - accuracy.a == pytest.approx(-0.25, abs=0.02)
    assert accuracy.interval[0] < -0.25 < accuracy.interval[1] < 0
    assert worse["span_f1"].better is None  # the entities are the same
    assert {d.name: d.better for d in compare_on_utterances(_twisted(nlu, 4), nlu, rows)}["intent_accuracy"] == "b"
    hardly = compare_on_utterances(nlu, _twisted(nlu, len(rows)), rows)
    assert {d.name: d.better for d in hardly}["intent_accuracy"] is None  # one text of all shows nothing


def test_comparing_encoders_on_pairs(nlu):
    pairs = [ScoredPair(u.text, v.text, i % 3 / 2) for i, (u, v) in enumerate(pairwise(ROWS)) if u.text != v.text]
    found = {d.name: d for d in compare_on_pairs(nlu, nlu, pairs)}
    assert found["spearman"].a == found["spearman"].b == evaluate_pairs(nlu, pairs).spearman
    assert {"recall_at_1", "alignment", "uniformity"} <= set(found)
    assert Difference("alignment", 0.5, 0.4, (-0.2, -0.05)).better == "b"  # less is better there
    assert Difference("spearman", 0.5, 0.4, (-0.2, -0.05)).better == "a"


def test_tag_loss_and_accuracy_equal_torch(nlu):
    report = evaluate(nlu, ROWS)
    ids = {tag: i for i, tag in enumerate(nlu.tags)}
    losses, hits = [], []
    for utterance in ROWS:
        batch = nlu.tokenizer.encode_batch([utterance.text])
        target = torch.tensor(align(utterance.entities, batch.encodings[0], ids)[0])
        logits = torch.from_numpy(nlu.backend.run(batch).tag_logits_BTL[0])
        losses.append(torch.nn.functional.cross_entropy(logits, target, reduction="none")[target != MISSING])
        hits.append((logits.argmax(-1) == target)[target != MISSING])
    assert report.tag_loss == pytest.approx(torch.cat(losses).mean().item(), abs=1e-5)
    assert report.tag_accuracy == pytest.approx(torch.cat(hits).float().mean().item())


def test_what_is_not_annotated_is_not_counted(nlu):
    only_intents = [Utterance(u.text, u.intent) for u in ROWS]
    report = evaluate(nlu, only_intents)
    assert report.intent_accuracy == evaluate(nlu, ROWS).intent_accuracy
    assert (report.span_f1, report.exact_match, report.tag_loss, report.by_label) == (None, None, None, {})
    only_spans = [Utterance(u.text, None, u.entities) for u in ROWS]
    assert evaluate(nlu, only_spans).intent_accuracy is None
    assert evaluate(nlu, only_spans).span_f1 == evaluate(nlu, ROWS).span_f1
    with pytest.raises(DataError, match="expected utterances to evaluate on, got none"):
        evaluate(nlu, [])


def test_labels_the_model_does_not_know_count_as_missed(nlu):
    extra = [Utterance("hello there", ROWS[0].intent, (Entity(0, 5, "unheard_of"),))]
    assert evaluate(nlu, extra).by_label["unheard_of"].recall == 0.0


def test_an_encoder_without_heads_is_refused(nlu):
    encoder = Predictor(nlu.tokenizer, nlu.backend, 128, 64)
    with pytest.raises(ArtifactError, match="expected a model with intent and tag heads, got an encoder"):
        evaluate(encoder, ROWS)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_macro_scores_equal_scikit_learn_and_seqeval(nlu):
    from seqeval.metrics import f1_score as seqeval_f1
    from seqeval.scheme import IOB2
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    predictions = nlu.parse([u.text for u in ROWS])
    rows = [
        replace(u, entities=p.entities) if i % 3 else u for i, (u, p) in enumerate(zip(ROWS, predictions, strict=True))
    ]
    report = evaluate(nlu, rows)
    gold, got = [u.intent for u in rows], [p.intent for p in predictions]
    assert report.intent_macro_f1 == pytest.approx(f1_score(gold, got, average="macro", zero_division=0))
    labels = sorted({*gold, *got})
    for values, name in zip(precision_recall_fscore_support(gold, got, labels=labels, zero_division=0)[:3],
                            ("precision", "recall", "f1"), strict=True):  # fmt: skip
        assert [getattr(report.by_intent[label], name) for label in labels] == pytest.approx(values.tolist())
    tags = [[_characters(u.text, some) for u, some in zip(rows, spans, strict=True)]
            for spans in ([u.entities for u in rows], [p.entities for p in predictions])]  # fmt: skip
    expected = seqeval_f1(*tags, average="macro", mode="strict", scheme=IOB2, zero_division=0)
    assert report.span_macro_f1 == pytest.approx(expected) and 0 < expected < 1


def _characters(text, entities):
    """BIO tags of single characters: spans as exact as can be."""
    tags = ["O"] * len(text)
    for e in entities:
        tags[e.start : e.end] = [f"B-{e.label}", *[f"I-{e.label}"] * (e.end - e.start - 1)]
    return tags


def test_resampled_macro_f1_is_that_of_the_resampled_rows(nlu):
    from sklearn.metrics import f1_score

    predictions = nlu.parse([u.text for u in ROWS])
    drawn = np.random.default_rng(0).integers(len(ROWS), size=len(ROWS))
    counts = np.bincount(drawn, minlength=len(ROWS))[None].astype(float)
    found = {name: float(statistic(counts)[0]) for name, statistic, _ in statistics(ROWS, predictions)}
    again = dict((name, float(s(np.ones((1, n)))[0])) for name, s, n in
                 statistics([ROWS[i] for i in drawn], [predictions[i] for i in drawn]))  # fmt: skip
    assert found == pytest.approx(again)
    gold, got = [ROWS[i].intent for i in drawn], [predictions[i].intent for i in drawn]
    assert found["intent_macro_f1"] == pytest.approx(f1_score(gold, got, average="macro", zero_division=0))


def test_the_full_gold_counts_whatever_is_read(nlu):
    long = Utterance("word " * 200 + "friday", ROWS[0].intent, (Entity(1000, 1006, "date"),), source="rows.jsonl:3")
    for policy, dropped in (("window", 0), ("truncate", 1)):
        reader = Predictor(nlu.tokenizer, nlu.backend, 128, 64, nlu.intents, nlu.tags, on_overflow=policy)
        found = evaluate_in_detail(reader, [*ROWS, long])
        assert found.report.by_label["date"].gold == 1 + sum(e.label == "date" for u in ROWS for e in u.entities)
        assert found.report.long_texts == 1
        entries = [(e.kind, e.source) for e in found.ledger]
        assert entries == [("entity truncated: beyond the model's max_seq_len", "rows.jsonl:3"),
                           ("text too long", "rows.jsonl:3")][: 2 * dropped]  # fmt: skip
