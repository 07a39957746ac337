"""Run a predictor over labelled data and count: EvalReport. Pairs have evaluate_pairs.py; trains and draws nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from weebill.data import label_rows, pad
from weebill.errors import DataError
from weebill.metrics import (
    SpanScores,
    accuracy,
    exact_match,
    macro_f1,
    massive_slot_scores,
    span_scores,
    span_scores_by_label,
)
from weebill.predictor import Predictor
from weebill.schema import Prediction, Utterance
from weebill.tags import MISSING


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Scores on labelled utterances, fractions in [0, 1]; None where nothing of that kind is annotated.

    Spans are strict (same start, end and label). `massive_*` follow MASSIVE's convention: words instead of characters.
    `tag_loss` is the unweighted mean cross-entropy per token, in nats.
    """

    rows: int
    intent_accuracy: float | None
    intent_macro_f1: float | None
    tag_loss: float | None
    tag_accuracy: float | None
    span_precision: float | None
    span_recall: float | None
    span_f1: float | None
    exact_match: float | None
    massive_slot_f1: float | None
    massive_exact_match: float | None
    by_label: dict[str, SpanScores]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


def evaluate(predictor: Predictor, utterances: Sequence[Utterance], show_progress: bool | None = None) -> EvalReport:
    """Return every score of the model on annotated utterances; full gold counts, also what the model cannot reach.

    Raises:
        DataError: no utterances.
        ArtifactError: the model has no heads.
    """
    predictor.require_heads()
    if not utterances:
        raise DataError("expected utterances to evaluate on, got none; check --data and --split")
    texts = [u.text for u in utterances]
    predictions: dict[int, Prediction] = {}
    labelled = [i for i, u in enumerate(utterances) if u.entities is not None]
    known = set(predictor.tags)
    losses, hits = [], []
    for rows, batch, output in predictor.outputs(texts, show_progress=show_progress):
        decoded = predictor.decode([texts[i] for i in rows], batch, output)
        predictions.update(zip(rows.tolist(), decoded, strict=True))
        assert output.tag_logits_BTL is not None
        here = [_without_unknown(utterances[i], known) for i in rows]
        gold_BT = pad(label_rows(here, predictor.tokenizer, predictor.max_seq_len, [], predictor.tags).tags, MISSING)
        kept = gold_BT != MISSING
        logits_NL, gold_N = output.tag_logits_BTL[kept], gold_BT[kept]
        top_N = logits_NL.max(-1)
        log_sum_N = top_N + np.log(np.exp(logits_NL - top_N[:, None]).sum(-1))
        losses.append(log_sum_N - logits_NL[np.arange(len(gold_N)), gold_N])
        hits.append(logits_NL.argmax(-1) == gold_N)
    ordered = [predictions[i] for i in range(len(utterances))]
    with_intent = [i for i, u in enumerate(utterances) if u.intent is not None]
    gold_intents = [utterances[i].intent or "" for i in with_intent]
    got_intents = [ordered[i].intent for i in with_intent]
    gold_spans = [utterances[i].entities or () for i in labelled]
    got_spans = [ordered[i].entities for i in labelled]
    both = [i for i in labelled if utterances[i].intent is not None]
    strict = span_scores(gold_spans, got_spans) if labelled else None
    massive, words_right = (
        massive_slot_scores([texts[i] for i in labelled], gold_spans, got_spans) if labelled else (None, [])
    )
    right_words = dict(zip(labelled, words_right, strict=True))
    tokens = np.concatenate(losses)
    return EvalReport(
        rows=len(utterances),
        intent_accuracy=accuracy(gold_intents, got_intents) if with_intent else None,
        intent_macro_f1=macro_f1(gold_intents, got_intents) if with_intent else None,
        tag_loss=float(tokens.mean()) if tokens.size else None,
        tag_accuracy=float(np.concatenate(hits).mean()) if tokens.size else None,
        span_precision=strict.precision if strict else None,
        span_recall=strict.recall if strict else None,
        span_f1=strict.f1 if strict else None,
        exact_match=_exact(utterances, ordered, both) if both else None,
        massive_slot_f1=massive.f1 if massive else None,
        massive_exact_match=(
            sum(right_words[i] and utterances[i].intent == ordered[i].intent for i in both) / len(both)
            if both
            else None
        ),
        by_label=span_scores_by_label(gold_spans, got_spans) if labelled else {},
    )


def _exact(utterances: Sequence[Utterance], predictions: Sequence[Prediction], rows: Sequence[int]) -> float:
    return exact_match(
        [utterances[i].intent or "" for i in rows],
        [predictions[i].intent for i in rows],
        [utterances[i].entities or () for i in rows],
        [predictions[i].entities for i in rows],
    )


def _without_unknown(utterance: Utterance, tags: set[str]) -> Utterance:
    """Token loss can only be taken over labels the model has; the span scores still count the others as missed."""
    if utterance.entities is None:
        return Utterance(utterance.text)
    return Utterance(utterance.text, None, tuple(e for e in utterance.entities if f"B-{e.label}" in tags))
