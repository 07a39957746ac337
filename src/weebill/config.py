"""What a recipe may say: frozen settings that pydantic checks. Reads no files; recipe_files.py does."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from weebill.schema import Overflow


class Section(BaseModel):
    """Base of every part of a recipe: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EncoderConfig(Section):
    """Shape of the sentence transformer."""

    num_layers: int = Field(4, ge=1, le=48, description="layers of attention and feed-forward")
    num_heads: int = Field(8, ge=1, le=256, description="attention heads of a layer; must divide hidden_dim")
    hidden_dim: int = Field(64, ge=8, le=16384, description="width of the token states; even")
    ffn_dim: int = Field(256, ge=8, le=65536, description="width inside the feed-forward part of a layer")
    max_seq_len: int = Field(128, ge=4, le=8192, description="tokens, [CLS] and [SEP] included")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of activations zeroed in training")
    layer_norm_eps: float = Field(1e-12, gt=0, le=1, description="added to the variance in LayerNorm, as in BERT")
    pooling: Literal["cls", "mean"] = Field("cls", description="the state of [CLS], or the mean of the token states")
    embedding_dim: int = Field(
        64, ge=1, le=65536, description="width of the sentence embedding after the projection head"
    )
    projection: bool = Field(True, description="false = no projection head: the pooled states are the embedding")
    positions: Literal["sinusoidal", "learned"] = Field(
        "sinusoidal", description="fixed sines, or a table that starts as sines and trains"
    )

    @model_validator(mode="after")
    def _dims_fit(self) -> "EncoderConfig":
        if self.hidden_dim % self.num_heads or self.hidden_dim % 2:
            raise ValueError(f"hidden_dim must be even and a multiple of num_heads={self.num_heads}, "
                             f"got {self.hidden_dim}")  # fmt: skip
        if not self.projection and self.embedding_dim != self.hidden_dim:
            raise ValueError(f"without a projection embedding_dim must be hidden_dim={self.hidden_dim}, "
                             f"got {self.embedding_dim}")  # fmt: skip
        return self


class HeadsConfig(Section):
    """Shape of the intent and tag heads."""

    lstm_dim: int = Field(64, ge=1, le=16384, description="hidden size of each direction of the tag head's BiLSTM")
    mlp_dim: int = Field(128, ge=1, le=65536, description="width inside the tag head's MLP")
    entity_boundaries: Literal["auto", "words", "any"] = Field(
        "auto", description="words: entities are whole words; auto: if those of the training data are"
    )
    touching: Literal["auto", "any"] | tuple[str, ...] = Field(
        "auto", description="labels of which one entity may follow another at once; auto: those of which it does so in "
        "the training data; any: all"
    )  # fmt: skip
    dropout: float = Field(0.1, ge=0, lt=1, description="of both heads, in training")
    crf: bool = Field(False, description="also learn how well each tag follows each other one; read by Viterbi")
    intent_threshold: Literal["dev"] | Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="an intent less probable is read as out_of_scope: a number from 0 (off) to below 1, or dev: the "
        "one with the best intent accuracy on dev",
    )
    intent_separator: Annotated[str, Field(min_length=1, pattern=r"^\S*$")] | None = Field(
        None, description="a text may have several intents, joined in its label by this, such as +; default: one intent"
    )

    @property
    def settled_touching(self) -> tuple[str, ...] | None:
        """The labels whose entities may touch; None: all."""
        return None if isinstance(self.touching, str) else self.touching

    @property
    def settled_threshold(self) -> float:
        """The intent threshold; 0 where it is still to be chosen."""
        return 0.0 if isinstance(self.intent_threshold, str) else self.intent_threshold


class TrainingConfig(Section):
    """The loop: how long, how fast, how it stops."""

    epochs: int = Field(10, ge=1, description="passes over the training rows; more where min_steps asks for it")
    min_steps: int = Field(0, ge=0, description="of few rows, more epochs than `epochs`, until there are so many steps")
    batch_size: int = Field(64, ge=2, description="rows of a batch")
    learning_rate: float = Field(1e-3, gt=0, description="peak, for the encoder's top layer")
    head_learning_rate: float | None = Field(None, gt=0, description="peak for the heads; default: learning_rate")
    embedding_learning_rate: float | None = Field(
        None, gt=0, description="peak, for the word embeddings; default: as the layer below the first"
    )
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a layer, as a share of that of the layer above")
    warmup_fraction: float = Field(
        0.05, ge=0, lt=1, description="share of the steps in which the rate rises to its peak"
    )
    final_fraction: float = Field(0.02, ge=0, le=1, description="learning rate at the end, as a share of the peak")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, of matrices; not of biases, norms and embeddings")
    max_grad_norm: float = Field(1.0, gt=0, description="a longer gradient is cut to this length")
    accumulation_steps: int = Field(1, ge=1, description="batches per optimizer step; on CPU computed side by side")
    precision: Literal["auto", "no", "bf16", "fp16"] = Field("auto", description="autocast; auto = off on CPU")
    evals: int = Field(10, ge=1, description="how many evaluations on dev, evenly spread")
    patience: int = Field(5, ge=1, description="evaluations without a better dev metric before the run stops")


class DataConfig(Section):
    """Where fine-tuning data comes from. Paths are relative to `--data-root`; none given = the embedded data."""

    train: tuple[str, ...] = Field((), description="labelled files or folders; PATH#SPLIT for one split of a file")
    dev: str | None = Field(None, description="the same, one; scored while training, never trained on")
    format: str | None = Field(None, description="data format; default: guessed from the file")
    tokenizer_texts: tuple[str, ...] = Field(
        (), description="more texts for tokenizer = train and word_embeddings = neighbours: lines, or PATH#SPLIT"
    )


LossName = Literal[
    "triplet", "batch_triplet", "batch_hard_triplet", "semi_hard_triplet", "in_batch_negatives", "cosent",
    "distillation", "masked_lm",
]  # fmt: skip


class Source(Section):
    """One data set of a pretraining mix; a recipe may give its path alone."""

    path: str = Field(
        description="pairs or triplets (.tsv, .csv, .jsonl), or texts, one a line; plain or .gz; PATH#SPLIT: the texts "
        "of labelled utterances"
    )
    format: str | None = Field(None, description="of pairs; default: data.format, or guessed from the file")
    loss: LossName | None = Field(None, description="default: loss.kind")
    weight: float = Field(1.0, gt=0, le=1000, description="passes over the data set per epoch")
    first_epoch: int = Field(1, ge=1, description="of this data set")
    last_epoch: int | None = Field(None, ge=1, description="default: the run's last")
    max_rows: int | None = Field(None, ge=1, description="a seeded sample of so many rows; default: all")
    sentences: bool = Field(False, description="of texts: one row per sentence instead of per line")
    neighbours: bool = Field(False, description="of texts: pairs of a sentence and the next one, as weak positives")


def paths_alone(value: Any) -> Any:
    """Let a list of sections name one by its path alone."""
    return [{"path": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value


class PretrainData(Section):
    """Where pretraining data comes from. Paths are relative to `--data-root`; none given = the embedded data."""

    train: Annotated[tuple[Source, ...], BeforeValidator(paths_alone)] = Field(
        (), description="the data sets to mix, each as below or as its path alone"
    )
    dev: str | None = Field(None, description="scored pairs; never trained on")
    format: str | None = Field(None, description="of pairs: sts, qqp or pairs; default: guessed from each file")
    tokenizer_texts: tuple[str, ...] = Field(
        (), description="more texts for tokenizer = train and word_embeddings = neighbours: lines, or PATH#SPLIT"
    )


_BPE_DROPOUT = "chance that a merge is put off, drawn anew for each text of a batch: words have other tokens each time"


class PretrainLoss(Section):
    """What a step minimises; by default the triplet margin loss with cosine distance."""

    kind: LossName = Field("triplet", description="triplet takes each triplet's own negative, the others the batch's")
    margin: float = Field(0.5, gt=0, le=2, description="of cosine distance, for the triplet losses")
    temperature: float = Field(0.05, gt=0, description="of batch_triplet, in_batch_negatives, cosent, distillation")
    symmetric: bool = Field(False, description="in_batch_negatives: also from positives to anchors")
    positive_score: float = Field(0.7, gt=0, le=1, description="pairs scored at least this are positives")
    negative_score: float = Field(0.4, ge=0, lt=1, description="pairs scored at most this are negatives")
    mask_fraction: float = Field(0.15, gt=0, lt=1, description="masked_lm: share of tokens to guess")
    similarity_weight: float = Field(1.0, ge=0, description="distillation: weight of the batch's similarities")
    teacher_projection: Literal["none", "pca"] = Field(
        "none", description="pca: bring the teacher's embeddings to the student's width"
    )
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of tokens read as [MASK] in training")
    bpe_dropout: float = Field(0.0, ge=0, lt=1, description=_BPE_DROPOUT)
    matryoshka_dims: tuple[int, ...] = Field((), description="also train the embedding's first so many dimensions")


class MiningConfig(Section):
    """Hard negatives for triplets, found with the current encoder."""

    every_epochs: int = Field(0, ge=0, description="search again after so many epochs; 0 = off")
    nearest: int = Field(30, ge=1, description="candidates looked at for each anchor")
    max_similarity: float = Field(
        0.95, gt=0, le=1, description="a candidate closer to the anchor than this share of its positive's similarity "
        "is taken for an unlabelled paraphrase and skipped"
    )  # fmt: skip


class LabelLoss(Section):
    """How annotated intents and tags count; of tags under a CRF, only token_dropout."""

    tag_weighting: Literal["power", "inverse_root", "effective_number"] = Field(
        "power", description="tag class weight = frequency ** -tag_weight_power, or ** -0.5, or 1 / effective number"
    )
    tag_weight_power: float = Field(0.1, ge=0, le=1, description="of tag_weighting = power; 0 = off")
    effective_number_beta: float = Field(0.999, ge=0, lt=1, description="near 1: as inverse frequency; 0: all alike")
    tag_focal_gamma: float = Field(0.0, ge=0, le=10, description="tags read well count (1 - p) ** gamma; 0 = off")
    intent_sampling_power: float = Field(0.3, ge=0, le=1, description="row weight = intent frequency ** -power")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="probability that the gold label gives up to the others"
    )
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of tokens read as [MASK] in training")


class FinetuneLoss(LabelLoss):
    """Sum of intent and tag cross-entropy, each times its weight."""

    intent_weight: float = Field(1.0, ge=0, description="of the intent loss; 0 = intents are not learnt")
    tag_weight: float = Field(1.0, ge=0, description="of the tag loss; 0 = tags are not learnt")
    bpe_dropout: float = Field(0.0, ge=0, lt=1, description=_BPE_DROPOUT + "; not of texts read in windows")
    balance: Literal["fixed", "uncertainty"] = Field(
        "fixed", description="uncertainty: the losses are also divided by variances that are learnt"
    )

    @model_validator(mode="after")
    def _something_counts(self) -> "FinetuneLoss":
        if not self.intent_weight and not self.tag_weight:
            raise ValueError("intent_weight and tag_weight are both 0: nothing would train")
        return self


class FreezingConfig(Section):
    """What does not train: weights stay as they are, and their part of the model has no dropout."""

    encoder: bool = Field(False, description="all of it: only the heads train")
    cached_features: bool = Field(
        False, description="with encoder: token states are computed once, before training, and kept in memory"
    )
    lower_layers: int = Field(0, ge=0, description="embeddings and so many layers; 0 = not the embeddings either")
    intent_head: bool = Field(False, description="the start's, which must be for these intents; random if it has none")
    tag_head: bool = Field(False, description="the start's, which must be for these tags; random if it has none")
    epochs_per_layer: int = Field(
        0, ge=0, description="gradual unfreezing: heads alone at first, then from the top one layer more after so many "
        "epochs each, embeddings last; 0 = off"
    )  # fmt: skip

    @model_validator(mode="after")
    def _parts_fit(self) -> "FreezingConfig":
        if self.cached_features and not self.encoder:
            raise ValueError("cached_features needs encoder = true")
        if self.encoder and (self.lower_layers or self.epochs_per_layer):
            raise ValueError("encoder = true freezes all layers; leave out lower_layers and epochs_per_layer")
        if self.intent_head and self.tag_head and self.encoder:
            raise ValueError("nothing would train; leave out encoder, intent_head or tag_head")
        return self


class ShrinkConfig(Section):
    """A smaller start: what the embeddings of the training texts miss least is left out, before training."""

    num_layers: int | None = Field(None, ge=1, description="layers that stay; default: all")
    ffn_dim: int | None = Field(None, ge=8, description="units of each layer's feed-forward part; default: all")
    vocab_size: int | None = Field(
        None,
        ge=260,
        description="tokens: of a BERT's those that the training texts have most, of weebill's the first; default: all",
    )


class Recipe(Section):
    """What all kinds of recipe share."""

    seed: int = Field(0, ge=0, lt=2**32, description="decides everything random: weights, order, dropout")
    tokenizer: str = Field("packaged", description='"packaged", "train" (on the training texts), or a folder')
    vocab_size: int = Field(8192, ge=260, description="tokens, for tokenizer = train")
    normalizers: tuple[Literal["nfc", "lowercase"], ...] = Field((), description="for tokenizer = train")
    start: str | None = Field(
        None,
        description="model folder, BERT folder, or BERT on the Hugging Face Hub; default: random weights. finetune "
        "takes a model's heads too",
    )
    word_embeddings: Literal["random", "neighbours", "teacher"] = Field(
        "random", description="neighbours: tokens that stand near the same tokens in the training texts start alike; "
        "teacher (pretrain): each token starts as the teacher's embedding of its text"
    )  # fmt: skip
    shrink: ShrinkConfig = ShrinkConfig()
    encoder: EncoderConfig = EncoderConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _start_fits(self) -> "Recipe":
        if self.start is None and self.shrink != ShrinkConfig():
            raise ValueError("shrink makes a start smaller, so it needs one; name a start, or leave [shrink] out")
        if self.start is not None and self.word_embeddings == "neighbours":
            raise ValueError("start brings word embeddings of its own, so word_embeddings must not be neighbours")
        if self.word_embeddings == "teacher" and "teacher" not in type(self).model_fields:
            raise ValueError("word_embeddings = teacher is for pretraining; set it to neighbours or random")
        return self


METRIC_SHOWN = "the dev score that chooses the best weights and stops the run"


class PretrainRecipe(Recipe):
    """Train a sentence transformer on pairs, triplets, texts or a teacher's embeddings."""

    task: Literal["pretrain"] = "pretrain"
    metric: Literal["spearman", "pearson"] = Field("spearman", description=METRIC_SHOWN)
    teacher: str | None = Field(None, description="whose embeddings the distillation loss follows; as start")
    data: PretrainData = PretrainData()
    loss: PretrainLoss = PretrainLoss()
    mining: MiningConfig = MiningConfig()


class FinetuneRecipe(Recipe):
    """Train intent and entities on a shared encoder."""

    task: Literal["finetune"] = "finetune"
    metric: Literal["intent_accuracy", "span_f1", "exact_match"] = Field("exact_match", description=METRIC_SHOWN)
    on_overflow: Overflow = Field(
        "window", description="a training text with more tokens than encoder.max_seq_len: in overlapping windows, cut "
        "(truncate), or refused (error)"
    )  # fmt: skip
    data: DataConfig = DataConfig()
    heads: HeadsConfig = HeadsConfig()
    loss: FinetuneLoss = FinetuneLoss()
    freezing: FreezingConfig = FreezingConfig()

    @model_validator(mode="after")
    def _options_fit(self) -> "FinetuneRecipe":
        if self.freezing.cached_features and self.loss.token_dropout:
            raise ValueError("freezing.cached_features reads each text once, so loss.token_dropout must be 0")
        if self.freezing.cached_features and self.loss.bpe_dropout:
            raise ValueError("freezing.cached_features reads each text once, so loss.bpe_dropout must be 0")
        if self.heads.crf and self.loss.tag_focal_gamma:
            raise ValueError("heads.crf has a loss of its own, so loss.tag_focal_gamma must be 0")
        return self


RecipeT = TypeVar("RecipeT", bound=Recipe)
