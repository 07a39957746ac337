"""A run that was stopped, however, ends with the bits of a run that never was; what is wrong is said."""

import dataclasses
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from weebill import templates
from weebill.config import FinetuneRecipe, PretrainRecipe
from weebill.distill_config import DistillRecipe
from weebill.errors import ArtifactError, ConfigError, TrainingInterrupted
from weebill.recipe_files import parse_recipe
from weebill.runs import run_distill, run_finetune, run_pretrain, training_folder
from weebill.task import TrainingStopped

SMALL = {"num_layers": 1, "hidden_dim": 32, "num_heads": 4, "ffn_dim": 64}
TRAINING = {"epochs": 3, "batch_size": 16, "evals": 6, "learning_rate": 3e-3}
SIDE_BY_SIDE = TRAINING | {"batch_size": 8, "accumulation_steps": 2}


class Crash(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    """So that batches of one step are computed by two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Small data files: scored pairs, positives, texts, utterances."""
    folder = tmp_path_factory.mktemp("data")
    triplets = templates.paraphrase_triplets("train", 120)
    lines = chain(*((f"{a}\t{p}\t1.0\n", f"{a}\t{n}\t0.0\n") for a, p, n in triplets))
    (folder / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    rows = templates.generate()[0][::40]
    (folder / "texts.txt").write_text("".join(u.text + "\n" for u in rows[:60]), encoding="utf-8")
    spans = [
        {
            "text": u.text,
            "intent": u.intent,
            "spans": [{"start": e.start, "end": e.end, "label": e.label} for e in u.entities],
        }
        for u in rows
    ]
    (folder / "nlu.jsonl").write_text("".join(json.dumps(s) + "\n" for s in spans), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEEBILL_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        teacher = parse_recipe(FINETUNE | {"training": {"epochs": 1, "evals": 1}}, FinetuneRecipe, "t")
        run_finetune(teacher, folder / "teacher", folder, Console(file=io.StringIO()))
        yield folder


PRETRAIN = {
    "encoder": SMALL,
    "training": TRAINING,
    "mining": {"every_epochs": 1},
    "loss": {"bpe_dropout": 0.1},
    "data": {
        "train": [{"path": "pairs.tsv", "loss": "in_batch_negatives"}, {"path": "texts.txt", "loss": "masked_lm"}],
        "dev": "pairs.tsv",
    },
}
FINETUNE = {
    "encoder": SMALL,
    "training": TRAINING,
    "loss": {"token_dropout": 0.1, "bpe_dropout": 0.1},
    "data": {"train": ["nlu.jsonl"], "dev": "nlu.jsonl"},
}

DISTILL = {
    "encoder": SMALL,
    "training": SIDE_BY_SIDE | {"epochs": 1},
    "teachers": ["teacher"],
    "sentence_teacher": "teacher",
    "swapping": {"copies": 1},
    "loss": {"token_dropout": 0.1},
    "data": {"train": ["nlu.jsonl"], "unlabelled": ["texts.txt"], "dev": "nlu.jsonl"},
}
GRADUAL = FINETUNE | {
    "training": SIDE_BY_SIDE,
    "heads": {"crf": True},
    "loss": {"token_dropout": 0.1, "balance": "uncertainty", "tag_weighting": "effective_number"},
    "freezing": {"epochs_per_layer": 1},
}
CACHED = FINETUNE | {"loss": {"tag_focal_gamma": 1.0}, "freezing": {"encoder": True, "cached_features": True}}
SHRUNK = {
    "start": "teacher",
    "shrink": {"vocab_size": 4000, "ffn_dim": 40},
    "training": SIDE_BY_SIDE | {"epochs": 20},  # long enough to be killed twice
    "teacher": "teacher",
    "data": {"train": [{"path": "texts.txt", "loss": "distillation"}], "dev": "pairs.tsv"},
}
TASKS = {
    "pretrain": (PRETRAIN, PretrainRecipe, run_pretrain),
    "finetune": (FINETUNE, FinetuneRecipe, run_finetune),
    "distill": (DISTILL, DistillRecipe, run_distill),
    "gradual": (GRADUAL, FinetuneRecipe, run_finetune),
    "cached": (CACHED, FinetuneRecipe, run_finetune),
    "shrunk": (SHRUNK, PretrainRecipe, run_pretrain),
}


def _run(task, output, root, resume=False, **changes):
    values, kind, run = TASKS[task]
    run(parse_recipe(values | changes, kind, "t"), output, root, Console(file=io.StringIO()), resume=resume)


def _outcome(folder):
    """Everything a run leaves but what the clock decides."""
    weights = {
        (path.relative_to(folder).as_posix(), name): array.tobytes()
        for path in folder.rglob("*.safetensors")
        for name, array in load_file(path).items()
    }
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    timed = [line for line, event in zip(lines, log, strict=True) if json.dumps(event) != line]
    assert timed == []  # so that events that are equal are lines that are equal, to the byte
    return weights, [{k: v for k, v in event.items() if k != "timing"} for event in log]


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """Runs that were never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    for task in TASKS:
        _run(task, folder / task, root)
    return {task: _outcome(folder / task) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_crashes_again_and_again_ends_with_the_same_bits(task, root, whole, tmp_path, monkeypatch):
    from weebill import train

    output, crashes, steps = tmp_path / "out", 0, random.Random(task)
    take_step = train._Run.take_step
    crash_at = None

    def crashing(self, plans):
        nonlocal crashes
        if self.step == crash_at:
            crashes += 1
            raise Crash
        take_step(self, plans)

    monkeypatch.setattr(train._Run, "take_step", crashing)
    for step in sorted(steps.sample(range(3, whole[task][1][-1]["steps"]), 4)):
        crash_at = step
        with pytest.raises(Crash):
            _run(task, output, root, resume=(training_folder(output) / "checkpoint.safetensors").exists())
    crash_at = None
    _run(task, output, root, resume=True)
    assert crashes == 4
    weights, log = _outcome(output)
    assert log == whole[task][1]
    assert weights == whole[task][0]
    assert not training_folder(output).exists()


def _process(task, output, root, resume):
    os.chdir(root)
    os.environ["WEEBILL_CACHE"] = str(root / "cache")
    torch.set_num_threads(2)
    _run(task, output, root, resume)


def _written(path):
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.parametrize("task", TASKS)
def test_a_process_killed_again_and_again_ends_with_the_same_bits(task, root, whole, tmp_path):
    """SIGKILL, each time a moment after a new checkpoint: in a step, in an evaluation, in the next save."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, "weebill.distilling", "weebill.pretraining"])
    output, rng, killed = tmp_path / "out", random.Random(task), 0
    checkpoint = training_folder(output) / "checkpoint.safetensors"
    while killed < 3 and not output.exists():
        before = _written(checkpoint)
        process = server.Process(target=_process, args=(task, output, root, before > 0))
        process.start()
        while _written(checkpoint) == before and process.is_alive():
            time.sleep(0.005)
        time.sleep(rng.random() * 0.2)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 2  # a run on a fast machine may be done before the third
    if not output.exists():
        _run(task, output, root, resume=True)
    weights, log = _outcome(output)
    assert log == whole[task][1]
    assert weights == whole[task][0]


def test_ctrl_c_on_the_command_line_says_how_to_go_on(root, whole, tmp_path, monkeypatch):
    output, recipe = tmp_path / "out", tmp_path / "recipe.toml"
    sets = [f"--set={section}={json.dumps(value)}" for section, value in FINETUNE.items()]
    recipe.write_text('task = "finetune"\n', encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "weebill",
        "finetune",
        str(recipe),
        "--data-root",
        str(root),
        "--output",
        str(output),
    ]
    checkpoint = training_folder(output) / "checkpoint.safetensors"
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # so that sums have the same order
    process = subprocess.Popen([*command, *sets], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[0]
    assert process.returncode == 130 and not output.exists()
    assert re.search(r"stopped after step \d+ of \d+; --resume goes on from there", said) and "Traceback" not in said
    subprocess.run([*command, *sets, "--resume"], check=True, capture_output=True)
    assert _outcome(output) == whole["finetune"]


def test_ctrl_c_stops_after_the_step_and_says_how_to_go_on(root, whole, tmp_path, monkeypatch):
    from weebill import train

    output, take_step = tmp_path / "out", train._Run.take_step

    def pressing(self, plans):
        if self.step == 7:
            signal.raise_signal(signal.SIGINT)
        take_step(self, plans)

    monkeypatch.setattr(train._Run, "take_step", pressing)
    with pytest.raises(TrainingInterrupted, match=r"stopped after step 8 of \d+; --resume goes on from there"):
        _run("finetune", output, root)
    monkeypatch.setattr(train._Run, "take_step", take_step)
    with pytest.raises(ConfigError, match=r"out\.training: expected no run there yet.*add --resume"):
        _run("finetune", output, root)
    other = FINETUNE["training"] | {"learning_rate": 1e-3}
    with pytest.raises(ConfigError, match="expected the recipe, data, start and tokenizer this run"):
        _run("finetune", output, root, resume=True, training=other)
    assert (training_folder(output) / "checkpoint.safetensors").exists()
    _run("finetune", output, root, resume=True)
    assert _outcome(output) == whole["finetune"]


def test_a_run_goes_on_only_from_the_same_start_and_tokenizer(root, tmp_path, monkeypatch):
    from weebill import train

    start, texts, output = tmp_path / "start", tmp_path / "more.txt", tmp_path / "out"
    data = FINETUNE["data"] | {"tokenizer_texts": [str(texts)]}
    texts.write_text("wake me up at nine\n" * 100, encoding="utf-8")
    _run("finetune", start, root, training={"epochs": 1, "evals": 1})
    finish = train._Run.finish
    for changes, change in (
        ({"tokenizer": "train", "vocab_size": 290, "data": data}, lambda: texts.write_text("play some jazz\n" * 100)),
        ({"start": str(start)}, lambda: shutil.rmtree(start) or _run("finetune", start, root, seed=1)),
    ):
        monkeypatch.setattr(train._Run, "finish", lambda self: (_ for _ in ()).throw(Crash))
        with pytest.raises(Crash):
            _run("finetune", output, root, **changes)
        monkeypatch.setattr(train._Run, "finish", finish)
        change()
        with pytest.raises(ConfigError, match="expected the recipe, data, start and tokenizer this run was started"):
            _run("finetune", output, root, resume=True, **changes)
        shutil.rmtree(training_folder(output))


def test_a_checkpoint_that_is_none_is_refused(root, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(ArtifactError, match="expected the checkpoint of a stopped run, got nothing there"):
        _run("finetune", output, root, resume=True)
    assert not training_folder(output).exists()
    training_folder(output).mkdir()
    (training_folder(output) / "checkpoint.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ArtifactError, match="expected a checkpoint, got"):
        _run("finetune", output, root, resume=True)


def test_a_checkpoint_without_its_state_is_refused(root, tmp_path, monkeypatch):
    from weebill import train

    output = tmp_path / "out"
    real = train.Checkpoint.write
    monkeypatch.setattr(train.Checkpoint, "write", lambda self, tensors, state: real(self, tensors, {"step": 3}))
    monkeypatch.setattr(train._Run, "finish", lambda self: (_ for _ in ()).throw(Crash))
    with pytest.raises(Crash):
        _run("finetune", output, root)
    with pytest.raises(ArtifactError, match=r"expected the state of this run, got a damaged one: KeyError\('stale'\)"):
        _run("finetune", output, root, resume=True)


def test_a_full_disk_leaves_the_last_checkpoint_whole(root, whole, tmp_path, monkeypatch):
    from weebill import files

    output, real, calls = tmp_path / "out", files.os.fdopen, 0

    def failing(handle, mode):
        nonlocal calls
        calls += 1
        file = real(handle, mode)
        if calls == 3:
            file.write(b"half of it")
            file.close()
            raise OSError(28, "No space left on device")
        return file

    monkeypatch.setattr(files.os, "fdopen", failing)
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors: .*No space left on device"):
        _run("finetune", output, root)
    monkeypatch.undo()
    assert [p.name for p in training_folder(output).iterdir() if p.name.startswith(".")] == []
    _run("finetune", output, root, resume=True)
    assert _outcome(output) == whole["finetune"]


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_diverges_keeps_its_best_model_and_the_batch(task, what, root, whole, tmp_path, monkeypatch):
    from weebill import train

    evals = [event["step"] for event in whole[task][1] if event["event"] == "eval"]
    output, take_step, at = tmp_path / "out", train._Run.take_step, evals[1] + 1  # the step after the second evaluation

    def diverging(self, plans):
        if self.step == at - 1:
            losses = self.task.losses

            def broken(model, plan, batch):
                parts = losses(model, plan, batch)
                name = next(iter(parts))
                if what == "loss":
                    return parts | {name: parts[name] * float("nan")}
                parts[name].register_hook(lambda gradient: gradient * float("inf"))
                return parts

            self.task = dataclasses.replace(self.task, losses=broken)
        take_step(self, plans)

    monkeypatch.setattr(train._Run, "take_step", diverging)
    said = (
        rf"expected a finite {what}, got (nan|inf) at step {at} .*best evaluation, step \d+, is in .*; the batch is in"
    )
    with pytest.raises(TrainingStopped, match=said):
        _run(task, output, root)
    batch = load_file(training_folder(output) / "stopped-batch.safetensors")
    assert "input_ids" in str(sorted(batch)) or len(batch) > 0
    weights, log = _outcome(output)
    assert all(np.isfinite(np.frombuffer(w, dtype=np.float32)).all() for w in weights.values())
    assert [event["event"] for event in log].count("eval") == 2
    checkpoint = load_file(training_folder(output) / "checkpoint.safetensors")
    floats = [array for array in checkpoint.values() if array.dtype == np.float32]
    assert floats and all(np.isfinite(array).all() for array in floats)  # the last good one
    shutil.rmtree(output)
    monkeypatch.undo()
    monkeypatch.setenv("WEEBILL_CACHE", str(root / "cache"))
    _run(task, output, root, resume=True)  # what broke it is gone: it ends as if nothing had been
    assert _outcome(output) == whole[task]


def test_what_a_run_leaves_in_its_folder(root, tmp_path):
    _run("pretrain", tmp_path / "out", root)
    picture = (tmp_path / "out" / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    evals = [event for event in log if event["event"] == "eval"]
    assert len(evals) == 6 and {"masked_lm", "in_batch_negatives"} == set(evals[0]["losses"])
    assert evals[-1]["timing"]["examples_per_s"] > 0
    curves = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    shown = [(point.step, point.value) for point in curves.Scalars("metrics/spearman")]
    assert shown == [(event["step"], pytest.approx(event["metrics"]["spearman"])) for event in evals]
