"""`weebill data split|generate|fetch`: parse arguments, call one function, print. No logic of its own."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weebill.errors import ConfigError
from weebill.files import write_whole
from weebill.showing import shown

if TYPE_CHECKING:
    from weebill.schema import Utterance

data_app = typer.Typer(help="Split, generate and fetch data.", no_args_is_help=True, rich_markup_mode="markdown")
console = Console(stderr=True)
_LABEL_CHARACTERS = 60  # shown of a label

Format = Annotated[str | None, typer.Option(help="Of the data; default: guessed.")]
OnlySplit = Annotated[str | None, typer.Option(help="Use only this split of the data.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same rows.")]


@data_app.command()
def split(
    data: Annotated[Path, typer.Argument(help="Labelled utterances, in any format that weebill reads.")],
    output: Annotated[Path, typer.Option(help="Folder for train.jsonl, dev.jsonl … or fold-1/, fold-2/ …")],
    size: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FRACTION or NAME=COUNT, repeatable; train takes the rest. Default: dev=0.1."),
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Make that many folds for cross-validation instead.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="Keep rows together that share: template, id, or any field of JSON lines."),
    ] = None,
    seed: Seed = 0,
    format: Format = None,
    split: OnlySplit = None,
) -> None:
    """Split data so that every part has every intent and entity type in proportion.

    Rows with the same text, letter case and spacing aside, always stay together. `--group-by template` also keeps rows
    together that differ in slot values alone ("wake me at 7", "wake me at 9"), so that the held-out rows are new
    phrasings. Prints what every part got of every label.

    Example: `weebill data split all.jsonl --size dev=0.1 --size test=0.1 --output data/mine`

    Example: `weebill data split all.jsonl --size dev=500 --group-by speaker --output data/mine`

    Example: `weebill data split all.jsonl --folds 5 --group-by template --output data/folds`
    """
    from weebill.split_files import fold_file, read_to_split, split_file
    from weebill.splitting import part_sizes

    if folds is not None and size:
        raise ConfigError("expected --size or --folds, got both; leave one out")
    read = read_to_split(data, format, split)
    utterances = read.utterances
    if folds is not None:
        parts = fold_file(read, folds, output, group_by, seed)
        names = [f"fold-{number}" for number in range(1, folds + 1)]
    else:
        sizes = part_sizes(_numbers(size or ["dev=0.1"]), len(utterances))
        parts = split_file(read, sizes, output, group_by, seed)
        names = list(sizes)
    _print_shares(utterances, names, parts)
    console.print(f"{', '.join(f'{name} {len(part):,}' for name, part in zip(names, parts, strict=True))} of "
                  f"{len(utterances):,} rows in {output}", highlight=False)  # fmt: skip
    for line in read.losses.lines():
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def _numbers(options: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name in found:
            raise ConfigError(f"--size expects each NAME once, got {name!r} again with {option!r}; leave one out")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--size expects NAME=FRACTION or NAME=COUNT, got {option!r}; as in dev=0.1") from None
        if found[name] >= 1 and not value.isdecimal():
            raise ConfigError(f"--size expects a fraction below 1 or a whole count, got {option!r}; as in dev=0.1, or "
                              f"dev={found[name]:.0f} for {found[name]:,.0f} rows")  # fmt: skip
        if not name or Path(name).name != name:
            raise ConfigError(f"--size expects a NAME that can be a file's, got {name!r}; as in dev=0.1")
    return found


def _print_shares(utterances: "Sequence[Utterance]", names: Sequence[str], parts: Sequence[Sequence[int]]) -> None:
    """Print rows with each label by part, and the labels that a part lacks or has too many or too few of."""
    from weebill.splitting import label_shares

    table = Table("label", "rows", *names)
    table.add_row("all", f"{len(utterances):,}", *(f"{len(part):,}" for part in parts))
    worst, worst_label, missing = 0.0, "", []
    for share in label_shares(utterances, parts):
        cells = []
        for name, part, count in zip(names, parts, share.parts, strict=True):
            cells.append(f"{count:,} ({count / share.total:.1%})")
            off = abs(count - share.total * len(part) / len(utterances))
            if off > worst:
                worst, worst_label = off, f"{share.label} in {name}"
            if count == 0:
                missing.append(f"{shown(share.label, _LABEL_CHARACTERS)} in {name}")
        table.add_row(Text(shown(share.label, _LABEL_CHARACTERS)), f"{share.total:,}", *cells)
    Console().print(table)
    if missing:
        lacking = shown(", ".join(missing))
        console.print(f"labels that a part has no row of: {lacking}", style="yellow", highlight=False, markup=False)
    console.print(f"no label is further than {worst:.1f} rows from its share ({shown(worst_label, _LABEL_CHARACTERS)})",
                  highlight=False, markup=False)  # fmt: skip


@data_app.command()
def generate(
    grammar: Annotated[
        str | None, typer.Argument(help="A grammar (YAML), or `embedded`, the one weebill's own data are made with.")
    ] = None,
    count: Annotated[
        list[str] | None,
        typer.Option(help="How many; SPLIT=N, repeatable, where the grammar has splits. Default: 100."),
    ] = None,
    seed: Seed = 0,
    unique: Annotated[bool, typer.Option(help="No text twice; otherwise frequent texts come up again.")] = True,
    augment: Annotated[
        Path | None,
        typer.Option(help="Labelled data: give new utterances from it, with slot values swapped by label."),
    ] = None,
    format: Format = None,
    split: OnlySplit = None,
    output: Annotated[Path | None, typer.Option(help="Span JSON lines; default: standard output.")] = None,
) -> None:
    r"""Write utterances with intents and exact spans, from a grammar or from data of your own.

    A grammar has slots with values, and templates by intent; `{slot}` is a value and gets annotated, `<rule>` a named
    part, `[optional]` may be left out, `(one|other)` is either, `/3/` in front is a weight:

    ```yaml
    slots:
      room: [kitchen, living room, /0.1/ wine cellar]
    rules:
      polite: [please, could you]
    intents:
      lights_on:
        - "[<polite>] turn on the {room} (light|lights)"
      lights_off:
        - turn off the {room} lights
    ```

    Example: `weebill data generate lights.yaml --count 8`

    Example: `weebill data generate embedded --count train=850 --count dev=150 --output data/synthetic.jsonl`

    Example: `weebill data generate --augment data/mine/train.jsonl --count 2000 --output data/mine/more.jsonl`
    """
    from weebill.formats import read_utterances, refuse_overwriting, span_row
    from weebill.generator import draw_utterances
    from weebill.grammar import read_grammar
    from weebill.pairs import utterances_only
    from weebill.swapping import augment as swap_values
    from weebill.templates import load_grammar

    if grammar is None and augment is None:
        raise ConfigError("expected a grammar or --augment FILE, got neither; try: weebill data generate embedded "
                          "--count train=5 --count dev=5")  # fmt: skip
    if augment is None and (format or split):
        raise ConfigError("--format, --split: expected --augment FILE with them, as they describe its data, got none; "
                          "leave them out")  # fmt: skip
    source = None if grammar is None else load_grammar() if grammar == "embedded" else read_grammar(Path(grammar))
    if augment:
        utterances_only(augment, format)
        if output and augment.exists():
            refuse_overwriting("--output", output, augment, format)
        drawn = {"": swap_values(read_utterances(augment, format=format, split=split), _one_count(count), seed,
                                 source.slots if source else None)}  # fmt: skip
    else:
        assert source is not None
        counts = {"": _one_count(count)} if source.splits == ("",) else _counts_by_split(count, source.splits)
        drawn = draw_utterances(source, counts, seed, unique)
    lines = []
    for name, utterances in drawn.items():
        for utterance in utterances:
            row = span_row(utterance)
            if name:
                row["split"] = name
            if utterance.key:
                row["template"] = utterance.key
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    if output:
        write_whole(output, "".join(lines).encode())
        console.print(f"{len(lines):,} utterances in {output}", highlight=False)
    else:
        sys.stdout.buffer.write("".join(lines).encode())
        sys.stdout.buffer.flush()
    if source and not augment:
        console.print(f"the grammar has {source.size:,} fillings", highlight=False)


def _one_count(options: Sequence[str] | None) -> int:
    if not options:
        return 100
    if len(options) > 1 or not options[0].isdecimal() or int(options[0]) < 1:
        raise ConfigError(f"--count: expected one number, got {', '.join(options)}; as in --count 1000")
    return int(options[0])


def _counts_by_split(options: Sequence[str] | None, splits: Sequence[str]) -> dict[str, int]:
    example = " ".join(f"--count {split}=100" for split in splits)
    counts: dict[str, int] = {}
    for option in options or (f"{split}=100" for split in splits):
        name, _, number = option.partition("=")
        if name not in splits or not number.isdecimal() or int(number) < 1:
            raise ConfigError(f"--count: expected SPLIT=N, as the grammar has the splits {', '.join(splits)}, got "
                              f"{option!r}; as in {example}")  # fmt: skip
        counts[name] = int(number)
    return counts


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="massive, stsb, qqp, wikipedia, atis or snips.")],
    output: Annotated[
        Path, typer.Option(help="The data folder; files go to its NAME/, where the shipped recipes look for them.")
    ] = Path("data"),
    locale: Annotated[
        str | None,
        typer.Option(
            help="Of MASSIVE, as in ja-JP (default en-US); a Wikipedia's language, as in de (default simple)."
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Take it from an archive, file or folder that is here already, not from the network."
        ),
    ] = None,
    with_test: Annotated[bool, typer.Option("--with-test", help="Write the test partition too.")] = False,
    max_articles: Annotated[int, typer.Option(help="Of Wikipedia.")] = 50_000,
    cache: Annotated[
        Path | None, typer.Option(envvar="WEEBILL_CACHE", help="Keeps downloads; default: ~/.cache/weebill.")
    ] = None,
) -> None:
    """Download a public data set from where it is published, check it, and put it where the recipes look for it.

    Stopped or broken off, a download goes on where it was when the command is given again; what was downloaded once is
    taken from the cache. Test partitions stay out of the way unless asked for: tune on dev, and test once.

    Example: `weebill data fetch massive && weebill finetune massive --data-root data --output runs/massive`

    Example: `weebill data fetch massive --locale ja-JP`

    Example: `weebill data fetch stsb --from ~/Downloads/Stsbenchmark.tar.gz`

    Example: `weebill data fetch wikipedia --locale simple && weebill tokenizer train
    --input data/wiki/simplewiki.txt.gz --output runs/tokenizer`
    """
    from weebill import wikipedia
    from weebill.datasets import dataset
    from weebill.datasets import fetch as fetch_dataset
    from weebill.download import cache_folder

    def say(text: str) -> None:
        console.print(shown(text, lines=True), highlight=False, soft_wrap=True, markup=False)

    where = cache_folder(cache)
    if name == "wikipedia":
        language = locale or "simple"
        say(f"Wikipedia ({language}), {wikipedia.HOMEPAGE}\nlicence: {wikipedia.LICENCE}")
        with _progress("downloading", is_bytes=True) as progress:
            dump = source or wikipedia.fetch_dump(language, where / "wikipedia", progress, say)
        target = output / "wiki" / f"{language.replace('-', '_')}wiki.txt.gz"
        with _progress("articles") as progress:
            count = wikipedia.write_articles(dump, target, max_articles, progress)
        say(f"{count:,} articles in {target}")
        return
    wanted = dataset(name, locale or "en-US")
    if locale and name != "massive":
        raise ConfigError(f"--locale: expected none, as {name} is in English alone, got {locale!r}; leave it out")
    say(f"{wanted.title}, {wanted.homepage}\nlicence: {wanted.licence}")
    with _progress("downloading", is_bytes=True) as progress:
        written = fetch_dataset(wanted, output, where, source, with_test, progress, say)
    say("\n".join(f"wrote {path} ({path.stat().st_size:,} bytes)" for path in written))


@contextmanager
def _progress(what: str, is_bytes: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on a terminal, and nothing elsewhere; the function given takes (done, total)."""
    from rich import progress as bars

    columns = [bars.TextColumn(what), bars.BarColumn()]
    columns += [bars.DownloadColumn(), bars.TransferSpeedColumn()] if is_bytes else [bars.MofNCompleteColumn()]
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=console, transient=True,
                       disable=not console.is_terminal) as bar:  # fmt: skip
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
