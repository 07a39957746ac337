"""Makes the model that comes with weebill, from data and all-MiniLM-L6-v2; what a stopped run has finished is kept.

python scripts/tiny.py --data-root DIR [--minilm FOLDER] [--output runs/tiny]

Ten steps: sentences from the grammar sentences.yaml, a tokenizer, two teachers of intents and entities, a third that
those two teach, an encoder distilled from MiniLM, the tiny joint model, the same going on with all three teachers, then
with these and a linear one, its export as ONNX with int8 weights. DIR holds massive/en-US.jsonl,
utterances/assistant-unlabelled.txt.gz, wiki/enwiki-sample.txt.gz, pairs/{wikisplit,onestop}.tsv.gz and
stsb/sts-dev.csv; the last is only measured on.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice, repeat
from pathlib import Path

from weebill.corpus import stream_texts
from weebill.files import write_whole
from weebill.formats import read_utterances
from weebill.generator import draw_utterances
from weebill.grammar import read_grammar
from weebill.sources import sample, texts_of
from weebill.tokenizer import Tokenizer

NUM_SENTENCES = 120_000

OTHER_TEACHER = [  # teachers that differ in more than their seed know more together
    part
    for setting in ("training.learning_rate=2.5e-4", "loss.tag_weight_power=0.0", "loss.intent_sampling_power=0.2")
    for part in ("--set", setting)
]

LAST_PASS = ["--set", "linear.votes=1", "--set", "training.epochs=12", "--set", "training.evals=12"]


def main() -> None:
    """Run the steps that are not done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--minilm", default="sentence-transformers/all-MiniLM-L6-v2", help="folder, or name on the Hub")
    parser.add_argument("--output", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    output = given.output.resolve()
    data = output / "data"  # what DIR holds, and the sentences
    names = ("tokenizer", "teacher-0", "teacher-1", "teacher-2", "encoder", "model-0", "model-1", "model")
    tokenizer, *teachers, encoder, first, second, model = (output / name for name in names)
    start = time.time()
    data.mkdir(parents=True, exist_ok=True)
    for folder in ("massive", "utterances", "wiki", "pairs", "stsb"):
        if not (data / folder).exists():
            (data / folder).symlink_to(given.data_root.resolve() / folder)
    if not (data / "sentences.txt").exists():
        drawn = draw_utterances(read_grammar(Path(__file__).with_name("sentences.yaml")), {"": NUM_SENTENCES}, 0)
        write_whole(data / "sentences.txt", "".join(f"{u.text}\n" for u in drawn[""]).encode())
    if not tokenizer.exists():
        Tokenizer.train(tokenizer_texts(data), 5376, normalizers=["lowercase"]).save(tokenizer)
    common = ["--data-root", str(data), "--output"]
    seed = ["--set", f"seed={given.seed}"]
    run("finetune", "massive-teacher", "--set", f"start={given.minilm}", *seed, *common, str(teachers[0]))
    run("finetune", "massive-teacher", "--set", f"start={given.minilm}", *OTHER_TEACHER, "--set",
        f"seed={given.seed + 1}", *common, str(teachers[1]))  # fmt: skip
    two, three = (f"teachers={json.dumps([str(t) for t in some])}" for some in (teachers[:2], teachers))
    run("distill", "massive-minilm", "--set", two, "--set", f"start={given.minilm}", *seed, *common, str(teachers[2]))
    run("pretrain", "tiny-encoder", "--set", f"teacher={given.minilm}", "--set", f"tokenizer={tokenizer}", *seed,
        *common, str(encoder))  # fmt: skip
    sentences = f"sentence_teacher={given.minilm}"
    run("distill", "massive-tiny", "--set", two, "--set", sentences, "--set", f"start={encoder}", *seed, *common,
        str(first))  # fmt: skip
    run("distill", "massive-tiny-again", "--set", three, "--set", sentences, "--set", f"start={first}", *seed, *common,
        str(second))  # fmt: skip
    run("distill", "massive-tiny-again", "--set", three, "--set", sentences, "--set", f"start={second}", *LAST_PASS,
        *seed, *common, str(model))  # fmt: skip
    labelled = ["--data", str(data / "massive/en-US.jsonl"), "--split", "dev"]
    run("export", str(model), "--int8", *labelled, "--output", str(output / "int8"))
    run("evaluate", str(output / "int8"), *labelled)
    run("evaluate", str(output / "int8"), "--data", str(data / "stsb/sts-dev.csv"))
    print(f"{(time.time() - start) / 60:.0f} minutes; the model is in {output / 'int8'}")  # noqa: T201


def tokenizer_texts(data: Path) -> Iterator[str]:
    """Yield what the tokenizer learns from: requests weigh most, so that their words are whole."""
    requests = dict.fromkeys(u.text for u in read_utterances(data / "massive/en-US.jsonl", split="train"))
    yield from chain.from_iterable(repeat(list(requests), 5))
    yield from stream_texts([data / "utterances/assistant-unlabelled.txt.gz"])
    yield from islice(stream_texts([data / "sentences.txt"]), 60_000)
    wiki = list(dict.fromkeys(texts_of(data / "wiki/enwiki-sample.txt.gz", sentences=True)))
    yield from sample(wiki, 20_000, 0)


def run(*command: str) -> None:
    """Run a command of weebill; training goes on where it stopped, and is not run again when it is finished."""
    if command[0] in ("finetune", "pretrain", "distill"):
        if (Path(command[-1]) / "weebill.json").exists():
            return
        if Path(f"{command[-1]}.training", "checkpoint.safetensors").exists():
            command = (*command, "--resume")
    print("weebill", *command, flush=True)  # noqa: T201
    subprocess.run([sys.executable, "-m", "weebill", *command], check=True)


if __name__ == "__main__":
    main()
