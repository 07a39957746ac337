"""Fine-tuning against a plain torch loop in one run; prints examples/s and the ratio.

python benchmarks/finetune.py [--data FILE[#SPLIT]] [--rows N] [--epochs N] [--threads N] [--profile]
(or: make bench-finetune)

Both train intent and tags on the same utterances, EPOCHS epochs each time, at the default shape (4 layers, 8 heads, 64
dimensions, BiLSTM of 64 and MLP), with the same tokenizer, batch size, losses (cross-entropy of both, tag classes
weighted by rarity), dropout, AdamW, gradient clipping and rates. The plain loop is what one writes first: nn.Embedding,
nn.TransformerEncoder(batch_first=True), nn.LSTM(bidirectional=True), a DataLoader that shuffles and pads each batch to
its longest row. weebill's is `finetune` as `weebill finetune` calls it, its batching by length and all; and once more
with each step's rows in as many batches as there are threads, side by side (`training.accumulation_steps`).

Whatever each does on the way counts: tokenizing and aligning labels (weebill's for both, once), batching, training.
Neither evaluates, but for two texts at weebill's end. Peers take turns, so that a slow
moment of the machine hits both; processor time is shown too, which other programs change little.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from weebill import data, label_facts, templates
from weebill.config import FinetuneRecipe
from weebill.finetuning import finetune
from weebill.formats import read_utterances
from weebill.schema import Utterance
from weebill.tags import MISSING, tag_vocabulary
from weebill.tokenizer import Tokenizer

ROUNDS = 5
console = Console()


class PlainModel(nn.Module):
    """The same model of torch's own modules."""

    def __init__(self, recipe: FinetuneRecipe, vocab_size: int, num_intents: int, num_tags: int):
        super().__init__()
        encoder, heads = recipe.encoder, recipe.heads
        dim, dropout = encoder.hidden_dim, encoder.dropout
        self.words = nn.Embedding(vocab_size, dim)
        position_T1 = torch.arange(encoder.max_seq_len)[:, None]
        frequency_K = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
        table_TD = torch.stack([(position_T1 * frequency_K).sin(), (position_T1 * frequency_K).cos()], 2).flatten(1)
        self.register_buffer("positions_TD", table_TD)
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            dim, encoder.num_heads, encoder.ffn_dim, dropout, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, encoder.num_layers)
        self.intent_head = nn.Sequential(nn.Dropout(heads.dropout), nn.Linear(dim, num_intents))
        self.lstm = nn.LSTM(dim, heads.lstm_dim, batch_first=True, bidirectional=True)
        self.tag_head = nn.Sequential(
            nn.Dropout(heads.dropout), nn.Linear(2 * heads.lstm_dim, heads.mlp_dim), nn.GELU(),
            nn.Dropout(heads.dropout), nn.Linear(heads.mlp_dim, num_tags),
        )  # fmt: skip

    def forward(self, input_ids_BT: Tensor, is_padding_BT: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BTD = self.norm(self.words(input_ids_BT) + self.positions_TD[: input_ids_BT.shape[1]])
        hidden_BTD = self.encoder(self.dropout(hidden_BTD), src_key_padding_mask=is_padding_BT)
        return self.intent_head(hidden_BTD[:, 0]), self.tag_head(self.lstm(self.dropout(hidden_BTD))[0])


def train_plain(recipe: FinetuneRecipe, rows: Sequence[Utterance], tokenizer: Tokenizer) -> None:
    """Train as a user of torch would."""
    torch.manual_seed(recipe.seed)
    settings = recipe.training
    intents, labels = label_facts.labels_of(rows)
    tags = tag_vocabulary(labels)
    labelled = data.label_rows(rows, tokenizer, recipe.encoder.max_seq_len, intents, tags)
    weights_L = torch.from_numpy(data.class_weights(labelled.tags, len(tags), recipe.loss.tag_weight_power))
    examples = [
        (torch.tensor(ids), torch.tensor(row), int(intent))
        for ids, row, intent in zip(labelled.token_ids, labelled.tags, labelled.intents, strict=True)
    ]

    def collate(batch: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
        ids, row_tags, row_intents = zip(*batch, strict=True)
        return (
            pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_id),
            pad_sequence(row_tags, batch_first=True, padding_value=MISSING),
            torch.tensor(row_intents),
        )

    model = PlainModel(recipe, tokenizer.vocab_size, len(intents), len(tags)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    loader = DataLoader(examples, batch_size=settings.batch_size, shuffle=True, collate_fn=collate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(loader) * settings.epochs)
    intent_loss = nn.CrossEntropyLoss()
    tag_loss = nn.CrossEntropyLoss(weight=weights_L, ignore_index=MISSING)
    for input_ids_BT, tags_BT, intents_B in chain.from_iterable(loader for _ in range(settings.epochs)):
        intents_BC, tags_BTL = model(input_ids_BT, input_ids_BT == tokenizer.pad_id)
        loss = intent_loss(intents_BC, intents_B) + tag_loss(tags_BTL.flatten(0, 1), tags_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()


def take_turns(calls: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Return the median wall and processor seconds of each call."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in track(range(ROUNDS), description="fine-tuning", transient=True):
        for name, call in calls.items():
            began = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return {
        name: (statistics.median(wall for wall, _ in found), statistics.median(cpu for _, cpu in found))
        for name, found in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="labelled utterances; default: the embedded ones")
    parser.add_argument("--rows", type=int, help="a sample of so many; default: all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--profile", action="store_true", help="show where weebill's time goes instead")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.data:
        path, mark, split = arguments.data.partition("#")
        rows = list(read_utterances(Path(path), split=split if mark else None))
    else:
        rows = templates.generate()[0]
    if arguments.rows:
        chosen = np.random.default_rng(0).permutation(len(rows))[: arguments.rows]
        rows = [rows[i] for i in chosen.tolist()]
    recipe = FinetuneRecipe.model_validate({"training": {"epochs": arguments.epochs, "evals": 1}})
    tokenizer = Tokenizer.packaged()

    threads = torch.get_num_threads()
    parts = {"batch_size": max(2, recipe.training.batch_size // threads), "accumulation_steps": threads}
    beside = recipe.model_copy(update={"training": recipe.training.model_copy(update=parts)})

    def train_weebill(recipe: FinetuneRecipe = recipe) -> None:
        finetune(recipe, rows, rows[:2], lambda event: None, tokenizer)

    train_weebill()  # warm
    if arguments.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            train_weebill()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=50))
        return
    found = take_turns(
        {
            "weebill finetune": train_weebill,
            f"weebill finetune, {threads} batches side by side": lambda: train_weebill(beside),
            "nn.TransformerEncoder, padded batches": lambda: train_plain(recipe, rows, tokenizer),
        }
    )
    table = Table("", "examples/s", "examples per processor s", "ratio", "ratio, processor time",
                  title=f"{arguments.epochs} × {len(rows):,} texts, {torch.get_num_threads()} threads")  # fmt: skip
    ours = found["weebill finetune"]
    for name, (wall, cpu) in found.items():
        examples = arguments.epochs * len(rows)
        table.add_row(name, f"{examples / wall:,.0f}", f"{examples / cpu:,.0f}", f"{wall / ours[0]:.2f}",
                      f"{cpu / ours[1]:.2f}")  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
