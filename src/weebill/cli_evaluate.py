"""`weebill evaluate|compare`: parse arguments, call one function, print. No logic."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from weebill.errors import ConfigError
from weebill.files import write_whole

if TYPE_CHECKING:
    from weebill.evaluate import EvalReport
    from weebill.evaluate_pairs import PairReport
    from weebill.schema import Overflow

app = typer.Typer(help="Score models.", no_args_is_help=True, rich_markup_mode="markdown")
console = Console(stderr=True)

Model = Annotated[Path, typer.Argument(help="Model folder, or tiny: the model that comes with weebill.")]
OnOverflow = Annotated[
    str,
    typer.Option(
        help="A text with more tokens than the model reads at once: window (read it in overlapping windows), truncate "
        "(read its beginning, as sentence-transformers does) or error."
    ),
]


@app.command()
def evaluate(
    model: Model,
    data: Annotated[Path | None, typer.Option(help="Labelled data; default: the embedded dev split.")] = None,
    format: Annotated[
        str | None, typer.Option(help="A format of `weebill data convert --help`; default: guessed.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of the data.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", "--output", help="Write the scores, of utterances the ledger too, as JSON.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one page with scores, charts and every error; of utterances.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for map.png, the embeddings, and of pairs similarity.png.")
    ] = None,
    minimum: Annotated[
        list[str] | None, typer.Option("--min", help="Exit with 1 when a score is below: exact_match=0.6. Repeatable.")
    ] = None,
    on_overflow: OnOverflow = "window",
) -> None:
    """Score a model on labelled data (intents, entities, exact match) or on pairs (correlation, retrieval and more).

    Example: `weebill evaluate runs/massive --data data/massive/en-US.jsonl --split dev`

    Example: `weebill evaluate runs/pretrained --data data/stsb/sts-dev.csv --pictures runs/pretrained-pictures`

    Example: `weebill evaluate tiny --data data/massive/en-US.jsonl --split dev --html errors.html`

    Example: `weebill evaluate runs/massive --min intent_accuracy=0.88 --min span_f1=0.7`
    """
    from weebill import report as show
    from weebill.embedding_pictures import draw_pairs, draw_utterances
    from weebill.evaluate import evaluate_in_detail
    from weebill.evaluate_pairs import embed_pairs, pair_report
    from weebill.evaluation_page import page
    from weebill.formats import read_utterances, refuse_overwriting
    from weebill.ledger import labels_of_others
    from weebill.pairs import read_pairs
    from weebill.pictures import new_figure
    from weebill.predictor import load
    from weebill.run_display import read_log
    from weebill.templates import generate

    where = f"{data or 'embedded data, dev'}{f' ({split})' if split else ''}"
    name = where.rpartition("/")[2]
    scores: EvalReport | PairReport
    for option, target in (("--json", json_file), ("--html", html)):
        if data and target and data.exists():
            refuse_overwriting(option, target, data, format)
    if pictures:
        new_figure(1, 1)  # says before the work, not after it, that matplotlib is not there
    minima = _minima(minimum or ())
    ledger: list[dict[str, Any]] = []
    note = None
    pairs_given = _holds_pairs(data, format, split)
    if pairs_given:
        assert data is not None
        pairs = read_pairs(data, format)  # wrong data show before the model is loaded
        if html:
            raise ConfigError("--html: expected labelled utterances, got pairs; for these there is --pictures")
        embedded = embed_pairs(load(model, on_overflow=cast("Overflow", on_overflow)), pairs)
        scores = pair_report(embedded)
        table = show.pair_scores(scores, f"{model} on {where}")
        if pictures:
            draw_pairs(embedded, scores, f"{model.name} on {name}", pictures)
    else:
        check_split(data, split)
        utterances = read_utterances(data, format=format, split=split) if data else generate()[1]
        predictor = load(model, on_overflow=cast("Overflow", on_overflow))
        found = evaluate_in_detail(predictor, utterances, with_intervals=True)
        scores, ledger = found.report, [entry.to_json() for entry in found.ledger]
        note = labels_of_others(utterances, predictor.intents, predictor.intent_separator)
        if html:
            write_whole(html, page(found, str(model), where, read_log(model)).encode("utf-8", "replace"))
        table = show.scores(scores, f"{model} on {where}", found.intent_separator is not None)
        if pictures:
            draw_utterances(predictor, utterances, scores, f"{model.name} on {name}", pictures)
    Console().print(table)
    if note:
        remedy = "score it on data with its labels" if data else "name data with its labels by --data"
        console.print(f"{note}; {remedy}", style="bold", soft_wrap=True, highlight=False)
    if ledger:
        console.print(show.ledger(ledger, "what no model could find (all with --json or --html)"))
    if json_file:
        body = scores.to_json() | ({} if pairs_given else {"ledger": ledger})
        write_whole(json_file, (json.dumps(body, indent=2) + "\n").encode())
    if below := show.shortfalls(scores, minima):
        console.print("\n".join(below), style="bold red", highlight=False)
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Model folder, or tiny.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    data: Annotated[Path | None, typer.Option(help="Labelled data or pairs; default: the embedded dev split.")] = None,
    format: Annotated[str | None, typer.Option(help="As in evaluate; default: guessed.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of the data.")] = None,
) -> None:
    """Say whether one model is better than another: paired bootstrap of every score on the same rows.

    A difference counts as shown when its 95 % interval does not hold 0. That speaks of other rows of the same kind,
    not of other training seeds.

    Example: `weebill compare runs/massive runs/massive-2 --data data/massive/en-US.jsonl --split dev`
    """
    from weebill import report as show
    from weebill.comparison import compare_on_pairs, compare_on_utterances
    from weebill.formats import read_utterances
    from weebill.pairs import read_pairs
    from weebill.predictor import load
    from weebill.templates import generate

    if _holds_pairs(data, format, split):
        assert data is not None
        found = compare_on_pairs(load(a), load(b), read_pairs(data, format))
    else:
        check_split(data, split)
        utterances = read_utterances(data, format=format, split=split) if data else generate()[1]
        found = compare_on_utterances(load(a), load(b), utterances)
    where = f"{data or 'embedded data, dev'}{f' ({split})' if split else ''}"
    Console().print(show.differences(found, str(a), str(b), f"on {where}"))


def check_split(data: Path | None, split: str | None) -> None:
    """Refuse a split of nothing: the data that are embedded would be taken whole.

    Raises:
        ConfigError: `split` without `data`.
    """
    if split and not data:
        raise ConfigError("--split: expected --data, which it is a part of, got none; name the data or leave it out")


def _holds_pairs(data: Path | None, format: str | None, split: str | None) -> bool:
    """Return whether the data are pairs, which have no splits."""
    from weebill.pairs import holds_pairs

    pairs = data is not None and holds_pairs(data, format)
    if pairs and split:
        raise ConfigError(f"--split: expected none, as pairs have no splits, got {split!r}; leave it out")
    return pairs


def _minima(options: Sequence[str]) -> dict[str, float]:
    """Read NAME=VALUE options; a name that no report has is an error before any work."""
    from dataclasses import fields

    from weebill.comparison import LESS_IS_BETTER
    from weebill.evaluate import EvalReport
    from weebill.evaluate_pairs import PairReport

    known = [f.name for report in (EvalReport, PairReport) for f in fields(report) if "float" in str(f.type)]
    known = [
        name
        for name in dict.fromkeys(known)
        if name not in ("tag_loss", "best_threshold", "intervals", *LESS_IS_BETTER)
    ]
    minima = {}
    for option in options:
        name, _, value = option.partition("=")
        try:
            minima[name] = float(value)
        except ValueError:
            raise ConfigError(f"--min expects NAME=VALUE, got {option!r}; as in --min exact_match=0.6") from None
        if name not in known:
            raise ConfigError(f"--min: expected one of {', '.join(known)}, got {name!r}; correct the name")
        if minima[name] > 1:
            raise ConfigError(f"--min: expected a value of at most 1, as 0.9 for 90 %, got {option!r}; correct it")
    return minima
