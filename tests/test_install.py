"""`pip install 'weebill[onnx]'` into an empty environment: no torch comes along, and an exported model runs there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import weebill
from weebill.config import EncoderConfig, HeadsConfig
from weebill.export import export_onnx
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer
from weebill.templates import generate
from weebill.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
BUILD = "hatchling==1.33.0"  # of pyproject.toml; its download tells whether there is a package index
PROGRAM = """
import importlib.util, json, pathlib, sys
absent = [name for name in ("torch", "onnx", "transformers") if importlib.util.find_spec(name) is None]
import weebill
prediction = weebill.load(sys.argv[1])("wake me up at nine am on friday")
status = pathlib.Path("/proc/self/status")  # getrusage would count the process this one was forked from
lines = status.read_text().splitlines() if status.exists() else []
peak_mb = max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0)
print(json.dumps({"absent": absent, "prediction": prediction.to_json(), "peak_mb": peak_mb}))
"""


def run(*command, **options):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*map(str, command)], capture_output=True, encoding="utf-8", env=environment, **options)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the interpreter of a new environment with weebill[onnx] and nothing else."""
    folder = tmp_path_factory.mktemp("install")
    probe = run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder / "wheels", BUILD)
    if probe.returncode:
        pytest.skip(f"no package index: {probe.stderr.strip().splitlines()[-1]}")
    run(sys.executable, "-m", "venv", folder / "venv", check=True)
    python = folder / "venv" / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    installed = run(python, "-m", "pip", "install", *options, f"{ROOT}[onnx]")
    assert installed.returncode == 0, installed.stderr
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an export of a model of the default size."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    encoder = SentenceTransformer(EncoderConfig(), Tokenizer.packaged())
    tags = ["O", "B-time", "I-time", "B-date", "I-date"]
    MultiTaskModel(encoder, ["alarm", "music"], tags, HeadsConfig()).save(folder / "model")
    assert export_onnx(folder / "model", folder / "onnx", generate()[1][:50]).ok
    return folder / "onnx"


def test_it_parses_without_torch_in_little_memory(python, folder):
    done = run(python, "-c", PROGRAM, folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["absent"] == ["torch", "onnx", "transformers"]
    here = weebill.load(folder)("wake me up at nine am on friday").to_json()
    assert (found["prediction"]["intent"], found["prediction"]["entities"]) == (here["intent"], here["entities"])
    assert found["peak_mb"] < 150


def test_the_command_line_runs_there(python, folder, tmp_path):
    command = python.with_name("weebill")
    done = run(command, "parse", folder, "wake me up")
    assert done.returncode == 0 and json.loads(done.stdout)["text"] == "wake me up", done.stderr
    assert run(command, "verify", folder).returncode == 0
    assert run(command, "evaluate", folder).returncode == 0
    done = run(command, "export", folder, "--output", tmp_path / "again")
    assert (
        done.returncode == 2 and "needs onnx, which is not installed; run: pip install 'weebill[export]'" in done.stderr
    )
