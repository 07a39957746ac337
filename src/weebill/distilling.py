"""Distillation as a task for the loop: a small joint model follows what its teachers say of texts. Reads no files.

Of each text the student learns the teachers' soft intents and tags, and the sentence teacher's embedding; of labelled
rows the gold labels too. How tags come from one tokenization to another is in soft_tags.py.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from weebill import data, label_facts, losses
from weebill.checkpoint import Checkpoint
from weebill.decoding import TagGrammar
from weebill.distill_config import DistillRecipe
from weebill.errors import ConfigError, DataError
from weebill.evaluate import statistics
from weebill.finetuning import check_metric, dev_scores, settle_entities, tag_class_weights
from weebill.joint_teacher import JointTeacher, Labels, SoftLabels, shared_labels, soft_labels, trusted
from weebill.ledger import training_ledger
from weebill.lessons import Lesson
from weebill.linear_teacher import linear_teacher
from weebill.multitask import MultiTaskModel
from weebill.predictor import predictor_of_model
from weebill.schema import Prediction, Utterance
from weebill.soft_tags import NO_WORD, token_log_probs, word_spans, words_begun_in
from weebill.starting import start_encoder
from weebill.tags import MISSING, spans_from_tags, tag_vocabulary
from weebill.task import Batch, Event, OnEvent, Plan, Task
from weebill.teacher import Vectors, cache_folder, fit_width
from weebill.tokenizer import Tokenizer
from weebill.train import fit


@dataclass
class _Rows:
    """The texts of a lesson ready for batches; lists and arrays by row, words numbered as in `soft`."""

    lesson: Lesson
    numbers: data.Ints  # of the texts learnt from, within the lesson
    token_ids: list[list[int]]
    soft: SoftLabels | None  # of all texts of the lesson
    words: list[list[int]]  # of each token, the word it begins in
    later: list[list[bool]]  # whether inside it
    gold: data.LabelledRows | None
    chances: npt.NDArray[np.float64] | None  # of a row to be drawn
    counts: Event  # what the lesson had, and what was left out
    teacher_ND: Vectors | None = None


def distill(
    recipe: DistillRecipe,
    lessons: Sequence[Lesson],
    dev: Sequence[Utterance],
    teachers: Sequence[JointTeacher],
    on_event: OnEvent,
    tokenizer: Tokenizer | None = None,
    sentence_teacher: Callable[[Sequence[str]], Vectors] | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    texts: Iterable[str] | None = None,
) -> tuple[MultiTaskModel, Event]:
    """Train a student on what its teachers say; returns the model and the end event.

    Args:
        recipe: what to do.
        lessons: the texts.
        dev: held-out rows, annotated for the recipe's metric.
        teachers: whose intents and tags are averaged; what they say is kept in `teacher.cache_folder`.
        on_event: see `train.fit`; "lesson" says how many of its texts are learnt from.
        tokenizer: for an encoder of random weights; default: as the recipe says.
        sentence_teacher: texts -> embeddings of length 1.
        checkpoint: see `train.fit`.
        resume: see `train.fit`.
        texts: see `starting.start_encoder`; default: those of the lessons.

    Raises:
        DataError: no texts, or none that the teachers are sure of.
        ConfigError: teachers, data and recipe do not fit each other.
    """
    if not any(lesson.utterances for lesson in lessons) or not dev:
        raise DataError("expected texts to distill on and dev utterances, got none of one of them; check the data")
    follows = sentence_teacher is not None and (recipe.loss.embedding_weight or recipe.loss.similarity_weight)
    if not follows and not all(lesson.labels for lesson in lessons):
        raise ConfigError("data.unlabelled: expected a sentence_teacher and a weight for its loss, as some texts teach "
                          "embeddings alone, got none; give both, or let all texts teach labels")  # fmt: skip
    set_seed(recipe.seed)
    labelled = _labelled(lessons)
    heads = settle_entities(recipe.heads, labelled)
    teachers = all_teachers(recipe, lessons, teachers)
    intents, tags = shared_labels(teachers)
    labels = [tag[2:] for tag in tags if tag.startswith("B-")]
    for what, places in label_facts.check_known_labels(labelled, intents, labels).items():
        raise ConfigError(f"teachers: expected them to know every label of the training rows, got {what}, which they "
                          f"do not ({places[0]}); fine-tune them on the same labels")  # fmt: skip
    if texts is None:
        texts = (u.text for lesson in lessons for u in lesson.utterances)
    encoder = start_encoder(recipe, tokenizer, texts)
    width = encoder.config.embedding_dim
    model = MultiTaskModel(encoder, intents, tags, heads)
    predictor = predictor_of_model(model)
    check_metric(recipe.metric, predictor, dev)
    if sentence_teacher and recipe.loss.embedding_weight:  # refuse a width before minutes of reading
        fit_width(sentence_teacher([dev[0].text]), width, recipe.loss.teacher_projection)
    on_event({"event": "teachers"} | teachers_scores(teachers, dev, model.whole_words, touching=heads.settled_touching))
    work = _Distillation(recipe, model, [_prepare(recipe, model, lesson, teachers, on_event) for lesson in lessons])
    if sentence_teacher and follows:
        _add_embeddings(recipe, work.rows, sentence_teacher, width)
    gold = [rows.gold for rows in work.rows if rows.gold]
    ledger = training_ledger(gold, labelled, dev, intents, labels)
    on_event({"event": "ledger", "rows": [entry.to_json() for entry in ledger]})
    task = Task(work.plan, work.collate, work.losses, lambda: dev_scores(predictor, dev), recipe.metric,
                length=work.length)  # fmt: skip
    end = fit(model, task, recipe.training, recipe.seed, on_event, checkpoint, resume)
    return model, end | {"lessons": [rows.counts for rows in work.rows]}


def teachers_scores(
    teachers: Sequence[JointTeacher],
    dev: Sequence[Utterance],
    whole_words: bool,
    show_progress: bool = True,
    touching: Collection[str] | None = None,
) -> dict[str, float]:
    """Return how well the teachers' mean reads dev: what a student of theirs can hope for, by name of the score."""
    intents, tags = shared_labels(teachers)
    texts = list(dict.fromkeys(u.text for u in dev))
    soft = soft_labels(teachers, texts, whole_words, cache_folder(), show_progress)
    grammar, predictions = TagGrammar(tags, touching=touching), {}
    for i, text in enumerate(texts):
        words = word_spans(text, whole_words)
        logs_1UL = soft.tags_UL[None, soft.first_word_N[i] : soft.first_word_N[i] + len(words)].astype(np.float32)
        unread_1U = np.isnan(logs_1UL[:, :, 0])  # beyond what a teacher reads
        logs_1UL[unread_1U] = np.where(np.arange(len(tags)) == grammar.outside, 0, -np.inf)
        found = grammar.decode(logs_1UL, [range(len(words))], [[False] * len(words)])[0]
        intent = int(soft.intents_NC[i].argmax())
        score = float(np.exp(soft.intents_NC[i, intent]))
        spans = spans_from_tags([tags[tag] for tag in found], words)
        predictions[text] = Prediction(text, intents[intent], score, spans)
    scores = statistics(dev, [predictions[u.text] for u in dev])
    return {name: float(statistic(np.ones((1, rows)))[0]) for name, statistic, rows in scores}


def all_teachers(
    recipe: DistillRecipe, lessons: Sequence[Lesson], teachers: Sequence[JointTeacher]
) -> list[JointTeacher]:
    """Return the teachers, and behind them the linear one if the recipe asks for it.

    It is fitted on what people labelled, and knows the labels of the others; without others those of all rows.
    """
    if not recipe.linear.votes:
        return list(teachers)
    labelled = _labelled(lessons)
    rows = [u for lesson in lessons if not (lesson.copies or lesson.doubtful) for u in lesson.utterances]
    texts = [u.text for lesson in lessons if not lesson.copies for u in lesson.utterances]
    if teachers:
        labels = shared_labels(teachers)
    else:
        intents = sorted({u.intent for u in labelled if u.intent is not None})
        labels = Labels(intents, tag_vocabulary(e.label for u in labelled for e in u.entities or ()))
    whole_words = settle_entities(recipe.heads, labelled).entity_boundaries == "words"
    return [*teachers, linear_teacher(recipe.linear, rows, labels, whole_words, texts)]


def _labelled(lessons: Sequence[Lesson]) -> list[Utterance]:
    return [u for lesson in lessons for u in lesson.utterances if u.intent is not None or u.entities is not None]


def _prepare(
    recipe: DistillRecipe, model: MultiTaskModel, lesson: Lesson, teachers: Sequence[JointTeacher], on_event: OnEvent
) -> _Rows:
    """Ask the teachers, leave out what they are not sure of, tokenize the rest."""
    soft, lost = None, dict[str, int]()
    kept_N = np.ones(len(lesson.utterances), dtype=bool)
    if lesson.labels:
        soft = soft_labels(teachers, lesson.texts_for_teachers, model.whole_words, cache_folder())
        if lesson.doubtful:
            kept_N, lost = trusted(soft, lesson.utterances, model.whole_words, Labels(model.intents, model.tags),
                                   recipe.agreement)  # fmt: skip
        if lesson.read_as:  # without whole words a letter more is a word more
            pairs = zip(lesson.utterances, lesson.read_as, strict=True)
            kept_N &= [_words(u.text, model) == _words(text, model) for u, text in pairs]
    numbers = np.flatnonzero(kept_N)
    counts = {"name": lesson.name, "texts": len(kept_N), "learnt": len(numbers), "lost": lost}
    on_event({"event": "lesson"} | counts)
    tokenizer, longest = model.encoder.tokenizer, model.encoder.config.max_seq_len
    utterances = [lesson.utterances[i] for i in numbers.tolist()]
    token_ids, words, later = [], [], []
    for number, utterance in zip(numbers.tolist(), utterances, strict=True):
        encoding = tokenizer.encode(utterance.text, max_length=longest)
        token_ids.append(encoding.token_ids)
        if soft is not None:
            spans = word_spans(utterance.text, model.whole_words)
            begun, inside = words_begun_in(encoding.offsets, spans)
            words.append([NO_WORD if word == NO_WORD else word + int(soft.first_word_N[number]) for word in begun])
            later.append(inside)
    gold, chances, power = None, None, recipe.loss.intent_sampling_power
    if any(u.intent is not None or u.entities is not None for u in utterances):
        gold = data.label_rows(utterances, tokenizer, longest, model.intents, model.tags)
        chances = data.sampling_weights(gold.intents, power) if power else None
    return _Rows(lesson, numbers, token_ids, soft, words, later, gold, chances, counts)


def _words(text: str, model: MultiTaskModel) -> int:
    return len(word_spans(text, model.whole_words))


def _add_embeddings(
    recipe: DistillRecipe, all_rows: Sequence[_Rows], teacher: Callable[[Sequence[str]], Vectors], width: int
) -> None:
    """Set the teacher's embeddings of the rows that learn them; in the student's width, if not only similarities."""
    taught = [rows for rows in all_rows if rows.lesson.embedding and rows.token_ids]
    read = [rows.lesson.texts_for_teachers for rows in taught]
    texts = [[some[i] for i in rows.numbers.tolist()] for rows, some in zip(taught, read, strict=True)]
    distinct = list(dict.fromkeys(text for some in texts for text in some))
    if not distinct:
        return
    vectors_ND = teacher(distinct)
    if recipe.loss.embedding_weight:
        vectors_ND = fit_width(vectors_ND, width, recipe.loss.teacher_projection)
    place = {text: i for i, text in enumerate(distinct)}
    for rows, some in zip(taught, texts, strict=True):
        rows.teacher_ND = vectors_ND[[place[text] for text in some]]


class _Distillation:
    """Plans, collates and scores the batches of all lessons."""

    def __init__(self, recipe: DistillRecipe, model: MultiTaskModel, rows: Sequence[_Rows]):
        self.recipe, self.rows, self.encoder = recipe, rows, model.encoder
        self.tokenizer = model.encoder.tokenizer
        self.grammar = TagGrammar(model.tags)
        gold = [tags for one in rows if one.gold for tags in one.gold.tags]
        weights = tag_class_weights(recipe.loss, gold, len(model.tags))
        self.weights_L = torch.from_numpy(weights)
        if not any(one.token_ids for one in rows):
            raise DataError("expected texts that the teachers are sure of, got none; ask for less in [agreement]")

    def plan(self, _: int, rng: np.random.Generator) -> list[Plan]:
        plans = []
        for number, rows in enumerate(self.rows):
            lengths = [len(ids) for ids in rows.token_ids]
            size = self.recipe.training.batch_size
            plans += [Plan(number, b) for b in data.passes(lengths, rows.lesson.weight, size, rng, rows.chances)]
        rng.shuffle(plans)
        return plans

    def length(self, plan: Plan) -> int:
        token_ids = self.rows[plan.source].token_ids
        return max(len(token_ids[i]) for i in plan.rows)

    def collate(self, plan: Plan, rng: np.random.Generator) -> Batch:
        rows = self.rows[plan.source]
        input_ids_BT = data.pad([rows.token_ids[i] for i in plan.rows], self.tokenizer.pad_id)
        masked_BT = data.mask_tokens(input_ids_BT, self.tokenizer, self.recipe.loss.token_dropout, rng)
        batch = {"input_ids": torch.from_numpy(masked_BT)}
        if rows.soft is not None:
            words_BT = data.pad([rows.words[i] for i in plan.rows], NO_WORD)
            tagged_BT = words_BT != NO_WORD
            logs_ML = rows.soft.tags_UL[words_BT[tagged_BT]].astype(np.float32)
            later_M = data.pad([rows.later[i] for i in plan.rows], 0)[tagged_BT] > 0
            known_M = ~np.isnan(logs_ML[:, 0])  # NaN: beyond what a teacher reads
            tagged_BT[tagged_BT] = known_M
            logs_ML = token_log_probs(logs_ML[known_M], later_M[known_M], self.grammar)
            batch["tagged"], batch["soft_tags"] = torch.from_numpy(tagged_BT), torch.from_numpy(logs_ML)
            soft_intents_BC = rows.soft.intents_NC[rows.numbers[plan.rows]].astype(np.float32)
            batch["soft_intents"] = torch.from_numpy(soft_intents_BC)
        if rows.gold is not None:
            batch["tags"] = torch.from_numpy(data.pad([rows.gold.tags[i] for i in plan.rows], MISSING))
            batch["intents"] = torch.from_numpy(rows.gold.intents[plan.rows])
        if rows.teacher_ND is not None:
            batch["teacher"] = torch.from_numpy(rows.teacher_ND[plan.rows].astype(np.float32))
        return batch

    def losses(self, model: nn.Module, plan: Plan, batch: Batch) -> dict[str, Tensor]:
        loss = self.recipe.loss
        mask_BT = batch["input_ids"] != self.tokenizer.pad_id
        parts = {}
        if self.rows[plan.source].lesson.labels:
            embedding_BE, intents_BC, tags_BTL = (x.float() for x in model(batch["input_ids"], mask_BT))
            soft = losses.soft_label_loss(intents_BC, batch["soft_intents"], loss.temperature)
            parts["intents"] = loss.intent_weight * soft
            soft = losses.soft_label_loss(tags_BTL[batch["tagged"]], batch["soft_tags"], loss.temperature)
            parts["tags"] = loss.tag_weight * soft
        else:  # embeddings alone: no heads, and with [CLS] pooling no other token's last state
            embedding_BE = self.encoder.embed(batch["input_ids"], mask_BT).float()
        if "intents" in batch and loss.gold_weight:
            smoothing, weights_L = loss.label_smoothing, self.weights_L.to(tags_BTL.device)
            gold_tags = losses.tag_loss(tags_BTL, batch["tags"], weights_L, smoothing, loss.tag_focal_gamma)
            parts["gold_intents"] = loss.gold_weight * losses.intent_loss(intents_BC, batch["intents"], smoothing)
            parts["gold_tags"] = loss.gold_weight * gold_tags
        if "teacher" in batch and loss.embedding_weight:
            near = losses.distillation_loss(embedding_BE, batch["teacher"])
            parts["embedding"] = loss.embedding_weight * near
        if "teacher" in batch and loss.similarity_weight:
            near = losses.similarity_distillation_loss(embedding_BE, batch["teacher"], loss.similarity_temperature)
            parts["similarities"] = loss.similarity_weight * near
        return parts
