"""Golden rows: a few fixed texts, what a model gave for them, and their file golden.jsonl. Runs no model.

One JSON object a line: text, token_ids, embedding (every digit of the float32), and of a model with heads also intent
and entities.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weebill.errors import ArtifactError
from weebill.files import numbered_lines, write_whole
from weebill.model_files import parse_json
from weebill.schema import Entity

# Rises when the same logits give other entities. 1, and nothing recorded: before marks that end a text were no part of
# an entity. A folder records the version its golden entities were decoded by.
DECODING_VERSION = 2

# Lengths differ, so that a batch is padded. Left out is what some versions of other libraries read otherwise (`make
# compat` shows it): white space at the ends, which sentence-transformers 3 and 5 strip, and a typed "[CLS]", which
# transformers before 4.42 takes for the special token.
GOLDEN_TEXTS = (
    "",
    "hi",
    "wake me up at nine am on friday",
    "What's the WEATHER like in São Paulo?",
    "cafe\u0301 re\u0301sume\u0301, A\u030angstro\u0308m",  # combining marks
    "remind me at 07:45 on 2026-11-24 to pay 1,234.56 €",
    "play 🎵 for 👩‍👩‍👧‍👦 🏳️‍🌈",
    "שלום עולם، مرحبا بالعالم",  # right to left
    "今日はいい天気ですね",
    "नमस्ते दुनिया",
    "two  spaces, a\ttab and\n\na new line",
    "don't!? … <b>R&D</b> --- C:\\new\\x",
    "could you please add milk, bread and two dozen eggs to my shopping list, then tell mum I'll be home late",
)


@dataclass(frozen=True)
class Golden:
    """What a model gave for one text when it was written.

    `embedding` is float32 (E,), not normalised; `intent` is None and `entities` empty when the model has no heads.
    """

    text: str
    token_ids: list[int]
    embedding: npt.NDArray[np.float32]
    intent: str | None = None
    entities: tuple[Entity, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object that is one line of golden.jsonl."""
        row = {"text": self.text, "token_ids": self.token_ids, "embedding": self.embedding.tolist()}
        if self.intent is None:
            return row
        entities = [{"start": e.start, "end": e.end, "label": e.label} for e in self.entities]
        return row | {"intent": self.intent, "entities": entities}


def write_golden(folder: Path, rows: Sequence[Golden]) -> None:
    """Write golden.jsonl into a model folder.

    Raises:
        ArtifactError: it cannot be written.
    """
    lines = (json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)
    write_whole(folder / "golden.jsonl", "".join(lines).encode())


def read_golden(folder: Path) -> list[Golden]:
    """Return the golden rows of a model folder.

    Raises:
        ArtifactError: there are none, or a line is damaged.
        DataError: the file is empty or not UTF-8.
    """
    path = folder / "golden.jsonl"
    if not path.is_file():
        raise ArtifactError(f"{path}: expected golden vectors to verify the model with, got nothing there: the "
                            f"folder was not copied whole; copy it again")  # fmt: skip
    rows = []
    for number, line in numbered_lines(path):
        try:
            row = parse_json(line)
            entities = tuple(Entity(e["start"], e["end"], e["label"]) for e in row.get("entities", ()))
            embedding = np.array(row["embedding"], dtype=np.float32)
            rows.append(Golden(str(row["text"]), list(row["token_ids"]), embedding, row.get("intent"), entities))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ArtifactError(f"{path}:{number}: expected a golden text with its token_ids and embedding, got "
                                f"{error!r}; copy the folder again") from error  # fmt: skip
    return rows
