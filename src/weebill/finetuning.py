"""Fine-tuning as a task for the loop: intent and entities of annotated utterances on one encoder. Reads no files."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from weebill import data, label_facts, losses
from weebill.artifact import Heads
from weebill.bpe_dropout import Redrawing
from weebill.checkpoint import Checkpoint
from weebill.config import FinetuneRecipe, HeadsConfig, LabelLoss
from weebill.errors import ConfigError, DataError
from weebill.evaluate import evaluate
from weebill.features import FrozenBackend, TokenStates
from weebill.freezing import first_epochs, freeze
from weebill.ledger import training_ledger
from weebill.metrics import refusal_threshold
from weebill.multitask import MultiTaskModel
from weebill.predictor import Predictor, predictor_of_model
from weebill.schema import OUT_OF_SCOPE, Utterance, intent_parts
from weebill.starting import start_encoder, start_heads, tag_head_widths
from weebill.tags import MISSING, tag_vocabulary
from weebill.task import Batch, Event, OnEvent, Plan, Task
from weebill.tokenizer import Tokenizer
from weebill.train import fit


def finetune(
    recipe: FinetuneRecipe,
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    on_event: OnEvent,
    tokenizer: Tokenizer | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    texts: Iterable[str] | None = None,
) -> tuple[MultiTaskModel, Event, list[dict[str, Any]]]:
    """Train intent and entities on one encoder; returns the model, the end event and the ledger of lost labels.

    Args:
        recipe: what to do.
        train: labelled rows.
        dev: held-out rows, annotated for the recipe's metric.
        on_event: see `train.fit`; "ledger" has the labels that cannot be learnt.
        tokenizer: for an encoder of random weights; default: as the recipe says.
        checkpoint: see `train.fit`.
        resume: see `train.fit`.
        texts: see `starting.start_encoder`; default: those of the training rows.

    Raises:
        DataError: no rows, or none with an intent.
        ConfigError: the recipe does not fit the data or the start.
    """
    if not train or not dev:
        raise DataError(f"expected training and dev utterances, got {len(train)} and {len(dev)}; check the "
                        f"data")  # fmt: skip
    separator = recipe.heads.intent_separator
    train, dev = label_facts.sort_intents(train, separator), label_facts.sort_intents(dev, separator)
    set_seed(recipe.seed)
    encoder = start_encoder(recipe, tokenizer, (u.text for u in train) if texts is None else texts)
    names, labels = label_facts.labels_of(train)  # names may join several intents
    intents = sorted({intent for name in names for intent in intent_parts(name, separator)})
    if not intents:
        raise DataError("expected training rows with an intent, got none; for entities alone give every row "
                        "the same intent, and --set metric=span_f1")  # fmt: skip
    tags = tag_vocabulary(labels)
    model = MultiTaskModel(encoder, intents, tags, settle_entities(recipe.heads, train))
    start = start_heads(recipe, model)
    check_freezing(recipe, model, start)
    longest = encoder.config.max_seq_len
    rows = data.label_rows(train, encoder.tokenizer, longest, names, tags, recipe.on_overflow)
    known = [*intents, OUT_OF_SCOPE] if recipe.heads.intent_threshold else intents
    ledger = [entry.to_json() for entry in training_ledger([rows], train, dev, known, labels, separator)]
    on_event({"event": "ledger", "rows": ledger})
    check_metric(recipe.metric, predictor_of_model(model), dev)
    if recipe.heads.intent_threshold == "dev":
        check_out_of_scope(dev)
    parts_NC = None
    if separator is not None:
        parts_NC = torch.tensor([[float(x in intent_parts(name, separator)) for x in intents] for name in names])
    work = _Joint(recipe, model, rows, parts_NC)
    task = Task(
        work.plan,
        work.collate,
        work.losses,
        lambda: dev_scores(predictor_of_model(model, work.backend), dev),
        recipe.metric,
        weigh=work.weigh,
        length=work.length,
        first_epochs=first_epochs(model, recipe.freezing),
        freeze=partial(freeze, model, recipe.freezing),
    )
    end = fit(model, task, recipe.training, recipe.seed, on_event, checkpoint, resume)
    if recipe.heads.intent_threshold == "dev":
        on_event({"event": "threshold"} | choose_threshold(model, dev))
    return model, end, ledger


class _Joint:
    """Plans, collates, scores and balances the batches of annotated utterances.

    `parts_NC` says, where a text may have several intents, which of them each number of `rows.intents` stands for.
    """

    def __init__(
        self, recipe: FinetuneRecipe, model: MultiTaskModel, rows: data.LabelledRows, parts_NC: Tensor | None = None
    ):
        self.recipe, self.model, self.rows, self.parts_NC = recipe, model, rows, parts_NC
        self.tokenizer = model.encoder.tokenizer
        self.lengths = [len(ids) for ids in rows.token_ids]
        self.weights_L = torch.from_numpy(tag_class_weights(recipe.loss, rows.tags, len(model.tags)))
        power = recipe.loss.intent_sampling_power
        self.chances = data.sampling_weights(rows.intents, power) if power else None
        if recipe.loss.balance == "uncertainty":
            model.log_variances = nn.Parameter(torch.zeros(2))
        cached = recipe.freezing.cached_features
        self.redraw = Redrawing(self.tokenizer, recipe.loss.bpe_dropout, model.encoder.config.max_seq_len)
        self.tag_ids = {tag: i for i, tag in enumerate(model.tags)}
        self.states = TokenStates(model.encoder, rows.token_ids) if cached else None
        self.backend = FrozenBackend(model) if cached else None

    def plan(self, _: int, rng: np.random.Generator) -> list[Plan]:
        batches = data.epoch_batches(self.lengths, self.recipe.training.batch_size, rng, self.chances)
        return [Plan(0, chosen) for chosen in batches]

    def length(self, plan: Plan) -> int:
        return int(max(self.lengths[i] for i in plan.rows))

    def collate(self, plan: Plan, rng: np.random.Generator) -> Batch:
        """Return the tensors of a batch; without "tags" or "intents" if no row has any."""
        token_ids, tags = self._tokenized(plan.rows, rng)
        ids_BT = data.pad(token_ids, self.tokenizer.pad_id)
        ids_BT = data.mask_tokens(ids_BT, self.tokenizer, self.recipe.loss.token_dropout, rng)
        batch = {"input_ids": torch.from_numpy(ids_BT)}
        tags_BT, intents_B = data.pad(tags, MISSING), self.rows.intents[plan.rows]
        if (tags_BT != MISSING).any():
            batch["tags"] = torch.from_numpy(tags_BT)
        if (intents_B != MISSING).any() or "tags" not in batch:
            batch["intents"] = torch.from_numpy(intents_B)
        if self.states is not None:
            batch["states"] = self.states(plan.rows)
        return batch

    def _tokenized(self, rows: data.Ints, rng: np.random.Generator) -> tuple[list[list[int]], list[list[int]]]:
        """Return token and tag ids of rows, of those that bpe_dropout cuts anew with the tags of the new tokens."""
        token_ids, tags = [self.rows.token_ids[i] for i in rows], [self.rows.tags[i] for i in rows]
        utterances = [self.rows.utterances[i] for i in rows]
        drawn = self.redraw([u and u.text for u in utterances], rng)
        for number, (utterance, encoding) in enumerate(zip(utterances, drawn, strict=True)):
            if utterance is not None and encoding is not None:
                token_ids[number] = encoding.token_ids
                tags[number], _ = data.tag_labels(utterance, encoding, self.tag_ids)
        return token_ids, tags

    def losses(self, wrapped: nn.Module, plan: Plan, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the tasks that rows of the batch are annotated for."""
        loss, mask_BT = self.recipe.loss, batch["input_ids"] != self.tokenizer.pad_id
        if "states" in batch:
            intents_BC, tags_BTL = self.model.read(batch["states"], mask_BT)
        else:
            _, intents_BC, tags_BTL = wrapped(batch["input_ids"], mask_BT)
        parts, chain = {}, self.model.tag_head.crf
        if "intents" in batch:
            parts["intent"] = self._intent_loss(intents_BC.float(), batch["intents"])
        if "tags" in batch and chain is not None:
            parts["tags"] = losses.crf_loss(
                tags_BTL.float(), batch["tags"], chain.start_L, chain.transitions_LL, chain.end_L
            )
        elif "tags" in batch:
            weights_L = self.weights_L.to(tags_BTL.device)
            parts["tags"] = losses.tag_loss(
                tags_BTL.float(), batch["tags"], weights_L, loss.label_smoothing, loss.tag_focal_gamma
            )
        return parts

    def _intent_loss(self, intents_BC: Tensor, names_B: Tensor) -> Tensor:
        smoothing = self.recipe.loss.label_smoothing
        if self.parts_NC is None:
            return losses.intent_loss(intents_BC, names_B, smoothing)
        known_B = names_B != MISSING
        wanted_BC = self.parts_NC.to(intents_BC.device)[names_B[known_B]]
        return losses.several_intents_loss(intents_BC[known_B], wanted_BC, smoothing)

    def weigh(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what each loss adds to the sum; one of weight 0 is left out, so that its head stays as it is."""
        loss, weighed = self.recipe.loss, {}
        for number, (name, weight) in enumerate((("intent", loss.intent_weight), ("tags", loss.tag_weight))):
            if name in parts and weight:
                weighed[name] = weight * parts[name]
                if self.model.log_variances is not None:
                    weighed[name] = losses.uncertainty_weighted(weighed[name], self.model.log_variances[number])
        return weighed or {name: 0.0 * value.detach() for name, value in parts.items()}


def tag_class_weights(loss: LabelLoss, rows: Sequence[Sequence[int]], num_tags: int) -> npt.NDArray[np.float32]:
    """Return the tag class weights that a recipe asks for, float32 (num_tags,)."""
    if loss.tag_weighting == "effective_number":
        return data.class_weights(rows, num_tags, 0.0, loss.effective_number_beta)
    return data.class_weights(rows, num_tags, 0.5 if loss.tag_weighting == "inverse_root" else loss.tag_weight_power)


def check_freezing(recipe: FinetuneRecipe, model: MultiTaskModel, start: Heads | None) -> None:
    """Refuse to freeze what is not there.

    Raises:
        ConfigError: a frozen head whose start is for other labels or of another shape, or fewer layers than are frozen.
    """
    num_layers = model.encoder.config.num_layers
    if recipe.freezing.lower_layers > num_layers:
        raise ConfigError(f"freezing.lower_layers: expected at most the encoder's {num_layers} layers, got "
                          f"{recipe.freezing.lower_layers}; lower it")  # fmt: skip
    if start is None:
        return
    ours, theirs = (
        {"intent_head": (intents, config.intent_separator), "tag_head": (tags, tag_head_widths(config), config.crf)}
        for intents, tags, config in (
            (model.intents, model.tags, model.config),
            (start.intents, start.tags, start.config),
        )
    )
    for head in ours:
        if getattr(recipe.freezing, head) and ours[head] != theirs[head]:
            raise ConfigError(f"freezing.{head}: expected start = {recipe.start!r} to have one of the same shape for "
                              f"the labels of the training data, got another; let it train, or start from an encoder "
                              f"without heads")  # fmt: skip


def check_out_of_scope(dev: Sequence[Utterance]) -> None:
    """Refuse to choose a threshold without anything to choose it by.

    Raises:
        ConfigError: no row of dev is out of scope.
    """
    if not any(u.intent == OUT_OF_SCOPE for u in dev):
        raise ConfigError(f"heads.intent_threshold = dev: expected dev rows with the intent {OUT_OF_SCOPE}, got none; "
                          f"add texts that none of the intents fits, or set a number")  # fmt: skip


def choose_threshold(model: MultiTaskModel, dev: Sequence[Utterance]) -> dict[str, Any]:
    """Set the model's intent threshold to the best one on dev; returns it with the accuracy before and after."""
    rows = [u for u in dev if u.intent is not None]
    predictor, score_N, right_N = predictor_of_model(model), np.zeros(len(rows)), np.zeros(len(rows), dtype=bool)
    for numbers, batch, output in predictor.outputs([u.text for u in rows], show_progress=False):
        assert output.intent_logits_BC is not None
        some = [rows[i] for i in numbers]
        found = predictor.decode([u.text for u in some], batch, output)
        score_N[numbers] = predictor.intent_scores(output.intent_logits_BC).max(axis=-1)  # of the likeliest intent
        right_N[numbers] = [p.intent == u.intent for p, u in zip(found, some, strict=True)]
    outside_N = np.array([u.intent == OUT_OF_SCOPE for u in rows])
    threshold = refusal_threshold(score_N, right_N, outside_N)
    after_N = np.where(score_N < threshold, outside_N, right_N)
    model.config = model.config.model_copy(update={"intent_threshold": threshold})
    return {"threshold": threshold, "intent_accuracy": [float(right_N.mean()), float(after_N.mean())]}


def settle_entities(heads: HeadsConfig, train: Sequence[Utterance]) -> HeadsConfig:
    """Return the heads with `entity_boundaries` and `touching` decided: "auto" looks at the training rows."""
    settled: dict[str, object] = {}
    if heads.entity_boundaries == "auto":
        settled["entity_boundaries"] = "words" if label_facts.entities_are_whole_words(train) else "any"
    if heads.touching == "auto":
        settled["touching"] = label_facts.touching_labels(train)
    return heads.model_copy(update=settled)


def check_metric(metric: str, predictor: Predictor, dev: Sequence[Utterance]) -> None:
    """Refuse a metric that dev is not annotated for.

    Raises:
        ConfigError: no row has such a score.
    """
    of_each_kind = {(u.intent is None, u.entities is None): u for u in dev}.values()
    report = evaluate(predictor, list(of_each_kind), show_progress=False)
    if getattr(report, metric) is None:
        others = [name for name in ("intent_accuracy", "span_f1") if getattr(report, name) is not None]
        remedy = " or ".join(f"--set metric={name}" for name in others) or "annotate them"
        raise ConfigError(f"metric = {metric!r} needs dev rows annotated for it, and these are not; {remedy}")


def dev_scores(predictor: Predictor, dev: Sequence[Utterance]) -> dict[str, float]:
    """Return the scores that a run shows, of those that dev is annotated for."""
    report = evaluate(predictor, dev, show_progress=False)
    names = ("intent_accuracy", "tag_loss", "tag_accuracy", "span_f1", "exact_match")
    return {name: value for name in names if (value := getattr(report, name)) is not None}
