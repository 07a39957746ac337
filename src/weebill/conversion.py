"""One data file to another format, streamed; says what was read as what, and what was lost. Parses no format itself."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from weebill import formats, pairs
from weebill.errors import DataError
from weebill.interchange import Block, Item, Losses
from weebill.word_files import scheme_of

PAIR_TITLES = {"sts": "STS Benchmark", "qqp": "Quora Question Pairs", "pairs": "pairs by column order"}


@dataclass
class Conversion:
    """What a conversion did; formats are names of `formats.FORMATS` or `pairs.PAIR_FORMATS`."""

    source: Path
    target: Path
    source_format: str
    target_format: str
    guessed: bool
    rows: int = 0
    seconds: float = 0.0
    losses: Losses = field(default_factory=Losses)

    @property
    def written(self) -> int:
        """Rows that are in the target."""
        return self.rows - sum(n for what, n in self.losses.counts.items() if what.startswith("row left out"))

    def lines(self) -> list[str]:
        """Return the report, a line each."""
        how = "guessed" if self.guessed else "as named"
        rate = self.rows / max(self.seconds, 1e-9)
        return [
            f"{self.source}: {title(self.source_format, self.source)} ({how})",
            f"{self.target}: {title(self.target_format)}, {self.written:,} rows of {self.rows:,}; "
            f"{self.seconds:.1f} s, {rate:,.0f} rows/s",
            *(f"  {line}" for line in self.losses.lines()),
        ]


def title(format: str, path: Path | None = None) -> str:
    """Return the words for a format; with a CoNLL file to be read, its scheme."""
    if format.startswith("conll") and path is not None:
        return f"CoNLL columns, {scheme_of(path)}"
    return PAIR_TITLES[format] if format in PAIR_TITLES else formats.FORMATS[format].title


def convert(
    source: Path,
    target: Path,
    source_format: str | None = None,
    target_format: str | None = None,
    split: str | None = None,
    watched: Callable[[Iterable[Any]], Iterable[Any]] = lambda items: items,
) -> Conversion:
    """Write a file or folder in another format, whole or not at all.

    Args:
        source: labelled utterances or pairs.
        target: a file, packed where its name ends in .gz; a folder for "bio".
        source_format: default: guessed.
        target_format: default: by the name of `target`.
        split: only the rows of this split.
        watched: sees every row go by; for a progress bar.

    Raises:
        DataError: data that cannot be read, utterances to pairs or the other way round, an unknown format.
        ConfigError: the target is the source, or one of its files.
        ArtifactError: the target cannot be written.
    """
    if not source.exists():
        raise DataError(f"{source}: expected a data file, got nothing there; check the path")
    are_pairs = pairs.holds_pairs(source, source_format)
    known = pairs.PAIR_FORMATS if are_pairs else tuple(formats.FORMATS)
    found = source_format or (pairs.guess_pairs(source) if are_pairs else formats.guess(source))
    wanted = target_format or ("pairs" if are_pairs else formats.format_to_write(target))
    for option, name in (("--format", found), ("--to", wanted)):
        if name not in known:
            kind = "pairs" if are_pairs else "utterances"
            raise DataError(f"{option}: expected a format of {kind} ({', '.join(known)}), got {name!r}; correct it")
    formats.refuse_overwriting("--output", target, source, found, wanted)
    done = Conversion(source, target, found, wanted, guessed=source_format is None)
    start = perf_counter()
    if are_pairs:
        if split is not None:
            raise DataError(f"--split: expected none, as pairs have no splits, got {split!r}; leave it out")
        rows = watched(_counted(pairs.stream_pairs(source, found, done.losses), done))
        pairs.write_pairs(target, rows, wanted, done.losses)
    else:
        items = formats.stream(source, found, split)
        if split is not None and "split" not in formats.FORMATS[wanted].holds:
            items = (item if isinstance(item, Block) else replace(item, split=None) for item in items)
        formats.write(target, watched(_counted(items, done)), wanted, done.losses)
    done.seconds = perf_counter() - start
    return done


def _counted(items: Iterable[Any], done: Conversion) -> Iterator[Item]:
    for item in items:
        done.rows += not isinstance(item, Block)
        yield item
