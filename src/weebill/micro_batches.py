"""The batches of one optimizer step (micro-batches): which go together, how they run side by side. Knows no tasks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WINDOW = 16


def grouped_by_length(lengths: Sequence[int], per_step: int, rng: np.random.Generator) -> list[int]:
    """Return an order of an epoch's batches in which those of a step are of similar length: none waits for the others.

    Batches drawn at random for `WINDOW` steps are sorted by length and dealt to them; what makes no whole step is drawn
    at random too, and comes last.

    Args:
        lengths: of each batch.
        per_step: batches of a step.
        rng: decides which are drawn together, and the order of the steps.
    """
    order_N = rng.permutation(len(lengths))
    whole = len(lengths) // per_step * per_step
    steps = list[list[int]]()
    for start in range(0, whole, per_step * WINDOW):
        drawn = sorted(order_N[start : min(whole, start + per_step * WINDOW)].tolist(), key=lambda i: lengths[i])
        steps += [drawn[i : i + per_step] for i in range(0, len(drawn), per_step)]
    rng.shuffle(steps)
    return [i for step in [*steps, order_N[whole:].tolist()] for i in step]


class Workers:
    """Threads for the batches of a step, which share the cores; without threads where there is one batch, or one core.

    A core gets more done with a batch of its own than with its part of every small product.

    Attributes:
        map: as the builtin, in the order given; on the threads, if there are any.
    """

    def __init__(self, batches: int):
        self._cores = torch.get_num_threads()
        count = min(batches, self._cores)
        self._share = self._cores // count
        self._pool = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(self._share,))
        self.map: Callable[..., Iterable[Any]] = self._pool.map if self._pool else map

    @contextmanager
    def open(self) -> Iterator[None]:
        """End the threads after the block."""
        try:
            yield
        finally:
            if self._pool:
                self._pool.shutdown()

    @contextmanager
    def step(self) -> Iterator[None]:
        """In this block torch leaves the cores to the workers, where the optimizer's threads would wait for work."""
        torch.set_num_threads(self._share)
        try:
            yield
        finally:
            torch.set_num_threads(self._cores)


def shared_grad_norms(losses: dict[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Return how strongly each loss pulls at the parameters that all of them reach: the norm of its gradient there."""
    if not all(loss.requires_grad for loss in losses.values()):
        return {}
    gradients = [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses.values()
    ]
    shared = [i for i in range(len(parameters)) if all(of_loss[i] is not None for of_loss in gradients)]
    return {
        name: float(torch.nn.utils.get_total_norm([of_loss[i] for i in shared]))
        for name, of_loss in zip(losses, gradients, strict=True)
        if shared
    }
