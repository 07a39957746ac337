"""Makes the model that comes with weebill, from data and all-MiniLM-L6-v2; what a stopped run has finished is kept.

python scripts/tiny.py --data-root DIR [--minilm FOLDER] [--output runs/tiny]

Seven steps: a tokenizer, two teachers of intents and entities, an encoder distilled from MiniLM, the tiny joint model,
the same learning on with typing errors, its export as ONNX with int8 weights. DIR holds massive/en-US.jsonl,
utterances/assistant-unlabelled.txt.gz, wiki/enwiki-sample.txt.gz and stsb/sts-dev.csv; the last is only measured on.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from weebill.corpus import stream_texts
from weebill.formats import read_utterances
from weebill.tokenizer import Tokenizer

OTHER_TEACHER = [  # teachers that differ in more than their seed know more together
    part
    for setting in ("training.learning_rate=2.5e-4", "loss.tag_weight_power=0.0", "loss.intent_sampling_power=0.2")
    for part in ("--set", setting)
]


def main() -> None:
    """Run the steps that are not done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--minilm", default="sentence-transformers/all-MiniLM-L6-v2", help="folder, or name on the Hub")
    parser.add_argument("--output", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data, output = given.data_root.resolve(), given.output.resolve()
    names = ("tokenizer", "teacher-0", "teacher-1", "encoder", "clean", "model")
    tokenizer, *teachers, encoder, clean, model = (output / name for name in names)
    start = time.time()
    if not tokenizer.exists():
        train = [u.text for u in read_utterances(data / "massive/en-US.jsonl", split="train")]
        distinct = list(dict.fromkeys(train))
        others = stream_texts([data / "utterances/assistant-unlabelled.txt.gz"])
        Tokenizer.train([*distinct * 3, *others], 5120, normalizers=["lowercase"]).save(tokenizer)
    common = ["--data-root", str(data), "--output"]
    seed = ["--set", f"seed={given.seed}"]
    run("finetune", "massive-teacher", "--set", f"start={given.minilm}", *seed, *common, str(teachers[0]))
    run("finetune", "massive-teacher", "--set", f"start={given.minilm}", *OTHER_TEACHER, "--set",
        f"seed={given.seed + 1}", *common, str(teachers[1]))  # fmt: skip
    run("pretrain", "tiny-encoder", "--set", f"teacher={given.minilm}", "--set", f"tokenizer={tokenizer}", *seed,
        *common, str(encoder))  # fmt: skip
    taught = [
        "--set",
        f"teachers={json.dumps([str(t) for t in teachers])}",
        "--set",
        f"sentence_teacher={given.minilm}",
    ]
    run("distill", "massive-tiny", *taught, "--set", f"start={encoder}", *seed, *common, str(clean))
    run("distill", "massive-tiny-noisy", *taught, "--set", f"start={clean}", *seed, *common, str(model))
    labelled = ["--data", str(data / "massive/en-US.jsonl"), "--split", "dev"]
    run("export", str(model), "--int8", *labelled, "--output", str(output / "int8"))
    run("evaluate", str(output / "int8"), *labelled)
    run("evaluate", str(output / "int8"), "--data", str(data / "stsb/sts-dev.csv"))
    print(f"{(time.time() - start) / 60:.0f} minutes; the model is in {output / 'int8'}")  # noqa: T201


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
