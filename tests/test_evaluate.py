"""The report against the same numbers from predictions and from torch; what is not annotated is not counted."""

import logging

import pytest
import torch

from weebill import metrics, templates
from weebill.backend import TorchBackend
from weebill.config import EncoderConfig, HeadsConfig
from weebill.errors import ArtifactError, DataError
from weebill.evaluate import evaluate
from weebill.multitask import MultiTaskModel
from weebill.predictor import Predictor
from weebill.schema import Entity, Utterance
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
        model.tag_head.mlp[-1].bias[0] += 0.3  # "O" often enough that some spans are right
    return Predictor(encoder.tokenizer, TorchBackend(model), 128, 64, model.intents, tags)


def test_scores_are_those_of_the_predictions(nlu):
    report, predictions = evaluate(nlu, ROWS), nlu.parse([u.text for u in ROWS])
    gold, got = [u.entities for u in ROWS], [p.entities for p in predictions]
    assert report.rows == len(ROWS)
    assert report.span_f1 == metrics.span_scores(gold, got).f1
    assert report.intent_accuracy == metrics.accuracy([u.intent for u in ROWS], [p.intent for p in predictions])
    massive, right = metrics.massive_slot_scores([u.text for u in ROWS], gold, got)
    assert report.massive_slot_f1 == massive.f1
    intents_right = [u.intent == p.intent for u, p in zip(ROWS, predictions, strict=True)]
    assert report.massive_exact_match == sum(map(all, zip(right, intents_right, strict=True))) / len(ROWS)
    assert sum(s.gold for s in report.by_label.values()) == sum(map(len, gold))


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


def test_truncated_texts_are_announced(nlu, caplog):
    with caplog.at_level(logging.WARNING, "weebill"):
        nlu.parse(["short", "word " * 300])
    assert "1 of 2 texts are longer than the model's 128 tokens" in caplog.text
