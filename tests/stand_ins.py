"""What the documentation's commands find where it says that models and data are: small ones, made in seconds."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import torch

from weebill import templates
from weebill.config import EncoderConfig, HeadsConfig
from weebill.conversion import convert
from weebill.export import export_onnx
from weebill.formats import write_spans
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer
from weebill.tags import tag_vocabulary
from weebill.tokenizer import Tokenizer

SHAPE = EncoderConfig(num_layers=1, hidden_dim=32, num_heads=4, ffn_dim=32, embedding_dim=32, max_seq_len=64)


class StandIns:
    """A folder with everything that README and docs/ take for granted, and models for what they train."""

    def __init__(self, folder: Path):
        self.folder = folder
        rows, dev = templates.generate(300)
        self._write_models(rows)
        self._write_labelled(rows, dev)
        self._write_texts_and_pairs([u.text for u in rows])

    def _write_models(self, rows):
        torch.manual_seed(0)
        runs = self.folder / "runs"
        tags = tag_vocabulary({e.label for u in rows for e in u.entities})
        intents = sorted({u.intent for u in rows})
        encoder = SentenceTransformer(SHAPE, Tokenizer.packaged())
        encoder.save(runs / "pretrained")
        MultiTaskModel(encoder, intents, tags, HeadsConfig(entity_boundaries="words")).save(runs / "massive")
        Tokenizer.train([u.text for u in rows], 400).save(runs / "tokenizer")
        export_onnx(runs / "massive", runs / "massive-onnx", rows[:20])
        self.models = {"pretrain": runs / "pretrained", "finetune": runs / "massive", "distill": runs / "massive"}

    def model(self, task: str, output: str) -> None:
        """Put a model where a training command would have."""
        target = self.folder / output
        if target != self.models[task]:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(self.models[task], target)

    def _write_labelled(self, rows, dev):
        here = self.folder
        write_spans(here / "all.jsonl", [*rows, *dev])
        write_spans(here / "mine.jsonl", rows[:100])
        for name in ("nlu.yml", "mine.conll", "train.conll", "dev.conll"):
            convert(here / "mine.jsonl", here / name)
        for folder in (here / "data", here / "data" / "mine"):
            folder.mkdir(parents=True, exist_ok=True)
            write_spans(folder / "train.jsonl", rows)
            write_spans(folder / "dev.jsonl", dev)
        massive = here / "data" / "massive"
        massive.mkdir()
        lines = [
            _massive_line(i, u, part) for part, us in (("train", rows), ("dev", dev[:60])) for i, u in enumerate(us)
        ]
        (massive / "en-US.jsonl").write_text("".join(lines), encoding="utf-8")
        shutil.copytree(massive, here / "massive")

    def _write_texts_and_pairs(self, texts):
        here = self.folder
        body = "\n".join(texts)
        (here / "texts.txt").write_text(body, encoding="utf-8")
        (here / "enwiki-sample.txt.gz").write_bytes(gzip.compress(body.encode()))
        (here / "data" / "wiki").mkdir()
        shutil.copy(here / "enwiki-sample.txt.gz", here / "data" / "wiki" / "simplewiki.txt.gz")
        stsb = here / "data" / "stsb"
        stsb.mkdir()
        for name in ("sts-train.csv", "sts-dev.csv"):
            rows = [["main", "made", "2026", str(i), f"{i % 6}.0", texts[i], texts[i + 1]] for i in range(60)]
            (stsb / name).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        shutil.copytree(stsb, here / "stsb")
        with (here / "pairs.tsv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t").writerows((texts[i], texts[i + 1], i % 2) for i in range(40))


def _massive_line(number, utterance, part):
    annotated, at = "", 0
    for e in utterance.entities:
        annotated += f"{utterance.text[at : e.start]}[{e.label} : {utterance.text[e.start : e.end]}]"
        at = e.end
    row = {"id": str(number), "locale": "en-US", "partition": part, "scenario": utterance.intent.split("_")[0],
           "intent": utterance.intent, "utt": utterance.text, "annot_utt": annotated + utterance.text[at:]}  # fmt: skip
    return json.dumps(row) + "\n"
