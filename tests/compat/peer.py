"""Runs in one environment of `make compat`: sentence-transformers alone reads a model folder. Imports no weebill.

python peer.py FOLDER ROWS     ROWS: JSON lines like golden.jsonl; prints one JSON object
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer


def main(folder: str, rows_file: str) -> None:
    rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").split("\n") if line]
    texts = [row["text"] for row in rows]
    want = np.array([row["embedding"] for row in rows], dtype=np.float32)
    model = SentenceTransformer(folder, device="cpu")
    runs = [
        np.concatenate([encode(model, [text]) for text in texts]),  # each alone: no padding
        encode(model, texts, batch_size=len(texts)),  # all in one batch: padded to the longest
        encode(model, texts[::-1], batch_size=7)[::-1],
    ]
    cut = {"truncation": True, "max_length": model.max_seq_length}
    mask = model.tokenizer.mask_token or "[MASK]"
    spaced, plain = encode(model, [" hi ", "hi"])
    print(json.dumps({
        "versions": {name: version(name) for name in ("sentence-transformers", "transformers")},
        "texts": len(texts),
        "other_ids": sum(list(model.tokenizer(r["text"], **cut)["input_ids"]) != r["token_ids"] for r in rows),
        "max_difference": float(max((np.abs(run - want).max(1) / np.abs(want).max(1)).max() for run in runs)),
        "strips_spaces": bool(np.abs(spaced - plain).max() < 1e-5),
        "typed_is_special": len(model.tokenizer(mask)["input_ids"]) == 3,
    }))  # fmt: skip


def encode(model: SentenceTransformer, texts: list[str], batch_size: int = 32) -> np.ndarray:
    return model.encode(texts, batch_size=batch_size, show_progress_bar=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
