"""Verification: runs a stored model on its golden texts and compares. Trains nothing and changes nothing on disk.

Checksums show that the folder holds what was written; golden vectors show that this machine and these libraries
compute with it what was computed then. Neither shows both.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from weebill.artifact import compare_files, decoding_version, find_model, has_graph_alone
from weebill.backend import TorchBackend
from weebill.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from weebill.golden import DECODING_VERSION, GOLDEN_TEXTS, Golden, read_golden
from weebill.predictor import Predictor, load, predictor_of_model

if TYPE_CHECKING:
    from weebill.multitask import MultiTaskModel
    from weebill.sent_transformer import SentenceTransformer

# Of a component, as a share of the vector's largest one: 100 times what was measured between versions and libraries.
# It bounds the cosine too: 1 - cosine is at most half its square times the dimension, 3.2e-7 at 64.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class VerifiedText:
    """One golden row and what came out now.

    `labels` says whether the intent is compared as well, `entities` whether those are: not where they were decoded by
    the rule of an older weebill.
    """

    golden: Golden
    got: Golden
    labels: bool
    entities: bool = True

    @property
    def same_ids(self) -> bool:
        """Whether the text has the token ids it had."""
        return self.got.token_ids == self.golden.token_ids

    @property
    def max_difference(self) -> float:
        """Largest difference of a component, as a share of the golden vector's largest one; inf if shapes differ."""
        golden, got = self.golden.embedding, self.got.embedding
        if golden.shape != got.shape:
            return float("inf")
        return float(np.abs(got - golden).max() / max(float(np.abs(golden).max()), 1e-12))

    @property
    def same_labels(self) -> bool:
        """Whether intent and entities are what they were; True when they are not compared."""
        if self.entities:
            return not self.labels or _labels(self.golden) == _labels(self.got)
        return not self.labels or self.golden.intent == self.got.intent

    @property
    def decoded_otherwise(self) -> bool:
        """Whether today's rule gives other entities than the older one did."""
        return self.labels and not self.entities and _labels(self.golden) != _labels(self.got)

    def problems(self) -> Iterator[str]:
        """Yield what differs, in words."""
        golden, got = self.golden, self.got
        if not self.same_ids:
            yield f"expected the token ids {golden.token_ids}, got {got.token_ids}: the tokenizer differs"
        if not self.max_difference <= TOLERANCE:  # so that NaN is a difference
            yield (f"expected its golden vector within {TOLERANCE:.0e}, got one {self.max_difference:.1e} away: "
                   f"tokens, weights or arithmetic differ")  # fmt: skip
        if not self.same_labels:
            yield f"expected intent and entities {_labels(golden)}, got {_labels(got)}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    `files` maps the name of each file to "same", "changed" or "missing". When changes keep the model from running,
    `failure` says how and there are no `rows`.
    """

    files: Mapping[str, str]
    rows: Sequence[VerifiedText] = ()
    failure: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.problems()

    @property
    def max_difference(self) -> float:
        """The largest of any text."""
        return max((row.max_difference for row in self.rows), default=0.0)

    def notes(self) -> list[str]:
        """Return what is to be known of a model in which nothing is wrong."""
        count = sum(row.decoded_otherwise for row in self.rows)
        if not count:
            return []
        return [f"an older weebill wrote this model; today's decodes other entities from the same numbers in {count} "
                f"of {len(self.rows)} texts; load and save the model to record what it gives now"]  # fmt: skip

    def problems(self) -> list[str]:
        """Return what differs, one message each; empty = the model is what was written."""
        found = [
            f"{name}: expected the file as it was written, got it {what}; copy the folder again"
            for name, what in self.files.items()
            if what != "same"
        ]
        if self.failure is not None:
            found.append(f"the model as it is now cannot run: {self.failure}")
        return found + [f"{row.golden.text!r}: {problem}" for row in self.rows for problem in row.problems()]


def golden_rows(model: "SentenceTransformer | MultiTaskModel") -> list[Golden]:
    """Return what `model` gives for every golden text it can read whole, each text alone, in float32 on CPU.

    `model` stays as it is: device, precision and training mode.
    """
    from weebill.multitask import MultiTaskModel

    encoder = model.encoder if isinstance(model, MultiTaskModel) else model
    tokenizer, config = encoder.tokenizer, encoder.config
    twin = copy.deepcopy(model, {id(tokenizer): tokenizer}).float().cpu()  # the tokenizer is shared: nothing changes it
    if isinstance(twin, MultiTaskModel):
        return golden_rows_of(predictor_of_model(twin))
    return golden_rows_of(Predictor(tokenizer, TorchBackend(twin), config.max_seq_len, config.embedding_dim))


def golden_rows_of(predictor: Predictor) -> list[Golden]:
    """Return what a predictor gives for every golden text it can read whole, each text alone."""
    tokenizer, limit = predictor.tokenizer, predictor.max_seq_len
    texts = [text for text in GOLDEN_TEXTS if not tokenizer.encode(text, limit).dropped_tokens]
    return _run(predictor, texts, batch_size=1)


def verify(folder: Path | str, implementation: str = "weebill") -> VerifyReport:
    """Return how a model folder compares with what it was when written: its files, and what it gives for its texts.

    Golden rows were made one text at a time; here the texts share one padded batch.

    Args:
        folder: a model folder, or "tiny".
        implementation: what runs it, "weebill" or "sentence-transformers"; the latter knows no intents and entities.

    Raises:
        ArtifactError: not a weebill model, or one of a format that this weebill cannot verify.
        ConfigError: no such implementation.
        MissingExtraError: what runs it is not installed.
    """
    known: dict[str, Callable[[Path, list[str]], list[Golden]]] = {
        "weebill": _run_weebill,
        "sentence-transformers": _run_sentence_transformers,
    }
    if implementation not in known:
        raise ConfigError(f"expected an implementation to verify with, one of {', '.join(known)}, got "
                          f"{implementation!r}; correct it")  # fmt: skip
    folder = find_model(folder)
    files = compare_files(folder)
    try:
        golden = read_golden(folder)
        got = known[implementation](folder, [row.text for row in golden])
    except (ArtifactError, DataError) as error:
        if set(files.values()) == {"same"}:
            raise
        return VerifyReport(files, failure=str(error))
    labels, entities = implementation == "weebill", decoding_version(folder) == DECODING_VERSION
    return VerifyReport(files, [VerifiedText(a, b, labels, entities) for a, b in zip(golden, got, strict=True)])


def _run_weebill(folder: Path, texts: list[str]) -> list[Golden]:
    return _run(load(folder), texts, batch_size=max(1, len(texts)))


def _run(predictor: Predictor, texts: Sequence[str], batch_size: int) -> list[Golden]:
    found: dict[int, Golden] = {}
    for rows, batch, output in predictor.outputs(texts, batch_size, show_progress=False):
        chosen = [texts[i] for i in rows]
        parsed = predictor.decode(chosen, batch, output) if predictor.intents else [None] * len(chosen)
        vectors = output.sentence_embedding_BD
        for i, encoding, vector, prediction in zip(rows.tolist(), batch.encodings, vectors, parsed, strict=True):
            labels = (prediction.intent, prediction.entities) if prediction else (None, ())
            found[i] = Golden(texts[i], encoding.token_ids, vector, *labels)
    return [found[i] for i in range(len(texts))]


def _run_sentence_transformers(folder: Path, texts: list[str]) -> list[Golden]:
    try:
        from sentence_transformers import SentenceTransformer as Peer
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "dev", "verifying with it") from error
    if has_graph_alone(folder):
        raise ArtifactError(f"{folder}: expected torch's weights, which sentence-transformers reads, got ONNX "
                            f"alone; `weebill export {folder} --format sentence-transformers --output DIR` has "
                            f"them")  # fmt: skip
    try:
        peer = Peer(str(folder), device="cpu")
        vectors = peer.encode(texts, batch_size=max(1, len(texts)), show_progress_bar=False)
        ids = [list(peer.tokenizer(text)["input_ids"]) for text in texts]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: expected a folder that sentence-transformers runs, got from it: {error!r}; "
                            f"`weebill verify {folder}` tells what changed in it") from error  # fmt: skip
    return [Golden(text, row, vector) for text, row, vector in zip(texts, ids, vectors, strict=True)]


def _labels(row: Golden) -> tuple[str | None, list[tuple[int, int, str]]]:
    return row.intent, [(e.start, e.end, e.label) for e in row.entities]
