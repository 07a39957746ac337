"""Five minutes of good and hostile requests to a server, and of models loaded and dropped; prints how memory grows.

python benchmarks/soak.py [MODEL] [--minutes N]                                        (or: make soak MODEL=folder)
python benchmarks/soak.py [MODEL] --loads 10000                        (or: make soak MODEL=folder ARGS="--loads 10000")

Good clients send texts that never repeat and compare what comes back with what they sent. Hostile ones send bodies of
10 MB, 100,000 texts, JSON that ends too early, surrogates, token ids, requests that break off, and connections that say
nothing. Beside them a process of its own loads the model, reads texts and drops it, over and over. With --loads there
is no server: the model is loaded, reads 64 texts and is dropped so many times.

Memory is what the operating system counts as resident, after a warm-up, then in ten equal parts. What the tokenizer
remembers of words is bounded; until the bound is reached memory grows by it. Exit code 1: an answer was lost or wrong,
the server died, answered 500 or no more, or the last half grew by more than MAX_GROWTH of the first.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from http_load import Connection
from rich.console import Console
from rich.table import Table
from server import served

import weebill
from weebill import templates

PARTS = 10
MAX_GROWTH = 0.1
PATIENCE = 60  # seconds for the last answers
MB = 2**20
HOSTILE: dict[str, Callable[[], bytes]] = {
    "10 MB": lambda: b" " * 10_000_000,
    "100,000 texts": lambda: json.dumps({"inputs": ["a"] * 100_000}).encode(),
    "half a JSON": lambda: b'{"inputs": ["a", ',
    "surrogates": lambda: b'{"inputs": "\\ud83d"}',
    "token ids": lambda: b'{"inputs": [[1, 2, 3]]}',
    "nested": lambda: b"[" * 100_000,
    "long text": lambda: json.dumps({"inputs": "a" * 10_001}).encode(),
}

BROKEN_OFF = (b"", b"\x16\x03", b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")


def fresh_texts() -> Iterator[str]:
    """Yield utterances that never repeat, with words that no tokenizer has met."""
    texts = [u.text for u in templates.generate()[1]]
    for i, text in enumerate(itertools.cycle(texts)):
        yield f"{text} q{i:x}z" if i % 3 else f"{text} 🎵{i}"


async def good(address: tuple[str, int], texts: Iterator[str], until: float, seen: Counter[str]) -> None:
    connection = Connection(*address)
    while time.monotonic() < until:
        text = next(texts)
        status, answer = await connection.post("/model/parse", {"text": text})
        right = status == 200 and answer["text"] == text
        status, answer = await connection.post("/v1/embeddings", {"input": [text] * 3})
        vectors = [row["embedding"] for row in answer["data"]] if status == 200 else []
        right &= len(vectors) == 3 and np.allclose(vectors, vectors[0], atol=1e-5)  # not of one pass: last bits differ
        status, answer = await connection.post("/inspect", {"text": text, "offsets": "utf16"})
        right &= status == 200 and answer["parse"]["text"] == text
        seen["good requests"] += 3
        seen["wrong"] += not right


async def hostile(address: tuple[str, int], until: float, seen: Counter[str]) -> None:
    for name, make in itertools.cycle(HOSTILE.items()):
        if time.monotonic() > until:
            return
        status, _ = await Connection(*address).ask("POST", "/embed", make())
        seen[f"{name}: {status}"] += 1
        seen["wrong"] += not 400 <= status < 500
        _, writer = await asyncio.open_connection(*address)
        writer.write(BROKEN_OFF[seen["broken off"] % len(BROKEN_OFF)])
        await asyncio.sleep(0.05)
        writer.close()
        seen["broken off"] += 1


async def watch(pids: dict[str, int], seconds: float, memory: list[dict[str, float]]) -> None:
    for _ in range(PARTS):
        await asyncio.sleep(seconds / PARTS)
        memory.append({name: psutil.Process(pid).memory_info().rss / MB for name, pid in pids.items()})


async def soak(
    address: tuple[str, int], pids: dict[str, int], seconds: float
) -> tuple[Counter[str], list[dict[str, float]]]:
    """Return what the clients saw, and the memory of each process in each part."""
    seen: Counter[str] = Counter()
    memory: list[dict[str, float]] = []
    until, texts = time.monotonic() + seconds, fresh_texts()
    async with asyncio.timeout(seconds + PATIENCE):
        await asyncio.gather(
            *(good(address, texts, until, seen) for _ in range(8)),
            *(hostile(address, until, seen) for _ in range(2)),
            watch(pids, seconds, memory),
        )
    return seen, memory


def load_and_drop(model: Path, done: Any) -> None:
    """Load the model, read with it and drop it, until somebody ends this process; `done` counts."""
    texts = fresh_texts()
    while True:
        predictor = weebill.load(model)
        predictor.parse([next(texts) for _ in range(64)])
        del predictor
        gc.collect()
        done.value += 1


@contextlib.contextmanager
def loading(model: Path) -> Iterator[tuple[int, Any]]:
    """Run `load_and_drop` as a process; yield its id and how often it has loaded the model."""
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    process = context.Process(target=load_and_drop, args=(model, done), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid, done
    finally:
        process.terminate()


def soak_loads(model: Path, loads: int) -> list[dict[str, float]]:
    """Return the memory of a process at ten places of so many loads; what comes before the first is the warm-up."""
    memory = []
    with loading(model) as (pid, done):
        for part in range(PARTS + 1):
            while done.value < loads * (part + 1) // (PARTS + 1):
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    raise RuntimeError(f"the process that loads ended after {done.value} loads")
                time.sleep(0.02)
            if part:
                memory.append({"load and drop": psutil.Process(pid).memory_info().rss / MB})
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=Path("runs/demo/model"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--loads", type=int, help="only load and drop the model so many times, no server")
    arguments = parser.parse_args()
    seconds = 60 * arguments.minutes
    if arguments.loads:
        seen = Counter({"loads": arguments.loads})
        sys.exit(show(seen, soak_loads(arguments.model, arguments.loads)))
    with served(arguments.model) as (host, port, server_pid), loading(arguments.model) as (loading_pid, done):
        pids = {"server": server_pid, "load and drop": loading_pid}
        asyncio.run(soak((host, port), pids, seconds / PARTS))  # warm
        before = done.value
        seen, memory = asyncio.run(soak((host, port), pids, seconds))
        seen["loads"] = done.value - before
    sys.exit(show(seen, memory))


def show(seen: Counter[str], memory: list[dict[str, float]]) -> bool:
    """Print what was seen and the memory; return whether something is wrong."""
    console = Console(width=100)
    console.print(", ".join(f"{name} {count:,}" for name, count in sorted(seen.items())), highlight=False)
    table = Table("process", *(f"{i + 1}" for i in range(PARTS)), "growth of the last half", title="resident MB")
    failed = seen["wrong"] > 0
    for name in memory[0]:
        row = [part[name] for part in memory]
        growth = row[-1] / row[PARTS // 2 - 1] - 1
        failed |= growth > MAX_GROWTH
        table.add_row(name, *(f"{value:.0f}" for value in row), f"{growth:+.1%}")
    console.print(table)
    return failed


if __name__ == "__main__":
    main()
