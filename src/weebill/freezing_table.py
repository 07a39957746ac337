"""Ways of freezing compared: the same data, recipe and seed, but for the few keys each way sets. Defines no loop.

The ways are those of docs/training-considerations.md.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from weebill.artifact import find_model, is_model_folder, read_model
from weebill.bert import read_start
from weebill.config import FinetuneRecipe
from weebill.files import write_whole
from weebill.recipe_files import load_recipe, override, recipe_names
from weebill.runs import finetune_data, texts_with_words, train_tokenizer

SCORES = {"intent_accuracy": "intent", "span_f1": "span F1", "exact_match": "exact"}


@dataclass(frozen=True)
class Way:
    """A way of freezing: what it is called, and what it sets in a recipe."""

    name: str
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """Where runs start from, and the recipe they follow from there."""

    name: str
    recipe: FinetuneRecipe


@dataclass(frozen=True)
class Result:
    """One run, everything it does counted: tokenizing, caching, training, evaluating.

    `parts` are (name, parameters, peak rate, epoch in which it begins to train or None = never).
    """

    start: str
    way: str
    sets: tuple[str, ...]
    parts: list[tuple[str, int, float, int | None]]
    trained: int
    parameters: int
    examples_per_s: float
    seconds: float
    processor_seconds: float
    epochs: int
    scores: dict[str, float]
    machine: str


def ways(num_layers: int, epochs: int) -> list[Way]:
    """Return the ways of freezing an encoder of so many layers in a run of so many epochs.

    Example:
        >>> [way.sets for way in ways(4, 12)][-2:]
        [('freezing.epochs_per_layer=2', 'training.layer_decay=0.8'), ()]
    """
    gradual = max(1, epochs // (num_layers + 2))
    return [
        Way("entire network frozen, cached", ("freezing.encoder=true", "freezing.cached_features=true",
                                              "loss.token_dropout=0", "loss.bpe_dropout=0")),
        Way("the same, the slow way", ("freezing.encoder=true", "loss.token_dropout=0", "loss.bpe_dropout=0")),
        Way("backbone frozen", ("freezing.encoder=true",)),
        Way("intent head frozen", ("freezing.intent_head=true",)),
        Way("tag head frozen", ("freezing.tag_head=true",)),
        Way("lower half frozen", (f"freezing.lower_layers={num_layers // 2}", "training.layer_decay=0.8")),
        Way("gradual unfreezing", (f"freezing.epochs_per_layer={gradual}", "training.layer_decay=0.8")),
        Way("nothing frozen", ()),
    ]  # fmt: skip


def read_start_option(option: str, base: FinetuneRecipe, sets: Sequence[str] = ()) -> Start:
    """Return the start that "random", a path or a name, with or without "@RECIPE", stands for; `sets` override both.

    Raises:
        ConfigError: no such recipe.
    """
    name, mark, other = option.rpartition("@")
    if not mark or (other not in recipe_names() and not Path(other).is_file()):
        name, other = option, ""
    changed: dict[str, Any] = {"start": None if name == "random" else name}
    if other:
        theirs = load_recipe(other, FinetuneRecipe)
        changed |= {"training": theirs.training, "heads": theirs.heads, "loss": theirs.loss}
    return Start(name, override(base.model_copy(update=changed), sets))


def compare(
    starts: Sequence[Start], base: FinetuneRecipe, data_root: Path, rows: int | None, console: Console
) -> list[Result]:
    """Train every way from every start; a line for each on `console`."""
    from weebill.finetuning import finetune

    train, dev = finetune_data(base, data_root)
    if rows is not None and rows < len(train):
        chosen = np.sort(np.random.default_rng(base.seed).permutation(len(train))[:rows])
        train = [train[i] for i in chosen]
    machine = (
        f"{platform.processor() or platform.machine()}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads"
    )
    results = []
    for start in starts:
        texts = partial(texts_with_words, start.recipe, [u.text for u in train], data_root)
        tokenizer = train_tokenizer(start.recipe, texts(), console)
        for way in ways(_num_layers(start.recipe), start.recipe.training.epochs):
            recipe, events = override(start.recipe, way.sets), list[dict[str, Any]]()
            began = perf_counter(), process_time()
            _, end, _ = finetune(recipe, train, dev, events.append, tokenizer, texts=texts())
            seconds = perf_counter() - began[0], process_time() - began[1]
            results.append(_result(start, way, events, end, seconds, recipe.training.epochs, machine))
            scores = ", ".join(f"{shown} {100 * results[-1].scores[n]:.2f}" for n, shown in SCORES.items()
                               if n in results[-1].scores)  # fmt: skip
            console.print(f"{start.name}, {way.name}: {scores}; {seconds[0]:.1f} s", soft_wrap=True, highlight=False)
    return results


def _num_layers(recipe: FinetuneRecipe) -> int:
    if recipe.start is None:
        return recipe.encoder.num_layers
    if recipe.shrink.num_layers is not None:
        return recipe.shrink.num_layers
    if is_model_folder(find_model(recipe.start)):
        return read_model(find_model(recipe.start), weights=False).config.num_layers
    return read_start(recipe.start, {}).config.num_layers


def _result(
    start: Start,
    way: Way,
    events: Sequence[dict[str, Any]],
    end: dict[str, Any],
    seconds: tuple[float, float],
    epochs: int,
    machine: str,
) -> Result:
    begun = next(event for event in events if event["event"] == "start")
    parts = [(part, count, rate, begun["first_epochs"].get(part, 1)) for part, count, rate in begun["table"]]
    evaluated = [event for event in events if event["event"] == "eval"]
    return Result(
        start.name,
        way.name,
        way.sets,
        parts,
        sum(count for part, count, _, first in parts if first is not None and first <= epochs and part != "projection"),
        sum(count for _, count, _, _ in parts) + begun["fixed"],
        evaluated[-1]["timing"]["examples_per_s"],
        *seconds,
        epochs,
        {name: end["metrics"][name] for name in SCORES if name in end["metrics"]},
        machine,
    )


def _cells(result: Result) -> list[str]:
    rates = [rate for part, _, rate, first in result.parts if first is not None and not part.endswith("_head")
             and part != "projection"]  # fmt: skip
    heads = [rate for part, _, rate, first in result.parts if first is not None and part.endswith("_head")]
    encoder = f"{min(rates):.0e} … {max(rates):.0e}" if rates else "–"
    return [
        result.way,
        f"{result.trained:,} of {result.parameters:,}",
        encoder,
        f"{max(heads):.0e}",
        f"{result.examples_per_s:,.0f}",
        f"{result.seconds:.1f}",
        f"{result.processor_seconds:.1f}",
        *(f"{100 * result.scores[name]:.2f}" if name in result.scores else "–" for name in SCORES),
    ]


HEADINGS = ("way", "parameters that train", "rates, encoder", "rate, heads", "examples/s", "seconds", "processor s",
            *(f"dev {shown}" for shown in SCORES.values()))  # fmt: skip


def table(results: Sequence[Result]) -> Table:
    """Return the comparison for a terminal."""
    shown = Table("start", *HEADINGS, title="what is frozen, and what it costs and gives")
    last = ""
    for result in results:
        if last not in ("", result.start):
            shown.add_section()
        shown.add_row("" if result.start == last else result.start, *_cells(result))
        last = result.start
    return shown


def speed_ups(results: Sequence[Result]) -> dict[str, float]:
    """Return by start how many times less processor time the cached way took than the slow way, whole runs.

    Not wall time, which another program on the machine would decide.
    """
    found = {}
    for start in dict.fromkeys(r.start for r in results):
        cached, slow, *_ = (r.processor_seconds for r in results if r.start == start)
        found[start] = slow / cached
    return found


def markdown(results: Sequence[Result]) -> str:
    """Return the comparison as a Markdown document, a table for each start."""
    lines = []
    for start, times in speed_ups(results).items():
        of_start = [r for r in results if r.start == start]
        lines += [f"### From {start}, {of_start[0].epochs} epochs ({of_start[0].machine})", ""]
        lines += [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
        lines += [f"| {' | '.join(_cells(r))} |" for r in of_start]
        lines += ["", f"Cached features: {times:.1f} times less processor time than the slow way.", ""]
    return "\n".join(lines)


def write(results: Sequence[Result], folder: Path) -> None:
    """Write freezing.json and freezing.md."""
    write_whole(folder / "freezing.json", (json.dumps([asdict(r) for r in results], indent=1) + "\n").encode())
    write_whole(folder / "freezing.md", markdown(results).encode())
