"""`weebill data convert|check`: parse arguments, call one function, print. No logic of its own."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Bring data into shape: convert between formats, find mistakes and mend them.",
                  no_args_is_help=True, rich_markup_mode="markdown")  # fmt: skip
console = Console(stderr=True)


@app.callback()
def data() -> None:
    """Bring data into shape: convert between formats, find mistakes and mend them."""


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
    **rasa-json**, **spacy** (tuples: .py, or .json and .jsonl with --to spacy).

    Pairs: **sts** (STS Benchmark), **qqp** (Quora Question Pairs), **pairs** (columns: .tsv, .csv, .jsonl).

    Example: `weebill data convert nlu.yml --output nlu.jsonl`

    Example: `weebill data convert massive/en-US.jsonl --split dev --to conll-bilou --output dev.conll`
    """
    from weebill.conversion import convert as run
    from weebill.report import counted

    done = run(input, output, format, to, split, lambda items: counted(items, console, "converting", Counter()))
    for line in done.lines():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
