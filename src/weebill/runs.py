"""One whole run from recipe to model folder: reads the data, trains, writes. Defines no loop and no loss."""

import json
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from rich.console import Console

from weebill import templates
from weebill.artifact import check_output
from weebill.config import FinetuneRecipe, PretrainRecipe, Recipe
from weebill.corpus import stream_texts
from weebill.data import Triplet, triplets_from_pairs
from weebill.errors import ConfigError
from weebill.formats import read_utterances
from weebill.pairs import read_pairs
from weebill.report import RunDisplay, merge_progress
from weebill.schema import Utterance
from weebill.tokenizer import Tokenizer


def _check_paths(recipe: Recipe) -> None:
    if bool(recipe.data.train) != bool(recipe.data.dev):
        raise ConfigError("data: expected both train and dev, or neither for the embedded data, got only one of them")


def _read_split(root: Path, name: str, format: str | None) -> list[Utterance]:
    """A path may carry its split: `massive/en-US.jsonl#train`."""
    path, mark, part = name.partition("#")
    return read_utterances(root / path, format=format, split=part if mark else None)


def _tokenizer(recipe: Recipe, texts: Iterable[str], data_root: Path, console: Console) -> Tokenizer | None:
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


def run_pretrain(
    recipe: PretrainRecipe, output: Path, data_root: Path, console: Console, tokenizer: Tokenizer | None = None
) -> None:
    """Pretrain by recipe and write the model folder."""
    check_output(output)
    _check_paths(recipe)
    loss = recipe.loss
    if recipe.data.train:
        triplets: list[Triplet] = []
        texts: list[str] = []
        for name in recipe.data.train:
            pairs = read_pairs(data_root / name, recipe.data.format)
            texts += [text for pair in pairs for text in (pair.a, pair.b)]
            found = triplets_from_pairs(pairs, loss.positive_score, loss.negative_score, recipe.seed)
            first = len(triplets)  # groups of different files never mix
            triplets += [Triplet(t.anchor, t.positive, t.negative, t.group + first) for t in found]
        dev = read_pairs(data_root / str(recipe.data.dev), recipe.data.format)
    else:
        triplets = [Triplet(*t, group=i) for i, t in enumerate(templates.paraphrase_triplets("train"))]
        texts = [text for t in triplets for text in (t.anchor, t.positive, t.negative)]
        dev = templates.paraphrase_pairs("dev")
    from weebill.train import pretrain, training_record

    tokenizer = tokenizer or _tokenizer(recipe, texts, data_root, console)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        with RunDisplay(console, "pretrain", log) as display:
            encoder, end = pretrain(recipe, triplets, dev, display, tokenizer)
        log.seek(0)
        from weebill.artifact import write_model

        write_model(
            output,
            encoder.config,
            encoder.tokenizer,
            encoder.arrays(),
            training=training_record(recipe, end, [*triplets, *dev]),
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
