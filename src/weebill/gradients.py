"""How the batches of a step come to their gradients: which they are, how they are computed side by side, and which loss
pulls how hard. Knows no tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def alike_in_steps(lengths: Sequence[int], batches: int, rng: np.random.Generator) -> list[int]:
    """Return an order of an epoch's batches in which those of a step are alike in length: none waits for the others.

    Args:
        lengths: of each batch.
        batches: per step.
        rng: the order of the steps; what makes no whole step comes last.

    Example:
        >>> order = alike_in_steps([9, 3, 8, 4, 3], 2, np.random.default_rng(0))
        >>> sorted(map(sorted, (order[:2], order[2:4])))
        [[1, 4], [2, 3]]
    """
    by_length_N = np.argsort(lengths, kind="stable")
    whole = len(lengths) // batches * batches
    steps_SK = by_length_N[:whole].reshape(-1, batches)
    rng.shuffle(steps_SK)
    return [*steps_SK.ravel().tolist(), *by_length_N[whole:].tolist()]


@contextmanager
def threads(side_by_side: bool, batches: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield what maps a function over the batches of a step: on threads that share the cores, if there are several."""
    cores = torch.get_num_threads()
    count = min(batches, cores) if side_by_side else 1
    if count == 1:
        yield map
        return
    share = cores // count
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            torch.set_num_threads(share)  # else the optimizer's threads hold cores that the batches need
            yield pool.map
    finally:
        torch.set_num_threads(cores)


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
