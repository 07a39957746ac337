"""A full disk, a read-only folder, a crash in the middle: what was there before is whole, and the message says why."""

import errno
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import weebill
from weebill import files
from weebill.artifact import compare_files
from weebill.cli import app
from weebill.config import FinetuneRecipe
from weebill.errors import ArtifactError
from weebill.multitask import MultiTaskModel
from weebill.recipe_files import parse_recipe
from weebill.runs import run_finetune, training_folder
from weebill.teacher import teacher_vectors

SMALL = Path(__file__).parent / "folders" / "today"
PLACE = r"expected a place to write.*, got: \[Errno {}\].*; make room, or choose another"


@contextmanager
def files_of_at_most(size):
    """Stand in for a full disk anywhere: no file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def mounted(folder, options):
    """Mount a memory file system on a folder, where this machine and user can."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"id": str(i), "text": f"wake me at {i} am", "intent": "alarm", "spans": [{"start": 8, "end": 11 + len(str(i)),
         "label": "time"}]} for i in range(200)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.txt").write_text("".join(row["text"] + "\n" for row in rows))
    return folder


WRITERS = {
    "predictions": ("parse", SMALL, "--input", "{data}/texts.txt", "--output", "{out}/parsed.jsonl"),
    "vectors": ("embed", SMALL, "--input", "{data}/texts.txt", "--output", "{out}/vectors.npy"),
    "scores": ("evaluate", SMALL, "--data", "{data}/rows.jsonl", "--output", "{out}/scores.json"),
    "a conversion": ("data", "convert", "{data}/rows.jsonl", "--output", "{out}/rows.conll"),
    "a packed conversion": ("data", "convert", "{data}/rows.jsonl", "--output", "{out}/rows.jsonl.gz"),
    "a folder of three files": ("data", "convert", "{data}/rows.jsonl", "--output", "{out}/bio", "--to", "bio"),
    "Rasa": ("data", "convert", "{data}/rows.jsonl", "--output", "{out}/nlu.yml"),
    "splits": ("data", "split", "{data}/rows.jsonl", "--output", "{out}/splits"),
    "generated rows": ("data", "generate", "embedded", "--count", "train=300", "--output", "{out}/more.jsonl"),
    "a report": ("data", "check", "{data}/rows.jsonl", "--html", "{out}/report.html"),
    "a tokenizer": (
        "tokenizer",
        "train",
        "--input",
        "{data}/texts.txt",
        "--vocab-size",
        "270",
        "--output",
        "{out}/tokenizer",
    ),
    "a merge map": ("tokenizer", "convert", SMALL, "--output", "{out}/merges.json"),
    "ranks": ("tokenizer", "convert", SMALL, "--output", "{out}/ranks.tiktoken"),
    "an exported model": ("export", SMALL, "--output", "{out}/exported"),
    "an exported tokenizer": ("export", SMALL, "--format", "tiktoken", "--output", "{out}/tiktoken"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_keeps_what_was_there(name, data, tmp_path):
    out = tmp_path / "out"
    arguments = [str(argument).format(data=data, out=out) for argument in WRITERS[name]]
    whole = CliRunner().invoke(app, arguments)
    assert whole.exit_code == 0, whole.output
    before = content(out)
    assert before
    largest = max(map(len, before.values()))
    for size in (0, largest - 1):
        with files_of_at_most(size):
            failed = CliRunner().invoke(app, arguments)
        assert isinstance(failed.exception, ArtifactError), (size, failed.exception)
        with pytest.raises(ArtifactError, match=PLACE.format(errno.EFBIG)):
            raise failed.exception
        assert content(out) == before, size  # the older files, and none beside them
    shutil.rmtree(out)
    with files_of_at_most(0):
        assert isinstance(CliRunner().invoke(app, arguments).exception, ArtifactError)
    assert not out.exists() or content(out) == {}


def test_a_file_system_that_is_full_keeps_the_model(tmp_path):
    model = MultiTaskModel.load(SMALL)
    with mounted(tmp_path / "disk", "size=100k") as disk:
        model.save(disk / "model")
        before = content(disk)
        with pytest.raises(ArtifactError, match=r"No space left on device; the previous one is whole; make room"):
            model.save(disk / "model")  # the second does not fit beside the first
        assert content(disk) == before and weebill.verify(disk / "model").ok
        assert [path.name for path in disk.iterdir()] == ["model"]
        with pytest.raises(ArtifactError, match=PLACE.format(errno.ENOSPC)):
            files.write_whole(disk / "big", bytes(200_000))
        assert content(disk) == before


def test_a_file_system_that_is_read_only_says_so(tmp_path, data):
    with mounted(tmp_path / "disk", "size=100k") as disk:
        shutil.copytree(SMALL, disk / "model")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ArtifactError, match=r"expected a place to write the model, got.*Read-only file system"):
            MultiTaskModel.load(disk / "model").save(disk / "model")
        with pytest.raises(ArtifactError, match=PLACE.format(errno.EROFS)):
            files.write_whole(disk / "new" / "file", b"x")
        recipe = parse_recipe({"data": {"train": ["rows.jsonl"], "dev": "rows.jsonl"}}, FinetuneRecipe, "t")
        with pytest.raises(ArtifactError, match=r"expected a place to keep the log of the run, got.*Read-only"):
            run_finetune(recipe, disk / "out", data, Console(file=io.StringIO()))
        assert weebill.verify(disk / "model").ok and [path.name for path in disk.iterdir()] == ["model"]


TINY = {
    "encoder": {"num_layers": 1, "hidden_dim": 16, "num_heads": 2, "ffn_dim": 16},
    "training": {"epochs": 1, "batch_size": 16, "evals": 3},
    "data": {"train": ["rows.jsonl"], "dev": "rows.jsonl"},
}


def test_a_trained_model_that_does_not_fit_is_not_lost(data, tmp_path, monkeypatch):
    recipe, console = parse_recipe(TINY, FinetuneRecipe, "t"), Console(file=io.StringIO())
    save, output = MultiTaskModel.save, tmp_path / "out"

    def full(self, folder, **options):
        with files_of_at_most(1000):
            save(self, folder, **options)

    monkeypatch.setattr(MultiTaskModel, "save", full)
    with pytest.raises(ArtifactError, match=r"nothing trained is lost: --resume with the same recipe writes the model"):
        run_finetune(recipe, output, data, console)
    assert not output.exists() and training_folder(output).is_dir()
    monkeypatch.undo()
    run_finetune(recipe, output, data, console, resume=True)
    assert weebill.verify(output).ok and not training_folder(output).exists()


def test_a_log_that_does_not_fit_stops_the_run_and_says_why(data, tmp_path, monkeypatch):
    from weebill import run_display

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    enter = run_display.RunDisplay.__enter__

    def entering(self):
        enter(self)
        self.log.close()
        self.log = Full()
        return self

    monkeypatch.setattr(run_display.RunDisplay, "__enter__", entering)
    with pytest.raises(ArtifactError, match=r"keep the log of the run, got: .*No space left on device; make room"):
        run_finetune(parse_recipe(TINY, FinetuneRecipe, "t"), tmp_path / "out", data, Console(file=io.StringIO()))


def test_a_teacher_s_answers_that_cannot_be_kept(tmp_path):
    def embed(texts):
        return np.ones((len(texts), 64), np.float32)

    with files_of_at_most(100), pytest.raises(ArtifactError, match=PLACE.format(errno.EFBIG)):
        teacher_vectors(embed, "t", ["a", "b"], tmp_path, show_progress=False)
    assert content(tmp_path) == {}
    kept = teacher_vectors(embed, "t", ["a", "b"], tmp_path, show_progress=False)
    [block] = content(tmp_path)
    (tmp_path / block).write_bytes((tmp_path / block).read_bytes()[:100])  # a damaged block is read again
    assert np.array_equal(teacher_vectors(embed, "t", ["a", "b"], tmp_path, show_progress=False), kept)


def test_several_files_are_written_together_or_not_at_all(tmp_path):
    files.write_together({tmp_path / "a": b"old", tmp_path / "b": b"old"})
    with pytest.raises(ArtifactError, match=r"a, .*b: expected a place to write"), files_of_at_most(10):
        files.write_together({tmp_path / "a": b"new", tmp_path / "b": bytes(100)})
    assert content(tmp_path) == {Path("a"): b"old", Path("b"): b"old"}
    with pytest.raises(KeyboardInterrupt), files.writing_together() as open_new:
        open_new(tmp_path / "a").write(b"new")
        raise KeyboardInterrupt
    assert content(tmp_path) == {Path("a"): b"old", Path("b"): b"old"}


def test_a_write_that_fails_leaves_no_folder_behind(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), files.writing_together() as open_new:
        open_new(tmp_path / "mine/new/newer/a")
        open_new(tmp_path / "mine/new/other/a")
        open_new(tmp_path / "mine/b")
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    files.write_together({tmp_path / "new/a": b"a"})
    assert (tmp_path / "new/a").read_bytes() == b"a"


def test_what_a_path_leads_to_is_written_and_stays_what_it_is(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    files.write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_whole(tmp_path / "pipe", b"through")
    assert os.read(reader, 100) == b"through" and (tmp_path / "pipe").is_fifo()
    os.close(reader)
    shell = ["bash", "-c", f"{sys.executable} -m weebill parse 'play jazz' --output /dev/stdout | cat"]
    assert b"play_music" in subprocess.run(shell, capture_output=True, check=True).stdout
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match=r"expected a place to write, got: .*a folder is there"):
        files.write_together({tmp_path / "real": b"newer", tmp_path / "folder": b""})
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_model_takes_the_place_of_a_model_alone(tmp_path):
    model, folder = MultiTaskModel.load(SMALL), tmp_path / "disk" / "model"
    model.save(folder, extra_files={"log.jsonl": "{}", "tensorboard/events": b""})
    (tmp_path / "link").symlink_to(folder)
    model.save(tmp_path / "link", training={"run": 2})
    assert (tmp_path / "link").is_symlink() and not list(tmp_path.glob(".*"))
    assert json.loads((folder / "weebill.json").read_text())["training"] == {"run": 2}
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"got beside it notes\.txt; move that away, or name another --output"):
        model.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_take_its_place_leaves_the_older_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchanged", lambda first, second: False)
    with files.writing_folder(tmp_path / "web") as fresh:
        (fresh / "index.html").write_text("old")
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: replace(self, to) if to.suffix == ".old" else _full())
    with pytest.raises(OSError, match="No space left"), files.writing_folder(tmp_path / "web") as fresh:
        (fresh / "index.html").write_text("new")
    monkeypatch.undo()
    [kept] = tmp_path.rglob("index.html")
    assert kept.read_text() == "old"


def _full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_model_replaces_another_where_two_renames_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchanged", lambda first, second: False)
    model, folder = MultiTaskModel.load(SMALL), tmp_path / "model"
    model.save(folder, training={"run": 1})
    model.save(folder, training={"run": 2})
    assert json.loads((folder / "weebill.json").read_text())["training"] == {"run": 2}
    replace = Path.replace

    def failing(self, target):
        if Path(target) == folder:
            monkeypatch.setattr(Path, "replace", replace)
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(ArtifactError, match=r"Input/output error; the previous one is whole"):
        model.save(folder, training={"run": 3})
    assert json.loads((folder / "weebill.json").read_text())["training"] == {"run": 2}
    assert weebill.verify(folder).ok and [path.name for path in tmp_path.iterdir()] == ["model"]


SAVER = """
import itertools, sys
import torch
from pathlib import Path
from weebill.files import write_whole
from weebill.multitask import MultiTaskModel
torch.set_num_threads(1)
model = MultiTaskModel.load(sys.argv[1])
print("ready", flush=True)
for number in itertools.count():
    model.save(Path(sys.argv[2]) / "model", training={"number": number})
    write_whole(Path(sys.argv[2]) / "file", b"%d\\n" % number * 50_000)
"""


@pytest.mark.skipif(not sys.platform.startswith(("linux", "darwin")), reason="two renames elsewhere")
def test_a_process_killed_while_it_saves_leaves_whole_files(tmp_path):
    rng, numbers = random.Random(8), []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", SAVER, SMALL, tmp_path], stdout=subprocess.PIPE)
        process.stdout.readline()
        for _ in range(2):
            before = (tmp_path / "file").stat().st_mtime_ns if (tmp_path / "file").exists() else 0
            while not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_mtime_ns == before:
                time.sleep(0.001)
                if before:  # a reader beside it finds a model at every moment
                    json.loads((tmp_path / "model" / "weebill.json").read_bytes())
        time.sleep(rng.random() * 0.2)
        process.kill()
        process.communicate()
        lines = (tmp_path / "file").read_bytes().split()
        assert len(lines) == 50_000 and len(set(lines)) == 1
        assert set(compare_files(tmp_path / "model").values()) == {"same"}
        numbers.append(json.loads((tmp_path / "model" / "weebill.json").read_text())["training"]["number"])
    assert weebill.verify(tmp_path / "model").ok and max(numbers) > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_nobody_can_take_is_an_error_and_not_a_traceback():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "weebill", "parse", SMALL, "hi"], stdout=full,
                              stderr=subprocess.PIPE, encoding="utf-8")  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "standard output: expected a place to write, got: [Errno 28]" in done.stderr
