"""One training loop for every task; pretraining.py and finetuning.py say what a step does. Prints nothing."""

import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor, nn

from weebill.checkpoint import (
    Checkpoint,
    load_optimizer,
    load_random_states,
    optimizer_tensors,
    part,
    prefixed,
    random_states,
)
from weebill.config import TrainingConfig
from weebill.dropout import drawing_from
from weebill.errors import ArtifactError, ConfigError, TrainingInterrupted
from weebill.freezing import parameter_groups, trainable_table
from weebill.micro_batches import Workers, grouped_by_length, shared_grad_norms
from weebill.precision import settled_precision
from weebill.schedule import warmup_cosine
from weebill.task import Batch, Event, OnEvent, Plan, Task, TrainingStopped


def fit(
    model: nn.Module,
    task: Task,
    settings: TrainingConfig,
    seed: int,
    on_event: OnEvent,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> Event:
    """Train `model` in place and leave it with the weights of its best evaluation on dev.

    Each step: learning rate, forward under autocast, sum of weighed losses, backward, clip, AdamW. Stops early after
    `patience` evaluations without a better score. What is drawn for a batch depends on the seed and the number of the
    step alone, dropout on torch's generator, which the checkpoint keeps: a run that goes on from it ends with the same
    bits as one that was never stopped.

    The batches of a step of several (`accumulation_steps`) are of similar length. On CPU they are computed side by
    side, on at most as many threads as torch has, each batch with random numbers of its own, and their gradients are
    summed in the batches' order, whichever ends first.

    Args:
        model: what `task.losses` gets; on the device and wrapped as accelerate sees fit.
        task: batches, losses and evaluation.
        settings: how long and how fast.
        seed: of everything random.
        on_event: gets {"event": "start" | "step" | "eval" | "end", …}; the display and the log listen here. A run that
            goes on sends the events of its first part again, marked "again".
        checkpoint: written at every evaluation, and after the step in which Ctrl-C is pressed.
        resume: go on from the checkpoint.

    Returns:
        The "end" event: steps, best step and its metrics, and under "timing" what differs from run to run.

    Raises:
        TrainingStopped: the loss or its gradient became NaN or infinite, or no dev score was finite.
        TrainingInterrupted: Ctrl-C.
        ArtifactError: no usable checkpoint to go on from.
        ConfigError: the checkpoint is of another recipe or other data, or the precision needs a GPU.
    """
    run = _Run(model, task, settings, seed, on_event, checkpoint)
    if resume:
        run.restore()
    else:
        run.emit({"event": "start", "table": list(trainable_table(run.groups)), "first_epochs": dict(task.first_epochs),
                  "fixed": sum(b.numel() for b in model.buffers()), "metric": task.metric,
                  "epochs": len(run.steps_by_epoch), "asked_epochs": settings.epochs,
                  "device": str(run.accelerator.device), "precision": run.accelerator.mixed_precision,
                  "asked_precision": settings.precision})  # fmt: skip
    with run.workers.open(), _interrupts() as interrupted:
        for epoch, plans, first in run.rest():
            if first == 0:
                model.eval()
                task.begin_epoch(epoch, _rng(seed, "begin", epoch))
            run.epoch = epoch
            run.train_mode()
            for start in range(first, len(plans), settings.accumulation_steps):
                run.take_step(plans[start : start + settings.accumulation_steps])
                if run.evaluation_is_due(run.step):
                    run.evaluate()
                    run.save()
                if interrupted():
                    run.save()
                    raise TrainingInterrupted(f"stopped after step {run.step} of {run.total_steps}"
                                              + ("; --resume goes on from there" if checkpoint else ""))  # fmt: skip
                if run.stale >= settings.patience:
                    break
    return run.finish()


class _Done(NamedTuple):
    """A batch of a step, its losses, and what it adds to the gradient of each parameter, if that is not added yet."""

    batch: Batch
    parts: dict[str, Tensor]
    loss: Tensor
    gradients: Sequence[Tensor | None]
    grad_norms: dict[str, float]


class _Run:
    """The state of a run, and the few things that change it."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        settings: TrainingConfig,
        seed: int,
        on_event: OnEvent,
        checkpoint: Checkpoint | None,
    ):
        set_seed(seed)
        self.raw, self.task, self.settings, self.seed = model, task, settings, seed
        self.on_event, self.checkpoint = on_event, checkpoint
        AcceleratorState._reset_state()  # else a second run in one process must have the first one's precision
        self.accelerator = Accelerator(
            mixed_precision=settled_precision(settings.precision), cpu=not torch.cuda.is_available()
        )
        self.groups = parameter_groups(model, settings)
        self.model, self.optimizer = self.accelerator.prepare(model, torch.optim.AdamW(self.groups, fused=True))
        self.side_by_side = self.accelerator.device.type == "cpu" and settings.accumulation_steps > 1
        self.workers = Workers(settings.accumulation_steps if self.side_by_side else 1)
        self.trained = list[nn.Parameter]()
        self.steps_by_epoch = [*self._steps_by_epoch()]
        self.total_steps = sum(self.steps_by_epoch)
        self.warmup_steps = max(1, int(self.total_steps * settings.warmup_fraction))
        self.eval_every = max(1, math.ceil(self.total_steps / settings.evals))
        self.step = self.stale = self.examples = 0
        self.epoch = 1
        self.best_step, self.best_metrics, self.best_value = 0, dict[str, float](), -math.inf
        self.best_weights = _copy_state(model)
        self.grad_norms: dict[str, float] = {}
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.events: list[Event] = []
        self.started, self.seconds_before = time.perf_counter(), 0.0

    def _steps_by_epoch(self) -> Iterator[int]:
        total = 0
        for epoch in count(1):
            plans = self.task.plan(epoch, _rng(self.seed, "plan", epoch))
            steps = math.ceil(len(plans) / self.settings.accumulation_steps)
            yield steps
            total += steps
            if epoch >= self.settings.epochs and (total >= self.settings.min_steps or not steps):
                return

    def rest(self) -> Iterator[tuple[int, Sequence[Plan], int]]:
        """Yield (epoch, its plans, the first plan still to do) from the current step on, until patience is out."""
        done = self.step
        for epoch, steps in enumerate(self.steps_by_epoch, start=1):
            if self.stale >= self.settings.patience:
                return
            if done < steps:
                yield epoch, self._plans(epoch), done * self.settings.accumulation_steps
            done = max(0, done - steps)

    def _plans(self, epoch: int) -> Sequence[Plan]:
        rng = _rng(self.seed, "plan", epoch)
        plans = self.task.plan(epoch, rng)
        if self.settings.accumulation_steps == 1:
            return plans
        order = grouped_by_length([self.task.length(plan) for plan in plans], self.settings.accumulation_steps, rng)
        return [plans[i] for i in order]

    def train_mode(self) -> None:
        self.model.train()
        self.task.freeze(self.epoch)
        self.trained = [p for p in self.raw.parameters() if p.requires_grad]

    def evaluation_is_due(self, step: int) -> bool:
        return step % self.eval_every == 0 or step == self.total_steps

    def take_step(self, plans: Sequence[Plan]) -> None:
        settings = self.settings
        share = warmup_cosine(self.step, self.total_steps, self.warmup_steps, settings.final_fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
        first = self.step * settings.accumulation_steps
        numbers = range(first, first + len(plans))
        with self.workers.step():
            computed = self.workers.map(partial(self._compute, numbers), plans, numbers)
            for plan, done in zip(plans, computed, strict=True):
                if not torch.isfinite(done.loss):
                    self._stop("loss", done.loss, plan, done.batch)
                self._add(plan, done)
            norm = self.accelerator.clip_grad_norm_(self.raw.parameters(), settings.max_grad_norm)
            if self.accelerator.scaler is None and not torch.isfinite(norm):  # a scaler skips the step, and scales less
                self._stop("gradient", norm, plan, done.batch)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % 10 == 0:
            self.on_event({"event": "step", "step": self.step, "total_steps": self.total_steps,
                           "loss": float(done.loss)})  # fmt: skip

    def _add(self, plan: Plan, done: _Done) -> None:
        """Add a batch to the gradients and to what the next evaluation says of the losses."""
        for parameter, gradient in zip(self.trained, done.gradients, strict=False):
            if gradient is not None:  # a clone, as two parameters may have been given one tensor
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)
        for name, value in done.parts.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.examples += len(plan.rows)
        self.grad_norms = done.grad_norms

    def _compute(self, step: range, plan: Plan, number: int) -> _Done:
        """Compute the losses of a batch, one of a `step` of such numbers, and its share of the gradient."""
        batch = self.task.collate(plan, _rng(self.seed, "batch", number))
        draws = drawing_from(_generator(self.seed, number)) if self.side_by_side else nullcontext()
        with draws, self.accelerator.autocast():
            parts = self.task.losses(self.model, plan, {k: v.to(self.accelerator.device) for k, v in batch.items()})
            weighed = self.task.weigh(parts)
            loss = torch.stack(list(weighed.values())).sum()
        norms = dict[str, float]()
        if number == step[-1] and len(weighed) > 1 and self.evaluation_is_due(self.step + 1):
            norms = shared_grad_norms(weighed, self.trained)
        gradients: Sequence[Tensor | None] = ()
        if loss.requires_grad:  # not where all that the batch could teach is frozen
            if self.side_by_side:
                gradients = torch.autograd.grad(loss / len(step), self.trained, allow_unused=True)
            else:
                self.accelerator.backward(loss / len(step))
        return _Done(batch, {name: value.detach() for name, value in parts.items()}, loss.detach(), gradients, norms)

    def _stop(self, what: str, value: Tensor, plan: Plan, batch: Batch) -> NoReturn:
        raise TrainingStopped(f"expected a finite {what}, got {value.item()} at step {self.step + 1} (data set "
                              f"{plan.source}, rows {plan.rows.tolist()}); lower training.learning_rate or set "
                              f"training.precision to no", self.raw, self._best(), batch)  # fmt: skip

    def evaluate(self) -> None:
        self.raw.eval()
        metrics = self.task.evaluate()
        self.train_mode()
        value = metrics[self.task.metric]
        improved = value > self.best_value or value == self.best_value == 0  # nothing right yet: still beginning
        improved = improved and all(map(math.isfinite, metrics.values()))
        self.stale = 0 if improved else self.stale + 1
        if improved:
            self.best_step, self.best_metrics, self.best_value = self.step, metrics, value
            self.best_weights = _copy_state(self.raw)
        losses = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        share = warmup_cosine(self.step - 1, self.total_steps, self.warmup_steps, self.settings.final_fraction)
        self.emit({"event": "eval", "step": self.step, "total_steps": self.total_steps, "best": improved,
                   "losses": losses, "grad_norms": self.grad_norms, "metrics": metrics,
                   "learning_rate": self.settings.learning_rate * share,
                   "timing": {"seconds": self.seconds(), "examples_per_s": self.examples / self.seconds()},
                   })  # fmt: skip

    def finish(self) -> Event:
        end = self._best()
        if self.best_step == 0:
            raise TrainingStopped(
                f"expected finite dev scores, got none at any evaluation up to step {self.step}; "
                f"lower training.learning_rate or set training.precision to no",
                self.raw,
                end,
                {},
            )
        self.emit(end)
        return end

    def _best(self) -> Event:
        """Put the best weights in place, out of autocast, and return the end event."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.raw.load_state_dict(self.best_weights)
        self.raw.eval()
        return {"event": "end", "steps": self.step, "best_step": self.best_step, "metric": self.task.metric,
                "metrics": self.best_metrics, "timing": {"seconds": self.seconds()}}  # fmt: skip

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def save(self) -> None:
        if self.checkpoint is None:
            return
        tensors = {
            **prefixed("weights", self.raw.state_dict()),
            **prefixed("best", self.best_weights),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
            **prefixed("random", random_states()),
            **prefixed("sums", self.sums),
            **prefixed("task", self.task.state()),
        }
        scaler = self.accelerator.scaler
        state = {
            "step": self.step, "stale": self.stale, "examples": self.examples, "counts": self.counts,
            "best_step": self.best_step, "best_metrics": self.best_metrics, "best_value": self.best_value,
            "events": self.events, "seconds": self.seconds(), "scaler": scaler.state_dict() if scaler else None,
        }  # fmt: skip
        self.checkpoint.write(tensors, state)

    def restore(self) -> None:
        if self.checkpoint is None:
            raise ConfigError("resume: expected a checkpoint to go on from, got none; give fit one")
        tensors, state = self.checkpoint.read()
        try:
            self._set(tensors, state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"{self.checkpoint.path}: expected the state of this run, got a damaged one: "
                                f"{error!r}; delete it and start again") from error  # fmt: skip
        for event in self.events:
            if event["event"] == "start":  # perhaps on another machine
                event["precision"] = self.accelerator.mixed_precision
            self.on_event(event | {"again": True})

    def _set(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.raw.load_state_dict(part(tensors, "weights"))
        self.best_weights = part(tensors, "best")
        load_optimizer(self.optimizer, part(tensors, "optimizer"))
        load_random_states(part(tensors, "random"))
        self.sums = {name: t.to(self.accelerator.device) for name, t in part(tensors, "sums").items()}
        self.task.load_state(part(tensors, "task"))
        self.step, self.stale, self.examples = state["step"], state["stale"], state["examples"]
        self.counts, self.seconds_before = state["counts"], state["seconds"]
        self.best_step, self.best_metrics = state["best_step"], state["best_metrics"]
        self.best_value = state["best_value"]
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.events = state["events"]


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed once; pressed again, it interrupts at once."""
    pressed = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _rng(seed: int, purpose: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), number])


def _generator(seed: int, number: int) -> torch.Generator:
    """Return where the dropout of a batch draws from, when several are computed at once."""
    return torch.Generator().manual_seed(int(_rng(seed, "dropout", number).integers(2**63)))


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}
