"""Public data sets -> files in the places that the shipped recipes read; says licences, downloads with download.py.

Test partitions are left out unless asked for.

Checksums were not made here but published by others, who are named beside them; a file without one is trusted when it
first comes, see download.py.
"""

import csv
import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weebill.archives import ARCHIVES, read_members
from weebill.completeness import check_lines, check_partitions
from weebill.download import Progress, RemoteFile, checksum_of, download
from weebill.errors import ConfigError, DataError
from weebill.files import write_whole
from weebill.splitting import connected, text_key

MASSIVE_LOCALES = (
    "af-ZA am-ET ar-SA az-AZ bn-BD ca-ES cy-GB da-DK de-DE el-GR en-US es-ES fa-IR fi-FI fr-FR he-IL hi-IN hu-HU hy-AM "
    "id-ID is-IS it-IT ja-JP jv-ID ka-GE km-KH kn-IN ko-KR lv-LV ml-IN mn-MN ms-MY my-MM nb-NO nl-NL pl-PL pt-PT ro-RO "
    "ru-RU sl-SL sq-AL sv-SE sw-KE ta-IN te-IN th-TH tl-PH tr-TR ur-PK vi-VN zh-CN zh-TW"
)
MASSIVE_EN_US = "md5:135c741954f86f23d37784dba247c78a"  # of the member en-US.jsonl, whole
QQP_DEV_FRACTION = 0.05
_SLOT_GATED = "https://raw.githubusercontent.com/MiuLab/SlotGated-SLU/master/data"


@dataclass(frozen=True)
class Part:
    """A file to write: its place under the output folder, and the names its source may have (ends of a path)."""

    place: str
    sources: tuple[str, ...]
    is_test: bool = False
    is_optional: bool = False
    checksum: str | None = None


@dataclass(frozen=True)
class Dataset:
    """What can be fetched: where it is published, under which licence, and the files it becomes.

    With one remote file, the parts are members of that archive; otherwise each part is the remote file of its name.
    """

    name: str
    title: str
    licence: str
    homepage: str
    remotes: tuple[RemoteFile, ...]
    parts: tuple[Part, ...]


def _massive(locale: str) -> Dataset:
    if locale not in MASSIVE_LOCALES.split():
        raise ConfigError(f"--locale: expected one of {MASSIVE_LOCALES.replace(' ', ', ')}, got {locale!r}; correct it")
    return Dataset(
        "massive",
        f"MASSIVE 1.1, {locale} (FitzGerald et al. 2023; English from SLURP, Bastianelli et al. 2020)",
        "CC BY 4.0: free to use, models too, with credit",
        "https://github.com/alexa/massive",
        (RemoteFile(
            "https://amazon-massive-nlu-dataset.s3.amazonaws.com/amazon-massive-dataset-1.1.tar.gz",
            "amazon-massive-dataset-1.1.tar.gz",
            # as two public projects that pin the archive have it
            "sha256:4cba5faa11c71437928e17cb1b9b3d8b8e727e7ea363a3a9a8045e19c0491577",
        ),),
        (Part(f"massive/{locale}.jsonl", (f"{locale}.jsonl",), checksum=MASSIVE_EN_US if locale == "en-US" else None),
         Part("massive/LICENSE", ("1.1/LICENSE",), is_optional=True),
         Part("massive/NOTICE.md", ("1.1/NOTICE.md",), is_optional=True)),
    )  # fmt: skip


def _stsb() -> Dataset:
    return Dataset(
        "stsb",
        "STS Benchmark (Cer et al. 2017)",
        "mixed, by source of the sentences (see LICENSE.txt and readme.txt): for research",
        "https://ixa2.si.ehu.eus/stswiki",
        (RemoteFile(
            "http://ixa2.si.ehu.eus/stswiki/images/4/48/Stsbenchmark.tar.gz",
            "Stsbenchmark.tar.gz",
            "md5:4eb0065aba063ef77873d3a9c8088811",  # as torchtext has it
        ),),
        (Part("stsb/sts-train.csv", ("sts-train.csv",)),
         Part("stsb/sts-dev.csv", ("sts-dev.csv",)),
         Part("stsb/sts-test.csv", ("sts-test.csv",), is_test=True),
         Part("stsb/LICENSE.txt", ("LICENSE.txt",), is_optional=True),
         Part("stsb/readme.txt", ("readme.txt",), is_optional=True)),
    )  # fmt: skip


def _qqp() -> Dataset:
    return Dataset(
        "qqp",
        "Quora Question Pairs, as Quora released them in 2017",
        "Quora's terms of service, non-commercial: train and measure, do not ship models made from it",
        "https://quoradata.quora.com/First-Quora-Dataset-Release-Question-Pairs",
        (RemoteFile(
            "http://qim.fs.quoracdn.net/quora_duplicate_questions.tsv",
            "quora_duplicate_questions.tsv",
            "md5:b6d5672bd9dc1e66ab2bb020ebeafb8d",  # as torchtext has it
        ),),
        (Part("qqp/quora_duplicate_questions.tsv", ("quora_duplicate_questions.tsv",)),),
    )  # fmt: skip


def _slot_gated(name: str, title: str, licence: str) -> Dataset:
    parts = tuple(
        Part(
            f"{name}/{split}/{file}",
            tuple(dict.fromkeys((f"{name}/{theirs}/{file}", f"{name}/{split}/{file}"))),
            is_test=split == "test",
        )
        for split, theirs in (("train", "train"), ("dev", "valid"), ("test", "test"))
        for file in ("seq.in", "seq.out", "label")
    )
    remotes = tuple(RemoteFile(f"{_SLOT_GATED}/{part.sources[0]}", part.sources[0]) for part in parts)
    return Dataset(name, title, licence, "https://github.com/MiuLab/SlotGated-SLU", remotes, parts)


def dataset(name: str, locale: str) -> Dataset:
    """Return what there is to know of a data set.

    Raises:
        ConfigError: No such data set or locale.

    Example:
        >>> dataset("massive", "ja-JP").parts[0].place
        'massive/ja-JP.jsonl'
    """
    known: dict[str, Callable[[], Dataset]] = {
        "massive": lambda: _massive(locale),
        "stsb": _stsb,
        "qqp": _qqp,
        "atis": lambda: _slot_gated(
            "atis", "ATIS as Goo et al. (2018) split it", "derived from LDC's corpora: measure only, do not ship models"
        ),
        "snips": lambda: _slot_gated(
            "snips", "SNIPS (Coucke et al. 2018) as Goo et al. (2018) split it", "CC0: free to use"
        ),
    }
    if name not in known:
        raise ConfigError(f"expected one of {', '.join(known)} or wikipedia, got {name!r}; correct the name")
    return known[name]()


def fetch(
    wanted: Dataset,
    output: Path,
    cache: Path,
    source: Path | None = None,
    with_test: bool = False,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Write the files of a data set under `output`, each whole or not at all, and return them.

    Args:
        wanted: From `dataset`.
        output: Folder; the files go to `output`/NAME/….
        cache: Folder for what is downloaded.
        source: An archive, file or folder downloaded before, instead of the network.
        with_test: Write the test partitions too.
        progress: Called as bytes arrive.
        say: Called with what the user should know: files that are not the published ones, rows left out.

    Raises:
        DataError: A file is missing or broken, or a download is not what was published.
        ArtifactError: A folder cannot be written.
        MissingExtraError: See `download.download`.
    """
    parts = [part for part in wanted.parts if with_test or not part.is_test]
    if source is not None:
        bodies = _bodies(_inside(source, wanted, say), parts)
    elif len(wanted.remotes) == 1:
        bodies = _bodies(_obtain(wanted.remotes[0], cache / wanted.name, progress, say), parts)
    else:
        bodies = {}
        for part in parts:
            remote = wanted.remotes[wanted.parts.index(part)]
            bodies |= _bodies(_obtain(remote, cache, progress, say), [part])
    written: dict[str, bytes] = {}
    for part in parts:
        if part.place not in bodies and not part.is_optional:
            raise DataError(f"{source or wanted.homepage}: expected {' or '.join(part.sources)} in it, got none; check "
                            f"what was downloaded")  # fmt: skip
    check_lines(bodies, str(source or wanted.homepage), say)
    for part in parts:
        if part.place in bodies:
            body = bodies.pop(part.place)
            finished = _finished(part, body, with_test, say)
            if source is not None and finished != {part.place: body}:
                _refuse_overwriting(output / part.place, source, body)
            written |= finished
    for place, body in written.items():
        write_whole(output / place, body)
    return [output / place for place in written]


def _refuse_overwriting(target: Path, source: Path, body: bytes) -> None:
    """Refuse to leave rows out of the very file that they were read from."""
    if target.is_file() and target.resolve().is_relative_to(source.resolve()) and target.read_bytes() == body:
        raise ConfigError(f"--output: expected another place than --from, as the rows that are left out would be lost, "
                          f"got {target}; choose another folder")  # fmt: skip


def _bodies(source: Path, parts: Sequence[Part]) -> dict[str, bytes]:
    """Return the bytes of each part that the archive, file or folder has, by place."""
    found = read_members(source, {part.place: part.sources for part in parts})
    needed = [part.place for part in parts if not part.is_optional]
    if not found and source.is_file() and not source.name.endswith(ARCHIVES) and len(needed) == 1:
        return {needed[0]: source.read_bytes()}  # a file that the user named otherwise
    return found


def _obtain(remote: RemoteFile, folder: Path, progress: Progress, say: Callable[[str], None]) -> Path:
    path = download(remote, folder, progress)
    if remote.checksum is None:
        say(f"{remote.url} has no published checksum; what came is {checksum_of(path)}, and has to be when it is "
            f"downloaded again")  # fmt: skip
    return path


def _inside(source: Path, wanted: Dataset, say: Callable[[str], None]) -> Path:
    """Return the archive itself when `source` is the folder it lies in; say when it is not the published one."""
    remote = wanted.remotes[0]
    if len(wanted.remotes) > 1:
        return source
    if (source / remote.name).is_file():
        source = source / remote.name
    if source.is_file() and remote.checksum and (source.name.endswith(ARCHIVES) or source.name == remote.name):
        found = checksum_of(source, remote.checksum.partition(":")[0])
        if found != remote.checksum:
            say(f"{source} is not the published {remote.name}: expected {remote.checksum}, got {found}; used as it is")
    return source


def _finished(part: Part, body: bytes, with_test: bool, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return the files that a part becomes."""
    if part.checksum:
        kind = part.checksum.partition(":")[0]
        found = f"{kind}:{hashlib.new(kind, body).hexdigest()}"
        if found != part.checksum:
            say(f"{part.place} is not the published file: expected {part.checksum}, got {found}; used as it is")
    if part.place.startswith("massive/") and part.place.endswith(".jsonl"):
        return {part.place: _massive_rows(body, part.place, with_test, say)}
    return _split_qqp(body, part.place, say) if part.place.startswith("qqp/") else {part.place: body}


def _massive_rows(body: bytes, place: str, with_test: bool, say: Callable[[str], None]) -> bytes:
    """Return MASSIVE's lines, those of partition test only on request, unchanged."""
    lines = body.splitlines(keepends=True)
    try:
        partitions = [str(json.loads(line)["partition"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place}: expected JSON lines with a partition, got {error!r}; download the file again"
        ) from error
    check_partitions(Counter(partitions), place, with_test)
    kept = [line for line, partition in zip(lines, partitions, strict=True) if with_test or partition != "test"]
    if len(kept) < len(lines):
        say(f"{place}: {len(kept):,} of {len(lines):,} rows; the test partition is left out (--with-test writes it)")
    return b"".join(kept)


def _split_qqp(body: bytes, place: str, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return train.tsv and dev.tsv of Quora's one file, with no question in both; pairs without a text are left out."""
    columns = ("id", "question1", "question2", "is_duplicate")
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8"), newline=""), delimiter="\t")
        rows = [tuple(row[column] for column in columns) for row in reader]
    except (UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{place}: expected UTF-8 and the columns {', '.join(columns)}, got {error!r}; download it "
                        f"again") from error  # fmt: skip
    if rows and None in rows[-1]:
        raise DataError(f"{place}: expected {len(columns)} columns in the last row, got {rows[-1]}: the file was cut; "
                        f"copy or download it again")  # fmt: skip
    whole = [row for row in rows if all(value and value.strip() for value in row)]
    groups = connected([[text_key(row[1]), text_key(row[2])] for row in whole])
    random.Random("qqp").shuffle(groups)
    room, dev = round(len(whole) * QQP_DEV_FRACTION), set[int]()
    for group in groups:
        if len(group) <= room - len(dev):
            dev.update(group)
    written = {}
    for name, chosen in (("train", [row for i, row in enumerate(whole) if i not in dev]),
                         ("dev", [row for i, row in enumerate(whole) if i in dev])):  # fmt: skip
        text = io.StringIO(newline="")
        csv.writer(text, delimiter="\t", lineterminator="\n").writerows([columns, *chosen])
        written[f"qqp/{name}.tsv"] = text.getvalue().encode()
        say(f"qqp/{name}.tsv: {len(chosen):,} pairs")
    if len(whole) < len(rows):
        say(f"{len(rows) - len(whole):,} pairs with an empty question are left out")
    return written
