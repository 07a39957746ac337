"""One training loop, and fine-tuning as a task for it (pretraining.py is the other). Prints nothing."""

import dataclasses
import hashlib
import json
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from weebill import data, losses
from weebill.backend import TorchBackend
from weebill.config import EncoderConfig, FinetuneRecipe, Recipe, TrainingConfig
from weebill.errors import ConfigError, DataError
from weebill.evaluate import evaluate
from weebill.freezing import parameter_groups, trainable_table
from weebill.multitask import MultiTaskModel
from weebill.predictor import Predictor
from weebill.schedule import warmup_cosine
from weebill.schema import Utterance
from weebill.sent_transformer import SentenceTransformer
from weebill.tags import MISSING, tag_vocabulary
from weebill.tokenizer import Tokenizer

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
        losses: the named losses of a batch; their sum is minimised.
        evaluate: scores on dev, more = better.
        metric: the score that chooses the best weights.
        begin_epoch: called before each epoch, with its number.
    """

    plan: Callable[[int, np.random.Generator], Sequence[Plan]]
    collate: Callable[[Plan, np.random.Generator], Batch]
    losses: Callable[[nn.Module, Plan, Batch], dict[str, Tensor]]
    evaluate: Callable[[], dict[str, float]]
    metric: str
    begin_epoch: Callable[[int, np.random.Generator], None] = lambda epoch, rng: None


class TrainingStopped(DataError):
    """The loss is not a finite number any more."""


def fit(model: nn.Module, task: Task, settings: TrainingConfig, seed: int, on_event: OnEvent) -> Event:
    """Train `model` in place and leave it with the weights of its best evaluation on dev.

    Each step: learning rate, forward under autocast, sum of the loss parts, backward, clip, AdamW. Stops early after
    `patience` evaluations without a better score. What is drawn for a batch depends on the seed and the number of the
    step alone.

    Args:
        model: what `task.losses` gets; on the device and wrapped as accelerate sees fit.
        task: batches, losses and evaluation.
        settings: how long and how fast.
        seed: of everything random.
        on_event: gets {"event": "start" | "step" | "eval" | "end", …}; the display and the log listen here.

    Returns:
        The "end" event: steps, seconds, best step and its metrics.

    Raises:
        TrainingStopped: the loss became NaN or infinite; the best weights so far are in place.
    """
    set_seed(seed)
    accelerator = Accelerator(mixed_precision=_precision(settings.precision), cpu=not torch.cuda.is_available())
    groups = parameter_groups(model, settings)
    on_event({"event": "start", "table": list(trainable_table(groups)), "metric": task.metric,
              "device": str(accelerator.device), "precision": accelerator.mixed_precision})  # fmt: skip
    raw = model
    optimizer = torch.optim.AdamW(groups, fused=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    epochs, per_step = range(1, settings.epochs + 1), settings.accumulation_steps
    total_steps = sum(math.ceil(len(task.plan(e, _rng(seed, "plan", e))) / per_step) for e in epochs)
    warmup_steps = max(1, int(total_steps * settings.warmup_fraction))
    eval_every = max(1, math.ceil(total_steps / settings.evals))
    best: dict[str, Any] = {"step": 0, "metrics": {}, "value": -math.inf, "state": _copy_state(raw)}
    stale, step, examples, started = 0, 0, 0, time.perf_counter()
    means = _Means()
    for epoch in epochs:
        raw.eval()
        task.begin_epoch(epoch, _rng(seed, "begin", epoch))
        model.train()
        plans = task.plan(epoch, _rng(seed, "plan", epoch))
        for start in range(0, len(plans), per_step):
            share = warmup_cosine(step, total_steps, warmup_steps, settings.final_fraction)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * share
            chosen = plans[start : start + per_step]
            for part, plan in enumerate(chosen):
                batch = task.collate(plan, _rng(seed, "batch", step * per_step + part))
                with accelerator.autocast():
                    parts = task.losses(model, plan, {k: v.to(accelerator.device) for k, v in batch.items()})
                    loss = torch.stack(list(parts.values())).sum()
                if not torch.isfinite(loss):
                    raw.load_state_dict(best["state"])
                    raise TrainingStopped(
                        f"expected a finite loss, got {loss.item()} at step {step + 1} (data set {plan.source}, rows "
                        f"{plan.rows.tolist()}); lower training.learning_rate or set training.precision to no"
                    )
                accelerator.backward(loss / len(chosen))
                means.add(parts)
                examples += len(plan.rows)
            accelerator.clip_grad_norm_(raw.parameters(), settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 10 == 0:
                on_event({"event": "step", "step": step, "total_steps": total_steps, "loss": float(loss.detach())})
            if step % eval_every == 0 or step == total_steps:
                raw.eval()
                metrics = task.evaluate()
                model.train()
                stale, improved = stale + 1, metrics[task.metric] > best["value"]
                if improved:
                    stale = 0
                    best = {"step": step, "metrics": metrics, "value": metrics[task.metric], "state": _copy_state(raw)}
                on_event({"event": "eval", "step": step, "total_steps": total_steps, "best": improved,
                          "losses": means.take(), "metrics": metrics, "learning_rate": settings.learning_rate * share,
                          "examples_per_s": examples / (time.perf_counter() - started)})  # fmt: skip
                if stale >= settings.patience:
                    break
        if stale >= settings.patience:
            break
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    raw.load_state_dict(best["state"])
    raw.eval()
    end = {"event": "end", "steps": step, "seconds": time.perf_counter() - started, "best_step": best["step"],
           "metric": task.metric, "metrics": best["metrics"]}  # fmt: skip
    on_event(end)
    return end


class _Means:
    """Means of loss parts since they were last taken; a part counts the batches that have it."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, parts: dict[str, Tensor]) -> None:
        for name, value in parts.items():
            total, count = self.sums.get(name, (torch.zeros((), device=value.device), 0))
            self.sums[name] = (total + value.detach(), count + 1)

    def take(self) -> dict[str, float]:
        means = {name: float(total) / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


def _rng(seed: int, purpose: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), number])


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "no"  # at 64 dimensions the casts cost more on CPU than the narrower products save
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def finetune(
    recipe: FinetuneRecipe,
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    on_event: OnEvent,
    tokenizer: Tokenizer | None = None,
) -> tuple[MultiTaskModel, Event, list[dict[str, Any]]]:
    """Train intent and entities on one encoder; returns the model, the end event and the ledger of lost labels."""
    if not train or not dev:
        raise DataError(f"expected training and dev utterances, got {len(train)} and {len(dev)}")
    set_seed(recipe.seed)
    encoder = start_encoder(recipe, tokenizer)
    longest, pad_id = encoder.config.max_seq_len, encoder.tokenizer.pad_id
    intents, labels = data.labels_of(train)
    if not intents:
        raise DataError("expected training rows with an intent, got none; add an intent to the rows")
    tags = tag_vocabulary(labels)
    model = MultiTaskModel(encoder, intents, tags, recipe.heads)
    rows = data.label_rows(train, encoder.tokenizer, longest, intents, tags)
    ledger = [{"source": u.source, "text": u.text, "label": m.entity.label, "start": m.entity.start,
               "end": m.entity.end, "reason": m.reason} for u, m in rows.misaligned]  # fmt: skip
    ledger += [{"source": places[0], "label": what, "reason": f"in dev {len(places)} times, never in train"}
               for what, places in data.check_known_labels(dev, intents, labels).items()]  # fmt: skip
    on_event({"event": "ledger", "rows": ledger})
    weights_L = torch.from_numpy(data.class_weights(rows.tags, len(tags), recipe.loss.tag_weight_power))
    power = recipe.loss.intent_sampling_power
    chances = data.sampling_weights(rows.intents, power) if power else None
    lengths = [len(ids) for ids in rows.token_ids]

    def plan(_: int, rng: np.random.Generator) -> list[Plan]:
        batches = data.epoch_batches(lengths, recipe.training.batch_size, rng, chances)
        return [Plan(0, chosen) for chosen in batches]

    def collate(plan: Plan, rng: np.random.Generator) -> Batch:
        input_ids_BT = data.pad([rows.token_ids[i] for i in plan.rows], pad_id)
        return {
            "input_ids": torch.from_numpy(
                data.mask_tokens(input_ids_BT, encoder.tokenizer, recipe.loss.token_dropout, rng)
            ),
            "tags": torch.from_numpy(data.pad([rows.tags[i] for i in plan.rows], MISSING)),
            "intents": torch.from_numpy(rows.intents[plan.rows]),
        }

    def loss_parts(wrapped: nn.Module, plan: Plan, batch: Batch) -> dict[str, Tensor]:
        _, intent_logits_BC, tag_logits_BTL = wrapped(batch["input_ids"], batch["input_ids"] != pad_id)
        smoothing = recipe.loss.label_smoothing
        return {
            "intent": losses.intent_loss(intent_logits_BC.float(), batch["intents"], smoothing),
            "tags": losses.tag_loss(
                tag_logits_BTL.float(), batch["tags"], weights_L.to(batch["tags"].device), smoothing
            ),
        }

    predictor = Predictor(encoder.tokenizer, TorchBackend(model), longest, encoder.config.embedding_dim, intents, tags)

    def evaluate_dev() -> dict[str, float]:
        report = evaluate(predictor, dev, show_progress=False)
        names = ("intent_accuracy", "tag_loss", "tag_accuracy", "span_f1", "exact_match")
        return {name: value for name in names if (value := getattr(report, name)) is not None}

    if getattr(evaluate(predictor, dev[:1], show_progress=False), recipe.metric) is None:
        raise ConfigError(f"metric = {recipe.metric!r} needs dev rows annotated for it; choose another metric")
    task = Task(plan, collate, loss_parts, evaluate_dev, recipe.metric)
    end = fit(model, task, recipe.training, recipe.seed, on_event)
    return model, end, ledger


def start_encoder(recipe: Recipe, tokenizer: Tokenizer | None) -> SentenceTransformer:
    """Return the encoder a run starts from; one read from a folder keeps its shape and brings its tokenizer."""
    if recipe.start is not None:
        wanted = recipe.encoder.model_dump(exclude_unset=True)
        encoder = SentenceTransformer.load(recipe.start, dropout=wanted.get("dropout"))
        differing = {k: v for k, v in wanted.items() if k != "dropout" and getattr(encoder.config, k) != v}
        if differing:
            raise ConfigError(f"start = {recipe.start!r} has another shape than the recipe's encoder section asks "
                              f"for: {differing}; remove the keys from the recipe")  # fmt: skip
        return encoder.train()
    if tokenizer is None:
        tokenizer = Tokenizer.packaged() if recipe.tokenizer == "packaged" else Tokenizer.load(Path(recipe.tokenizer))
    if not tokenizer.frame[0]:
        raise ConfigError(f"tokenizer = {recipe.tokenizer!r}: expected one with [CLS] and [SEP], as the "
                          f"encoder needs, got one without; train one with `weebill tokenizer train`")  # fmt: skip
    return SentenceTransformer(EncoderConfig.model_validate(recipe.encoder.model_dump()), tokenizer)


def training_record(recipe: Recipe, end: Event, inputs: Sequence[Any]) -> dict[str, object]:
    """Return what weebill.json keeps of a run: recipe, metrics, versions and a fingerprint of the data."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(json.dumps(dataclasses.asdict(item), sort_keys=True).encode())
    return {
        "recipe": recipe.model_dump(),
        "result": {k: v for k, v in end.items() if k != "event"},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "data_sha256": digest.hexdigest(),
        "data_rows": len(inputs),
    }
