"""The command line: parse arguments, call one function, print. No logic of its own, and no torch until a model runs."""

import errno
import json
import os
import select
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from weebill import __version__, cli_data, cli_data_make, cli_evaluate, cli_tokenizer, cli_train
from weebill.cli_evaluate import Model, OnOverflow, check_split
from weebill.errors import ConfigError, DataError, TrainingInterrupted, WeebillError
from weebill.files import write_whole
from weebill.limits import Limits

if TYPE_CHECKING:
    from io import BufferedReader

    from weebill.predictor import Predictor
    from weebill.schema import Overflow

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(cli_train.app)
app.add_typer(cli_evaluate.app)
app.add_typer(cli_tokenizer.app, name="tokenizer")
cli_data.app.add_typer(cli_data_make.data_app)
app.add_typer(cli_data.app, name="data")
console = Console(stderr=True)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"weebill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """A small, fast road from raw text to intent, entities and embeddings.

    Start with: weebill demo --output runs/demo
    """


ModelAndTexts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] [TEXT]...",
        help="A model folder, by default the model that comes with weebill; then texts, by default those of --input or "
        "standard input, one a line.",
    ),
]
Input = Annotated[Path | None, typer.Option("--input", help="File with one text a line; an empty line is a text too.")]


@app.command()
def parse(
    model_and_texts: ModelAndTexts = None,
    input: Input = None,
    output: Annotated[Path | None, typer.Option(help="JSON lines; default: standard output.")] = None,
    on_overflow: OnOverflow = "window",
) -> None:
    """Read intent and entities: one JSON object a line, in input order.

    Example: `weebill parse "wake me up at nine am on friday"`

    Example: `weebill parse runs/massive --input texts.txt --output parsed.jsonl`

    Without texts it reads standard input; in a terminal it answers each line as you type.
    """
    model, texts = _model_and_texts(model_and_texts or [], input)
    _refuse_overwriting(output, input)
    if not texts and input is None and sys.stdin.isatty():
        _converse(_load(model, on_overflow), output)
        return
    found = _texts(texts, input)
    lines = (json.dumps(p.to_json(), ensure_ascii=False) + "\n" for p in _load(model, on_overflow).parse(found))
    _emit("".join(lines), output)


def _converse(predictor: "Predictor", output: Path | None) -> None:
    """Answer each line of a terminal as it comes; `output` has all answers at the end."""
    console.print("type a text and press Enter; Ctrl-D ends", highlight=False)
    said = []
    try:
        for line in sys.stdin:
            if text := line.strip():
                try:
                    said.append(json.dumps(predictor(text).to_json(), ensure_ascii=False) + "\n")
                    _emit(said[-1], None)
                except DataError as error:  # too long a text, say
                    console.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
    finally:
        if output:
            _emit("".join(said), output)


@app.command()
def embed(
    model_and_texts: ModelAndTexts = None,
    input: Input = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A .npy file, float32 (texts, dim), or .jsonl; default: JSON lines on standard output."),
    ] = None,
    normalize: Annotated[bool, typer.Option(help="Scale each vector to length 1.")] = False,
    on_overflow: OnOverflow = "window",
) -> None:
    """Turn texts into vectors.

    Example: `weebill embed "play some jazz" --normalize`

    Example: `weebill embed runs/massive --input texts.txt --output vectors.npy`
    """
    import io

    import numpy as np

    from weebill.geometry import unit_rows

    model, texts = _model_and_texts(model_and_texts or [], input)
    _refuse_overwriting(output, input)
    if output and output.suffix not in (".npy", ".jsonl"):
        raise ConfigError(f"--output: expected a name that ends in .npy, for an array, or .jsonl, for JSON lines, got "
                          f"{output}; rename it")  # fmt: skip
    vectors = _load(model, on_overflow).embed(_texts(texts, input))
    if normalize:
        vectors = unit_rows(vectors)
    if output and output.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, vectors)
        write_whole(output, buffer.getvalue())
    else:
        _emit("".join(json.dumps([round(x, 6) for x in row]) + "\n" for row in vectors.tolist()), output)


@app.command()
def verify(
    model: Model,
    implementation: Annotated[
        str, typer.Option("--with", help="What runs the model: weebill or sentence-transformers.")
    ] = "weebill",
) -> None:
    """Check that a model still is, and still computes, what it was when written.

    Compares every file with its checksum, and token ids, embeddings, intents and entities of the golden texts in the
    folder with what the model gives for them here. Exit code 0: all agree; 1: something differs; 2: no model to verify.

    Example: `weebill verify runs/massive`

    Example: `weebill verify runs/massive --with sentence-transformers`
    """
    from weebill import report as show
    from weebill.verification import TOLERANCE
    from weebill.verification import verify as check

    report = check(model, implementation)
    out = Console()
    if report.rows:
        out.print(show.verification(report, f"{model} with {implementation}"))
    for note in report.notes():
        out.print(_escape(note), soft_wrap=True, highlight=False)
    problems = report.problems()
    for problem in problems:
        out.print(f"[bold red]differs:[/] {_escape(problem)}", soft_wrap=True, highlight=False)
    if problems:
        sys.exit(1)
    out.print(f"{len(report.rows)} texts agree, largest difference {report.max_difference:.1e} "
              f"({TOLERANCE:.0e} allowed); all {len(report.files)} files are as written",
              soft_wrap=True, highlight=False)  # fmt: skip


@app.command()
def export(
    model: Model,
    output: Annotated[Path, typer.Option(help="New folder; an older weebill model there is replaced.")],
    format: Annotated[str, typer.Option(help="onnx, sentence-transformers, tiktoken or web.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="ONNX with weights as int8: a quarter of the size.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Labelled data to check on; default: the embedded dev split.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of the data.")] = None,
    runtime: Annotated[Path | None, typer.Option(help="For web: the dist folder of onnxruntime-web.")] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="For web: utterances to find neighbours in; default: the embedded ones, if they fit."),
    ] = None,
) -> None:
    """Write a model for where torch is not, or for other libraries, and check that it gives what the model gives.

    An ONNX export is a model folder: parse, embed, evaluate and verify work on it, without torch. Exit code 1, and
    nothing written, when the export gives something else.

    Example: `weebill export runs/massive --output runs/massive-onnx`

    Example: `weebill export runs/massive --int8 --data data/massive/en-US.jsonl --split dev --output runs/massive-int8`

    Example: `weebill export runs/massive --format tiktoken --output runs/massive-tiktoken`

    Example: `weebill export runs/massive --format web --runtime package/dist --output runs/massive-web`
    """
    from weebill import export as exporting
    from weebill import report as show
    from weebill.formats import read_utterances
    from weebill.templates import generate
    from weebill.web_export import export_web

    known = ("onnx", "sentence-transformers", "tiktoken", "web")
    if format not in known:
        raise ConfigError(f"--format: expected one of {', '.join(known)}, got {format!r}; correct it")
    if int8 and format not in ("onnx", "web"):
        raise ConfigError(f"--int8: expected --format onnx or web, got {format}; leave it out")
    for option, value in (("--runtime", runtime), ("--examples", examples)):
        if value and format != "web":
            raise ConfigError(f"{option}: expected --format web, got {format}; leave it out")
    check_split(data, split)
    utterances = read_utterances(data, split=split) if data else generate()[1]
    texts = [u.text for u in utterances]
    if format == "onnx":
        report = exporting.export_onnx(model, output, utterances, int8)
    elif format == "tiktoken":
        report = exporting.export_tiktoken(model, output, texts)
    elif format == "web":
        report = export_web(model, output, utterances, runtime, int8, read_utterances(examples) if examples else None)
    else:
        report = exporting.export_sentence_transformers(model, output, texts)
    out = Console()
    out.print(show.export(report, f"{model} as {report.what}, on {report.texts:,} texts"))
    for note in report.notes:
        out.print(note, soft_wrap=True, highlight=False)
    for problem in report.problems():
        out.print(f"[bold red]differs:[/] {_escape(problem)}", soft_wrap=True, highlight=False)
    if not report.ok:
        out.print(f"nothing was written to {output}", soft_wrap=True, highlight=False)
        sys.exit(1)
    out.print(f"written to {output}", soft_wrap=True, highlight=False)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="Model folder; default: the model that comes with weebill.")] = "tiny",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 = all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any free one.", min=0, max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="WEEBILL_TOKEN", help="Bearer token that callers must send.", show_default=False),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Utterances to find neighbours in; default: the embedded ones, if they fit.")
    ] = None,
    max_body_bytes: Annotated[int, typer.Option(help="Larger bodies are refused.", min=1)] = Limits.max_body_bytes,
    max_texts: Annotated[int, typer.Option(help="Requests with more texts are refused.", min=1)] = Limits.max_texts,
    max_text_chars: Annotated[int, typer.Option(help="Longer texts are refused.", min=1)] = Limits.max_text_chars,
    max_waiting_texts: Annotated[int, typer.Option(help="More in the queue: 429.", min=1)] = Limits.max_waiting_texts,
    on_overflow: OnOverflow = "window",
) -> None:
    """Answer over HTTP: Rasa's, OpenAI's and text-embeddings-inference's shapes, and a playground in the browser.

    Example: `weebill serve runs/massive --port 8000`
    """
    from weebill.formats import read_utterances
    from weebill.neighbours import Neighbours, fitting_examples
    from weebill.serve import bind, create_app, run_server

    token = os.environ.get("WEEBILL_TOKEN") if token is None else token  # which is None to typer where it is empty
    if token is not None and not token.strip():
        raise ConfigError("expected a token, got an empty one; give one, or leave --token out and unset WEEBILL_TOKEN")
    bound = bind(host, port)  # this and wrong data show before the model is loaded
    utterances = read_utterances(examples) if examples else None
    predictor = _load(model, on_overflow)
    if utterances is None:
        utterances = fitting_examples(predictor)
    limits = Limits(max_body_bytes, max_texts, max_text_chars, max_waiting_texts)
    known = Neighbours(predictor, utterances) if utterances else None
    served = create_app(predictor, Path(model).resolve().name, token, known, limits)
    run_server(served, bound, console)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("runs/demo"),
) -> None:
    """Train, evaluate and try a whole model on the embedded data, in about a minute."""
    from weebill.demo import run_demo

    run_demo(output, Console())


def _model_and_texts(arguments: list[str], input: Path | None) -> tuple[str, list[str]]:
    """Return the model and the texts; "-" alone stands for those of standard input.

    A lone argument that is no path is a text, and one with white space: several words without quotes are no model.
    """
    from weebill.artifact import SHIPPED

    arguments = arguments[:-1] if arguments[-1:] == ["-"] and len(arguments) < 3 else arguments
    if not arguments:
        return SHIPPED, []
    first, alone = arguments[0], len(arguments) == 1 and input is None
    if first == SHIPPED or (first and Path(first).exists()) or (alone and "/" in first and first.split() == [first]):
        return first, arguments[1:]
    if not alone and first.split() == [first]:
        if "/" not in first and input is None and all(word.split() == [word] for word in arguments):
            raise ConfigError(f"{first}: expected a model folder in front of texts, got nothing there; name one, or "
                              f"put a text of several words in quotes: {shlex.quote(' '.join(arguments))}")  # fmt: skip
        return first, arguments[1:]  # whose absence has its own error
    if alone and first.split() == [first] and _text_is_waiting():
        console.print(f"read {_escape(repr(first))} as a text, as there is no such model folder; what standard input "
                      f"holds was not read", soft_wrap=True, highlight=False)  # fmt: skip
    return SHIPPED, arguments


def _text_is_waiting() -> bool:
    """Return whether standard input holds something that nobody types."""
    try:
        return not sys.stdin.isatty() and bool(
            select.select([sys.stdin], [], [], 0)[0] and cast("BufferedReader", sys.stdin.buffer).peek(1)
        )
    except (OSError, ValueError):  # not a real one; or a pipe, on Windows
        return False


def _load(model: Path | str, on_overflow: str) -> "Predictor":
    from weebill.predictor import load

    return load(model, on_overflow=cast("Overflow", on_overflow))


def _texts(texts: list[str] | None, input: Path | None) -> list[str]:
    if texts and input:
        raise ConfigError("expected texts or --input, got both; leave one out")
    if texts:
        return texts
    from weebill.formats import read_texts

    if input is None and sys.stdin.isatty():
        raise ConfigError("expected texts, --input FILE or text on standard input, got nothing; add one of them")
    if input is not None:
        return read_texts(input)
    try:
        body = sys.stdin.buffer.read().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"<stdin>: expected UTF-8, got byte {error.object[error.start]:#04x} at byte offset {error.start}; convert "
            f"the text to UTF-8"
        ) from error
    return [line.removesuffix("\r") for line in body.removesuffix("\n").split("\n")] if body else []


def _refuse_overwriting(output: Path | None, input: Path | None) -> None:
    from weebill.formats import refuse_overwriting

    if output and input:
        refuse_overwriting("--output", output, input)


def _emit(text: str, output: Path | None) -> None:
    if output:
        write_whole(output, text.encode("utf-8", "replace"))
    else:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.buffer.flush()


def main() -> None:
    """Run the command line; a weebill error prints one message and exits with code 2."""
    try:
        app()
    except TrainingInterrupted as stop:
        console.print(str(stop), soft_wrap=True, highlight=False)
        sys.exit(130)
    except WeebillError as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped; nothing was written")
        sys.exit(130)
    except OSError as error:  # of files, those that write them say more
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EFBIG):
            raise
        console.print(f"[bold red]error:[/] standard output: expected a place to write, got: {_escape(str(error))}; "
                      f"make room, or send it elsewhere", soft_wrap=True, highlight=False)  # fmt: skip
        os._exit(2)  # without flushing what cannot be written


def _escape(text: str) -> str:
    from rich.markup import escape

    from weebill.showing import shown

    return escape(shown(text, lines=True))
