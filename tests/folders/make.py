"""Writes a tiny joint model with whatever weebill is imported: how each folder beside this file was made.

git archive COMMIT src | tar x -C OLD; PYTHONPATH=OLD/src python tests/folders/make.py tests/folders/NAME

    before-checksums     15b6323   neither checksums nor golden.jsonl
    before-whole-words   422ac23   each token's best tag is its tag
    before-final-marks   5f3b34e^  the "?" that ends a text may be part of an entity
    today                the first with a decoding_version

All have format_version 1. Nothing in them was trained: random weights, and a tokenizer of 270 tokens.
"""

import sys

import torch

from weebill.config import EncoderConfig, HeadsConfig
from weebill.multitask import MultiTaskModel
from weebill.sent_transformer import SentenceTransformer
from weebill.tokenizer import Tokenizer


def main() -> None:
    heads = {"lstm_dim": 4, "mlp_dim": 8}
    if "entity_boundaries" in HeadsConfig.model_fields:
        heads["entity_boundaries"] = "words"
    torch.manual_seed(1)
    tokenizer = Tokenizer.train(["wake me up at nine am on friday", "what is the weather like in new york"] * 5, 270)
    shape = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "ffn_dim": 16, "embedding_dim": 8, "max_seq_len": 64}
    encoder = SentenceTransformer(EncoderConfig(**shape), tokenizer)
    model = MultiTaskModel(encoder, ["alarm", "weather"], ["O", "B-time", "I-time"], HeadsConfig(**heads))
    with torch.no_grad():
        for parameter in model.tag_head.parameters():
            parameter.mul_(3)  # so that entities are found
    model.eval().save(sys.argv[1])


if __name__ == "__main__":
    main()
