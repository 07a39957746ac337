"""Loads model folders in three versions of sentence-transformers and compares with weebill. Trains no good model.

python tests/compat/check.py [MODEL …]     (or: make compat MODEL=runs/massive)

Each version has an environment of its own under .compat/, built once: 1.4 GB each with torch for CPU. Without MODEL two
small models are trained on the embedded data: CLS pooling with the packaged tokenizer; mean pooling, heads and a
tokenizer of its own that normalises. Exit code 1 when a version differs or does not load a folder.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

import weebill
from weebill import templates
from weebill.config import FinetuneRecipe, PretrainRecipe
from weebill.errors import WeebillError
from weebill.golden import Golden, read_golden
from weebill.recipe_files import load_recipe
from weebill.runs import run_finetune, run_pretrain
from weebill.verification import TOLERANCE

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".compat"
VERSIONS = {
    "3.0.1": ("transformers==4.41.2", "numpy==1.26.4"),
    "5.1.2": ("transformers==4.57.6", "numpy==2.4.6"),
    "6.2.0": ("transformers==5.23.0", "numpy==2.4.6"),
}
TORCH = "torch==2.13.0"


def main(folders: list[Path]) -> int:
    console = Console()
    table = Table("sentence-\ntransformers", "trans-\nformers", "model", "texts", "other\nids", "max dif-\nference",
                  "outer\nspaces", "typed\n[MASK]", "", box=box.SIMPLE, collapse_padding=True,
                  caption="weebill keeps outer spaces and reads a typed [MASK] as text")  # fmt: skip
    failures = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder in folders or train_two(Path(scratch)):
            rows = Path(scratch) / "rows.jsonl"
            rows.write_text("".join(json.dumps(r.to_json()) + "\n" for r in expected_rows(folder)), encoding="utf-8")
            for version in VERSIONS:
                python = environment(version, console)
                done = run_peer(python, folder, rows)
                if done.returncode:
                    failures.append(f"sentence-transformers {version} could not run {folder}:\n{done.stderr}")
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                same = found["other_ids"] == 0 and found["max_difference"] <= TOLERANCE
                if not same:
                    failures.append(f"sentence-transformers {version} gives other embeddings for {folder}")
                spaces = "stripped" if found["strips_spaces"] else "kept"
                typed = "special" if found["typed_is_special"] else "text"
                table.add_row(*found["versions"].values(), folder.name, str(found["texts"]), str(found["other_ids"]),
                              f"{found['max_difference']:.1e}", spaces, typed, "ok" if same else "differs")  # fmt: skip
    console.print(table)
    console.print("\n".join(failures) or f"equal within {TOLERANCE:.0e} in every version", markup=False)
    return 1 if failures else 0


def environment(version: str, console: Console) -> Path:
    """Return the python of a version's environment, built when it is not there or was of other requirements."""
    folder = ENVIRONMENTS / version
    python, marker = folder / "bin" / "python", folder / "installed"
    wanted = [f"sentence-transformers=={version}", *VERSIONS[version], TORCH]
    if not marker.is_file() or marker.read_text() != "\n".join(wanted):
        console.print(f"building {folder}: {', '.join(wanted)}")
        venv.create(folder, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        subprocess.run(install, check=True)
        marker.write_text("\n".join(wanted))
    return python


def run_peer(python: Path, folder: Path, rows: Path) -> subprocess.CompletedProcess[str]:
    """Compare in the environment of `python`, without weebill and without the network."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run([python, HERE / "peer.py", folder, rows], capture_output=True, encoding="utf-8", env=alone)


def train_two(root: Path) -> list[Path]:
    """Train an encoder and a joint model for one epoch each."""
    short = ["training.epochs=1", "training.evals=1"]
    quiet = Console(stderr=True, quiet=True)
    own = ["encoder.pooling=mean", "tokenizer=train", "vocab_size=1000", 'normalizers=["nfc","lowercase"]']
    run_pretrain(load_recipe("demo-pretrain", PretrainRecipe, short), root / "cls", root, quiet)
    run_finetune(load_recipe("demo-finetune", FinetuneRecipe, [*short, *own]), root / "mean-heads", root, quiet)
    return [root / "cls", root / "mean-heads"]


def expected_rows(folder: Path) -> list[Golden]:
    """Return the folder's golden rows and, from weebill now: embedded texts, and one beyond the model's length."""
    predictor = weebill.load(folder, on_overflow="truncate")  # as sentence-transformers does
    texts = [u.text for u in templates.generate()[1][:200]] + ["tell me all about it. " * predictor.max_seq_len + "end"]
    vectors = predictor.embed(texts)
    ids = [predictor.tokenizer.encode(text, predictor.max_seq_len).token_ids for text in texts]
    return read_golden(folder) + [Golden(*row) for row in zip(texts, ids, vectors, strict=True)]


if __name__ == "__main__":
    try:
        sys.exit(main([Path(name) for name in sys.argv[1:]]))
    except WeebillError as error:
        sys.exit(f"error: {error}")
