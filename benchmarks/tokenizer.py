"""Training and encoding against tokenizers and tiktoken in one run; prints medians and ratios.

python benchmarks/tokenizer.py enwiki-sample.txt.gz            (or: make bench-tokenizer TEXT=…)

Peers take turns, so that a slow moment of the machine hits all of them. Training and encoding are processes of their
own, as they are for users: the memory that training leaves, in scattered pieces, slows what looks words up in it later.
Needs 20 MB of text, articles parted by blank lines.
"""

import argparse
import base64
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import tiktoken
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer as Peer
from tokenizers import models, pre_tokenizers, trainers
from turns import ROUNDS, take_turns, timed

from weebill.bpe import SPLIT_PATTERNS
from weebill.corpus import stream_texts
from weebill.tokenizer import SPECIAL_TOKENS, Tokenizer

MEGABYTE = 1_000_000
VOCAB_SIZE = 8192
BATCH = 64
LARGE_BATCH = 256
PARTS = ("training", "encoding")
console = Console()


def first_megabytes(path: Path, size: int) -> list[str]:
    lines, taken = [], 0
    for line in stream_texts([path]):
        if taken >= size:
            break
        lines.append(line)
        taken += len(line.encode())
    return lines


def train_peer(lines: list[str], vocab_size: int = VOCAB_SIZE) -> Peer:
    peer = Peer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    peer.train_from_iterator(lines, trainer)
    return peer


def bench_training(lines: list[str], table: Table) -> Tokenizer:
    found = take_turns(
        {"weebill": lambda: Tokenizer.train(lines, VOCAB_SIZE), "tokenizers": lambda: train_peer(lines)}, "training"
    )
    mine, peer = Tokenizer.train(lines, VOCAB_SIZE), train_peer(lines)
    names = [f"{mine.token_name(a)} {mine.token_name(b)}" for a, b in mine.merges]
    same = names == [" ".join(merge) for merge in json.loads(peer.to_str())["model"]["merges"]]
    for name, seconds in found.items():
        table.add_row(
            f"train {VOCAB_SIZE:,} tokens", name, f"{seconds:.2f} s", f"{seconds / found['tokenizers']:.2f} ×"
        )
    table.add_row("", "same merges, same order", str(same), "")
    return mine


def as_tiktoken(tokenizer: Tokenizer, folder: Path) -> tiktoken.Encoding:
    tokenizer.save_tiktoken(folder / "weebill.tiktoken")
    rows = (line.split() for line in (folder / "weebill.tiktoken").read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
    return tiktoken.Encoding("weebill", pat_str=SPLIT_PATTERNS["gpt2"], mergeable_ranks=ranks,
                             special_tokens=tokenizer.special_tokens)  # fmt: skip


def bench_encoding(tokenizer: Tokenizer, documents: list[str], table: Table, folder: Path) -> None:
    tokenizer.save(folder)
    peer = Peer.from_file(str(folder / "tokenizer.json"))
    other = as_tiktoken(tokenizer, folder)
    padding = Peer.from_file(str(folder / "tokenizer.json"))
    padding.enable_padding(pad_id=tokenizer.pad_id)
    batches = [documents[i : i + BATCH] for i in range(0, len(documents), BATCH)]
    megabytes = sum(len(document.encode()) for document in documents) / MEGABYTE

    def each(encode: Callable[[list[str]], object]) -> Callable[[], object]:
        return lambda: [encode(batch) for batch in batches] and None

    calls = {
        f"weebill encode_batch, {BATCH} documents": each(tokenizer.encode_batch),
        f"tokenizers encode_batch, {BATCH} documents": each(peer.encode_batch),
        f"tokenizers encode_batch_fast, {BATCH} documents": each(peer.encode_batch_fast),
        f"weebill encode_batch, {BATCH} documents, padded array": each(
            lambda b: tokenizer.encode_batch(b).input_ids_BT
        ),
        f"tokenizers encode_batch, {BATCH} documents, padded array": each(
            lambda b: np.array([found.ids for found in padding.encode_batch(b)])
        ),
        "weebill encode_ordinary, one core": lambda: [tokenizer.encode_ordinary(d) for d in documents] and None,
        "tiktoken encode_ordinary, one core": lambda: [other.encode_ordinary(d) for d in documents] and None,
    }
    each(tokenizer.encode_batch)()  # warm
    speeds = {name: megabytes / seconds for name, seconds in take_turns(calls, "encoding").items()}
    batch, slow, fast, array, slow_array, ordinary, rival = speeds.values()
    against = {0: batch / slow, 2: batch / fast, 3: array / slow_array, 5: ordinary / rival}
    notes = {0: "× encode_batch", 2: "× encode_batch_fast is weebill's", 3: "× tokenizers", 5: "× tiktoken"}
    for i, (name, speed) in enumerate(speeds.items()):
        note = f"{against[i]:.2f} {notes[i]}" if i in against else ""
        table.add_row("encode, warm", name, f"{speed:.1f} MB/s", note)
    same = all(tokenizer.encode_ordinary(d) == other.encode_ordinary(d) for d in documents)
    same = same and all(tokenizer.encode(d).token_ids == peer.encode(d).ids for d in documents)
    table.add_row("", "same ids from all three", str(same), "")
    for size in (BATCH, LARGE_BATCH):
        bench_cold(tokenizer, documents, size, table)


def bench_cold(tokenizer: Tokenizer, documents: list[str], size: int, table: Table) -> None:
    """Encode in batches with an empty memory: the speed after the first 5 MB, cold, and the same batches again, warm.

    The larger the batch, the cheaper each word that is new in it.
    """
    batches = [documents[i : i + size] for i in range(0, len(documents), size)]
    ends = list(accumulate(sum(len(document.encode()) for document in batch) for batch in batches))
    start = next(i for i, end in enumerate(ends) if end >= 5 * MEGABYTE) + 1
    megabytes = (ends[-1] - ends[start - 1]) / MEGABYTE
    seconds = []
    for _ in range(ROUNDS):
        fresh = Tokenizer(tokenizer.merges)

        def encode(some: list[list[str]], fresh: Tokenizer = fresh) -> None:
            for batch in some:
                fresh.encode_batch(batch)

        encode(batches[:start])
        seconds.append([timed(lambda: encode(batches[start:])) for _ in ("cold", "warm")])
    cold, warm = (megabytes / statistics.median(column) for column in zip(*seconds, strict=True))
    name = f"weebill encode_batch, {size} documents"
    table.add_row(
        "encode, cold, after 5 MB", name, f"{cold:.1f} MB/s", f"warm, {warm:.1f} MB/s, is {warm / cold:.2f} ×"
    )


def bench_pathological(tokenizer: Tokenizer, documents: list[str], table: Table) -> None:
    rng = random.Random(0)
    letters = "".join(c for document in documents for c in document if c.isalpha())
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    for name, text in {
        "1 MB without a space": letters[:MEGABYTE],
        "1 MB of one letter": "e" * MEGABYTE,
        "1 MB of random code points": "".join(map(chr, rng.choices(points, k=MEGABYTE // 3))),
        "1,000,000 random code points": "".join(map(chr, rng.choices(points, k=MEGABYTE))),
    }.items():
        seconds = statistics.median(timed(lambda t=text: Tokenizer(tokenizer.merges).encode(t)) for _ in range(3))
        table.add_row("encode, pathological", name, f"{seconds:.2f} s", "")


def shifted_stream(path: Path, megabytes: int) -> Iterator[str]:
    """Yield the file's lines again and again, its letters shifted by one more each time, so that its words are new."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    taken = shift = 0
    while True:
        change = str.maketrans(letters + letters.upper(), "".join(
            part[shift % 26 :] + part[: shift % 26] for part in (letters, letters.upper())
        ))  # fmt: skip
        for line in stream_texts([path]):
            yield line.translate(change)
            taken += len(line.encode())
            if taken >= megabytes * MEGABYTE:
                return
        shift += 1


def train_on_stream(path: Path, megabytes: int) -> None:
    seconds = timed(lambda: Tokenizer.train(shifted_stream(path, megabytes), VOCAB_SIZE))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the largest; two of them count
    print(json.dumps({"seconds": seconds, "own_mb": own / 1024, "each_child_mb": child / 1024}))


def bench_stream(path: Path, megabytes: int, table: Table) -> None:
    command = [sys.executable, __file__, str(path), "--stream-only", str(megabytes)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    total = found["own_mb"] + 2 * found["each_child_mb"]
    peaks = f"peaks {found['own_mb']:.0f} MB + 2 × {found['each_child_mb']:.0f} MB"
    row = (f"train on a {megabytes} MB stream", peaks, f"{total / 1024:.2f} GiB", f"{found['seconds']:.0f} s")
    table.add_row(*row)


def run_part(part: str, path: Path, folder: Path) -> Table:
    """Run one part of the benchmark; `folder` keeps the tokenizer that is trained in the first."""
    table = Table("work", "who", "result", "ratio")
    lines = first_megabytes(path, 20 * MEGABYTE)
    documents = [document for document in "".join(lines).split("\n\n") if document]
    if part == "training":
        bench_training(lines, table).save(folder)
    else:
        del lines
        bench_encoding(Tokenizer.load(folder), documents, table, folder)
        bench_pathological(Tokenizer.load(folder), documents, table)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="UTF-8 text, plain or .gz, of at least 20 MB")
    parser.add_argument("--stream", type=int, default=500, help="megabytes of the memory test; 0 leaves it out")
    parser.add_argument("--stream-only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stream_only:
        train_on_stream(args.text, args.stream_only)
        return
    if args.part:
        columns = [column._cells for column in run_part(args.part, args.text, args.folder).columns]
        print(json.dumps([*zip(*columns, strict=True)]))
        return
    table = Table("work", "who", "result", "ratio", title=f"20 MB of {args.text.name}, medians of {ROUNDS}")
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            command = [sys.executable, __file__, str(args.text), "--part", part, "--folder", folder]
            for row in json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout):
                table.add_row(*row)
    if args.stream:
        bench_stream(args.text, args.stream, table)
    console.print(table)


if __name__ == "__main__":
    main()
