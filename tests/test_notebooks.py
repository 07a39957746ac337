"""The notebooks run from top to bottom at small size; what is saved is the text beside it, with its outputs."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = sorted((ROOT / "notebooks").glob("*.py"))
NAMES = ["Pretrain_SentenceTransformer", "Tokenizer-walkthrough", "Train_MultiTask_Model"]
for needed in ("ipykernel", "jupytext", "nbclient"):
    pytest.importorskip(needed, reason=f"needs {needed}: pip install -r requirements.txt")


@pytest.fixture(scope="module")
def notebooks():
    """Return scripts/notebooks.py as a module."""
    spec = importlib.util.spec_from_file_location("notebooks_script", ROOT / "scripts" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saved(notebooks, text):
    return notebooks.nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def test_there_are_three():
    assert [text.stem for text in TEXTS] == NAMES


@pytest.mark.parametrize("text", TEXTS, ids=NAMES)
def test_it_runs_at_small_size(notebooks, text):
    done = notebooks.execute(text, small=True)
    assert [c.execution_count for c in done.cells if c.cell_type == "code"] == [*range(1, 1 + _codes(done))]
    kinds = {kind for cell in done.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())}
    assert "image/png" in kinds


@pytest.mark.parametrize("text", TEXTS, ids=NAMES)
def test_what_is_saved_is_the_text(notebooks, text):
    there, here = saved(notebooks, text), notebooks.read(text)
    assert [(c.id, c.cell_type, c.source) for c in there.cells] == [
        (c.id, c.cell_type, c.source) for c in here.cells
    ], "the .ipynb is not of this text; run: make notebooks"
    assert there.metadata == here.metadata


@pytest.mark.parametrize("text", TEXTS, ids=NAMES)
def test_what_is_saved_has_outputs_of_any_machine(notebooks, text):
    there = saved(notebooks, text)
    outputs = [output for cell in there.cells for output in cell.get("outputs", ())]
    assert [c.execution_count for c in there.cells if c.cell_type == "code"] == [*range(1, 1 + _codes(there))]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [found for found in notebooks.texts_of_outputs(there) if notebooks.LOCAL_PATH.search(found)]
    assert not any("execution" in cell.metadata for cell in there.cells)
    assert there.nbformat >= 4 and text.with_suffix(".ipynb").read_bytes() == notebooks.to_bytes(there)


def test_a_path_of_this_machine_is_not_saved(notebooks, tmp_path):
    text = tmp_path / "shows.py"
    text.write_text("# %%\nimport os\n\nprint('runs/demo and https://example.org/home/x')\n# %%\nprint(os.getcwd())\n")
    with pytest.raises(ValueError, match="expected outputs without paths of this machine, got"):
        notebooks.execute(text, small=True)


def test_paths_are_told_from_what_looks_alike(notebooks):
    paths = ["in /home/anna/x", "'/tmp/ipykernel_1/2.py'", r"C:\Users\anna", '"/Users/anna"', "(/srv/x"]
    assert [p for p in paths if not notebooks.LOCAL_PATH.search(p)] == []
    others = ["https://host/home/x", "runs/tmp/x", "<b>/home</b>", "and/or", "a /var", "train/1"]
    assert [p for p in others if notebooks.LOCAL_PATH.search(p)] == []


def test_a_failing_cell_is_said(notebooks, tmp_path):
    from nbclient.exceptions import CellExecutionError

    text = tmp_path / "fails.py"
    text.write_text(f"# %%\nimport sys\n\nassert sys.executable != {sys.executable!r}, 'this very Python'\n")
    with pytest.raises(CellExecutionError, match="this very Python"):
        notebooks.execute(text, small=True)


def _codes(notebook):
    return sum(cell.cell_type == "code" for cell in notebook.cells)
