"""Pretraining as a task for the loop: a mix of data sets, each with its loss, on one encoder. Reads no files."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from weebill import data, losses
from weebill.backend import TorchBackend
from weebill.bpe_dropout import Redrawing
from weebill.checkpoint import Checkpoint
from weebill.config import PretrainRecipe
from weebill.errors import ConfigError, DataError
from weebill.evaluate_pairs import pair_correlations
from weebill.heads import MaskedLMHead
from weebill.mining import mine_negatives
from weebill.predictor import Predictor
from weebill.schema import ScoredPair
from weebill.sent_transformer import SentenceTransformer
from weebill.sources import Mix, Source
from weebill.starting import start_encoder
from weebill.task import Batch, Event, OnEvent, Plan, Task, TrainingStopped
from weebill.teacher import Vectors, fit_width
from weebill.tokenizer import Tokenizer
from weebill.train import fit


class PretrainingModel(nn.Module):
    """The encoder, and a head for masked tokens that is dropped after training."""

    def __init__(self, encoder: SentenceTransformer, with_masked_lm: bool):
        super().__init__()
        self.encoder = encoder
        config = encoder.config
        self.masked_lm_head = (
            MaskedLMHead(config.hidden_dim, encoder.tokenizer.vocab_size, config.layer_norm_eps)
            if with_masked_lm
            else None
        )

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, chosen_BT: Tensor | None = None) -> Tensor:
        """Return sentence embeddings, or logits for the chosen tokens.

        Shape: (B, T), bool (B, T) -> (B, E); with bool (B, T) -> (N, V), N = number of chosen tokens
        """
        if chosen_BT is None:
            return self.encoder.embed(input_ids_BT, attention_mask_BT)
        assert self.masked_lm_head is not None
        hidden_BTD, _ = self.encoder(input_ids_BT, attention_mask_BT)
        logits: Tensor = self.masked_lm_head(hidden_BTD[chosen_BT], self.encoder.word_embeddings.weight)
        return logits


@dataclass
class _MixTask:
    """Plans, collates and scores the batches of a mix."""

    recipe: PretrainRecipe
    mix: Mix
    encoder: SentenceTransformer
    teacher_ND: Vectors | None  # by text number

    def __post_init__(self) -> None:
        longest = self.encoder.config.max_seq_len
        encodings = (self.encoder.tokenizer.encode(text, max_length=longest) for text in self.mix.texts)
        self.ids = [e.token_ids for e in encodings]
        self.lengths = np.array([len(ids) for ids in self.ids])
        self.redraw = Redrawing(self.encoder.tokenizer, self.recipe.loss.bpe_dropout, longest)
        # negatives and their groups, by data set; mining replaces them
        self.negatives = {
            i: (s.rows_NK[:, 2].copy(), s.groups_NK[:, 2].copy())
            for i, s in enumerate(self.mix.sources)
            if s.groups_NK is not None and s.rows_NK.shape[1] == 3
        }

    def plan(self, epoch: int, rng: np.random.Generator) -> list[Plan]:
        plans = []
        for number, source in enumerate(self.mix.sources):
            if not source.first_epoch <= epoch <= (source.last_epoch or epoch):
                continue
            lengths = self.lengths[source.rows_NK].max(axis=1)
            batches = data.passes(lengths, source.weight, self.recipe.training.batch_size, rng)
            plans += [Plan(number, rows) for rows in batches if len(rows) > 1]
        if not plans:
            raise ConfigError(f"data.train: expected a data set for every epoch, got none for epoch {epoch}; change "
                              f"first_epoch and last_epoch")  # fmt: skip
        rng.shuffle(plans)
        return plans

    def length(self, plan: Plan) -> int:
        rows_NK = self.mix.sources[plan.source].rows_NK[plan.rows]
        return int(self.lengths[rows_NK].max())

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        mining = self.recipe.mining
        if not mining.every_epochs or (epoch - 1) % mining.every_epochs:
            return
        for number in self.negatives:
            self._mine(number, rng)

    def _mine(self, number: int, rng: np.random.Generator) -> None:
        source = self.mix.sources[number]
        assert source.groups_NK is not None
        texts, first = np.unique(source.rows_NK, return_index=True)
        groups = source.groups_NK.ravel()[first]
        vectors_MD = self.encoder.encode([self.mix.texts[i] for i in texts])
        anchor_N, positive_N = np.searchsorted(texts, source.rows_NK[:, :2]).T
        found = mine_negatives(vectors_MD[anchor_N], vectors_MD[positive_N], source.groups_NK[:, 0], vectors_MD, groups,
                               self.recipe.mining.nearest, self.recipe.mining.max_similarity, rng)  # fmt: skip
        taken = found >= 0
        negatives, negative_groups = self.negatives[number]
        negatives[taken], negative_groups[taken] = texts[found[taken]], groups[found[taken]]

    def state(self) -> dict[str, Tensor]:
        return {
            f"{number}.{name}": torch.from_numpy(values)
            for number, pair in self.negatives.items()
            for name, values in zip(("texts", "groups"), pair, strict=True)
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        for number, (texts, groups) in self.negatives.items():
            texts[:], groups[:] = state[f"{number}.texts"].numpy(), state[f"{number}.groups"].numpy()

    def collate(self, plan: Plan, rng: np.random.Generator) -> Batch:
        source = self.mix.sources[plan.source]
        rows_BK = source.rows_NK[plan.rows]
        batch: Batch = {}
        if source.groups_NK is not None:
            groups_BK = source.groups_NK[plan.rows]
            if plan.source in self.negatives:
                negatives, negative_groups = self.negatives[plan.source]
                rows_BK = np.column_stack([rows_BK[:, :2], negatives[plan.rows]])
                groups_BK = np.column_stack([groups_BK[:, :2], negative_groups[plan.rows]])
            batch["groups"] = torch.from_numpy(groups_BK.T.copy())
        texts = rows_BK.T.ravel()
        drawn = self.redraw([self.mix.texts[i] for i in texts], rng)
        token_ids = [self.ids[i] if new is None else new.token_ids for i, new in zip(texts, drawn, strict=True)]
        input_ids_BT = data.pad(token_ids, self.encoder.tokenizer.pad_id)
        if source.scores_N is not None:
            batch["scores"] = torch.from_numpy(source.scores_N[plan.rows])
        if source.loss == "distillation":
            assert self.teacher_ND is not None
            batch["teacher"] = torch.from_numpy(self.teacher_ND[rows_BK[:, 0]].astype(np.float32))
        if source.loss == "masked_lm":
            corrupted_BT, chosen_BT = data.corrupt_tokens(
                input_ids_BT, self.encoder.tokenizer, self.recipe.loss.mask_fraction, rng
            )
            batch["targets"] = torch.from_numpy(input_ids_BT[chosen_BT])
            batch["chosen"] = torch.from_numpy(chosen_BT)
            input_ids_BT = corrupted_BT
        else:
            input_ids_BT = data.mask_tokens(input_ids_BT, self.encoder.tokenizer, self.recipe.loss.token_dropout, rng)
        batch["input_ids"] = torch.from_numpy(input_ids_BT)
        return batch

    def losses(self, model: nn.Module, plan: Plan, batch: Batch) -> dict[str, Tensor]:
        source, loss = self.mix.sources[plan.source], self.recipe.loss
        mask_BT = batch["input_ids"] != self.encoder.tokenizer.pad_id
        if source.loss == "masked_lm":
            logits_NV = model(batch["input_ids"], mask_BT, batch["chosen"]).float()
            return {"masked_lm": losses.masked_lm_loss(logits_NV, batch["targets"])}
        embeddings = model(batch["input_ids"], mask_BT).float().chunk(source.rows_NK.shape[1])
        function, inputs = self._loss(source, embeddings, batch)
        value = losses.matryoshka(function, inputs, loss.matryoshka_dims)
        if source.loss == "distillation" and loss.similarity_weight:
            near = losses.similarity_distillation_loss(embeddings[0], batch["teacher"], loss.temperature)
            return {"distillation": value, "similarities": loss.similarity_weight * near}
        return {source.loss: value}

    def _loss(
        self, source: Source, embeddings: Sequence[Tensor], batch: Batch
    ) -> tuple[Callable[..., Tensor], list[Tensor]]:
        """Return the loss as a function of embeddings alone, and the embeddings it takes."""
        loss = self.recipe.loss
        if source.loss == "distillation":
            return losses.distillation_loss, [embeddings[0], batch["teacher"]]
        if source.loss == "cosent":
            return partial(losses.cosent_loss, score_N=batch["scores"], temperature=loss.temperature), [*embeddings]
        if source.loss == "triplet":
            return partial(losses.triplet_loss, margin=loss.margin), [*embeddings]
        groups_KN = batch["groups"]
        if source.loss in ("batch_hard_triplet", "semi_hard_triplet"):
            function = losses.batch_hard_triplet_loss
            if source.loss == "semi_hard_triplet":
                function = losses.semi_hard_triplet_loss
            return partial(function, group_N=groups_KN.flatten(), margin=loss.margin), [torch.cat([*embeddings])]
        groups_N, candidate_groups_M = groups_KN[0], groups_KN[1:].flatten()
        inputs = [embeddings[0], torch.cat([*embeddings[1:]])]
        if source.loss == "batch_triplet":
            return partial(losses.batch_triplet_loss, group_N=groups_N, candidate_group_M=candidate_groups_M,
                           margin=loss.margin, temperature=loss.temperature), inputs  # fmt: skip
        return partial(losses.in_batch_negatives_loss, group_N=groups_N, candidate_group_M=candidate_groups_M,
                       temperature=loss.temperature, symmetric=loss.symmetric), inputs  # fmt: skip


def pretrain(
    recipe: PretrainRecipe,
    mix: Mix,
    dev: Sequence[ScoredPair],
    on_event: OnEvent,
    tokenizer: Tokenizer | None = None,
    teacher: Callable[[Sequence[str]], Vectors] | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    texts: Iterable[str] | None = None,
) -> tuple[SentenceTransformer, Event]:
    """Train a sentence transformer on a mix of data sets; the metric is a correlation with the scores of `dev`.

    Args:
        recipe: what to do.
        mix: the data sets.
        dev: scored pairs.
        on_event: see `train.fit`.
        tokenizer: for an encoder of random weights; default: as the recipe says.
        teacher: texts -> embeddings of length 1, for data sets whose loss is distillation.
        checkpoint: see `train.fit`.
        resume: see `train.fit`.
        texts: see `starting.start_encoder`; default: those of the mix.

    Raises:
        DataError: no data.
        ConfigError: the recipe does not fit the data, the start or the teacher.
    """
    if not mix.sources:
        raise DataError("expected data to pretrain on, got none; name files under data.train")
    set_seed(recipe.seed)
    encoder = start_encoder(recipe, tokenizer, mix.texts if texts is None else texts, teacher)
    width = encoder.config.embedding_dim
    if any(not 0 < dim <= width for dim in recipe.loss.matryoshka_dims):
        raise ConfigError(f"loss.matryoshka_dims: expected widths up to encoder.embedding_dim = {width}, got "
                          f"{list(recipe.loss.matryoshka_dims)}; correct them")  # fmt: skip
    teacher_ND = _teacher_by_text(mix, teacher, width, recipe.loss.teacher_projection)
    work = _MixTask(recipe, mix, encoder, teacher_ND)
    model = PretrainingModel(encoder, any(s.loss == "masked_lm" for s in mix.sources))
    predictor = Predictor(encoder.tokenizer, TorchBackend(encoder), encoder.config.max_seq_len, width)

    def evaluate_dev() -> dict[str, float]:
        return pair_correlations(predictor, dev, show_progress=False)

    task = Task(work.plan, work.collate, work.losses, evaluate_dev, recipe.metric, work.begin_epoch, work.state,
                work.load_state, length=work.length)  # fmt: skip
    try:
        end = fit(model, task, recipe.training, recipe.seed, on_event, checkpoint, resume)
    except TrainingStopped as stop:
        stop.model = encoder
        raise
    return encoder, end


def _teacher_by_text(
    mix: Mix, teacher: Callable[[Sequence[str]], Vectors] | None, width: int, projection: str
) -> Vectors | None:
    taught = [s.rows_NK.ravel() for s in mix.sources if s.loss == "distillation"]
    if not taught:
        return None
    if teacher is None:
        raise ConfigError('loss distillation needs a teacher, got none; name its model folder: teacher = "DIR"')
    numbers = np.unique(np.concatenate(taught))
    fit_width(teacher([mix.texts[numbers[0]]]), width, projection)  # refuses a width before all texts are read
    found = fit_width(teacher([mix.texts[i] for i in numbers]), width, projection)
    by_text: Vectors = np.zeros((len(mix.texts), width), dtype=np.float16)
    by_text[numbers] = found
    return by_text
