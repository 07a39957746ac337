"""Export: a model as ONNX, as a sentence-transformers folder, or its tokenizer as tiktoken. Trains nothing.

An export is first run beside the model it was made from, on the golden texts and a dev set; what comes out otherwise
than allowed is not written.
"""

import base64
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weebill.artifact import (
    GRAPH,
    Graph,
    check_output,
    decoding_version,
    find_model,
    has_graph_alone,
    read_model,
    write_model,
)
from weebill.backend import OnnxBackend
from weebill.bpe import SPLIT_PATTERNS
from weebill.data import batches_by_length
from weebill.errors import ArtifactError, ConfigError, MissingExtraError
from weebill.evaluate import evaluate
from weebill.files import write_together
from weebill.geometry import unit_rows
from weebill.golden import DECODING_VERSION, GOLDEN_TEXTS, Golden, read_golden
from weebill.normalize import normalize
from weebill.predictor import Predictor, load, predictor_of
from weebill.schema import ModelOutput, Utterance, intent_parts
from weebill.tiktoken_files import read_tiktoken
from weebill.tokenizer import Tokenizer
from weebill.verification import TOLERANCE, golden_rows_of, verify

LARGEST_LOSS = 0.01  # of intent accuracy, span F1 and exact match, after int8
LARGEST_TURN = 0.01  # of an embedding after int8: 1 - cosine with the original
SCORES = {"intent_accuracy": "intent accuracy", "span_f1": "span F1 (strict)", "exact_match": "exact match (strict)"}
BATCH, TIMED_TEXTS, TIMED_ALONE = 64, 512, 100
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at, of the export and perhaps of the original.

    `unit` is "fraction", "share" (of the largest component), "count", "bytes", "ms" or "per_s". `allowed` bounds the
    loss, original - exported, or `exported` itself if there is no original; None = nothing is asked of it.
    """

    name: str
    unit: str
    exported: float
    original: float | None = None
    allowed: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it is within what is allowed; NaN is not."""
        found = self.exported if self.original is None else self.original - self.exported
        return self.allowed is None or found <= self.allowed


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was found on `texts` texts; `notes` says in words what could not be looked at."""

    what: str
    texts: int
    checks: Sequence[Check]
    notes: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether the export may be used; else it was not written."""
        return all(check.ok for check in self.checks)

    def problems(self) -> list[str]:
        """Return what is not as allowed, in words."""
        return [
            f"{c.name}: expected at most {c.allowed:g}{'' if c.original is None else ' lost'}, got "
            f"{c.exported if c.original is None else c.original - c.exported:g}"
            for c in self.checks if not c.ok
        ]  # fmt: skip

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


# -- ONNX


def export_onnx(
    folder: Path | str, output: Path | str, utterances: Sequence[Utterance], int8: bool = False
) -> ExportReport:
    """Write a model folder in which one ONNX graph stands for the weights, if the graph gives what torch gives.

    In float32 every number agrees to `verification.TOLERANCE` and every intent and tag is the same; with int8 the
    scores on `utterances` may fall by LARGEST_LOSS. A text alone and the same in a padded batch agree in both.

    Args:
        folder: a model, with or without heads.
        output: a new or empty folder, or an older weebill model to replace.
        utterances: real texts, to compare on; with `int8` annotated, with the model's own labels.
        int8: store weights as int8, a quarter of the size.

    Raises:
        ArtifactError: `folder` is no model, or not any more what was written; `output` is something else.
        ConfigError: `output` is `folder`, or the utterances cannot show what int8 loses.
        MissingExtraError: torch, onnx or onnxruntime is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtraError("onnx", "export", "exporting to ONNX")
    from weebill.onnx_graph import build_graph

    folder, output = find_model(folder), Path(output)
    _check_folders(folder, output)
    stored = read_model(folder)
    original = load(folder, "torch")
    intents, separator = set(original.intents), original.intent_separator
    known = sum(u.intent is not None and intents.issuperset(intent_parts(u.intent, separator)) for u in utterances)
    scored = known > len(utterances) / 2
    if int8 and original.intents and not scored:
        raise ConfigError(f"--int8: expected utterances with intents of this model, to see what int8 loses, got "
                          f"{known} of {len(utterances)}; name annotated ones with --data FILE")  # fmt: skip
    body = build_graph(stored, int8)
    exported = predictor_of(stored, OnnxBackend(body))
    texts = [*GOLDEN_TEXTS, *(u.text for u in utterances)]
    checks = [*_compare(original, exported, texts, int8)]
    if scored:
        checks += _score(original, exported, utterances, LARGEST_LOSS if int8 else None)
    checks += _measure(original, exported, texts)
    held = [folder / GRAPH] if has_graph_alone(folder) else folder.rglob("*.safetensors")
    weights_bytes = sum(path.stat().st_size for path in held)
    checks.append(Check("size of the weights", "bytes", len(body), weights_bytes))
    report = ExportReport(f"ONNX, {'int8' if int8 else 'float32'}", len(texts), checks)
    if report.ok:
        if int8 or decoding_version(folder) != DECODING_VERSION:
            golden = golden_rows_of(exported)
        else:
            golden = read_golden(folder)
        graph = Graph(body, report.to_json())
        write_model(output, stored.config, stored.tokenizer, {}, stored.heads, stored.training, None, golden, graph)
    return report


def _check_folders(folder: Path, output: Path) -> None:
    if output.resolve() == folder.resolve():
        raise ConfigError(f"--output: expected another folder than the model's own, got {output}; name a new one")
    check_output(output)
    problems = verify(folder).problems()
    if problems:
        raise ArtifactError(f"{folder}: expected a model as it was written, got one that `weebill verify` finds "
                            f"changed: {problems[0]}; copy it again, or train it again")  # fmt: skip


def _compare(original: Predictor, exported: Predictor, texts: Sequence[str], int8: bool) -> Iterator[Check]:
    """Yield how far outputs are apart, and how often an intent or a tag is another one."""
    differences, turns, others = [0.0], [0.0], np.zeros(3, dtype=int)
    for _, batch in batches_by_length(original.tokenizer, texts, original.max_seq_len, BATCH, show_progress=False):
        outputs = (_rows(predictor.backend.run(batch), batch.attention_mask_BT) for predictor in (original, exported))
        pairs = list(zip(*outputs, strict=True))
        turns.append(_turn(*pairs[0]))
        differences += [_apart(a, b) for a, b in pairs]
        others[: len(pairs)] += [_count_others(a, b) for a, b in pairs]
        if original.intent_separator is not None:
            others[1] += _count_sides(*pairs[1])
    # np.max, of which NaN is the largest
    yield Check("largest difference of an output", "share", float(np.max(differences)),
                allowed=None if int8 else TOLERANCE)  # fmt: skip
    if int8:
        yield Check("largest 1 - cosine of an embedding", "share", float(np.max(turns)), allowed=LARGEST_TURN)
    if original.intents:
        yield Check("texts with another intent", "count", int(others[1]), allowed=None if int8 else 0)
        yield Check("tokens with another tag", "count", int(others[2]), allowed=None if int8 else 0)
    yield Check("a text alone against in a batch", "share", _alone_against_batch(exported), allowed=TOLERANCE)


def _rows(output: ModelOutput, mask_BT: npt.NDArray[np.bool_]) -> list[Floats]:
    """Return embeddings and, with heads, logits of intents and of the tags of all real tokens, a row each."""
    if output.intent_logits_BC is None or output.tag_logits_BTL is None:
        return [output.sentence_embedding_BD]
    return [output.sentence_embedding_BD, output.intent_logits_BC, output.tag_logits_BTL[mask_BT]]


def _apart(a_NK: Floats, b_NK: Floats) -> float:
    """Return the largest difference of two numbers, as a share of the largest one in its row of `a`."""
    largest_N = np.maximum(np.abs(a_NK).max(axis=-1), 1e-12)
    return float((np.abs(a_NK - b_NK).max(axis=-1) / largest_N).max(initial=0.0))


def _turn(a_BD: Floats, b_BD: Floats) -> float:
    """Return the largest 1 - cosine of two rows."""
    return float((1 - (unit_rows(a_BD) * unit_rows(b_BD)).sum(axis=-1)).max(initial=0.0))


def _count_others(a_NK: Floats, b_NK: Floats) -> int:
    """Return in how many rows `b` is highest where `a` is not; of two that `a` has equally high, either will do."""
    there_N = np.take_along_axis(a_NK, b_NK.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    return int((a_NK.max(axis=-1) - there_N > TOLERANCE * np.abs(a_NK).max(axis=-1)).sum())


def _count_sides(a_NC: Floats, b_NC: Floats) -> int:
    """Return how many intents only one of them has, each decided by itself; of those near 0 in `a`, either will do."""
    clear_NC = np.abs(a_NC) > TOLERANCE * np.abs(a_NC).max(axis=-1, keepdims=True)
    return int((((a_NC > 0) != (b_NC > 0)) & clear_NC).sum())


def _alone_against_batch(predictor: Predictor) -> float:
    """Return how far the golden texts, each alone, are from the same in one padded batch."""
    encode, run = predictor.tokenizer.encode_batch, predictor.backend.run
    batch = encode(GOLDEN_TEXTS, predictor.max_seq_len)
    together = _rows(run(batch), batch.attention_mask_BT)
    alone = []
    for text in GOLDEN_TEXTS:
        one = encode([text], predictor.max_seq_len)
        alone.append(_rows(run(one), one.attention_mask_BT))
    apart = [_apart(np.concatenate(rows), rows_too) for *rows, rows_too in zip(*alone, together, strict=True)]
    return float(np.max(apart))


def _score(
    original: Predictor, exported: Predictor, utterances: Sequence[Utterance], allowed: float | None
) -> Iterator[Check]:
    before, after = (evaluate(predictor, utterances, show_progress=False) for predictor in (original, exported))
    for name, label in SCORES.items():
        old, new = getattr(before, name), getattr(after, name)
        if old is not None:
            yield Check(label, "fraction", new, old, allowed)


def _measure(original: Predictor, exported: Predictor, texts: Sequence[str]) -> Iterator[Check]:
    """Yield how long one text takes, and how many a second in batches; whole, from text to prediction."""
    alone, together = [], []
    some = list(texts[:TIMED_TEXTS])
    for predictor in (original, exported):
        call = predictor.parse if predictor.intents else predictor.embed
        call(some)  # warm
        alone.append(1000 * statistics.median(_seconds(call, [text]) for text in some[:TIMED_ALONE]))
        together.append(len(some) / _seconds(call, some))
    yield Check("one text, median", "ms", alone[1], alone[0])
    yield Check("texts in batches", "per_s", together[1], together[0])


def _seconds(call: Callable[[Sequence[str]], object], texts: Sequence[str]) -> float:
    started = time.perf_counter()
    call(texts)
    return time.perf_counter() - started


# -- sentence-transformers


def export_sentence_transformers(folder: Path | str, output: Path | str, texts: Sequence[str]) -> ExportReport:
    """Write the encoder alone, as a folder that sentence-transformers loads.

    Where that library is installed it embeds the golden texts and `texts`, and must give what weebill gives.

    Raises:
        ArtifactError: `folder` is no model, or not any more what was written; `output` is something else.
        ConfigError: `output` is `folder`.
        MissingExtraError: torch is not installed.
    """
    folder, output = find_model(folder), Path(output)
    _check_folders(folder, output)
    stored = read_model(folder)
    golden = [Golden(row.text, row.token_ids, row.embedding) for row in read_golden(folder)]

    def write(to: Path) -> None:
        write_model(to, stored.config, stored.tokenizer, stored.arrays, None, stored.training, golden=golden)

    texts = [*GOLDEN_TEXTS, *texts]
    with tempfile.TemporaryDirectory() as temporary:
        trial = Path(temporary) / "model"
        write(trial)
        checks = [Check("golden texts that differ", "count", len(verify(trial).problems()), allowed=0)]
        notes = []
        if importlib.util.find_spec("sentence_transformers") is None:
            notes.append("sentence-transformers is not installed here, so only weebill has read the folder")
        else:
            checks += _ask_sentence_transformers(trial, texts)
    report = ExportReport("sentence-transformers", len(texts), checks, notes)
    if report.ok:
        write(output)
    return report


def _ask_sentence_transformers(folder: Path, texts: Sequence[str]) -> Iterator[Check]:
    from sentence_transformers import SentenceTransformer as Peer

    problems = verify(folder, "sentence-transformers").problems()
    yield Check("golden texts that differ in sentence-transformers", "count", len(problems), allowed=0)
    theirs_ND = Peer(str(folder), device="cpu").encode(list(texts), show_progress_bar=False)
    difference = _apart(load(folder, "torch", "truncate").embed(texts, show_progress=False), theirs_ND)
    yield Check("largest difference in sentence-transformers", "share", difference, allowed=TOLERANCE)


# -- tiktoken


def export_tiktoken(folder: Path | str, output: Path | str, texts: Sequence[str]) -> ExportReport:
    """Write the tokenizer as weebill.tiktoken, and encoding.json with what such a file cannot hold.

    That is the split pattern, the special tokens, and the normalizers, which tiktoken does not know: apply them first.
    Where tiktoken is installed it must give weebill's ids for the golden texts and `texts`, else weebill's own reader.

    Raises:
        ArtifactError: no byte-level BPE there, or `output` cannot be written.
        ConfigError: tiktoken, which merges by token and not by pair, would give other ids.
    """
    tokenizer = Tokenizer.load(find_model(folder))
    settings = {
        "name": "weebill",
        "pat_str": SPLIT_PATTERNS.get(tokenizer.split_pattern, tokenizer.split_pattern),
        "special_tokens": tokenizer.special_tokens,
        "normalizers": list(tokenizer.normalizers),
    }
    texts = [*GOLDEN_TEXTS, *texts]
    normal = [normalize(text, tokenizer.normalizers) for text in texts]
    with tempfile.TemporaryDirectory() as temporary:
        trial = Path(temporary) / "weebill.tiktoken"
        tokenizer.save_tiktoken(trial)
        body, notes = trial.read_bytes(), []
        if importlib.util.find_spec("tiktoken") is None:
            notes.append("tiktoken is not installed here, so only weebill has read the file")
            encode = read_tiktoken(body, tokenizer.split_pattern, str(trial))[0].encode_ordinary
        else:
            encode = _tiktoken_encoding(body, settings).encode_ordinary
    others = sum(encode(text) != tokenizer.encode_ordinary(text) for text in normal)
    report = ExportReport(
        "tiktoken", len(texts), [Check("texts with other token ids", "count", others, allowed=0)], notes
    )
    if report.ok:
        encoding = (json.dumps(settings, indent=2) + "\n").encode()
        write_together({Path(output) / "weebill.tiktoken": body, Path(output) / "encoding.json": encoding})
    return report


def _tiktoken_encoding(body: bytes, settings: Mapping[str, Any]) -> Any:
    import tiktoken

    rows = (line.split() for line in body.splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
    return tiktoken.Encoding(settings["name"], pat_str=settings["pat_str"], mergeable_ranks=ranks,
                             special_tokens=settings["special_tokens"])  # fmt: skip
