"""What a recipe of distillation may say beside config.py: texts, copies, teachers and losses. Reads no files."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from weebill.config import METRIC_SHOWN, HeadsConfig, LabelLoss, Recipe, Section, paths_alone


class LabelledTexts(Section):
    """One labelled data set to distill on; a recipe may give its path alone."""

    path: str = Field(description="as in data.train of fine-tuning; PATH#SPLIT for one split of it")
    weight: float = Field(1.0, gt=0, le=1000, description="passes over the data set per epoch")
    generated: bool = Field(False, description="no person labelled it: [agreement] leaves out what teachers doubt")


class UnlabelledTexts(Section):
    """Texts that only teachers label; a recipe may give their path alone."""

    path: str = Field(description="texts, one a line; plain or .gz, or a folder of such files")
    weight: float = Field(1.0, gt=0, le=1000, description="passes over the texts per epoch")
    max_rows: int | None = Field(None, ge=1, description="a seeded sample of so many texts; default: all")
    sentences: bool = Field(False, description="one row per sentence instead of per line")
    learns: tuple[Literal["labels", "embedding"], ...] = Field(
        ("labels", "embedding"), min_length=1, description="labels: from the teachers; embedding: sentence_teacher"
    )


class DistillData(Section):
    """Where the texts come from. Paths are relative to `--data-root`; no train and dev = the embedded data."""

    train: Annotated[tuple[LabelledTexts, ...], BeforeValidator(paths_alone)] = Field(
        (), description="labelled data sets, each as below or as its path alone"
    )
    unlabelled: Annotated[tuple[UnlabelledTexts, ...], BeforeValidator(paths_alone)] = Field(
        (), description="texts without labels, each as below or as its path alone"
    )
    dev: str | None = Field(None, description="labelled; never trained on")
    format: str | None = Field(None, description="of labelled data; default: guessed from each file")
    tokenizer_texts: tuple[str, ...] = Field(
        (), description="more texts for tokenizer = train and word_embeddings = neighbours: lines, or PATH#SPLIT"
    )


class SwappingConfig(Section):
    """Copies of the labelled rows with every entity's value swapped for another one of its label."""

    copies: int = Field(0, ge=0, le=100, description="per row; 0 = off")
    weight: float = Field(1.0, gt=0, le=1000, description="passes over the copies per epoch")


class SubstitutionConfig(Section):
    """Copies of the labelled rows with words replaced by ones seen between the same two; teachers label them."""

    copies: int = Field(0, ge=0, le=100, description="per row; 0 = off")
    share: float = Field(0.3, gt=0, le=1, description="chance of each word to be replaced")
    weight: float = Field(1.0, gt=0, le=1000, description="passes over the copies per epoch")


class NoiseConfig(Section):
    """Copies of the labelled rows as hurried people write and say them."""

    typing_errors: int = Field(0, ge=0, description="copies of each row with an error in one word; what the teachers "
                               "say of the row as it was is learnt")  # fmt: skip
    hesitations: bool = Field(False, description="a copy of each row with a filler in front and one or a mark behind")
    weight: float = Field(1.0, gt=0, description="passes over these copies per epoch")


class LinearConfig(Section):
    """A teacher fitted on the labelled rows: logistic regression over n-grams of words and characters says the intent,
    a CRF over words the tags. Needs the extra "linear"."""

    votes: float = Field(0.0, ge=0, le=100, description="in the mean, where each of `teachers` has one; 0 = off")
    iterations: int = Field(120, ge=1, description="of the CRF's L-BFGS")
    groups: tuple[Annotated[int, Field(ge=2, le=10_000)], ...] = Field(
        (50, 200, 800), description="words of all texts come into so many groups by their neighbours, "
        "which both see beside the words; []: neither does"
    )  # fmt: skip


class AgreementConfig(Section):
    """Which texts that no person labelled, swapped copies among them, are left out: those the teachers doubt."""

    on: Literal["nothing", "intent", "intent_and_tags"] = Field(
        "nothing", description="what all teachers, and the label if there is one, must say alike: the likeliest intent;"
        " each word's likeliest tag too"
    )  # fmt: skip
    min_confidence: float = Field(0.0, ge=0, lt=1, description="of the likeliest intent, by the teachers' mean")


class DistillLoss(LabelLoss):
    """Sum of the divergences from the teachers, and of the gold labels' cross-entropy on labelled rows."""

    temperature: float = Field(2.0, gt=0, description="of intents and tags; above 1 shows what is nearly right, too")
    intent_weight: float = Field(1.0, ge=0, description="of the teachers' intents")
    tag_weight: float = Field(1.0, ge=0, description="of the teachers' tags")
    gold_weight: float = Field(0.5, ge=0, description="of gold intents and tags")
    embedding_weight: float = Field(0.3, ge=0, description="of the distance to the sentence teacher's embeddings")
    similarity_weight: float = Field(
        0.1, ge=0, description="of the batch's similarities by the sentence teacher, in its own width if alone"
    )
    similarity_temperature: float = Field(0.05, gt=0, description="divides those similarities")
    teacher_projection: Literal["none", "pca"] = Field(
        "none", description="pca: bring the sentence teacher's embeddings to the student's width"
    )


class DistillRecipe(Recipe):
    """Train a small model on what larger ones say of labelled and unlabelled texts."""

    task: Literal["distill"] = "distill"
    metric: Literal["intent_accuracy", "span_f1", "exact_match"] = Field("exact_match", description=METRIC_SHOWN)
    teachers: tuple[str, ...] = Field((), description="model folders with heads; several are averaged")
    linear: LinearConfig = LinearConfig()
    sentence_teacher: str | None = Field(None, description="whose embeddings the student's follow; as start")
    data: DistillData = DistillData()
    swapping: SwappingConfig = SwappingConfig()
    substitution: SubstitutionConfig = SubstitutionConfig()
    noise: NoiseConfig = NoiseConfig()
    agreement: AgreementConfig = AgreementConfig()
    heads: HeadsConfig = HeadsConfig()
    loss: DistillLoss = DistillLoss()

    @model_validator(mode="after")
    def _options_fit(self) -> "DistillRecipe":
        if not self.teachers and not self.linear.votes:
            raise ValueError("teachers must name a model folder that `weebill finetune` wrote, or linear.votes be more "
                             "than 0")  # fmt: skip
        if self.heads.crf or self.heads.intent_threshold == "dev":
            raise ValueError("heads.crf and heads.intent_threshold = dev are for `weebill finetune`; teachers say what "
                             "each token is by itself")  # fmt: skip
        if self.heads.intent_separator is not None:
            raise ValueError("heads.intent_separator is for `weebill finetune`; teachers say which one intent a text "
                             "has")  # fmt: skip
        return self
