"""Run a predictor over labelled data and count: EvalReport. Pairs have evaluate_pairs.py; trains and draws nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from weebill.bootstrap import Floats, Statistic, estimate
from weebill.encodings import Encoding
from weebill.errors import DataError
from weebill.label_facts import sort_intents
from weebill.ledger import LedgerEntry, evaluation_ledger
from weebill.metrics import (
    ERROR_KINDS,
    NUM_BINS,
    Spans,
    SpanScores,
    bin_numbers,
    massive_slot_counts,
    scores_by_intent,
    span_counts,
    span_errors,
    span_scores_by_label,
)
from weebill.predictor import Predictor
from weebill.schema import Prediction, Utterance, intent_parts
from weebill.tags import MISSING, Misaligned, align

SCORES = ("intent_accuracy", "intent_macro_f1", "calibration_error", "tag_accuracy", "span_precision", "span_recall",
          "span_f1", "span_macro_f1", "exact_match", "massive_slot_f1", "massive_exact_match")  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Scores on labelled utterances, fractions in [0, 1]; None where nothing of that kind is annotated.

    Spans are strict (same start, end and label). `massive_*` follow MASSIVE's convention: words instead of characters.
    `tag_loss` is the unweighted mean cross-entropy per token, in nats. `calibration_error` is the expected one of the
    intents' confidence, less = better. `span_errors` counts by kind (`metrics.span_errors`). `intervals`, if asked for,
    are those of `bootstrap.estimate`, drawing utterances. `long_texts` have more tokens than the model reads at once.
    """

    rows: int
    long_texts: int
    intent_accuracy: float | None
    intent_macro_f1: float | None
    calibration_error: float | None
    tag_loss: float | None
    tag_accuracy: float | None
    span_precision: float | None
    span_recall: float | None
    span_f1: float | None
    span_macro_f1: float | None
    exact_match: float | None
    massive_slot_f1: float | None
    massive_exact_match: float | None
    span_errors: dict[str, int]
    by_intent: dict[str, SpanScores]
    by_label: dict[str, SpanScores]
    intervals: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report and what it was made from: the utterances, a prediction for each, and what cannot be found.

    Several intents of an utterance are sorted, as those of a prediction are.
    """

    report: EvalReport
    utterances: Sequence[Utterance]
    predictions: Sequence[Prediction]
    ledger: Sequence[LedgerEntry]
    intent_separator: str | None = None


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
    return evaluate_in_detail(predictor, utterances, show_progress, with_intervals).report


def evaluate_in_detail(
    predictor: Predictor,
    utterances: Sequence[Utterance],
    show_progress: bool | None = None,
    with_intervals: bool = False,
) -> Evaluation:
    """Return the report of `evaluate`, with predictions and ledger."""
    predictor.require_heads()
    if not utterances:
        raise DataError("expected utterances to evaluate on, got none; check --data and --split")
    utterances, separator = sort_intents(utterances, predictor.intent_separator), predictor.intent_separator
    texts = [u.text for u in utterances]
    predictions: dict[int, Prediction] = {}
    tag_ids = {tag: i for i, tag in enumerate(predictor.tags)}
    losses = list[npt.NDArray[np.float32]]()
    hits_N, tokens_N = np.zeros((2, len(texts)))
    misaligned, shortened, long_texts = dict[int, list[Misaligned]](), dict[int, int](), 0
    for rows, batch, output in predictor.outputs(texts, show_progress=show_progress):
        decoded = predictor.decode([texts[i] for i in rows], batch, output)
        predictions.update(zip(rows.tolist(), decoded, strict=True))
        assert output.tag_logits_BTL is not None
        for row, encoding, tags_TL in zip(rows.tolist(), batch.encodings, output.tag_logits_BTL, strict=True):
            if encoding.dropped_tokens:
                shortened[row] = encoding.dropped_tokens
            long_texts += bool(encoding.dropped_tokens) or len(tags_TL) > predictor.max_seq_len
            if utterances[row].entities is None:
                continue
            gold, misaligned[row] = _token_labels(utterances[row], encoding, tag_ids)
            gold_T = np.array(gold)
            kept_T = gold_T != MISSING
            logits_KL, gold_K = tags_TL[: len(gold)][kept_T], gold_T[kept_T]
            hits_N[row], tokens_N[row] = (logits_KL.argmax(-1) == gold_K).sum(), len(gold_K)
            top_K = logits_KL.max(-1)
            log_sum_K = top_K + np.log(np.exp(logits_KL - top_K[:, None]).sum(-1))
            losses.append(log_sum_K - logits_KL[np.arange(len(gold_K)), gold_K])
    ordered = [predictions[i] for i in range(len(utterances))]
    labelled = [(u.entities, p.entities) for u, p in zip(utterances, ordered, strict=True) if u.entities is not None]
    gold_spans, got_spans = [a for a, _ in labelled], [b for _, b in labelled]
    pairs = [(u.intent, p.intent) for u, p in zip(utterances, ordered, strict=True) if u.intent is not None]
    errors = Counter(error.kind for gold, got in labelled for error in span_errors(gold, got))
    scored = [*statistics(utterances, ordered, separator)]
    if tokens_N.any():
        scored.append(("tag_accuracy", _ratio(hits_N, tokens_N), len(texts)))
    found = {
        name: (estimate(statistic, rows) if with_intervals else (float(statistic(np.ones((1, rows)))[0]), None))
        for name, statistic, rows in scored
    }
    report = EvalReport(
        rows=len(utterances),
        long_texts=long_texts,
        tag_loss=float(np.concatenate(losses).mean()) if tokens_N.any() else None,
        span_errors={kind: errors[kind] for kind in ERROR_KINDS} if labelled else {},
        by_intent=scores_by_intent([a for a, _ in pairs], [b for _, b in pairs], separator),
        by_label=span_scores_by_label(gold_spans, got_spans),
        intervals={name: interval for name, (_, interval) in found.items() if interval is not None},
        **{name: found[name][0] if name in found else None for name in SCORES},
    )
    ledger = evaluation_ledger(
        [(utterances[i], one) for i in sorted(misaligned) for one in misaligned[i]],
        [(utterances[i], shortened[i]) for i in sorted(shortened)],
        utterances, predictor.intents, [tag[2:] for tag in predictor.tags if tag.startswith("B-")], separator,
    )  # fmt: skip
    return Evaluation(report, utterances, ordered, ledger, separator)


def statistics(
    utterances: Sequence[Utterance], predictions: Sequence[Prediction], separator: str | None = None
) -> Iterator[tuple[str, Statistic, int]]:
    """Yield each score the annotation allows: its name, the score as a function of counts, how many rows there are.

    Most are a sum over utterances divided by another: right ones by all, or F1 = 2 × right spans by predicted and gold
    spans together. Macro F1 is the mean over the labels that occur. With a separator an intent is right when all its
    parts are and no other is there, and macro F1 is the mean over the parts.
    """
    both_rows = list(zip(utterances, predictions, strict=True))
    answered = [(intent_parts(u.intent, separator), intent_parts(p.intent, separator), p.score)
                for u, p in both_rows if u.intent is not None]  # fmt: skip
    if answered:
        right = [gold == got for gold, got, _ in answered]
        yield "intent_accuracy", _ratio(right, [1] * len(right)), len(right)
        classes = {x: i for i, x in enumerate(sorted({x for gold, got, _ in answered for x in (*gold, *got)}))}
        gold_NC, got_NC = np.zeros((2, len(answered), len(classes)))
        for i, (gold, got, _) in enumerate(answered):
            gold_NC[i, [classes[x] for x in gold]] = 1
            got_NC[i, [classes[x] for x in got]] = 1
        yield "intent_macro_f1", _macro_f1(gold_NC * got_NC, gold_NC + got_NC), len(right)
        yield "calibration_error", calibration_error([score for _, _, score in answered], right), len(right)
    labelled = [(u, u.entities, p) for u, p in both_rows if u.entities is not None]
    if labelled:
        strict = [span_counts(gold, p.entities) for _, gold, p in labelled]
        massive = [massive_slot_counts(u.text, gold, p.entities) for u, gold, p in labelled]
        true = [c.true_positives for c in strict]
        yield "span_precision", _ratio(true, [c.predicted for c in strict]), len(strict)
        yield "span_recall", _ratio(true, [c.gold for c in strict]), len(strict)
        for name, counts in (("span_f1", strict), ("massive_slot_f1", massive)):
            statistic = _ratio([2 * c.true_positives for c in counts], [c.predicted + c.gold for c in counts])
            yield name, statistic, len(counts)
        yield "span_macro_f1", _span_macro_f1([(gold, p.entities) for _, gold, p in labelled]), len(strict)
        both = [(i, u.intent, p.intent) for i, (u, _, p) in enumerate(labelled) if u.intent is not None]
        annotated = [(i, intent_parts(a, separator) == intent_parts(b, separator)) for i, a, b in both]
        if annotated:
            ones = [1] * len(annotated)
            yield "exact_match", _ratio([ok and strict[i].exact for i, ok in annotated], ones), len(ones)
            yield "massive_exact_match", _ratio([ok and massive[i].exact for i, ok in annotated], ones), len(ones)


def _span_macro_f1(rows: Sequence[tuple[Spans, Spans]]) -> Statistic:
    labels = {label: i for i, label in enumerate(sorted({e.label for row in rows for some in row for e in some}))}
    true_NL, both_NL = np.zeros((2, len(rows), len(labels)))
    for i, (gold, got) in enumerate(rows):
        want, have = ({(e.start, e.end, e.label) for e in some} for some in (gold, got))
        for key in want:
            both_NL[i, labels[key[2]]] += 1
            true_NL[i, labels[key[2]]] += key in have
        for key in have:
            both_NL[i, labels[key[2]]] += 1
    return _macro_f1(true_NL, both_NL)


def _macro_f1(true_NC: Floats, both_NC: Floats) -> Statistic:
    """Return the mean F1 of the classes that occur; `both` counts gold and predicted together."""

    def macro(counts_RN: Floats) -> Floats:
        true_RC, both_RC = counts_RN @ true_NC, counts_RN @ both_NC
        f1_RC = 2 * true_RC / np.maximum(both_RC, 1e-300)
        scores: Floats = f1_RC.sum(axis=1) / np.maximum((both_RC > 0).sum(axis=1), 1)
        return scores

    return macro


def calibration_error(confidences: Sequence[float], right: Sequence[bool], num_bins: int = NUM_BINS) -> Statistic:
    """Return how far confidence and accuracy are apart, the mean over all answers; less = better.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    scores_N = np.array(confidences, dtype=np.float64)
    gaps_NB = np.zeros((len(right), num_bins))
    gaps_NB[np.arange(len(right)), bin_numbers(scores_N, num_bins)] = np.array(right) - scores_N

    def error(counts_RN: Floats) -> Floats:
        errors: Floats = np.abs(counts_RN @ gaps_NB).sum(axis=1) / counts_RN.sum(axis=1)
        return errors

    return error


def _ratio(numerators: Sequence[float] | Floats, denominators: Sequence[float] | Floats) -> Statistic:
    above_N, below_N = np.array(numerators, dtype=np.float64), np.array(denominators, dtype=np.float64)

    def ratio(counts_RN: Floats) -> Floats:
        total_R = counts_RN @ below_N
        return np.where(total_R > 0, counts_RN @ above_N / np.maximum(total_R, 1e-300), 0.0)

    return ratio


def _token_labels(
    utterance: Utterance, encoding: Encoding, tag_ids: Mapping[str, int]
) -> tuple[list[int], list[Misaligned]]:
    """Return `align` of the entities that have tags; tokens of others are MISSING, and span scores count them."""
    entities = utterance.entities or ()
    known = [e for e in entities if f"B-{e.label}" in tag_ids]
    labels, misaligned = align(known, encoding, tag_ids)
    for other in (e for e in entities if e not in known):
        touched = (i for i, (a, b) in enumerate(encoding.offsets) if a < other.end and other.start < b)
        for i in touched:
            labels[i] = MISSING
    return labels, misaligned
