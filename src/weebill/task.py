"""What a task tells the training loop: its batches, losses and dev score, as functions. Trains nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from safetensors.torch import save
from torch import Tensor, nn

from weebill import data
from weebill.errors import DataError

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
Batch = dict[str, Tensor]


class Plan(NamedTuple):
    """The rows of one batch, and the data set they are of."""

    source: int
    rows: data.Ints


@dataclass(frozen=True)
class Task:
    """What a run does in each step, as functions; the loop knows nothing else of it.

    Attributes:
        plan: epoch (from 1) -> its batches; the same for the same generator state, whatever was trained before.
        collate: the rows of a batch -> its tensors.
        losses: the named losses of a batch.
        evaluate: scores on dev, more = better.
        metric: the score that chooses the best weights.
        begin_epoch: called before each epoch, with its number.
        state: what begin_epoch decided, for a checkpoint.
        load_state: sets what `state` returned.
        weigh: the losses -> what each adds to the sum that is minimised.
        first_epochs: parts that do not train from the first epoch on, for the display; None = never.
        length: about how many tokens the longest row of a batch has; batches of one step have similar ones.
        freeze: called whenever training begins or goes on, with the epoch: stills what does not train then.
    """

    plan: Callable[[int, np.random.Generator], Sequence[Plan]]
    collate: Callable[[Plan, np.random.Generator], Batch]
    losses: Callable[[nn.Module, Plan, Batch], dict[str, Tensor]]
    evaluate: Callable[[], dict[str, float]]
    metric: str
    begin_epoch: Callable[[int, np.random.Generator], None] = lambda epoch, rng: None
    state: Callable[[], dict[str, Tensor]] = dict
    load_state: Callable[[dict[str, Tensor]], None] = lambda state: None
    weigh: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda losses: losses
    first_epochs: Mapping[str, int | None] = field(default_factory=dict)
    length: Callable[[Plan], int] = lambda plan: 0
    freeze: Callable[[int], None] = lambda epoch: None


class TrainingStopped(DataError):
    """The loss is not a finite number any more, or the dev scores never were.

    `model` has the weights of its best evaluation, `end` is the end event up to there, `batch` what the loss was of; {}
    where it is not the loss.
    """

    def __init__(self, message: str, model: nn.Module, end: Event, batch: Batch):
        super().__init__(message)
        self.model, self.end, self.batch = model, end, batch

    def add(self, what: str) -> None:
        """Say more in the message."""
        self.args = (f"{self}; {what}",)

    def batch_bytes(self) -> bytes:
        """Return the batch as a safetensors file."""
        return save({name: t.cpu().contiguous() for name, t in self.batch.items()})
