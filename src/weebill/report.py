"""What a person sees: progress of a run, tables of scores, coloured parses. Computes no score and reads no file."""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from weebill.evaluate import EvalReport, PairReport
from weebill.schema import Prediction
from weebill.tokenizer_stats import TokenizerStats

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")


class RunDisplay:
    """Shows a training run: what trains, a progress bar, one line per evaluation; and logs each event as a JSON line.

    Use as a context manager; the object itself is the `on_event` of the loop.
    """

    def __init__(self, console: Console, title: str, log: IO[str]):
        self.console, self.title, self.log = console, title, log
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.bar = self.progress.add_task(title, total=None, loss="–")

    def __enter__(self) -> "RunDisplay":
        return self  # the bar begins with the run: what fails before, or is downloaded, has the screen to itself

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress.live.is_started:  # else it would print an empty line
            self.progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show and log one event."""
        if event["event"] != "step":
            self.log.write(json.dumps(event) + "\n")
            self.log.flush()
        match event["event"]:
            case "start":
                self.progress.print(trainable(event["table"]))
                self.progress.print(f"device {event['device']}, precision {event['precision']}, "
                                    f"early stopping on dev {event['metric']}")  # fmt: skip
                self.progress.start()
            case "ledger" if event["rows"]:
                self.progress.print(f"[yellow]{len(event['rows'])} labels cannot be learnt as annotated[/] (all in "
                                    f"ledger.jsonl); first: {event['rows'][0]}")  # fmt: skip
            case "step":
                self.progress.update(
                    self.bar, completed=event["step"], total=event["total_steps"], loss=f"{event['loss']:.3f}"
                )
            case "eval":
                self.progress.update(self.bar, completed=event["step"], total=event["total_steps"])
                losses = "  ".join(f"{k} {v:.3f}" for k, v in event["losses"].items())
                metrics = "  ".join(f"{k} {v:.4f}" for k, v in event["metrics"].items())
                mark = "[green]★[/]" if event["best"] else " "
                self.progress.print(f"{mark} step {event['step']:>5}  loss: {losses}  dev: {metrics}  "
                                    f"[dim]{event['examples_per_s']:.0f} examples/s[/]")  # fmt: skip


@contextmanager
def merge_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar from the first call of the yielded (done, total) function on."""
    progress = Progress(TextColumn("[bold]merges"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                        console=console)  # fmt: skip
    bar = progress.add_task("merges")

    def update(done: int, total: int) -> None:
        progress.start()
        progress.update(bar, completed=done, total=total)

    try:
        yield update
    finally:
        if progress.live.is_started:
            progress.stop()


def trainable(rows: Sequence[tuple[str, int, float]]) -> Table:
    """Return the table of what trains and how fast."""
    table = Table("part", "parameters", "peak learning rate", title="what trains")
    for part, count, rate in rows:
        table.add_row(part, f"{count:,}", f"{rate:.2e}")
    table.add_row("total", f"{sum(r[1] for r in rows):,}", "")
    return table


def scores(report: EvalReport, title: str) -> Table:
    """Return the table of a report's scores, in percent."""
    table = Table("score", "value", title=title)
    table.add_row("rows", f"{report.rows:,}")
    rows = (
        ("intent accuracy", report.intent_accuracy),
        ("intent macro-F1", report.intent_macro_f1),
        ("tag accuracy", report.tag_accuracy),
        ("span precision (strict)", report.span_precision),
        ("span recall (strict)", report.span_recall),
        ("span F1 (strict)", report.span_f1),
        ("exact match (strict)", report.exact_match),
        ("slot F1 (MASSIVE's convention)", report.massive_slot_f1),
        ("exact match (MASSIVE's convention)", report.massive_exact_match),
    )
    for name, value in rows:
        table.add_row(name, "not annotated" if value is None else f"{100 * value:.2f} %")
    table.add_row("tag loss", "not annotated" if report.tag_loss is None else f"{report.tag_loss:.4f} nats")
    return table


def pair_scores(report: PairReport, title: str) -> Table:
    """Return the table of a pair report, times 100 as STS papers print it."""
    table = Table("score", "value", title=title)
    table.add_row("pairs", f"{report.rows:,}")
    table.add_row("Spearman of cosine similarity", f"{100 * report.spearman:.2f}")
    table.add_row("Pearson of cosine similarity", f"{100 * report.pearson:.2f}")
    return table


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
        out.append(prediction.text[last : entity.start])
        out.append(prediction.text[entity.start : entity.end], style=f"bold {colour} underline")
        out.append(f"({entity.label})", style=colour)
        last = entity.end
    out.append(prediction.text[last:])
    out.append(f"  → {prediction.intent} {100 * prediction.score:.0f} %", style="bold")
    return out
