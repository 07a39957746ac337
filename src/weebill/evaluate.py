"""Run a predictor over labelled data and count: EvalReport. Pairs have evaluate_pairs.py; trains and draws nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from weebill.bootstrap import Floats, Statistic, estimate
from weebill.data import label_rows, pad
from weebill.errors import DataError
from weebill.metrics import (
    Spans,
    SpanScores,
    macro_f1,
    massive_slot_counts,
    span_counts,
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
    `tag_loss` is the unweighted mean cross-entropy per token, in nats. `intervals`, if asked for, are those of
    `bootstrap.estimate`, drawing utterances.
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
    intervals: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


def evaluate(
    predictor: Predictor,
    utterances: Sequence[Utterance],
    show_progress: bool | None = None,
    with_intervals: bool = False,
) -> EvalReport:
    """Return every score of the model on annotated utterances; full gold counts, also what the model cannot reach.

    Args:
        predictor: the model.
        utterances: annotated.
        show_progress: a progress bar; default: from 2,000 texts on.
        with_intervals: also bootstrap intervals, which take a second or two.

    Raises:
        DataError: no utterances.
        ArtifactError: the model has no heads.
    """
    predictor.require_heads()
    if not utterances:
        raise DataError("expected utterances to evaluate on, got none; check --data and --split")
    texts = [u.text for u in utterances]
    predictions: dict[int, Prediction] = {}
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
    gold_intents, got_intents = _intents(utterances, ordered)
    gold_spans, got_spans = _spans(utterances, ordered)
    strict = span_scores(gold_spans, got_spans) if gold_spans else None
    tokens = np.concatenate(losses)
    found = {
        name: (estimate(statistic, rows) if with_intervals else (float(statistic(np.ones((1, rows)))[0]), None))
        for name, statistic, rows in statistics(utterances, ordered)
    }
    value = {name: one for name, (one, _) in found.items()}
    return EvalReport(
        rows=len(utterances),
        intent_accuracy=value.get("intent_accuracy"),
        intent_macro_f1=macro_f1(gold_intents, got_intents) if gold_intents else None,
        tag_loss=float(tokens.mean()) if tokens.size else None,
        tag_accuracy=float(np.concatenate(hits).mean()) if tokens.size else None,
        span_precision=strict.precision if strict else None,
        span_recall=strict.recall if strict else None,
        span_f1=value.get("span_f1"),
        exact_match=value.get("exact_match"),
        massive_slot_f1=value.get("massive_slot_f1"),
        massive_exact_match=value.get("massive_exact_match"),
        by_label=span_scores_by_label(gold_spans, got_spans) if gold_spans else {},
        intervals={name: interval for name, (_, interval) in found.items() if interval is not None},
    )


def statistics(
    utterances: Sequence[Utterance], predictions: Sequence[Prediction]
) -> Iterator[tuple[str, Statistic, int]]:
    """Yield each score the annotation allows: its name, the score as a function of counts, how many rows there are.

    Each is a sum over utterances divided by another: right ones by all, or F1 = 2 × right spans by predicted and gold
    spans together.
    """
    counted = [
        (u, p, u.intent is not None and u.intent == p.intent, span_counts(u.entities or (), p.entities),
         massive_slot_counts(u.text, u.entities or (), p.entities))
        for u, p in zip(utterances, predictions, strict=True)
    ]  # fmt: skip
    with_intent = [right for u, _, right, _, _ in counted if u.intent is not None]
    if with_intent:
        yield "intent_accuracy", _ratio(with_intent, [1] * len(with_intent)), len(with_intent)
    labelled = [(strict, words) for u, _, _, strict, words in counted if u.entities is not None]
    if labelled:
        for name, counts in zip(("span_f1", "massive_slot_f1"), zip(*labelled, strict=True), strict=True):
            statistic = _ratio([2 * c.true_positives for c in counts], [c.predicted + c.gold for c in counts])
            yield name, statistic, len(counts)
    both = [(right, strict, words) for u, _, right, strict, words in counted
            if u.intent is not None and u.entities is not None]  # fmt: skip
    if both:
        ones = [1] * len(both)
        yield "exact_match", _ratio([right and strict.exact for right, strict, _ in both], ones), len(both)
        yield "massive_exact_match", _ratio([right and words.exact for right, _, words in both], ones), len(both)


def _ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Statistic:
    above_N, below_N = np.array(numerators, dtype=np.float64), np.array(denominators, dtype=np.float64)

    def ratio(counts_RN: Floats) -> Floats:
        total_R = counts_RN @ below_N
        return np.where(total_R > 0, counts_RN @ above_N / np.maximum(total_R, 1e-300), 0.0)

    return ratio


def _intents(utterances: Sequence[Utterance], predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    pairs = [(u.intent, p.intent) for u, p in zip(utterances, predictions, strict=True) if u.intent is not None]
    return [gold for gold, _ in pairs], [got for _, got in pairs]


def _spans(utterances: Sequence[Utterance], predictions: Sequence[Prediction]) -> tuple[list[Spans], list[Spans]]:
    pairs = [(u.entities, p.entities) for u, p in zip(utterances, predictions, strict=True) if u.entities is not None]
    return [gold for gold, _ in pairs], [got for _, got in pairs]


def _without_unknown(utterance: Utterance, tags: set[str]) -> Utterance:
    """Token loss can only be taken over labels the model has; the span scores still count the others as missed."""
    if utterance.entities is None:
        return Utterance(utterance.text)
    return Utterance(utterance.text, None, tuple(e for e in utterance.entities if f"B-{e.label}" in tags))
