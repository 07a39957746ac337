"""`weebill tokenizer …`: parse arguments, call one function, print. No logic of its own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from weebill.files import write_whole

if TYPE_CHECKING:
    from weebill.schema import Utterance
    from weebill.tokenizer import Tokenizer

app = typer.Typer(help="Train, try, measure and convert byte-level BPE tokenizers.", no_args_is_help=True)
console = Console(stderr=True)

SHOWN_TEXTS = 200  # in the picture of `stats --html`
CURVE_CHARACTERS = 4_000_000

Model = Annotated[
    Path,
    typer.Argument(
        help="Tokenizer or model folder, tokenizer.json, bpe_merged.json or .tiktoken; tiny: weebill's own."
    ),
]
SplitPattern = Annotated[
    str | None,
    typer.Option(
        help="Of a .tiktoken file, which does not say how texts are cut first: gpt2, gpt4 (as in cl100k_base) or a "
        "regular expression. Default: gpt2, with a warning."
    ),
]
Inputs = Annotated[list[Path], typer.Option("--input", help="UTF-8 text, plain or .gz, or a folder. Repeatable.")]
Field = Annotated[str | None, typer.Option(help="The files are JSON lines; this key holds the text.")]
Errors = Annotated[str, typer.Option(help="strict, or replace to go on where bytes are no UTF-8.")]
Html = Annotated[Path | None, typer.Option(help="Write a page with the pieces coloured.")]


@app.command()
def train(
    input: Inputs,
    output: Annotated[Path, typer.Option(help="Folder for tokenizer.json.")],
    vocab_size: Annotated[int, typer.Option(help="Tokens, special tokens and the 256 bytes included.")] = 8192,
    min_frequency: Annotated[int, typer.Option(help="Pairs rarer than this are not merged.")] = 0,
    split_pattern: Annotated[str, typer.Option(help="gpt2, gpt4, or a regular expression.")] = "gpt2",
    normalize: Annotated[list[str] | None, typer.Option(help="nfc or lowercase, before splitting. Repeatable.")] = None,
    special_token: Annotated[
        list[str] | None, typer.Option(help="A special token beside [PAD], [CLS], [SEP] and [MASK]. Repeatable.")
    ] = None,
    field: Field = None,
    errors: Errors = "strict",
    processes: Annotated[int | None, typer.Option(min=1, help="That count; default: one per core.")] = None,
) -> None:
    """Train a tokenizer on text files.

    Example: `weebill tokenizer train --input corpus.txt --vocab-size 8192 --output runs/tokenizer`

    Example: `weebill tokenizer train --input massive/en-US.jsonl --field utt --output runs/tokenizer`
    """
    from rich.progress import track

    from weebill.artifact import is_model_folder
    from weebill.errors import ConfigError
    from weebill.run_display import merge_progress
    from weebill.tokenizer import SPECIAL_TOKENS, Tokenizer

    if is_model_folder(output):
        raise ConfigError(f"{output}: expected a folder for a tokenizer, got a model, which belongs to the tokenizer "
                          f"in it; name another --output")  # fmt: skip
    texts = _stream(input, field, errors)
    counted = track(
        texts, description="reading", total=None, console=console, transient=True, disable=not console.is_terminal
    )
    with merge_progress(console) as progress:
        trained = Tokenizer.train(
            counted,
            vocab_size,
            split_pattern=split_pattern,
            min_frequency=min_frequency,
            normalizers=normalize or (),
            special_tokens=(*SPECIAL_TOKENS, *(special_token or ())),
            processes=processes,
            progress=progress,
        )
    trained.save(output)
    rare = f" that occur {min_frequency} times" if min_frequency > 1 else ""
    short = f" (asked {vocab_size:,}: the texts have no more pairs{rare})" if trained.vocab_size < vocab_size else ""
    console.print(f"{trained.vocab_size:,} tokens{short}; tokenizer in {output}")


@app.command()
def encode(
    model: Model,
    text: Annotated[str, typer.Argument(help="The text.")],
    html: Html = None,
    split_pattern: SplitPattern = None,
) -> None:
    """Show a text's pieces, ids and offsets.

    Example: `weebill tokenizer encode runs/tokenizer "wake me up" --html pieces.html`
    """
    from weebill.pictures import pieces_html, pieces_text
    from weebill.tokenizer_stats import readable_pieces

    tokenizer = _tokenizer(model, split_pattern)
    encoding = tokenizer.encode(text)
    table = Table("piece", "id", "start", "end")
    for token_id, (start, end) in zip(encoding.token_ids, encoding.offsets, strict=True):
        table.add_row(repr(tokenizer.token_bytes(token_id))[1:], str(token_id), str(start), str(end))
    pieces = readable_pieces(tokenizer, text)
    Console().print(pieces_text(pieces))
    Console().print(table)
    if html:
        write_whole(html, pieces_html(f"pieces of {model}", [pieces]).encode("utf-8", "replace"))


@app.command()
def decode(
    model: Model,
    token_ids: Annotated[list[int], typer.Argument(help="Token ids, as `encode` shows them.")],
    special: Annotated[bool, typer.Option("--special", help="Show special tokens too.")] = False,
    split_pattern: SplitPattern = None,
) -> None:
    """Print the text of token ids; bytes that are no UTF-8, a character cut in two, become U+FFFD.

    Example: `weebill tokenizer decode tiny 1 262 2`
    """
    sys.stdout.buffer.write((_tokenizer(model, split_pattern).decode(token_ids, not special) + "\n").encode())


@app.command()
def stats(
    model: Model,
    input: Annotated[
        list[Path],
        typer.Option(help="Text, plain or .gz; or labelled data, for the pieces of its entities. Repeatable."),
    ],
    field: Field = None,
    format: Annotated[str | None, typer.Option(help="Of labelled data, as in evaluate; default: guessed.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of labelled data.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    html: Html = None,
    errors: Errors = "strict",
    split_pattern: SplitPattern = None,
) -> None:
    """Measure a tokenizer on your texts: compression, unused and rarest tokens, how entity values break up.

    Example: `weebill tokenizer stats runs/tokenizer --input massive/en-US.jsonl --split dev`
    """
    from itertools import chain, islice

    from weebill.formats import refuse_overwriting
    from weebill.pictures import pieces_html
    from weebill.report import tokenizer_tables
    from weebill.tokenizer_stats import readable_pieces, tokenizer_stats

    for option, target in (("--output", output), ("--html", html)):
        for path in input if target else ():
            if target and path.exists():
                refuse_overwriting(option, target, path, format)
    tokenizer = _tokenizer(model, split_pattern)
    parts = [_texts_of(path, field, format, split, errors) for path in input]
    named = ", ".join(map(str, input))
    texts = chain.from_iterable(texts for texts, _ in parts)
    found = tokenizer_stats(tokenizer, texts, [u for _, utterances in parts for u in utterances])
    for table in tokenizer_tables(found, f"{model} on {named}{f' ({split})' if split else ''}"):
        Console().print(table)
    if output:
        write_whole(output, (json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n").encode())
    if html:
        again = (_texts_of(path, field, format, split, errors)[0] for path in input)
        shown = islice(chain.from_iterable(again), SHOWN_TEXTS)
        page = pieces_html(f"{named} in pieces of {model}", [readable_pieces(tokenizer, text) for text in shown])
        write_whole(html, page.encode("utf-8", "replace"))


@app.command()
def curve(
    model: Model,
    input: Inputs,
    output: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")],
    field: Field = None,
    errors: Errors = "strict",
    split_pattern: SplitPattern = None,
) -> None:
    """Draw bytes per token against vocabulary size, every size cut from one trained tokenizer.

    Example: `weebill tokenizer curve runs/tokenizer --input corpus.txt --output curve.png`
    """
    from weebill.pictures import plot_size_curve
    from weebill.tokenizer_stats import size_curve

    tokenizer = _tokenizer(model, split_pattern)
    texts, characters = [], 0
    for text in _stream(input, field, errors):
        texts.append(text)
        characters += len(text)
        if characters > CURVE_CHARACTERS:
            console.print(f"the first {characters:,} characters are used")
            break
    points = size_curve(tokenizer, texts)
    plot_size_curve(points, output)
    table = Table("vocabulary size", "bytes per token")
    for size, value in points:
        table.add_row(f"{size:,}", f"{value:.3f}")
    Console().print(table)


@app.command()
def convert(
    model: Model,
    output: Annotated[Path, typer.Option(help="x.tiktoken, a merge map x.json, or a folder for tokenizer.json.")],
    vocab_size: Annotated[int | None, typer.Option(help="Cut the vocabulary to its first tokens.")] = None,
    split_pattern: SplitPattern = None,
) -> None:
    """Write a tokenizer in another format, or a smaller one without retraining; what a format cannot hold is said.

    Example: `weebill tokenizer convert runs/tokenizer --output weebill.tiktoken`

    Example: `weebill tokenizer convert runs/tokenizer --vocab-size 2048 --output runs/smaller`
    """
    from weebill.errors import ConfigError
    from weebill.tiktoken_files import tiktoken_losses

    if output.name == "tokenizer.json":
        raise ConfigError(f"--output: expected the folder for a tokenizer.json, or another name for a merge map, got "
                          f"{output}; name {output.parent}, or rename it")  # fmt: skip
    tokenizer = _tokenizer(model, split_pattern)
    if vocab_size is not None:
        tokenizer = tokenizer.cut(vocab_size)
    if output.suffix == ".tiktoken":
        tokenizer.save_tiktoken(output)
    elif output.suffix == ".json":
        tokenizer.save_merge_map(output)
    else:
        tokenizer.save(output)
    console.print(f"{tokenizer.vocab_size:,} tokens in {output}")
    for loss in tiktoken_losses(tokenizer) if output.suffix == ".tiktoken" else ():
        console.print(f"not in a .tiktoken file: {loss}", soft_wrap=True, highlight=False, markup=False)


def _tokenizer(model: Path, split_pattern: str | None) -> "Tokenizer":
    from weebill.artifact import find_model
    from weebill.tokenizer import Tokenizer

    return Tokenizer.load(find_model(model), split_pattern)


def _stream(paths: list[Path], field: str | None, errors: str) -> "Iterator[str]":
    from weebill.corpus import stream_texts
    from weebill.errors import ConfigError

    if errors not in ("strict", "replace"):
        raise ConfigError(f"--errors: expected strict or replace, got {errors!r}; correct it")
    return stream_texts(paths, field, errors, ", or go on with --errors replace")


def _texts_of(
    path: Path, field: str | None, format: str | None, split: str | None, errors: str
) -> "tuple[Iterator[str], list[Utterance]]":
    """Labelled data gives its texts and utterances, anything else its lines."""
    from weebill.errors import ConfigError
    from weebill.formats import read_utterances
    from weebill.word_files import split_folders

    is_json_lines = path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    labelled = (is_json_lines and field is None) or (path.is_dir() and bool(split_folders(path)))
    if format is None and split is None and not labelled:
        return _stream([path], field, errors), []
    if errors != "strict":
        raise ConfigError(f"--errors: expected texts, got labelled data, which is read as strict; leave it out or name "
                          f"the --field of {path} that holds the text")  # fmt: skip
    utterances = read_utterances(path, format=format, split=split)
    return (u.text for u in utterances), utterances
