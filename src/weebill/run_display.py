"""What a person sees of a run while it goes on: its tables, progress, log and curves. Computes no score."""

import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from weebill.errors import ArtifactError
from weebill.report import ledger, trainable

T = TypeVar("T")
TEACHERS_SCORES = ("intent_accuracy", "span_f1", "exact_match")


class RunDisplay:
    """Shows a training run live: what trains, a table with a row per evaluation, a progress bar.

    Each event but the steps is a line of the log, JSON; with tensorboard installed its curves are written too. Use as a
    context manager; the object itself is the `on_event` of the loop.
    """

    def __init__(self, console: Console, title: str, folder: Path):
        self.console, self.folder, self.events = console, folder, list[dict[str, Any]]()
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
        self.live = Live(self.progress, console=console, refresh_per_second=4)

    def __enter__(self) -> "RunDisplay":
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log = (self.folder / "log.jsonl").open("w", encoding="utf-8")
            self.tensorboard = _tensorboard(self.folder / "tensorboard")
        return self  # the bar begins with the run: what fails before, or is downloaded, has the screen to itself

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live.is_started:  # else it would print an empty line
            self.live.stop()
        with suppress(OSError) if error else self._writing():
            self.log.close()
            if self.tensorboard is not None:
                self.tensorboard.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactError(f"{self.folder}: expected a place to keep the log of the run, got: {error}; make room, "
                                f"then go on with --resume if a checkpoint is there") from error  # fmt: skip

    def __call__(self, event: dict[str, Any]) -> None:
        """Show and log one event."""
        if event["event"] != "step":
            event = {key: value for key, value in event.items() if key != "again"}
            self.events.append(event)
            with self._writing():
                self.log.write(json.dumps(event) + "\n")
                self.log.flush()
        match event["event"]:
            case "start":
                self.console.print(trainable(event["table"], event["fixed"], event.get("first_epochs")))
                self.console.print(f"device {event['device']}, precision {event['precision']}, "
                                   f"early stopping on dev {event['metric']}")  # fmt: skip
                if event.get("asked_precision", "auto") not in ("auto", event["precision"]):
                    self.console.print(f"training.precision = {event['asked_precision']} was asked for, but this "
                                       f"processor has no instructions for it; float32 is faster here")  # fmt: skip
                if event["epochs"] > event["asked_epochs"]:
                    self.console.print(f"training.min_steps makes {event['epochs']} epochs of the "
                                       f"{event['asked_epochs']} asked for; --set training.min_steps=0 leaves it at "
                                       f"these")  # fmt: skip
                if self.console.is_terminal:
                    self.live.start()
            case "teachers":
                self.console.print("teachers together, on dev: " + ", ".join(
                    f"{name.replace('_', ' ')} {100 * event[name]:.2f} %" for name in TEACHERS_SCORES if name in event),
                    soft_wrap=True, highlight=False)  # fmt: skip
            case "lesson":
                lost = "".join(f", {count:,} {why}" for why, count in event["lost"].items() if count)
                self.console.print(f"{event['name']}: {event['learnt']:,} of {event['texts']:,} texts{lost}",
                                   soft_wrap=True, highlight=False)  # fmt: skip
            case "ledger" if event["rows"]:
                self.console.print(
                    ledger(event["rows"], "what cannot be learnt or measured as annotated (all in ledger.jsonl)")
                )
            case "threshold":
                before, after = event["intent_accuracy"]
                self.console.print(f"intents less probable than {event['threshold']:.3f} are read as out_of_scope: dev "
                                   f"intent accuracy {100 * before:.2f} → {100 * after:.2f} %",
                                   soft_wrap=True, highlight=False)  # fmt: skip
            case "step":
                self.progress.update(
                    self.bar, completed=event["step"], total=event["total_steps"], loss=f"{event['loss']:.3f}"
                )
            case "eval":
                self.progress.update(self.bar, completed=event["step"], total=event["total_steps"])
                self._add_row(event)
                if self.tensorboard is not None:
                    for kind in ("losses", "grad_norms", "metrics"):
                        for name, value in event.get(kind, {}).items():
                            self.tensorboard.add_scalar(f"{kind}/{name}", value, event["step"])
                    self.tensorboard.add_scalar("learning_rate", event["learning_rate"], event["step"])

    def _add_row(self, event: dict[str, Any]) -> None:
        if not self.console.is_terminal:  # a log file: a line per evaluation
            parts = "  ".join(f"{k} {v:.3f}" for k, v in event["losses"].items())
            scores = "  ".join(f"{k} {v:.4f}" for k, v in event["metrics"].items())
            self.console.print(f"{'★' if event['best'] else ' '} step {event['step']} of {event['total_steps']}  loss: "
                               f"{parts}  dev: {scores}  {event['timing']['examples_per_s']:,.0f} examples/s",
                               soft_wrap=True, highlight=False)  # fmt: skip
            return
        names = [name for e in self.events if e["event"] == "eval" for name in e["losses"]]
        names = sorted(set(names), key=names.index)
        metrics = list(event["metrics"])
        table = Table("step", *(f"loss: {n}" for n in names), *(f"dev {m}" for m in metrics), "examples/s", "best",
                      title="training")  # fmt: skip
        for row in (e for e in self.events if e["event"] == "eval"):
            losses = (f"{row['losses'][n]:.3f}" if n in row["losses"] else "" for n in names)
            table.add_row(str(row["step"]), *losses, *(f"{row['metrics'][m]:.4f}" for m in metrics),
                          f"{row['timing']['examples_per_s']:,.0f}", "★" if row["best"] else "",
                          style="green" if row["best"] else "")  # fmt: skip
        self.live.update(Group(table, self.progress), refresh=True)


def read_log(model: Path) -> list[dict[str, Any]]:
    """Return the events of the run that made a model, as `RunDisplay` wrote them; none where there is no log."""
    try:
        lines = (model / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if isinstance(event, dict)]
    except (OSError, ValueError):
        return []


def _tensorboard(folder: Path) -> Any:
    """Return a writer of TensorBoard's event files, or None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)  # a run that goes on sends its first events again
    return SummaryWriter(str(folder))


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


def counted(items: Iterable[T], console: Console, what: str, seen: Counter[str]) -> Iterator[T]:
    """Yield the items, add them to `seen[what]`, and show how many there were and how many a second."""
    columns = (TextColumn("[bold]{task.description}"), TextColumn("{task.completed:,.0f} rows"),
               TextColumn("{task.fields[rate]:,.0f} rows/s"), TimeElapsedColumn())  # fmt: skip
    start = perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=None, rate=0)
        for item in items:
            seen[what] += 1
            if seen[what] % 2_000 == 0:
                rate = seen[what] / (perf_counter() - start)
                progress.update(bar, completed=seen[what], rate=rate)
            yield item
