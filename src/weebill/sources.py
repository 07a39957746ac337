"""Reads the data sets of a pretraining mix into numbered texts and rows of numbers. Makes no batches; no torch."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from weebill import config
from weebill.corpus import stream_texts
from weebill.data import Ints, triplets_from_pairs
from weebill.errors import ConfigError, DataError
from weebill.formats import read_utterances
from weebill.pairs import is_pair_file, read_pairs
from weebill.schema import ScoredPair
from weebill.tables import holds_table

T = TypeVar("T")
TEXT_LOSSES = ("distillation", "masked_lm")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")


@dataclass(frozen=True)
class Source:
    """One data set: rows of text numbers, and what its loss needs beside them.

    `rows_NK` has K = 3 for triplets (anchor, positive, negative), 2 for pairs, 1 for texts. `groups_NK` belongs to
    triplets and unscored pairs (texts of one group mean the same), `scores_N` to scored pairs. Epochs count from 1.
    """

    name: str
    loss: config.LossName
    rows_NK: Ints
    groups_NK: Ints | None = None
    scores_N: npt.NDArray[np.float32] | None = None
    weight: float = 1.0
    first_epoch: int = 1
    last_epoch: int | None = None


@dataclass(frozen=True)
class SourceRecord:
    """What a model folder remembers of a data set."""

    name: str
    loss: str
    rows: int
    sha256: str


@dataclass
class Mix:
    """The data sets of a run, and the distinct texts their rows are made of, by number."""

    recipe: config.PretrainRecipe
    sources: list[Source] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _num_groups: int = 0

    def add_pairs(self, spec: config.Source, pairs: Sequence[ScoredPair]) -> None:
        """Add pairs as the data set's loss wants them: scored pairs, triplets, or their distinct texts.

        Raises:
            DataError: the pairs hold nothing the loss can use.
        """
        loss, wanted = spec.loss or self.recipe.loss.kind, self.recipe.loss
        if loss in TEXT_LOSSES:
            self.add_texts(spec, (text for pair in pairs for text in (pair.a, pair.b)))
            return
        pairs = sample(pairs, spec.max_rows, self.recipe.seed)
        if loss == "cosent":
            if len({p.score for p in pairs}) < 2:
                raise DataError(f"{spec.path}: loss 'cosent' expects pairs with different scores, got {len(pairs)} "
                                f"pairs with one; choose in_batch_negatives or a triplet loss")  # fmt: skip
            scores_N = np.array([p.score for p in pairs], dtype=np.float32)
            self._add(spec, [[self._number(p.a), self._number(p.b)] for p in pairs], scores_N=scores_N)
            return
        triplets = triplets_from_pairs(pairs, wanted.positive_score, wanted.negative_score, self.recipe.seed)
        rows = [[self._number(t.anchor), self._number(t.positive), self._number(t.negative)] for t in triplets]
        groups_NK = np.array([(t.group, t.group, t.negative_group) for t in triplets]) + self._num_groups
        self._num_groups = int(groups_NK.max()) + 1  # groups of different data sets never mix
        given = any(p.score <= wanted.negative_score for p in pairs) or self.recipe.mining.every_epochs
        width = 3 if given or loss == "triplet" else 2  # a random negative adds cost and little else to a batch's own
        self._add(spec, [row[:width] for row in rows], groups_NK=groups_NK[:, :width])

    def add_texts(self, spec: config.Source, texts: Iterable[str]) -> None:
        """Add texts, each distinct one once."""
        loss = spec.loss or self.recipe.loss.kind
        if loss not in TEXT_LOSSES:
            raise ConfigError(f"data.train: {spec.path}: loss {loss!r} expects pairs or triplets, got plain texts; "
                              f"set its loss to one of {', '.join(TEXT_LOSSES)}")  # fmt: skip
        chosen = sample(list(dict.fromkeys(texts)), spec.max_rows, self.recipe.seed)
        self._add(spec, [[self._number(text)] for text in chosen])

    def records(self) -> list[SourceRecord]:
        """Return name, size and fingerprint of every data set."""
        out = []
        for source in self.sources:
            digest = hashlib.sha256()
            for text in (self.texts[i] for i in source.rows_NK.ravel()):
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            if source.scores_N is not None:
                digest.update(source.scores_N.tobytes())
            out.append(SourceRecord(source.name, source.loss, len(source.rows_NK), digest.hexdigest()))
        return out

    def _number(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def _add(
        self,
        spec: config.Source,
        rows: list[list[int]],
        groups_NK: Ints | None = None,
        scores_N: npt.NDArray[np.float32] | None = None,
    ) -> None:
        if spec.last_epoch is not None and spec.last_epoch < spec.first_epoch:
            raise ConfigError(f"data.train: {spec.path}: expected last_epoch of at least first_epoch = "
                              f"{spec.first_epoch}, got {spec.last_epoch}; correct one of them")  # fmt: skip
        if spec.first_epoch > self.recipe.training.epochs:
            raise ConfigError(f"data.train: {spec.path}: expected first_epoch of at most training.epochs = "
                              f"{self.recipe.training.epochs}, got {spec.first_epoch}: it would never be read; lower "
                              f"it")  # fmt: skip
        loss = spec.loss or self.recipe.loss.kind
        self.sources.append(
            Source(spec.path, loss, np.array(rows), groups_NK, scores_N, spec.weight, spec.first_epoch, spec.last_epoch)
        )


def read_mix(recipe: config.PretrainRecipe, data_root: Path) -> Mix:
    """Read every data set that `data.train` names.

    Raises:
        DataError: a file that is missing or malformed, or holds nothing its loss can use.
        ConfigError: a loss that does not fit the kind of data.
    """
    mix = Mix(recipe)
    for spec in recipe.data.train:
        file, mark, split = spec.path.partition("#")
        path = data_root / file
        format = spec.format or recipe.data.format
        if mark:
            mix.add_texts(spec, (u.text for u in read_utterances(path, spec.format, split)))
        elif spec.neighbours:
            mix.add_pairs(spec, _neighbours(path))
        elif format is None and holds_table(path):
            mix.add_texts(spec, (u.text for u in read_utterances(path, "table")))
        elif path.is_dir() or (format is None and not is_pair_file(path)):
            mix.add_texts(spec, texts_of(path, spec.sentences))
        else:
            mix.add_pairs(spec, read_pairs(path, format))
    return mix


def texts_of(path: Path, sentences: bool) -> Iterator[str]:
    """Yield the texts of a file or folder, one per line or per sentence, without white space around them."""
    for line in stream_texts([path]):
        for text in _SENTENCE_END.split(line.strip()) if sentences else [line.strip()]:
            if text:
                yield text


def _neighbours(path: Path) -> list[ScoredPair]:
    """Return every sentence with the next one of its line, neither in two pairs: what stands together is related.

    Source: as the positives of Izacard et al. 2022 (Contriever), who crop spans of one document.
    """
    pairs = []
    for line in stream_texts([path]):
        sentences = [s for s in _SENTENCE_END.split(line.strip()) if s]
        pairs += [ScoredPair(a, b, 1.0, str(path)) for a, b in pairwise(sentences) if a != b][::2]
    return pairs


def sample(rows: Sequence[T], count: int | None, seed: int) -> Sequence[T]:
    """Return `count` of the rows in their order, the same ones for the same seed; all if there are no more."""
    if count is None or len(rows) <= count:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return [rows[i] for i in np.sort(chosen)]
