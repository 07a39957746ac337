"""`weebill data convert|check`: parse arguments, call one function, print. No logic of its own."""

import sys
from collections import Counter
from pathlib import Path
from signal import SIGTERM, signal
from threading import current_thread, main_thread
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Bring data into shape: convert, check and mend, split, generate, fetch.",
                  no_args_is_help=True, rich_markup_mode="markdown")  # fmt: skip
console = Console(stderr=True)


@app.callback()
def data() -> None:
    """Bring data into shape: convert, check and mend, split, generate, fetch."""
    if current_thread() is main_thread():  # what is killed removes its unfinished files, as after Ctrl-C
        signal(SIGTERM, lambda *_: sys.exit(128 + SIGTERM))


@app.command()
def convert(
    input: Annotated[Path, typer.Argument(help="File, plain or .gz, or folder.")],
    output: Annotated[Path, typer.Option(help="File, packed if its name ends in .gz; a folder for bio.")],
    to: Annotated[str | None, typer.Option(help="Format to write; default: by the name of --output.")] = None,
    format: Annotated[str | None, typer.Option(help="Format to read; default: guessed, and said.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the rows of this split.")] = None,
) -> None:
    """Write labelled utterances, or pairs, in another format; what it cannot hold is listed with its places.

    Utterances: **spans** (span JSON lines, weebill's own: .jsonl), **massive** (MASSIVE's JSON lines), **bio** (folder
    of seq.in, seq.out and label), **conll**, **conll-iob1**, **conll-bilou** (.conll), **rasa** (Rasa 3 YAML: .yml),
    **rasa-json**, **spacy** (tuples: .py, or .json and .jsonl with --to spacy), **table** (texts and intents:
    .csv).

    Pairs: **sts** (STS Benchmark), **qqp** (Quora Question Pairs), **pairs** (columns: .tsv, .csv, .jsonl).

    Example: `weebill data convert nlu.yml --output nlu.jsonl`

    Example: `weebill data convert massive/en-US.jsonl --split dev --to conll-bilou --output dev.conll`
    """
    from weebill.conversion import convert as run
    from weebill.run_display import counted
    from weebill.showing import shown

    done = run(input, output, format, to, split, lambda items: counted(items, console, "converting", Counter()))
    for line in done.lines():
        console.print(shown(line), soft_wrap=True, highlight=False, markup=False)


@app.command()
def check(
    input: Annotated[list[Path], typer.Argument(help="Labelled utterances; several files are splits of one set.")],
    format: Annotated[str | None, typer.Option(help="Format of every input; default: guessed.")] = None,
    model: Annotated[Path | None, typer.Option(help="Use this model's tokenizer and length.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one page.")] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write the data with mechanical mistakes mended; format by the name.")
    ] = None,
    fail_on: Annotated[str | None, typer.Option(help="error or warning: exit with 1 when there is one.")] = None,
) -> None:
    """Find mistakes in labelled utterances: labels, spans, copies, leakage between splits, characters, length.

    Without --model, spans and lengths are measured with the packaged tokenizer and 128 tokens.

    Example: `weebill data check nlu.yml --html report.html --fix clean.jsonl`

    Example: `weebill data check data/train.jsonl data/dev.jsonl --fail-on error`
    """
    import json

    from weebill import check_report
    from weebill.checking import check as run
    from weebill.config import EncoderConfig
    from weebill.encodings import ModelTokenizer
    from weebill.errors import ConfigError
    from weebill.files import write_whole
    from weebill.formats import format_to_write, refuse_overwriting
    from weebill.mending import mend
    from weebill.run_display import counted
    from weebill.showing import shown
    from weebill.tokenizer import Tokenizer

    if fail_on not in (None, "error", "warning"):
        raise ConfigError(f"--fail-on: expected error or warning, got {fail_on!r}; correct it")
    if fix and len(input) > 1:
        raise ConfigError(f"--fix: expected one input to mend, got {len(input)}; run it for each")
    written = [("--fix", fix, format_to_write(fix) if fix else None), ("--json", json_, None), ("--html", html, None)]
    for option, target, to in written:
        for path in input if target else ():
            if target and path.exists():
                refuse_overwriting(option, target, path, format, to)
    tokenizer: ModelTokenizer = Tokenizer.packaged()
    length = EncoderConfig().max_seq_len
    if model:
        from weebill.predictor import load

        predictor = load(model)
        tokenizer, length = predictor.tokenizer, predictor.max_seq_len
    seen, start = Counter[str](), perf_counter()
    report = run(input, tokenizer, length, format, lambda rows, what: counted(rows, console, what, seen))
    seconds = perf_counter() - start
    out = Console()
    for part in check_report.terminal(report):
        out.print(part, soft_wrap=True, highlight=False)
    if json_:
        write_whole(json_, (json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n").encode())
    if html:
        write_whole(html, check_report.page(report).encode("utf-8", "replace"))
    console.print(f"{seen['reading']:,} rows in {seconds:.1f} s, {seen['reading'] / seconds:,.0f} rows/s",
                  highlight=False)  # fmt: skip
    if fix:
        for line in mend(input[0], fix, format, lambda rows, what: counted(rows, console, what, seen)):
            console.print(shown(line), soft_wrap=True, highlight=False, markup=False)
    if fail_on and (report.count("error") or (fail_on == "warning" and report.count("warning"))):
        raise typer.Exit(1)
