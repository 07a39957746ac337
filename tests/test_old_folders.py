"""Folders that older versions of weebill wrote are read as they were meant; a newer one is refused with the remedy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import weebill
from weebill.artifact import FORMAT_VERSION
from weebill.errors import ArtifactError
from weebill.export import export_onnx
from weebill.golden import DECODING_VERSION, read_golden
from weebill.multitask import MultiTaskModel
from weebill.verification import TOLERANCE

FOLDERS = Path(__file__).parent / "folders"
NAMES = ["before-checksums", "before-whole-words", "before-final-marks", "today"]


def change(folder, **values):
    path = folder / "weebill.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_there_is_a_folder_of_every_format_version():
    versions = {json.loads((FOLDERS / name / "weebill.json").read_text())["format_version"] for name in NAMES}
    assert versions == set(range(1, FORMAT_VERSION + 1))
    decodings = {json.loads((FOLDERS / name / "weebill.json").read_text()).get("decoding_version", 1) for name in NAMES}
    assert decodings == set(range(1, DECODING_VERSION + 1))


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_the_vectors_it_gave_when_it_was_written(name):
    golden = read_golden(FOLDERS / "today")  # the same weights in all, and none was trained
    nlu = weebill.load(FOLDERS / name)
    vectors = nlu.embed([row.text for row in golden])
    for row, vector in zip(golden, vectors, strict=True):
        assert np.abs(vector - row.embedding).max() <= TOLERANCE * np.abs(row.embedding).max()
        assert nlu(row.text).intent == row.intent


@pytest.mark.parametrize("name", NAMES[1:])
def test_it_is_verified_and_exported(name, tmp_path):
    report = weebill.verify(FOLDERS / name)
    assert report.ok, report.problems()
    assert export_onnx(FOLDERS / name, tmp_path / "onnx", []).ok
    exported = weebill.verify(tmp_path / "onnx")
    assert exported.ok and exported.notes() == []  # what it gives is recorded by today's rule


def test_entities_that_were_decoded_otherwise_are_a_note(tmp_path):
    folder = shutil.copytree(FOLDERS / "before-final-marks", tmp_path / "model")
    [note] = weebill.verify(folder).notes()
    assert note == ("an older weebill wrote this model; today's decodes other entities from the same numbers in 1 of "
                    "12 texts; load and save the model to record what it gives now")  # fmt: skip
    [row] = [row for row in weebill.verify(folder).rows if row.decoded_otherwise]
    assert (row.golden.text, row.golden.entities[0].end, row.got.entities[0].end) == (
        "What's the WEATHER like in São Paulo?", 37, 36,
    )  # fmt: skip
    change(folder, decoding_version=DECODING_VERSION)  # had today's rule given them, something would be wrong
    [problem] = weebill.verify(folder).problems()
    assert "expected intent and entities ('alarm', [(0, 37, 'time')]), got ('alarm', [(0, 36, 'time')])" in problem
    MultiTaskModel.load(folder).save(folder)
    assert weebill.verify(folder).ok and weebill.verify(folder).notes() == []


def test_another_intent_is_a_problem_in_an_old_folder_too(tmp_path):
    folder = shutil.copytree(FOLDERS / "before-final-marks", tmp_path / "model")
    lines = (folder / "golden.jsonl").read_text(encoding="utf-8").replace('"intent": "alarm"', '"intent": "weather"')
    (folder / "golden.jsonl").write_text(lines, encoding="utf-8")
    assert len(weebill.verify(folder).problems()) == 1 + len(read_golden(folder))


def test_a_folder_without_checksums_says_how_to_get_some(tmp_path):
    folder = shutil.copytree(FOLDERS / "before-checksums", tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"an older weebill wrote it; train it again, or load and save it"):
        weebill.verify(folder)
    MultiTaskModel.load(folder).save(folder)
    assert weebill.verify(folder).ok


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(FORMAT_VERSION + 1, r"upgrade weebill \(git pull, pip install \.\)"), (0, "copy the folder again"),
     ("1", "copy the folder again"), (None, "copy the folder again"), (1.0, "copy the folder again")],
)  # fmt: skip
def test_a_version_that_is_not_known_is_refused_with_the_remedy(version, remedy, tmp_path):
    folder = shutil.copytree(FOLDERS / "today", tmp_path / "model")
    change(folder, format_version=version)
    for use in (weebill.load, weebill.verify, MultiTaskModel.load):
        with pytest.raises(
            ArtifactError, match=rf"expected format_version {FORMAT_VERSION}, got {version!r}; {remedy}"
        ):
            use(folder)
