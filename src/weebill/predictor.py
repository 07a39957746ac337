"""The road: texts -> Tokenizer -> Backend -> decode -> predictions. Everything that predicts goes through here."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from weebill.artifact import SHIPPED, StoredModel, find_model, read_model
from weebill.backend import Backend, BackendName, TorchBackend, load_backend, run_all
from weebill.data import batches_by_length
from weebill.decoding import TagGrammar, Transitions
from weebill.encodings import EncodedBatch, ModelTokenizer
from weebill.errors import ArtifactError, ConfigError
from weebill.geometry import unit_rows
from weebill.schema import OUT_OF_SCOPE, SEVERAL_FROM, Entity, ModelOutput, Overflow, Prediction
from weebill.tags import end_of_words, is_inside_word, spans_from_tags
from weebill.tokenizer_checks import check_texts
from weebill.windows import Windows

if TYPE_CHECKING:
    from weebill.multitask import MultiTaskModel


class Predictor:
    """A model ready to read texts; call it with one text.

    `max_seq_len` is in tokens. A longer text is read in overlapping windows; with `on_overflow` "truncate" only its
    beginning is, and with "error" it is refused. With `whole_words` no entity begins or ends inside a word.
    Entities of one label touch only where it is in `touching`; default: all may.
    An intent less probable than `intent_threshold` is read as `schema.OUT_OF_SCOPE`. `transitions` are those of a CRF.
    With an `intent_separator` a text may have several of the `intents`, joined by it.
    """

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        backend: Backend,
        max_seq_len: int,
        embedding_dim: int,
        intents: Sequence[str] = (),
        tags: Sequence[str] = (),
        whole_words: bool = False,
        transitions: Transitions | None = None,
        intent_threshold: float = 0.0,
        on_overflow: Overflow = "window",
        intent_separator: str | None = None,
        touching: Sequence[str] | None = None,
    ):
        if on_overflow not in get_args(Overflow):
            raise ConfigError(f"on_overflow: expected one of {', '.join(get_args(Overflow))}, got {on_overflow!r}; "
                              f"correct it")  # fmt: skip
        self.on_overflow: Overflow = on_overflow
        self.tokenizer, self.backend = tokenizer, backend
        self.max_seq_len, self.embedding_dim = max_seq_len, embedding_dim
        self.intents, self.tags, self.whole_words = list(intents), list(tags), whole_words
        self.transitions, self.intent_threshold = transitions, intent_threshold
        self.intent_separator = intent_separator
        self.touching = None if touching is None else list(touching)
        self._grammar = TagGrammar(tags, transitions, touching) if tags else None

    def __repr__(self) -> str:
        entities = sum(tag.startswith("B-") for tag in self.tags)
        return (f"<weebill.Predictor: {len(self.intents)} intents, {entities} kinds of entities, "
                f"{self.embedding_dim}-dim embeddings>")  # fmt: skip

    def __call__(self, text: str) -> Prediction:
        """Return intent and entities of one text.

        Raises:
            ConfigError: it is no text.
        """
        if not isinstance(text, str):
            raise ConfigError(f"expected one text, got {type(text).__name__}; parse(texts) reads several")
        return self.parse([text])[0]

    def require_heads(self) -> None:
        """Refuse an encoder without heads where they are needed.

        Raises:
            ArtifactError: the model has no heads.
        """
        if not self.intents:
            raise ArtifactError("expected a model with intent and tag heads, got an encoder; fine-tune it first: "
                                "weebill finetune RECIPE --set start=FOLDER --output DIR")  # fmt: skip

    def outputs(
        self,
        texts: Sequence[str],
        batch_size: int = 64,
        show_progress: bool | None = None,
        on_overflow: Overflow | None = None,
    ) -> Iterator[tuple[npt.NDArray[np.int64], EncodedBatch, ModelOutput]]:
        """Yield (row numbers, batch, model output), rows grouped by length; every row occurs once.

        A text read in windows comes alone, as if one pass had read it: a batch of one that is longer than
        `max_seq_len`. `on_overflow` default: the predictor's.

        Raises:
            DataError: a text is too long, and `on_overflow` is "error".
        """
        overflow = on_overflow or self.on_overflow
        batches = batches_by_length(
            self.tokenizer, texts, self.max_seq_len, batch_size, show_progress=show_progress, on_overflow=overflow
        )
        if len(texts) > batch_size:
            read = run_all(self.backend, batches)
        else:  # without the threads that several batches are run by
            read = ((rows, batch, self.backend.run(batch)) for rows, batch in batches)
        for rows, batch, output in read:
            if overflow == "window" and (too_long := batch.truncated):
                fit = np.array([i for i in range(len(rows)) if i not in too_long], dtype=np.int64)
                if fit.size:
                    short = batch.select(fit)
                    yield rows[fit], short, output.select(fit, int(short.lengths_B.max()))
                yield from self._windowed_outputs(texts, rows[list(too_long)], batch_size)
            else:
                yield rows, batch, output

    def _windowed_outputs(
        self, texts: Sequence[str], rows: npt.NDArray[np.int64], batch_size: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], EncodedBatch, ModelOutput]]:
        def batches() -> Iterator[tuple[tuple[int, Windows], EncodedBatch]]:
            for row in rows.tolist():
                windows = Windows(self.tokenizer, texts[row], self.max_seq_len)
                yield from (((row, windows), batch) for batch in windows.batches(batch_size))

        for (row, windows), parts in groupby(run_all(self.backend, batches()), key=itemgetter(0)):
            merged = windows.merge([output for _, _, output in parts], self.intent_separator is not None)
            yield np.array([row]), windows.whole_batch(), merged

    def parse(self, texts: Sequence[str], show_progress: bool | None = None) -> list[Prediction]:
        """Return one prediction per text, in the order given.

        Raises:
            ArtifactError: the model has no heads.
            ConfigError: something else than texts.
        """
        self.require_heads()
        check_texts(texts)
        if len(texts) == 1:  # as below, without the generators that several texts need: a tenth less time
            batch = self.tokenizer.encode_batch(texts, self.max_seq_len)
            if not batch.encodings[0].dropped_tokens:
                return self.decode(texts, batch, self.backend.run(batch))
        found: dict[int, Prediction] = {}
        for rows, batch, output in self.outputs(texts, show_progress=show_progress):
            decoded = self.decode([texts[i] for i in rows], batch, output)
            found.update(zip(rows.tolist(), decoded, strict=True))
        return [found[i] for i in range(len(texts))]

    def embed(
        self, texts: Sequence[str], show_progress: bool | None = None, normalize: bool = False
    ) -> npt.NDArray[np.float32]:
        """Return sentence embeddings, float32 (len(texts), embedding_dim), in the order given.

        With `normalize` each has length 1, so that products of them are cosines.

        Raises:
            ConfigError: something else than texts.
        """
        check_texts(texts)
        vectors = np.zeros((len(texts), self.embedding_dim), dtype=np.float32)
        for rows, _, output in self.outputs(texts, show_progress=show_progress):
            vectors[rows] = output.sentence_embedding_BD
        return unit_rows(vectors) if normalize else vectors

    def decode(self, texts: Sequence[str], batch: EncodedBatch, output: ModelOutput) -> list[Prediction]:
        """Return predictions from logits: the only softmax, argmax and BIO decoder in weebill.

        Of several intents all are read that are at least SEVERAL_FROM probable, else the likeliest one.
        """
        assert output.intent_logits_BC is not None and output.tag_logits_BTL is not None and self._grammar is not None
        intents_BC = self.intent_scores(output.intent_logits_BC)
        best = intents_BC.argmax(axis=-1).tolist()
        reads, continues = self._words(texts, batch)
        tags = self._grammar.decode(output.tag_logits_BTL, reads, continues)
        scores = self._scores(output.tag_logits_BTL, reads, tags)
        predictions = []
        for i, (text, encoding, intent) in enumerate(zip(texts, batch.encodings, best, strict=True)):
            entities: tuple[Entity, ...] = ()
            if i in scores:
                offsets = encoding.offsets
                names = [self.tags[tag] for tag in tags[i]]
                entities = spans_from_tags(names, [offsets[t] for t in reads[i]], scores[i])
            score = float(intents_BC[i, intent])
            name = self.intents[intent] if score >= self.intent_threshold else OUT_OF_SCOPE
            if self.intent_separator is not None and score >= self.intent_threshold:
                read = np.flatnonzero(intents_BC[i] >= SEVERAL_FROM)
                if read.size > 1:
                    name = self.intent_separator.join(sorted(self.intents[k] for k in read))
                    score = float(intents_BC[i, read].min())
            predictions.append(Prediction(text, name, score, entities))
        return predictions

    def intent_scores(self, logits_BC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the probability of each intent; where a text may have several, each by itself."""
        if self.intent_separator is None:
            return softmax(logits_BC)
        scores_BC: npt.NDArray[np.float32] = np.exp(-np.logaddexp(0, -logits_BC))
        return scores_BC

    def _words(self, texts: Sequence[str], batch: EncodedBatch) -> tuple[list[list[int]], list[list[bool]]]:
        """Return the places of each text's tokens that carry a tag, and which of those tokens go on a word.

        No special ones carry one, no later parts of a character, no marks that end a text.
        """
        reads, continues = [], []
        for text, encoding in zip(texts, batch.encodings, strict=True):
            before, end = (0, 0), end_of_words(text) if self.whole_words else len(text)
            places, go_on = [], []
            for t, span in enumerate(encoding.offsets):
                if span[0] == span[1]:
                    continue
                if span != before and span[0] < end:
                    places.append(t)
                    go_on.append(self.whole_words and is_inside_word(text, span[0]))
                before = span
            reads.append(places)
            continues.append(go_on)
        return reads, continues

    def _scores(
        self, logits_BTL: npt.NDArray[np.float32], reads: Sequence[Sequence[int]], tags: Sequence[Sequence[int]]
    ) -> dict[int, list[float]]:
        """Return the probability of each tag in the rows that have other tags than O."""
        outside = self._grammar.outside if self._grammar else -1
        labelled = [i for i, row in enumerate(tags) if row.count(outside) < len(row)]
        if not labelled:
            return {}
        scores_BTL = softmax(logits_BTL)  # all of them: to pick some first takes longer
        return {i: [scores_BTL.item(i, t, tag) for t, tag in zip(reads[i], tags[i], strict=True)] for i in labelled}


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return probabilities over the last axis."""
    powers = np.exp(logits - np.maximum.reduce(logits, axis=-1, keepdims=True))
    powers /= np.add.reduce(powers, axis=-1, keepdims=True)
    return powers


def load(
    folder: Path | str = SHIPPED, backend: BackendName | None = None, on_overflow: Overflow = "window"
) -> Predictor:
    """Load a model folder, with or without heads.

    Args:
        folder: as trained or as exported; default: the small model that comes with weebill, which reads the 60 intents
            and 55 kinds of entities of MASSIVE in English.
        backend: "torch" or "onnx"; default: torch where it is installed and the folder has weights for it, else ONNX.
        on_overflow: of a text with more tokens than the model reads at once: "window", "truncate" or "error".

    Raises:
        ArtifactError: the folder is not a complete weebill model, or has nothing for that backend.
        ConfigError: no such backend or `on_overflow`.
        MissingExtraError: torch or onnxruntime is needed and not installed.
    """
    folder = find_model(folder)
    stored = read_model(folder, weights=False)
    return predictor_of(stored, load_backend(folder, stored, backend), on_overflow)


def predictor_of(stored: StoredModel, backend: Backend, on_overflow: Overflow = "window") -> Predictor:
    """Return the predictor of a model as read from disk, run by `backend`."""
    heads = stored.heads
    return Predictor(
        stored.tokenizer,
        backend,
        stored.config.max_seq_len,
        stored.config.embedding_dim,
        heads.intents if heads else (),
        heads.tags if heads else (),
        heads is not None and heads.config.entity_boundaries == "words",
        heads.transitions if heads else None,
        heads.config.settled_threshold if heads else 0.0,
        on_overflow,
        heads.config.intent_separator if heads else None,
        heads.config.settled_touching if heads else None,
    )


def predictor_of_model(model: "MultiTaskModel", backend: Backend | None = None) -> Predictor:
    """Return the predictor of a model in memory, as it is now; its transitions are those of this moment."""
    encoder = model.encoder
    return Predictor(
        encoder.tokenizer,
        backend or TorchBackend(model),
        encoder.config.max_seq_len,
        encoder.config.embedding_dim,
        model.intents,
        model.tags,
        model.whole_words,
        model.transitions,
        model.config.settled_threshold,
        intent_separator=model.config.intent_separator,
        touching=model.config.settled_touching,
    )
