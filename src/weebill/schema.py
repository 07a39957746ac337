"""Plain values that travel between rooms; no behaviour beyond construction, no torch.

`OUT_OF_SCOPE` is the intent of a text that has none of those a model knows.

Axis letters, used as suffixes everywhere: B batch · T tokens · D embedding or hidden dimension · C intent classes ·
L tag classes · H heads · K head dimension · N any flat list.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

OUT_OF_SCOPE = "out_of_scope"
SEVERAL_FROM = 0.5  # probability from which an intent is read beside others, where a text may have several
Overflow = Literal["window", "truncate", "error"]  # what becomes of a text with more tokens than a model reads


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """One labelled span of a text; `start` and `end` are half-open code point offsets.

    `score` is the model's probability for a predicted entity and 1.0 for a gold one.
    """

    start: int
    end: int
    label: str
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """One text with what is annotated on it.

    `intent` None = intent not annotated; `entities` None = entities not annotated, () = annotated and there are none.
    `source` is where it came from, "file:line", for error messages. `key` groups utterances that must stay on one side
    of a split (the template of generated ones).
    """

    text: str
    intent: str | None = None
    entities: tuple[Entity, ...] | None = None
    id: str = ""
    source: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two texts and how similar they are: `score` in [0, 1], more = closer (STS scores / 5; duplicates 1, others 0)."""

    a: str
    b: str
    score: float
    source: str = ""


def intent_parts(intent: str, separator: str | None) -> tuple[str, ...]:
    """Return the intents that a label stands for, sorted, each once; without a separator that is the label itself.

    Example:
        >>> intent_parts("turn_off+play_music", "+"), intent_parts("turn_off+play_music", None)
        (('play_music', 'turn_off'), ('turn_off+play_music',))
    """
    return (intent,) if separator is None else tuple(sorted({part.strip() for part in intent.split(separator)}))


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a backend returns, float32 numpy; logits are None when the model has no such head."""

    sentence_embedding_BD: npt.NDArray[np.float32]
    intent_logits_BC: npt.NDArray[np.float32] | None
    tag_logits_BTL: npt.NDArray[np.float32] | None

    def select(self, rows: npt.NDArray[np.int64], length: int) -> "ModelOutput":
        """Return some rows, and of the tags the first `length` tokens."""
        intents_BC, tags_BTL = self.intent_logits_BC, self.tag_logits_BTL
        return ModelOutput(self.sentence_embedding_BD[rows], None if intents_BC is None else intents_BC[rows],
                           None if tags_BTL is None else tags_BTL[rows, :length])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model reads in one text.

    `score` is the probability of `intent`; where it joins several, of the least probable one; out of scope, of the
    likeliest one.
    """

    text: str
    intent: str
    score: float
    entities: tuple[Entity, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the object that `weebill parse` writes as one line."""
        entities = [
            {"start": e.start, "end": e.end, "label": e.label, "text": self.text[e.start : e.end],
             "score": round(e.score, 4)}
            for e in self.entities
        ]  # fmt: skip
        return {"text": self.text, "intent": self.intent, "intent_score": round(self.score, 4), "entities": entities}
