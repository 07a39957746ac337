"""Forked processes that compute batches of a step beside this one, on the same weights. Knows no tasks.

Two threads of one Python process wait for each other between the small products of a compact model; two processes do
not. A forked one knows all that this one knew then, so little has to be told: which batch. Weights lie in memory that
both see, and so do the gradients that come back.
"""

import mmap
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from weebill.errors import ConfigError

_ALIGNED_BYTES = 64  # a cache line


class Computed(NamedTuple):
    """A batch's losses and what it adds to the gradient of each parameter, if that is not added yet."""

    parts: dict[str, Tensor]
    loss: Tensor
    gradients: Sequence[Tensor | None]
    grad_norms: dict[str, float]


Compute = Callable[..., Computed]


def can_fork() -> bool:
    """Return whether this process may fork others: macOS's libraries do not bear it, and Windows has no such thing."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def shared_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of the same shapes, all zeros, in memory that forked processes share.

    It is no file in /dev/shm, which is small in a container.
    """
    sizes = [-(-t.numel() * t.element_size() // _ALIGNED_BYTES) * _ALIGNED_BYTES for t in tensors]
    memory, shared, offset = mmap.mmap(-1, sum(sizes) + _ALIGNED_BYTES), [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        if size:
            flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
            shared.append(flat.view(tensor.shape))
        else:
            shared.append(torch.empty_like(tensor))
        offset += size
    return shared


@contextmanager
def shared_weights(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """In this block the parameters lie in shared memory: what one process makes of them all see."""
    for parameter, shared in zip(parameters, shared_like(parameters), strict=True):
        parameter.data = shared.copy_(parameter.data)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.data = parameter.data.clone()


class Processes:
    """Processes forked from this one, which compute every batch of a step but its own: its first one, and so on.

    Args:
        count: of processes, this one included.
        batches: of a step.
        compute: the losses and gradients of a batch, as this process knows it now.
        trained: the parameters that have gradients.
    """

    def __init__(self, count: int, batches: int, compute: Compute, trained: Sequence[nn.Parameter]):
        self._compute = compute
        self._gradients = [shared_like(trained) if number % count else [] for number in range(batches)]
        self._ends = list[Connection]()
        self._children = list[Any]()
        context = multiprocessing.get_context("fork")
        for _ in range(count - 1):
            ours, theirs = context.Pipe()
            self._ends.append(ours)
            child = context.Process(target=self._serve, args=(theirs,), daemon=True)
            with warnings.catch_warnings():  # Python 3.12 warns of other threads; the child needs none of their locks
                warnings.simplefilter("ignore", DeprecationWarning)
                child.start()
            theirs.close()
            self._children.append(child)

    def map(self, work: Sequence[tuple[Any, ...]]) -> Iterator[Computed]:
        """Yield what `compute` returns for the arguments of each batch of a step, in their order.

        Raises:
            ConfigError: a process ended, as where memory is short.
        """
        count = len(self._ends) + 1
        for number, given in enumerate(work):
            if number % count:
                self._ends[number % count - 1].send((number, given))
        for number, given in enumerate(work):
            yield self._receive(number % count - 1, number) if number % count else self._compute(*given)

    def _receive(self, child: int, number: int) -> Computed:
        try:
            answer = self._ends[child].recv()
        except (EOFError, ConnectionResetError) as error:
            self._children[child].join()
            raise ConfigError(
                f"a process that computed batches ended (exit code {self._children[child].exitcode}), often for lack "
                f"of memory; lower training.batch_size, or set training.accumulation_steps to 1"
            ) from error
        if isinstance(answer, BaseException):
            raise answer
        parts, loss, has_gradient, grad_norms = answer
        shared = self._gradients[number]
        gradients = [shared[i] if has else None for i, has in enumerate(has_gradient)]
        return Computed({k: torch.tensor(v) for k, v in parts.items()}, torch.tensor(loss), gradients, grad_norms)

    def _serve(self, end: Connection) -> None:
        """Compute batches as they are asked for, until the other end is closed, as it is when that process dies."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains
        for ours in self._ends:
            ours.close()
        try:
            while (asked := end.recv()) is not None:
                try:
                    number, given = asked
                    done = self._compute(*given)
                    for shared, gradient in zip(self._gradients[number], done.gradients, strict=False):
                        if gradient is not None:
                            shared.copy_(gradient)
                    has_gradient = [gradient is not None for gradient in done.gradients]
                    parts = {name: value.item() for name, value in done.parts.items()}
                    end.send((parts, done.loss.item(), has_gradient, done.grad_norms))
                except Exception as error:  # noqa: BLE001  raised by the other process
                    error.add_note(traceback.format_exc())
                    end.send(error)
        except (EOFError, OSError):
            pass
        os._exit(0)  # nothing of what the other process has open is this one's to flush or remove

    def close(self) -> None:
        """End the processes."""
        for end in self._ends:
            end.close()
        for child in self._children:
            child.join(timeout=5)
            if child.is_alive():
                child.kill()
                child.join()
