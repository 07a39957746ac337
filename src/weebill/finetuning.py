"""Fine-tuning as a task for the loop: intent and entities of annotated utterances on one encoder. Reads no files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from weebill import data, losses
from weebill.backend import TorchBackend
from weebill.checkpoint import Checkpoint
from weebill.config import FinetuneRecipe, HeadsConfig
from weebill.errors import ConfigError, DataError
from weebill.evaluate import evaluate
from weebill.multitask import MultiTaskModel
from weebill.predictor import Predictor
from weebill.schema import Utterance
from weebill.tags import MISSING, Misaligned, tag_vocabulary
from weebill.tokenizer import Tokenizer
from weebill.train import Batch, Event, OnEvent, Plan, Task, fit, start_encoder


def finetune(
    recipe: FinetuneRecipe,
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    on_event: OnEvent,
    tokenizer: Tokenizer | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> tuple[MultiTaskModel, Event, list[dict[str, Any]]]:
    """Train intent and entities on one encoder; returns the model, the end event and the ledger of lost labels."""
    if not train or not dev:
        raise DataError(f"expected training and dev utterances, got {len(train)} and {len(dev)}; check the "
                        f"data")  # fmt: skip
    set_seed(recipe.seed)
    encoder = start_encoder(recipe, tokenizer)
    longest, pad_id = encoder.config.max_seq_len, encoder.tokenizer.pad_id
    intents, labels = data.labels_of(train)
    if not intents:
        raise DataError("expected training rows with an intent, got none; add an intent to the rows")
    tags = tag_vocabulary(labels)
    model = MultiTaskModel(encoder, intents, tags, settle_boundaries(recipe.heads, train))
    rows = data.label_rows(train, encoder.tokenizer, longest, intents, tags)
    ledger = lost_labels(rows.misaligned, data.check_known_labels(dev, intents, labels))
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

    predictor = Predictor(
        encoder.tokenizer, TorchBackend(model), longest, encoder.config.embedding_dim, intents, tags, model.whole_words
    )

    check_metric(recipe.metric, predictor, dev)
    task = Task(plan, collate, loss_parts, lambda: dev_scores(predictor, dev), recipe.metric)
    end = fit(model, task, recipe.training, recipe.seed, on_event, checkpoint, resume)
    return model, end, ledger


def settle_boundaries(heads: HeadsConfig, train: Sequence[Utterance]) -> HeadsConfig:
    """Return the heads with `entity_boundaries` decided: "auto" looks at the training rows."""
    if heads.entity_boundaries != "auto":
        return heads
    boundaries = "words" if data.entities_are_whole_words(train) else "any"
    return heads.model_copy(update={"entity_boundaries": boundaries})


def lost_labels(
    misaligned: Sequence[tuple[Utterance, Misaligned]], unknown: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return the ledger: entities that no tokens carry, and labels of dev that cannot be learnt, with their places."""
    ledger: list[dict[str, Any]] = [
        {"source": u.source, "text": u.text, "label": m.entity.label, "start": m.entity.start, "end": m.entity.end,
         "reason": m.reason} for u, m in misaligned]  # fmt: skip
    return ledger + [{"source": places[0], "label": what, "reason": f"in dev {len(places)} times, never in train"}
                     for what, places in unknown.items()]  # fmt: skip


def check_metric(metric: str, predictor: Predictor, dev: Sequence[Utterance]) -> None:
    """Refuse a metric that dev is not annotated for.

    Raises:
        ConfigError: its first row has no such score.
    """
    if getattr(evaluate(predictor, dev[:1], show_progress=False), metric) is None:
        raise ConfigError(f"metric = {metric!r} needs dev rows annotated for it; choose another metric")


def dev_scores(predictor: Predictor, dev: Sequence[Utterance]) -> dict[str, float]:
    """Return the scores that a run shows, of those that dev is annotated for."""
    report = evaluate(predictor, dev, show_progress=False)
    names = ("intent_accuracy", "tag_loss", "tag_accuracy", "span_f1", "exact_match")
    return {name: value for name in names if (value := getattr(report, name)) is not None}
