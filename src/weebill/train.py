"""One training loop, and the two tasks that choose batches and losses for it: pretrain and finetune. Prints nothing."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from weebill import data, losses
from weebill.backend import TorchBackend
from weebill.bert import read_start
from weebill.config import EncoderConfig, FinetuneRecipe, PretrainRecipe, Recipe, TrainingConfig
from weebill.errors import ConfigError, DataError
from weebill.evaluate import evaluate, evaluate_pairs
from weebill.freezing import parameter_groups, trainable_table
from weebill.multitask import MultiTaskModel
from weebill.predictor import Predictor
from weebill.schedule import warmup_cosine
from weebill.schema import ScoredPair, Utterance
from weebill.sent_transformer import SentenceTransformer
from weebill.tags import MISSING, tag_vocabulary
from weebill.tokenizer import Tokenizer

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
Batch = dict[str, Tensor]


class TrainingStopped(DataError):
    """The loss is not a finite number any more."""


def fit(
    model: nn.Module,
    epoch: Callable[[np.random.Generator], list[Batch]],
    loss_parts: Callable[[nn.Module, Batch], dict[str, Tensor]],
    evaluate_dev: Callable[[], dict[str, float]],
    metric: str,
    settings: TrainingConfig,
    seed: int,
    on_event: OnEvent,
) -> Event:
    """Train `model` in place and leave it with the weights of its best evaluation on dev.

    Each step: learning rate, forward under autocast, sum of the loss parts, backward, clip, AdamW. Stops early after
    `patience` evaluations without a better `metric` (more = better).

    Args:
        epoch: returns the batches of one epoch.
        loss_parts: returns the named losses of a batch; their sum is minimised.
        on_event: gets {"event": "start" | "step" | "eval" | "end", …}; the progress bar and the log listen here.

    Returns:
        The "end" event: steps, seconds, best step and its metrics.

    Raises:
        TrainingStopped: the loss became NaN or infinite; the best weights so far are in place.
    """
    set_seed(seed)
    rng = np.random.default_rng(seed)
    accelerator = Accelerator(mixed_precision=_precision(settings.precision), cpu=not torch.cuda.is_available())
    groups = parameter_groups(model, settings)
    on_event({"event": "start", "table": list(trainable_table(groups)), "metric": metric,
              "device": str(accelerator.device), "precision": accelerator.mixed_precision})  # fmt: skip
    raw = model
    optimizer = torch.optim.AdamW(groups, fused=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    batches = epoch(rng)
    total_steps = settings.epochs * len(batches)
    warmup_steps = max(1, int(total_steps * settings.warmup_fraction))
    eval_every = max(1, math.ceil(total_steps / settings.evals))
    best: dict[str, Any] = {"step": 0, "metrics": {}, "value": -math.inf, "state": _copy_state(raw)}
    stale, step, examples, started = 0, 0, 0, time.perf_counter()
    sums: dict[str, Tensor] = {}
    model.train()
    while step < total_steps and stale < settings.patience:
        for batch in batches:
            share = warmup_cosine(step, total_steps, warmup_steps, settings.final_fraction)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * share
            with accelerator.autocast():
                parts = loss_parts(model, {k: v.to(accelerator.device) for k, v in batch.items()})
                loss = torch.stack(list(parts.values())).sum()
            if not torch.isfinite(loss):
                raw.load_state_dict(best["state"])
                raise TrainingStopped(f"expected a finite loss, got {loss.item()} at step {step + 1}; "
                                      f"lower training.learning_rate or set training.precision to no")  # fmt: skip
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(raw.parameters(), settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            examples += len(next(iter(batch.values())))
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu()
            if step % 10 == 0:
                on_event({"event": "step", "step": step, "total_steps": total_steps, "loss": float(loss.detach())})
            if step % eval_every == 0 or step == total_steps:
                raw.eval()
                metrics = evaluate_dev()
                model.train()
                span = step % eval_every or eval_every
                stale, improved = stale + 1, metrics[metric] > best["value"]
                if improved:
                    stale = 0
                    best = {"step": step, "metrics": metrics, "value": metrics[metric], "state": _copy_state(raw)}
                on_event({"event": "eval", "step": step, "total_steps": total_steps, "best": improved,
                          "losses": {k: float(v) / span for k, v in sums.items()}, "metrics": metrics,
                          "examples_per_s": examples / (time.perf_counter() - started)})  # fmt: skip
                sums = {}
                if stale >= settings.patience:
                    break
        if step < total_steps and stale < settings.patience:
            batches = epoch(rng)
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    raw.load_state_dict(best["state"])
    raw.eval()
    end = {"event": "end", "steps": step, "seconds": time.perf_counter() - started, "best_step": best["step"],
           "metric": metric, "metrics": best["metrics"]}  # fmt: skip
    on_event(end)
    return end


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "no"  # at 64 dimensions the casts cost more on CPU than the narrower products save
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def pretrain(
    recipe: PretrainRecipe,
    triplets: Sequence[data.Triplet],
    dev: Sequence[ScoredPair],
    on_event: OnEvent,
    tokenizer: Tokenizer | None = None,
) -> tuple[SentenceTransformer, Event]:
    """Train a sentence transformer on triplets; the metric is Spearman on `dev`."""
    if not triplets:
        raise DataError("expected triplets to pretrain on, got none")
    set_seed(recipe.seed)
    encoder = _start(recipe, tokenizer)
    longest = encoder.config.max_seq_len
    texts = [t for triplet in triplets for t in (triplet.anchor, triplet.positive, triplet.negative)]
    ids = {text: e.token_ids for text, e in data.text_encodings(encoder.tokenizer, texts, longest).items()}
    pad_id = encoder.tokenizer.pad_id
    lengths = [max(len(ids[t.anchor]), len(ids[t.positive]), len(ids[t.negative])) for t in triplets]

    def epoch(rng: np.random.Generator) -> list[Batch]:
        out = []
        for rows in data.epoch_batches(lengths, recipe.training.batch_size, rng):
            chosen = [triplets[i] for i in rows]
            batch_texts = [[t.anchor for t in chosen], [t.positive for t in chosen], [t.negative for t in chosen]]
            input_ids = data.pad([ids[text] for column in batch_texts for text in column], pad_id)
            groups = np.array([t.group for t in chosen])
            out.append({"groups": torch.from_numpy(groups), "input_ids": torch.from_numpy(input_ids)})
        return out

    def loss_parts(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        anchor, positive, negative = model(batch["input_ids"], batch["input_ids"] != pad_id)[1].float().chunk(3)
        loss = recipe.loss
        if loss.negatives == "given":
            return {"triplet": losses.triplet_loss(anchor, positive, negative, loss.margin)}
        groups = batch["groups"]
        value = losses.batch_triplet_loss(anchor, positive, negative, groups, loss.margin, loss.temperature)
        return {"triplet": value}

    predictor = Predictor(encoder.tokenizer, TorchBackend(encoder), longest, encoder.config.embedding_dim)

    def evaluate_dev() -> dict[str, float]:
        report = evaluate_pairs(predictor, dev, show_progress=False)
        return {"spearman": report.spearman, "pearson": report.pearson}

    end = fit(encoder, epoch, loss_parts, evaluate_dev, "spearman", recipe.training, recipe.seed, on_event)
    return encoder, end


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
    encoder = _start(recipe, tokenizer)
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

    def padded(chosen: data.Ints, rng: np.random.Generator) -> data.Ints:
        input_ids_BT = data.pad([rows.token_ids[i] for i in chosen], pad_id)
        return data.mask_tokens(input_ids_BT, encoder.tokenizer, recipe.loss.token_dropout, rng)

    def epoch(rng: np.random.Generator) -> list[Batch]:
        return [
            {
                "input_ids": torch.from_numpy(padded(chosen, rng)),
                "tags": torch.from_numpy(data.pad([rows.tags[i] for i in chosen], MISSING)),
                "intents": torch.from_numpy(rows.intents[chosen]),
            }
            for chosen in data.epoch_batches(lengths, recipe.training.batch_size, rng, chances)
        ]

    def loss_parts(wrapped: nn.Module, batch: Batch) -> dict[str, Tensor]:
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
    end = fit(model, epoch, loss_parts, evaluate_dev, recipe.metric, recipe.training, recipe.seed, on_event)
    return model, end, ledger


def _start(recipe: Recipe, tokenizer: Tokenizer | None) -> SentenceTransformer:
    """Return the encoder a run starts from; one given by `start` keeps its shape and brings its tokenizer."""
    if recipe.start is not None:
        wanted = recipe.encoder.model_dump(exclude_unset=True)
        return SentenceTransformer.from_stored(read_start(recipe.start, wanted)).train()
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
