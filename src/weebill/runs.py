"""One whole run from recipe to model folder: reads the data, trains, writes. Defines no loop and no loss."""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console

from weebill import templates
from weebill.artifact import check_output
from weebill.config import FinetuneRecipe, PretrainRecipe, Source
from weebill.corpus import stream_texts
from weebill.errors import ArtifactError, ConfigError
from weebill.formats import read_utterances
from weebill.pairs import read_pairs
from weebill.predictor import load
from weebill.report import RunDisplay, merge_progress
from weebill.schema import ScoredPair, Utterance
from weebill.sources import Mix, read_mix
from weebill.teacher import Vectors, cache_folder, folder_fingerprint, teacher_vectors
from weebill.tokenizer import Tokenizer


def _check_paths(recipe: PretrainRecipe | FinetuneRecipe) -> None:
    if bool(recipe.data.train) != bool(recipe.data.dev):
        raise ConfigError("data: expected both train and dev, or neither for the embedded data, got only one of them")


def _read_split(root: Path, name: str, format: str | None) -> list[Utterance]:
    """A path may carry its split: `massive/en-US.jsonl#train`."""
    path, mark, part = name.partition("#")
    return read_utterances(root / path, format=format, split=part if mark else None)


def _tokenizer(
    recipe: PretrainRecipe | FinetuneRecipe, texts: Iterable[str], data_root: Path, console: Console
) -> Tokenizer | None:
    """Train the tokenizer a recipe asks for, on the training texts and those it names beside them."""
    if recipe.tokenizer != "train" or recipe.start is not None:
        return None
    more: list[Iterable[str]] = []
    for name in recipe.data.tokenizer_texts:
        if "#" in name:
            more.append(u.text for u in _read_split(data_root, name, None))
        else:
            more.append(stream_texts([data_root / name]))
    with merge_progress(console) as progress:
        return Tokenizer.train(
            chain(texts, *more), recipe.vocab_size, normalizers=recipe.normalizers, progress=progress
        )


def _teacher(folder: str) -> Callable[[Sequence[str]], Vectors]:
    """Return a function that embeds texts with the teacher, or reads what it embedded before."""
    predictor = load(folder)
    fingerprint = folder_fingerprint(Path(folder))
    return lambda texts: teacher_vectors(predictor.embed, fingerprint, texts, cache_folder())


def run_pretrain(
    recipe: PretrainRecipe, output: Path, data_root: Path, console: Console, tokenizer: Tokenizer | None = None
) -> None:
    """Pretrain by recipe and write the model folder."""
    check_output(output)
    _check_paths(recipe)
    if recipe.data.train:
        mix = read_mix(recipe, data_root)
        dev = read_pairs(data_root / str(recipe.data.dev), recipe.data.format)
    else:
        mix, dev = Mix(recipe), templates.paraphrase_pairs("dev")
        triplets = templates.paraphrase_triplets("train")
        scored = [(ScoredPair(a, positive, 1.0), ScoredPair(a, negative, 0.0)) for a, positive, negative in triplets]
        mix.add_pairs(Source(path="embedded paraphrases"), list(chain(*scored)))
    from weebill.artifact import write_model
    from weebill.pretraining import pretrain
    from weebill.train import training_record

    tokenizer = tokenizer or _tokenizer(recipe, mix.texts, data_root, console)
    teacher = _teacher(recipe.teacher) if recipe.teacher else None
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        with RunDisplay(console, "pretrain", log) as display:
            encoder, end = pretrain(recipe, mix, dev, display, tokenizer, teacher)
        log.seek(0)
        write_model(
            output,
            encoder.config,
            encoder.tokenizer,
            encoder.arrays(),
            training=training_record(recipe, end, [*mix.records(), *dev]),
            extra_files={"log.jsonl": log.read()},
        )
    console.print(f"best dev Spearman {100 * end['metrics']['spearman']:.2f} at step {end['best_step']}, "
                  f"{end['seconds']:.0f} s; model in {output}")  # fmt: skip


def run_finetune(
    recipe: FinetuneRecipe, output: Path, data_root: Path, console: Console, tokenizer: Tokenizer | None = None
) -> None:
    """Fine-tune by recipe and write the model folder."""
    check_output(output)
    _check_paths(recipe)
    if recipe.data.train:
        train = [u for name in recipe.data.train for u in _read_split(data_root, name, recipe.data.format)]
        dev = _read_split(data_root, str(recipe.data.dev), recipe.data.format)
    else:
        train, dev = templates.generate()
    if recipe.start is not None and not Path(recipe.start).exists():
        raise ArtifactError(f"start = {recipe.start!r}: expected a model folder, got nothing there; run `weebill "
                            f"pretrain` first or leave out `start` for random weights")  # fmt: skip
    from weebill.train import finetune, training_record

    tokenizer = tokenizer or _tokenizer(recipe, (u.text for u in train), data_root, console)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        with RunDisplay(console, "finetune", log) as display:
            model, end, ledger = finetune(recipe, train, dev, display, tokenizer)
        log.seek(0)
        ledger_text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ledger)
        model.save(
            output,
            training=training_record(recipe, end, [*train, *dev]),
            extra_files={"log.jsonl": log.read(), "ledger.jsonl": ledger_text},
        )
    shown = ", ".join(f"{k} {100 * v:.2f}" for k, v in end["metrics"].items() if k != "tag_loss")
    console.print(f"best dev at step {end['best_step']}: {shown}; {end['seconds']:.0f} s; model in {output}")
