"""The batches of one optimizer step (micro-batches): which go together, how they run side by side. Knows no tasks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weebill.processes import Compute, Computed, Processes, can_fork, shared_weights

WINDOW = 16
Work = tuple[Any, ...]


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
    """Processes or threads for the batches of a step, which share the cores; neither where there is one batch, or core.

    A core gets more done with a batch of its own than with its part of every small product. Processes, where they can
    be had and each has one core; threads of one process wait for each other half of the time, but may have several.
    """

    def __init__(self, batches: int):
        self._cores = torch.get_num_threads()
        self._batches, self._count = batches, min(batches, self._cores)
        self._share = self._cores // self._count
        self._forks = self._count > 1 and self._share == 1 and can_fork()
        self._map: Callable[[Sequence[Work]], Iterable[Computed]] | None = None
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def open(self, model: nn.Module) -> Iterator[None]:
        """Make ready for the steps in the block; they may come in several epochs."""
        with ExitStack() as stack:
            if self._forks:
                stack.enter_context(shared_weights([*model.parameters()]))
            elif self._count > 1:
                pool = ThreadPoolExecutor(self._count, initializer=torch.set_num_threads, initargs=(self._share,))
                self._pool = stack.enter_context(pool)
            yield

    @contextmanager
    def epoch(self, compute: Compute, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """In this block batches are computed by `compute` as it is now; `trained` are what it returns gradients of."""
        if self._forks:
            with self.step():  # a process has as many threads as the one that it is forked from
                processes = Processes(self._count, self._batches, compute, trained)
            self._map, close = processes.map, processes.close
        else:
            over = self._pool.map if self._pool else map
            self._map, close = lambda step: over(lambda work: compute(*work), step), lambda: None
        try:
            yield
        finally:
            close()

    def map(self, step: Sequence[Work]) -> Iterable[Computed]:
        """Yield what `compute` returns for the arguments of each batch of a step, in their order."""
        assert self._map is not None, "in epoch() alone"
        return self._map(step)

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
