"""The server under load: requests/s, p50 and p99 at 1, 16 and 128 clients; every answer is compared with the right one.

python benchmarks/server.py [MODEL] [--seconds N]                              (or: make bench-server MODEL=folder)

Starts `weebill serve MODEL` as a process of its own on the loopback interface. Each client keeps one connection and
sends one text after the other to /model/parse, the next as soon as the answer is there. The clients share the machine
with the server, in one process with a light client of their own (http_load.py), so the figures are those of both.

An answer is lost when none comes; mixed up when it is about another text; wrong when intent or entities are not those
that `weebill.load(MODEL).parse` gives for that text alone. Any of them makes the exit code 1.
"""

import argparse
import asyncio
import contextlib
import itertools
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import numpy as np
from http_load import Connection
from rich.console import Console
from rich.table import Table

import weebill
from weebill import Prediction, templates

CLIENTS = (1, 16, 128)
console = Console(width=100)


@contextlib.contextmanager
def served(model: Path) -> Iterator[tuple[str, int, int]]:
    """Run the server; yield its host, its port and the number of its process."""
    command = [sys.executable, "-m", "weebill", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r"http://([\d.]+):(\d+)", line)
        if address is None:
            sys.exit(line + process.stderr.read())
        # A pipe that nobody empties holds 64 KB of log; then the server stops in the middle of writing a line.
        Thread(target=drain, args=(process.stderr,), daemon=True).start()
        try:
            yield address[1], int(address[2]), process.pid
        finally:
            process.terminate()


def drain(stream: Iterator[str]) -> None:
    with contextlib.suppress(ValueError):  # closed
        deque(stream, maxlen=0)


@dataclass
class Tally:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    mixed_up: int = 0
    wrong: int = 0

    def count(self, expected: Prediction, status: int, answer: dict) -> None:
        if status != 200:
            self.lost += 1
        elif answer["text"] != expected.text:
            self.mixed_up += 1
        else:
            found = [(e["start"], e["end"], e["entity"]) for e in answer["entities"]]
            same = found == [(e.start, e.end, e.label) for e in expected.entities]
            self.wrong += not (same and answer["intent"]["name"] == expected.intent)


async def client(address: tuple[str, int], expected: Iterator[Prediction], until: float, tally: Tally) -> None:
    connection = Connection(*address)
    while time.perf_counter() < until:
        right = next(expected)
        started = time.perf_counter()
        try:
            status, answer = await connection.post("/model/parse", {"text": right.text})
        except (OSError, asyncio.IncompleteReadError):
            tally.lost += 1
            continue
        tally.seconds.append(time.perf_counter() - started)
        tally.count(right, status, answer)
    connection.close()


async def batches(address: tuple[str, int]) -> tuple[float, float]:
    """Return how many texts went to the model in how many passes."""
    metrics = (await Connection(*address).ask("GET", "/metrics"))[1].decode()
    texts, passes = (re.search(rf"^weebill_batch_texts_{k} (\S+)", metrics, re.M) for k in ("sum", "count"))
    assert texts is not None and passes is not None
    return float(texts[1]), float(passes[1])


async def load(
    address: tuple[str, int], expected: Sequence[Prediction], clients: int, seconds: float
) -> tuple[Tally, float]:
    """Return what the clients saw, and how many texts shared a pass."""
    tally, endless = Tally(), itertools.cycle(expected)
    before = await batches(address)
    until = time.perf_counter() + seconds
    await asyncio.gather(*(client(address, endless, until, tally) for _ in range(clients)))
    texts, passes = (b - a for a, b in zip(before, await batches(address), strict=True))
    return tally, texts / passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=Path("runs/demo/model"))
    parser.add_argument("--seconds", type=float, default=10.0, help="per number of clients")
    arguments = parser.parse_args()
    predictor = weebill.load(arguments.model)
    expected = [predictor(u.text) for u in templates.generate()[1]]
    table = Table("clients", "requests/s", "p50 ms", "p99 ms", "texts a pass", "answers", "lost", "mixed up", "wrong",
                  title=f"weebill serve {arguments.model}, /model/parse")  # fmt: skip
    failures = 0
    with served(arguments.model) as (*address, _):
        asyncio.run(load(address, expected, 16, 1.0))  # warm
        for clients in CLIENTS:
            tally, texts_a_pass = asyncio.run(load(address, expected, clients, arguments.seconds))
            p50, p99 = 1000 * np.percentile(tally.seconds, (50, 99))
            table.add_row(str(clients), f"{len(tally.seconds) / arguments.seconds:,.0f}", f"{p50:.1f}", f"{p99:.1f}",
                          f"{texts_a_pass:.1f}", f"{len(tally.seconds):,}", str(tally.lost), str(tally.mixed_up),
                          str(tally.wrong))  # fmt: skip
            failures += tally.lost + tally.mixed_up + tally.wrong
    console.print(table)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
