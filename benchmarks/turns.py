"""Peers timed in turns, so that a slow moment of the machine hits all of them. Prints nothing but its progress."""

import statistics
import time
from collections.abc import Callable

from rich.progress import track

ROUNDS = 5


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def take_turns(calls: dict[str, Callable[[], object]], label: str) -> dict[str, float]:
    """Return the median seconds of each call over ROUNDS rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in track(range(ROUNDS), description=label, transient=True):
        for name, call in calls.items():
            seconds[name].append(timed(call))
    return {name: statistics.median(values) for name, values in seconds.items()}
