"""Runs notebooks from their text (.py) and saves each with its outputs (.ipynb) beside it; writes none by itself.

python scripts/notebooks.py [notebooks/NAME.py …] [--small] [--data DIR] [--output DIR] [--cell-seconds N]

A notebook that fails is not saved. What differs from machine to machine is left out: times of cells, versions, random
cell ids; a path of this machine in an output is an error. They run on embedded data, whatever WEEBILL_DATA says, so
that anybody gets the same; with --small, in seconds, or --data they are better saved elsewhere.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from weebill.files import write_whole

FOLDER = Path(__file__).parent.parent / "notebooks"
CELL_SECONDS = 900
TOP_FOLDERS = "home|Users|root|tmp|var|srv|private|mnt|opt|work|workspace"
LOCAL_PATH = re.compile(rf"(?<![\w.<:/])(?:/(?:{TOP_FOLDERS})/\w|[A-Z]:\\\\?\w)[^\s'\"]*")


def main() -> None:
    """Run the notebooks named, by default all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path, nargs="*", help="text of a notebook, default: all of notebooks/")
    parser.add_argument("--small", action="store_true", help="on little data, in seconds")
    parser.add_argument("--data", type=Path, help="folder with the real data, as WEEBILL_DATA; default: embedded data")
    parser.add_argument("--output", type=Path, help="folder to save in, default: beside the text")
    parser.add_argument(
        "--cell-seconds", type=int, default=CELL_SECONDS, help="a cell may take; more on a busy machine"
    )
    given = parser.parse_args()
    for path in given.notebook or sorted(FOLDER.glob("*.py")):
        started = time.perf_counter(), processor_seconds()
        notebook = execute(path, given.small, given.data, given.cell_seconds)
        target = (given.output or path.parent) / f"{path.stem}.ipynb"
        write_whole(target, to_bytes(notebook))
        seconds = time.perf_counter() - started[0], processor_seconds() - started[1]
        print(f"{target}: {seconds[0]:.0f} s, of processors {seconds[1]:.0f} s")  # noqa: T201


def processor_seconds() -> float:
    """Return the processor time of the kernels that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def execute(
    path: Path, small: bool, data: Path | None = None, cell_seconds: int = CELL_SECONDS
) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run from top to bottom, by this Python, in a kernel of its own.

    Args:
        path: its text, in jupytext's percent format.
        small: run with WEEBILL_NOTEBOOK_SIZE=small.
        data: run with this WEEBILL_DATA; default: with none.
        cell_seconds: wall time that a cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
        ValueError: an output holds a path of this machine.
    """
    notebook = read(path)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            km=_kernel(Path(folder), small, data),
            timeout=cell_seconds,
            coalesce_streams=True,
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute(cleanup_kc=True)  # else a kernel given to it is left running
    local = [output for output in texts_of_outputs(notebook) if LOCAL_PATH.search(output)]
    if local:
        raise ValueError(f"{path}: expected outputs without paths of this machine, got {local[0]!r}; do not show it")
    return notebook


def read(path: Path) -> nbformat.NotebookNode:
    """Return the notebook of a text, without outputs; cells are numbered, so that the same text has the same ids."""
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
    notebook.metadata = nbformat.from_dict(
        {
            "jupytext": {"formats": "ipynb,py:percent"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def texts_of_outputs(notebook: nbformat.NotebookNode) -> list[str]:
    """Return whatever the outputs hold as text: streams, results, and errors with their traceback."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [
        text if isinstance(text, str) else json.dumps(text)
        for output in outputs
        for text in (output.get("text", ""), output.get("traceback", ""),
                     *(value for kind, value in output.get("data", {}).items() if kind != "image/png"))
    ]  # fmt: skip


def to_bytes(notebook: nbformat.NotebookNode) -> bytes:
    """Return the notebook as its file holds it, without what a run adds to metadata."""
    notebook.metadata.language_info = {"name": "python"}  # the kernel adds its version
    nbformat.validate(notebook)
    return (nbformat.writes(notebook) + "\n").encode()


def _kernel(folder: Path, small: bool, data: Path | None) -> AsyncKernelManager:
    """Return a kernel of this very Python, whatever kernels the user has, that leaves no history behind."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
                 "--HistoryManager.enabled=False", "--IPKernelApp.log_level=ERROR"],
        "display_name": "Python 3",
        "language": "python",
        "env": {"IPYTHONDIR": str(folder), "WEEBILL_NOTEBOOK_SIZE": "small" if small else "full",
                "WEEBILL_DATA": str(data.resolve()) if data else ""},
    }  # fmt: skip
    (folder / "kernels" / "weebill").mkdir(parents=True)
    (folder / "kernels" / "weebill" / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    specs = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    return AsyncKernelManager(kernel_name="weebill", kernel_spec_manager=specs)


if __name__ == "__main__":
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else each kernel warns of frozen modules
    main()
