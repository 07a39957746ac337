"""What a person sees of a model: tables of scores, differences and checks, coloured parses. Computes no score."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from weebill.bootstrap import LEVEL
from weebill.comparison import LESS_IS_BETTER, Difference
from weebill.evaluate import EvalReport
from weebill.evaluate_pairs import PairReport
from weebill.export import ExportReport
from weebill.schema import Prediction
from weebill.showing import TERMINAL_CHARACTERS
from weebill.showing import shown as visible
from weebill.tokenizer_stats import TokenizerStats
from weebill.verification import VerifyReport

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")


def trainable(
    rows: Sequence[tuple[str, int, float]], fixed: int, first_epochs: Mapping[str, int | None] | None = None
) -> Table:
    """Return the table of what trains and how fast; `fixed` numbers, such as sinusoidal positions, do not.

    `first_epochs` names the parts that do not train from the first epoch on; None = never.
    """
    later = first_epochs or {}
    table = Table("part", "parameters", "peak learning rate", title="what trains")
    for part, count, rate in rows:
        from_epoch = later.get(part, 1)
        shown = "frozen" if from_epoch is None else f"{rate:.2e}{f' from epoch {from_epoch}' * (from_epoch > 1)}"
        table.add_row(part, f"{count:,}", shown)
    if fixed:
        table.add_row("fixed positions", f"{fixed:,}", "")
    table.add_row("total", f"{sum(r[1] for r in rows) + fixed:,}", "")
    return table


def ledger(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Return the table of a ledger's entries (as JSON): a line per kind, with the first of it and what to do."""
    kinds = dict[str, list[Mapping[str, Any]]]()
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    table = Table("what", "times", "first", "fix", title=title)
    for kind, some in kinds.items():
        first = some[0]
        label = f"{first['label']}: " if "label" in first else ""
        about = f"{first.get('source', '')}\n{label}{first.get('excerpt', first['reason'])}"
        table.add_row(kind, f"{len(some):,}", Text(visible(about, TERMINAL_CHARACTERS, lines=True)), Text(first["fix"]))
    return table


SCORE_NAMES = {
    "intent_accuracy": "intent accuracy",
    "intent_macro_f1": "intent macro-F1",
    "calibration_error": "intent calibration error (less = better)",
    "tag_accuracy": "tag accuracy",
    "span_precision": "span precision (strict)",
    "span_recall": "span recall (strict)",
    "span_f1": "span F1 (strict)",
    "span_macro_f1": "span macro-F1 (strict)",
    "exact_match": "exact match (strict)",
    "massive_slot_f1": "slot F1 (MASSIVE's convention)",
    "massive_exact_match": "exact match (MASSIVE's convention)",
}
SEVERAL_INTENTS = "a text is right with all its intents and no other; macro-F1 is the mean over single intents"


def scores(report: EvalReport, title: str, several_intents: bool = False) -> Table:
    """Return the table of a report's scores, in percent, with the intervals it has."""
    table = Table("score", "value", f"{100 * LEVEL:.0f} % interval", title=title,
                  caption=SEVERAL_INTENTS if several_intents else None)  # fmt: skip
    table.add_row("rows", f"{report.rows:,}")
    for name, shown in SCORE_NAMES.items():
        value, interval = getattr(report, name), report.intervals.get(name)
        table.add_row(shown, "not annotated" if value is None else f"{100 * value:.2f} %",
                      f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}" if interval else "")  # fmt: skip
    if report.span_errors:
        table.add_row("wrong spans", ", ".join(f"{count:,} {kind}" for kind, count in report.span_errors.items()))
    if report.long_texts:
        table.add_row("texts longer than the model reads at once", f"{report.long_texts:,}")
    table.add_row("tag loss", "not annotated" if report.tag_loss is None else f"{report.tag_loss:.4f} nats")
    return table


def headline(report: EvalReport) -> str:
    """Return the score that a map of the texts should show, in one line."""
    value = report.intent_accuracy
    return "intents not annotated" if value is None else f"intent accuracy {100 * value:.2f} %"


def differences(rows: Sequence[Difference], a: str, b: str, title: str) -> Table:
    """Return the table of two models' scores, times 100 but for distances."""
    table = Table("score", "A", "B", "B - A", f"{100 * LEVEL:.0f} % interval", "better", title=title,
                  caption=f"A = {a}\nB = {b}")  # fmt: skip
    for row in rows:
        factor, digits = (1, 3) if row.name in LESS_IS_BETTER else (100, 2)
        values = [f"{factor * value:.{digits}f}" for value in (row.a, row.b)]
        gap, low, high = (f"{factor * value:+.{digits}f}" for value in (row.b - row.a, *row.interval))
        better = "[dim]not shown[/]" if row.better is None else row.better.upper()
        table.add_row(SCORE_NAMES.get(row.name, row.name.replace("_", " ")), *values, gap, f"{low} to {high}", better)
    return table


def shortfalls(report: EvalReport | PairReport, minima: Mapping[str, float]) -> list[str]:
    """Return what is below its minimum, or was not measured, in words."""
    found = []
    for name, least in minima.items():
        value = getattr(report, name, None)
        if value is None or value < least:
            got = "these data do not show it" if value is None else f"got {value:.4f}"
            found.append(f"{name}: expected at least {least:g}, {got}")
    return found


def pair_scores(report: PairReport, title: str) -> Table:
    """Return the table of a pair report with its intervals."""
    table = Table("score", "value", f"{100 * LEVEL:.0f} % interval", title=title)
    table.add_row("pairs", f"{report.rows:,}")
    table.add_row("positive pairs", f"{report.positives:,} ({100 * report.positives / report.rows:.1f} %)")
    if report.queries:
        table.add_row("retrieval: queries", f"{report.queries:,}")
        table.add_row("retrieval: candidates", f"{report.candidates:,}")
    for name, (label, needs) in _PAIR_SCORES.items():
        if name in report.intervals:
            value, interval = _pair_score(report, name)
            table.add_row(label, value, interval)
        else:
            table.add_row(label, f"[dim]needs {needs}[/]")
        if name == "best_accuracy" and report.best_threshold is not None:
            table.add_row("  from a similarity of", f"{report.best_threshold:.3f}")
    return table


def verification(report: VerifyReport, title: str) -> Table:
    """Return the table of a model's golden texts and how far it is from what it gave for them."""
    table = Table("text", "tokens", "ids", "max difference", "labels", "", title=title)
    for row in report.rows:
        labels = "–" if not row.labels or row.golden.intent is None else _mark(row.same_labels)
        text = Text(repr(row.golden.text), overflow="ellipsis", no_wrap=True)
        text.truncate(44)
        table.add_row(text, str(len(row.golden.token_ids)), _mark(row.same_ids), f"{row.max_difference:.1e}", labels,
                      "[red]differs[/]" if any(row.problems()) else "[green]ok[/]")  # fmt: skip
    return table


def export(report: ExportReport, title: str) -> Table:
    """Return the table of an export: what was looked at, before and after, and what is allowed."""
    table = Table("looked at", "original", "exported", "allowed", "", title=title)
    for check in report.checks:
        show = _UNITS[check.unit]
        allowed = ""
        if check.allowed is not None:
            allowed = f"≤ {show(check.allowed)}" if check.original is None else f"loss ≤ {show(check.allowed)}"
        mark = "" if check.allowed is None else "[green]ok[/]" if check.ok else "[red]differs[/]"
        table.add_row(check.name, "" if check.original is None else show(check.original), show(check.exported), allowed,
                      mark)  # fmt: skip
    return table


_UNITS: dict[str, Callable[[float], str]] = {
    "fraction": lambda x: f"{100 * x:.2f} %",
    "share": lambda x: f"{x:.1e}",
    "count": lambda x: f"{x:,.0f}",
    "bytes": lambda x: f"{x / 1e6:.2f} MB",
    "ms": lambda x: f"{x:.2f} ms",
    "per_s": lambda x: f"{x:,.0f}/s",
}


def _mark(same: bool) -> str:
    return "same" if same else "[red]other[/]"


def pair_headline(report: PairReport) -> str:
    """Return the score that these pairs are about, with its interval, in one line."""
    name = next(n for n in ("average_precision", "spearman", "recall_at_1", "alignment") if n in report.intervals)
    value, interval = _pair_score(report, name)
    return f"{_PAIR_SCORES[name][0]} {value} ({interval})"


_PAIR_SCORES = {
    "spearman": ("Spearman (cosine)", "two different scores"),
    "pearson": ("Pearson (cosine)", "two different scores"),
    "average_precision": ("average precision", "labels 0 and 1"),
    "best_accuracy": ("best-threshold accuracy", "labels 0 and 1"),
    "recall_at_1": ("recall@1", "positive pairs"),
    "recall_at_5": ("recall@5", "positive pairs"),
    "recall_at_10": ("recall@10", "positive pairs"),
    "mean_reciprocal_rank": ("mean reciprocal rank", "positive pairs"),
    "alignment": ("alignment (less = better)", "positive pairs"),
    "uniformity": ("uniformity (less = better)", "two different texts"),
}


def _pair_score(report: PairReport, name: str) -> tuple[str, str]:
    """Return value and interval as shown: times 100 as STS papers do, distances as they are."""
    factor, digits = (1, 3) if name in ("alignment", "uniformity") else (100, 2)
    value, low, high = (f"{factor * x:.{digits}f}" for x in (getattr(report, name), *report.intervals[name]))
    return value, f"{low} to {high}"


def tokenizer_tables(stats: TokenizerStats, title: str) -> Iterator[Table]:
    """Yield the tables of a tokenizer's statistics."""
    table = Table("count", "value", title=title)
    table.add_row("texts", f"{stats.texts:,}")
    table.add_row("bytes", f"{stats.bytes:,}")
    table.add_row("tokens", f"{stats.tokens:,}")
    table.add_row("bytes per token", f"{stats.bytes_per_token:.3f}")
    table.add_row("tokens per word", f"{stats.tokens_per_word:.3f}")
    table.add_row("tokens never used", f"{len(stats.unused_ids):,}")
    yield table
    rarest = Table("rarest token", "id", "times")
    for token_id, name, count in stats.rarest_ids[:8]:
        rarest.add_row(Text(name), str(token_id), str(count))
    yield rarest
    if stats.labels:
        labels = Table("label", "values", "tokens per value", "value in most pieces")
        for row in stats.labels:
            labels.add_row(row.label, str(row.values), f"{row.tokens_per_value:.2f}", Text("·".join(row.examples[0])))
        yield labels


def coloured(prediction: Prediction) -> Text:
    """Return the text with its entities coloured and labelled, then the intent."""
    out, last = Text(), 0
    for entity in prediction.entities:
        colour = COLOURS[zlib.crc32(entity.label.encode()) % len(COLOURS)]
        out.append(visible(prediction.text[last : entity.start]))
        out.append(visible(prediction.text[entity.start : entity.end]), style=f"bold {colour} underline")
        out.append(f"({entity.label})", style=colour)
        last = entity.end
    out.append(visible(prediction.text[last:]))
    out.append(f"  → {prediction.intent} {100 * prediction.score:.0f} %", style="bold")
    return out
