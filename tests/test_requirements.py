"""The dependencies: pinned with hashes for developers, and for users no version lower than what works."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PROGRAM = """
import json, weebill
from importlib.metadata import version
found = weebill.load()("wake me up at nine am on friday").to_json()
print(json.dumps({"prediction": found, "versions": {name: version(name) for name in %r}}))
"""


def name_and_version(line):
    """Return a pin's name as package indexes spell it, and its version."""
    name, version = line.split("==")
    return re.sub(r"[-_.]+", "-", name).lower(), version.rstrip(" \\")


def test_hashes_are_of_the_pinned_versions():
    """`make lock` after every change of requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if "==" in line and not line.startswith("torch==")]  # scripts/lock.py says why
    locked = (ROOT / "requirements-hashed.txt").read_text().split("\n", 2)[2]
    entries = re.findall(r"^([\w.-]+==\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", locked, re.MULTILINE)
    assert "".join(f"{pin} \\\n{hashes}" for pin, hashes in entries) == locked  # nothing without a hash, and no option
    assert sorted(name_and_version(pin) for pin, _ in entries) == sorted(map(name_and_version, pins))


def lowest():
    """Return the lowest version that pyproject.toml allows of each dependency."""
    bounds = [re.fullmatch(r"([\w.-]+)>=(\d+(?:\.\d+)*)", one) for one in PROJECT["dependencies"]]
    assert all(bounds), PROJECT["dependencies"]  # each with a lowest version and nothing else
    return {bound[1]: bound[2] for bound in bounds}


def test_pins_are_within_what_users_may_have():
    pins = dict(name_and_version(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    extras = [one for name, some in PROJECT["optional-dependencies"].items() if name != "dev" for one in some]
    for one in [*PROJECT["dependencies"], *extras]:
        name, low = re.sub(r"\[.*\]", "", one).replace("_", "-").split(">=")
        assert tuple(map(int, re.findall(r"\d+", pins[name]))) >= tuple(map(int, low.split("."))), one


@pytest.mark.skipif("WEEBILL_LOWEST" not in os.environ, reason="takes minutes: make lowest")
def test_the_lowest_versions_parse(tmp_path):
    pins = tmp_path / "lowest.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in lowest().items()))
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", pins, ROOT)
    found = json.loads(run(python, "-c", PROGRAM % list(lowest())))
    for name, version in lowest().items():
        assert f"{found['versions'][name]}.0.0".startswith(f"{version}."), found["versions"]
    assert found["prediction"]["intent"] == "alarm_set"
    assert [e["text"] for e in found["prediction"]["entities"]] == ["nine am", "friday"]
    command = python.with_name("weebill")
    assert json.loads(run(command, "parse", "wake me up"))["text"] == "wake me up"
    assert "texts agree" in run(command, "verify", Path(__file__).parent.parent / "src" / "weebill" / "assets" / "tiny")
