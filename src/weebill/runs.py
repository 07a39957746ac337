"""One whole run from recipe to model folder: reads the data, trains, writes. Defines no loop and no loss."""

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape

from weebill import templates
from weebill.artifact import check_output, find_model, is_model_folder
from weebill.bert import read_start
from weebill.config import FinetuneRecipe, PretrainRecipe, Source
from weebill.corpus import stream_texts
from weebill.distill_config import DistillRecipe
from weebill.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from weebill.files import write_whole
from weebill.formats import read_utterances
from weebill.joint_teacher import read_joint_teacher
from weebill.lessons import Lesson, read_lessons
from weebill.pairs import read_pairs
from weebill.pictures import training_curves
from weebill.provenance import data_fingerprint, training_record
from weebill.run_display import RunDisplay, merge_progress
from weebill.schema import ScoredPair, Utterance
from weebill.sources import Mix, read_mix
from weebill.teacher import Vectors, cache_folder, model_fingerprint, teacher_vectors
from weebill.tokenizer import Tokenizer

if TYPE_CHECKING:
    from weebill.checkpoint import Checkpoint

AnyRecipe = PretrainRecipe | FinetuneRecipe | DistillRecipe


WEEBILL_RATES = {"learning_rate": 2e-3, "embedding_learning_rate": 7e-3}  # that keep what trained weights know
BERT_RATES = {"learning_rate": 2e-4, "embedding_learning_rate": 2e-4}
FETCHED = {  # what the shipped recipes read and `weebill data fetch` writes: the file, the name to fetch it by
    "massive/en-US.jsonl": "massive",
    "stsb/sts-train.csv": "stsb",
    "stsb/sts-dev.csv": "stsb",
    "qqp/train.tsv": "qqp",
    "qqp/dev.tsv": "qqp",
}


def require_training(purpose: str) -> None:
    """Refuse work that trains where nothing can, before anything is written.

    Raises:
        MissingExtraError: torch or accelerate is not installed.
    """
    for package in ("torch", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train", purpose)


def _check_paths(recipe: AnyRecipe, root: Path) -> None:
    """Refuse data without dev, and say how to get files that are missing and can be fetched.

    Raises:
        ConfigError: one of train and dev is not named.
        DataError: a file is missing that `weebill data fetch` writes.
    """
    if bool(recipe.data.train) != bool(recipe.data.dev):
        raise ConfigError("data: expected both train and dev, or neither for the embedded data, got only one of them; "
                          "name the other too")  # fmt: skip
    train = (source if isinstance(source, str) else source.path for source in recipe.data.train)
    names = [name.partition("#")[0] for name in (*train, recipe.data.dev or "", *_word_texts(recipe))]
    missing = [name for name in dict.fromkeys(names) if name in FETCHED and not (root / name).exists()]
    if missing:
        files, fetched = (
            ", ".join(str(root / name) for name in missing),
            dict.fromkeys(FETCHED[name] for name in missing),
        )
        commands = " && ".join(f"weebill data fetch {name} --output {root}" for name in fetched)
        raise DataError(f"{files}: expected the recipe's data, got nothing there; check --data-root, or: {commands}")


def _read_split(root: Path, name: str, format: str | None) -> list[Utterance]:
    """A path may carry its split: `massive/en-US.jsonl#train`."""
    path, mark, part = name.partition("#")
    if not (root / path).exists():
        raise DataError(f"{root / path}: expected the recipe's data, got nothing there; name its folder by "
                        f"--data-root, or other data by --set data.train and --set data.dev")  # fmt: skip
    return read_utterances(root / path, format=format, split=part if mark else None)


def _read_splits(root: Path, names: Sequence[str], format: str | None) -> list[list[Utterance]]:
    """Read several splits; what is wrong with any of them is said of all, together.

    Raises:
        DataError: as `read_utterances`.
    """
    read, problems = list[list[Utterance]](), list[str]()
    for name in names:
        try:
            read.append(_read_split(root, name, format))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))
    return read


def texts_with_words(recipe: AnyRecipe, training: Iterable[str], data_root: Path) -> Iterator[str]:
    """Yield the training texts, then those a recipe names beside them for tokenizer and word embeddings."""
    yield from training
    for name in _word_texts(recipe):
        if "#" in name:
            yield from (u.text for u in _read_split(data_root, name, None))
        else:
            yield from stream_texts([data_root / name])


def _word_texts(recipe: AnyRecipe) -> Sequence[str]:
    """Return the names of such texts, if the run reads them; a start brings words of its own."""
    wanted = recipe.start is None and (recipe.tokenizer == "train" or recipe.word_embeddings == "neighbours")
    return recipe.data.tokenizer_texts if wanted else ()


def train_tokenizer(recipe: AnyRecipe, texts: Iterable[str], console: Console) -> Tokenizer | None:
    """Train the tokenizer a recipe asks for."""
    if recipe.tokenizer != "train" or recipe.start is not None:
        return None
    with merge_progress(console) as progress:
        return Tokenizer.train(texts, recipe.vocab_size, normalizers=recipe.normalizers, progress=progress)


def _teacher(path_or_name: str, precision: str) -> Callable[[Sequence[str]], Vectors]:
    """Return a function that embeds texts with the teacher, or reads what it embedded before.

    In bf16 where the run is: reading is the longer part of a run with a large teacher.
    """
    import torch

    from weebill.precision import cpu_knows_bf16
    from weebill.sent_transformer import SentenceTransformer

    stored = read_start(path_or_name, {})
    encoder = SentenceTransformer.from_stored(stored)
    halved = precision == "bf16" and cpu_knows_bf16()  # the encoder stays on the CPU

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        with torch.autocast(encoder.word_embeddings.weight.device.type, torch.bfloat16, enabled=halved):
            return encoder.encode(texts, show_progress=False)

    named = model_fingerprint(stored) + (" bf16" if halved else "")
    return lambda texts: teacher_vectors(embed, named, texts, cache_folder())


def training_folder(output: Path) -> Path:
    """Return where a run keeps its checkpoint and log until the model is written."""
    return output.with_name(f"{output.name}.training")


def _checkpoint(
    output: Path, resume: bool, recipe: AnyRecipe, data: Sequence[Any], tokenizer: Tokenizer | None
) -> "Checkpoint":
    """Return the run's checkpoint; one that is there already is gone on with, never written over.

    Raises:
        ConfigError: a stopped run is there and `resume` is off.
    """
    from weebill.checkpoint import Checkpoint

    path = training_folder(output) / "checkpoint.safetensors"
    if path.exists() and not resume:
        raise ConfigError(f"{path.parent}: expected no run there yet, got the checkpoint of a stopped one; add "
                          f"--resume to go on with it, or delete the folder to start again")  # fmt: skip
    run = " ".join([recipe.model_dump_json(), data_fingerprint(data), *_origins(recipe, tokenizer)])
    return Checkpoint(path, hashlib.sha256(run.encode()).hexdigest())


def _origins(recipe: AnyRecipe, tokenizer: Tokenizer | None) -> Iterator[str]:
    """Yield what names the folders and the tokenizer that a run begins with: a path says little of what lies there."""
    for key in ("start", "teacher", "sentence_teacher"):
        if name := getattr(recipe, key, None):
            yield model_fingerprint(read_start(name, {}))
    if tokenizer is None and recipe.start is None and recipe.tokenizer != "packaged":
        tokenizer = Tokenizer.load(Path(recipe.tokenizer))
    if tokenizer is not None:
        yield repr((tokenizer.merges, tokenizer.special_tokens, tokenizer.normalizers, tokenizer.split_pattern))


def _notes(folder: Path, events: Sequence[Mapping[str, Any]], console: Console) -> dict[str, str | bytes]:
    """Return what is kept with a model of its run: log, curves, TensorBoard's files."""
    notes: dict[str, str | bytes] = {"log.jsonl": (folder / "log.jsonl").read_text(encoding="utf-8")}
    ledgers = [event["rows"] for event in events if event["event"] == "ledger"]
    if ledgers:
        notes["ledger.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chain(*ledgers))
    for file in folder.glob("tensorboard/*"):
        notes[f"tensorboard/{file.name}"] = file.read_bytes()
    try:
        notes["curves.png"] = training_curves(events)
    except MissingExtraError as error:
        console.print(f"no picture of the curves: {error}", markup=False, highlight=False, soft_wrap=True)
    return notes


def rates_that_wipe_out(recipe: AnyRecipe) -> str | None:
    """Return what to say of learning rates, meant for random weights, that undo what the start has learnt."""
    if recipe.start is None or (isinstance(recipe, FinetuneRecipe) and recipe.freezing.encoder):
        return None
    ours = is_model_folder(find_model(recipe.start))
    good = WEEBILL_RATES if ours else BERT_RATES
    given = {name: getattr(recipe.training, name) or 0 for name in good}
    found = {name: rate for name, rate in given.items() if rate > 4 * good[name]}
    if not found:
        return None
    rates = ", ".join(f"training.{name} = {rate:g}" for name, rate in found.items())
    better = " ".join(f"--set training.{name}={good[name]:g}" for name in found)
    return f"{rates}: so much is for random weights, and wipes out what {recipe.start} has learnt; try {better}"


def _run(
    recipe: AnyRecipe,
    output: Path,
    inputs: Sequence[Any],
    tokenizer: Tokenizer | None,
    console: Console,
    resume: bool,
    train: Callable[[Callable[[dict[str, Any]], None], "Checkpoint"], tuple[Any, dict[str, Any]]],
) -> None:
    """Train, write the model folder, say how it went; what a run that stops leaves behind is named in its error."""
    from weebill.task import TrainingStopped

    checkpoint = _checkpoint(output, resume, recipe, inputs, tokenizer)
    folder = checkpoint.path.parent
    with RunDisplay(console, recipe.task, folder) as display:

        def write(model: Any, end: dict[str, Any]) -> None:
            notes = _notes(folder, display.events, console)
            model.save(output, training=training_record(recipe, end, inputs), extra_files=notes)

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "start" and (warning := rates_that_wipe_out(recipe)):  # the start could be read
                console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
            display(event)

        try:
            model, end = train(on_event, checkpoint)
        except TrainingStopped as stop:
            step, batch = stop.end["best_step"], folder / "stopped-batch.safetensors"
            if step:
                write(stop.model, stop.end)
                stop.add(f"the model of its best evaluation, step {step}, is in {output}")
            if stop.batch:
                write_whole(batch, stop.batch_bytes())
                stop.add(f"the batch is in {batch}")
            raise
        except BaseException:
            if not checkpoint.path.exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise
    try:
        write(model, end)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; nothing trained is lost: --resume with the same recipe writes the model from "
                            f"the checkpoint in {folder}") from error  # fmt: skip
    shutil.rmtree(folder)
    shown = ", ".join(f"{k} {100 * v:.2f}" for k, v in end["metrics"].items() if k != "tag_loss")
    console.print(f"best dev at step {end['best_step']}: {shown}; {end['timing']['seconds']:.0f} s; model in {output}")


def run_pretrain(
    recipe: PretrainRecipe,
    output: Path,
    data_root: Path,
    console: Console,
    tokenizer: Tokenizer | None = None,
    resume: bool = False,
) -> None:
    """Pretrain by recipe and write the model folder; `resume` goes on with a run that was stopped."""
    require_training("training")
    check_output(output)
    _check_paths(recipe, data_root)
    if recipe.data.train:
        mix = read_mix(recipe, data_root)
        dev = read_pairs(data_root / str(recipe.data.dev), recipe.data.format)
    else:
        mix, dev = Mix(recipe), templates.paraphrase_pairs("dev")
        triplets = templates.paraphrase_triplets("train")
        scored = [(ScoredPair(a, positive, 1.0), ScoredPair(a, negative, 0.0)) for a, positive, negative in triplets]
        mix.add_pairs(Source(path="embedded paraphrases"), list(chain(*scored)))
    from weebill.pretraining import pretrain

    texts = partial(texts_with_words, recipe, mix.texts, data_root)
    tokenizer = tokenizer or train_tokenizer(recipe, texts(), console)
    teacher = _teacher(recipe.teacher, recipe.training.precision) if recipe.teacher else None
    _run(recipe, output, [*mix.records(), *dev], tokenizer, console, resume,
         lambda display, checkpoint: pretrain(recipe, mix, dev, display, tokenizer, teacher, checkpoint, resume,
                                              texts()))  # fmt: skip


def finetune_data(recipe: FinetuneRecipe, data_root: Path) -> tuple[list[Utterance], list[Utterance]]:
    """Return the training and dev utterances that a recipe names, or the embedded ones."""
    _check_paths(recipe, data_root)
    if not recipe.data.train:
        return templates.generate()
    *parts, dev = _read_splits(data_root, [*recipe.data.train, str(recipe.data.dev)], recipe.data.format)
    return list(chain(*parts)), dev


def run_finetune(
    recipe: FinetuneRecipe,
    output: Path,
    data_root: Path,
    console: Console,
    tokenizer: Tokenizer | None = None,
    resume: bool = False,
) -> None:
    """Fine-tune by recipe and write the model folder; `resume` goes on with a run that was stopped."""
    require_training("training")
    check_output(output)
    train, dev = finetune_data(recipe, data_root)
    from weebill.finetuning import finetune

    texts = partial(texts_with_words, recipe, [u.text for u in train], data_root)
    tokenizer = tokenizer or train_tokenizer(recipe, texts(), console)
    _run(recipe, output, [*train, *dev], tokenizer, console, resume,
         lambda display, checkpoint: finetune(recipe, train, dev, display, tokenizer, checkpoint, resume, texts())[:2]
         )  # fmt: skip


def run_distill(
    recipe: DistillRecipe,
    output: Path,
    data_root: Path,
    console: Console,
    tokenizer: Tokenizer | None = None,
    resume: bool = False,
) -> None:
    """Distill by recipe and write the model folder; `resume` goes on with a run that was stopped."""
    require_training("training")
    if recipe.linear.votes:
        from weebill.linear_teacher import require_linear

        require_linear()
    check_output(output)
    _check_paths(recipe, data_root)
    if recipe.data.train:
        paths = [s.path for s in recipe.data.train]
        *parts, dev = _read_splits(data_root, [*paths, str(recipe.data.dev)], recipe.data.format)
        labelled = [
            Lesson(s.path, utterances, s.weight, doubtful=s.generated)
            for s, utterances in zip(recipe.data.train, parts, strict=True)
        ]
    else:
        train, dev = templates.generate()
        labelled = [Lesson("embedded data", train, doubtful=False)]
    lessons = read_lessons(recipe, labelled, dev, data_root)
    from weebill.distilling import all_teachers, distill

    teachers = [read_joint_teacher(folder) for folder in recipe.teachers]
    sentence_teacher = _teacher(recipe.sentence_teacher, recipe.training.precision) if recipe.sentence_teacher else None
    texts = partial(texts_with_words, recipe, [u.text for lesson in lessons for u in lesson.utterances], data_root)
    tokenizer = tokenizer or train_tokenizer(recipe, texts(), console)
    asked = all_teachers(recipe, lessons, teachers)
    inputs = [*(t.record() for t in asked), *(lesson.record() for lesson in lessons), *dev]
    _run(recipe, output, inputs, tokenizer, console, resume,
         lambda display, checkpoint: distill(recipe, lessons, dev, teachers, display, tokenizer, sentence_teacher,
                                             checkpoint, resume, texts()))  # fmt: skip
