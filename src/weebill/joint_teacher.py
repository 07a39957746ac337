"""What joint models say of many texts: intents, and tags by word, averaged over an ensemble. Kept on disk; no training.

Each teacher's answers are kept per block of texts, so an ensemble costs nothing that its members have read before.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from weebill.artifact import find_model, read_model
from weebill.decoding import TagGrammar
from weebill.distill_config import AgreementConfig
from weebill.encodings import Encoding
from weebill.errors import ConfigError
from weebill.files import write_whole
from weebill.predictor import Predictor, load
from weebill.schema import Utterance
from weebill.soft_tags import Span, log_softmax, word_log_probs, word_spans
from weebill.tags import MISSING, align
from weebill.teacher import blocks_by_length, model_fingerprint

Logs = npt.NDArray[np.float16]
Bools = npt.NDArray[np.bool_]
RULE = "1"  # of soft_tags.py: raise it when the same teacher gives other distributions


class Labels(NamedTuple):
    """The intents and the BIO tags a model chooses from, by number."""

    intents: list[str]
    tags: list[str]


@dataclass(frozen=True)
class TeacherRecord:
    """What tells one teacher from another, wherever its folder lies."""

    source: str
    sha256: str


@dataclass(frozen=True)
class JointTeacher:
    """Who says what texts mean.

    Attributes:
        name: for people.
        labels: what it chooses from.
        fingerprint: names its answers on disk; another teacher has another one.
        read: texts, and the spans of each one's words -> log-probabilities of intents (N, C) and of words' tags (U, L).
        votes: its weight in the mean.
        prepare: called before it reads what is not on disk.
    """

    name: str
    labels: Labels
    fingerprint: str
    read: Callable[[Sequence[str], Sequence[Sequence[Span]]], tuple[Logs, Logs]]
    votes: float = 1.0
    prepare: Callable[[], None] | None = None

    def record(self) -> TeacherRecord:
        """Return what a run remembers of its teacher."""
        return TeacherRecord(self.name, self.fingerprint)


@dataclass(frozen=True)
class SoftLabels:
    """What an ensemble says of N texts, as log-probabilities in float16; words are numbered through all texts.

    The words of text i are `first_word_N[i]` and following, `word_spans` says how many; words beyond a teacher's
    max_seq_len are NaN. Members agree on a text's tags when each word's likeliest tag is the same for all of them.
    """

    intents_NC: Logs
    tags_UL: Logs
    first_word_N: npt.NDArray[np.int64]
    intents_agree_N: Bools
    tags_agree_N: Bools


def read_joint_teacher(folder: Path | str) -> JointTeacher:
    """Read a teacher.

    Raises:
        ArtifactError: no model folder, or one without heads.
        ConfigError: it has a CRF.
    """
    predictor = load(folder, on_overflow="truncate")  # what it says of longer texts, no student reads
    predictor.require_heads()
    if predictor.transitions is not None:
        raise ConfigError(f"teachers: expected models that say what each token is by itself, got {folder}, which has a "
                          f"CRF; fine-tune a teacher with heads.crf = false")  # fmt: skip
    if predictor.intent_separator is not None:
        raise ConfigError(f"teachers: expected models that read one intent in a text, got {folder}, which reads "
                          f"several; fine-tune a teacher without heads.intent_separator")  # fmt: skip
    stored = read_model(find_model(folder))
    assert stored.heads is not None
    digest = hashlib.sha256(model_fingerprint(stored).encode())
    digest.update(repr((stored.heads.intents, stored.heads.tags)).encode())
    for name in sorted(stored.heads.arrays):
        digest.update(name.encode() + stored.heads.arrays[name].tobytes())
    labels = Labels(list(predictor.intents), list(predictor.tags))
    return JointTeacher(str(folder), labels, digest.hexdigest(), partial(_read, predictor))


def shared_labels(teachers: Sequence[JointTeacher]) -> Labels:
    """Return the labels that all teachers know, in the first one's order.

    Raises:
        ConfigError: one knows others.
    """
    first = teachers[0].labels
    for teacher in teachers[1:]:
        for kind in Labels._fields:
            expected, got = set(getattr(first, kind)), set(getattr(teacher.labels, kind))
            if expected != got:
                raise ConfigError(f"teachers: expected {teacher.name} to know the {kind} of {teachers[0].name}, got "
                                  f"{len(got - expected)} others and {len(expected - got)} missing, such as "
                                  f"{min(expected ^ got)!r}; train them on the same labels")  # fmt: skip
    return first


def soft_labels(
    teachers: Sequence[JointTeacher],
    texts: Sequence[str],
    whole_words: bool,
    folder: Path,
    show_progress: bool = True,
) -> SoftLabels:
    """Return the teachers' mean probabilities, by their votes, for every text, in the labels' order of `shared_labels`.

    Args:
        teachers: at least one.
        texts: distinct texts.
        whole_words: see `soft_tags.word_spans`.
        folder: where blocks are kept.
        show_progress: a progress bar on standard error.
    """
    intents, tags = shared_labels(teachers)
    words = [word_spans(text, whole_words) for text in texts]
    num_words_N = np.array([len(spans) for spans in words], dtype=np.int64)
    first_word_N = np.concatenate([[0], num_words_N.cumsum()[:-1]]).astype(np.int64)
    intents_NC = np.empty((len(texts), len(intents)), dtype=np.float16)
    tags_UL = np.empty((int(num_words_N.sum()), len(tags)), dtype=np.float16)
    intents_agree_N = np.empty(len(texts), dtype=bool)
    tags_agree_N = np.empty(len(texts), dtype=bool)
    votes = [teacher.votes for teacher in teachers]
    blocks = blocks_by_length(texts)
    for teacher in teachers:
        if teacher.prepare and not all(
            _path(teacher, [texts[i] for i in rows], whole_words, folder).is_file() for rows in blocks
        ):
            teacher.prepare()
    for rows in track(blocks, description="teachers read texts", console=Console(stderr=True),
                      disable=not show_progress):  # fmt: skip
        block, spans = [texts[i] for i in rows], [words[i] for i in rows]
        answers = [_answers(teacher, block, spans, whole_words, intents, tags, folder) for teacher in teachers]
        block_intents, best_intents = _average([a for a, _ in answers], votes)
        block_tags, same_tags = _average([b for _, b in answers], votes)
        intents_NC[rows], intents_agree_N[rows] = block_intents, best_intents
        place = np.concatenate([np.arange(first_word_N[i], first_word_N[i] + num_words_N[i]) for i in rows])
        tags_UL[place.astype(np.int64)] = block_tags
        text_of_word = np.repeat(np.arange(len(rows)), num_words_N[rows])
        tags_agree_N[rows] = np.bincount(text_of_word[~same_tags], minlength=len(rows)) == 0
    return SoftLabels(intents_NC, tags_UL, first_word_N, intents_agree_N, tags_agree_N)


def trusted(
    soft: SoftLabels, utterances: Sequence[Utterance], whole_words: bool, labels: Labels, rule: AgreementConfig
) -> tuple[Bools, dict[str, int]]:
    """Return which texts the teachers are sure of, and how many they are not, by reason.

    Where an utterance has labels, its ensemble must agree with those too: a copy with a value that makes no sense there
    is often read otherwise.
    """
    agree_N = np.ones(len(utterances), dtype=bool)
    if rule.on != "nothing":
        best_N = soft.intents_NC.argmax(axis=1)
        agree_N &= soft.intents_agree_N
        agree_N &= [u.intent is None or u.intent == labels.intents[i] for u, i in zip(utterances, best_N, strict=True)]
    if rule.on == "intent_and_tags":
        agree_N &= soft.tags_agree_N
        agree_N &= [_same_tags(soft, i, u, whole_words, labels.tags) for i, u in enumerate(utterances)]
    sure_N = np.exp(soft.intents_NC.max(axis=1).astype(np.float32)) >= rule.min_confidence
    lost = {"doubted": int((~agree_N).sum()), "unsure": int((agree_N & ~sure_N).sum())}
    return agree_N & sure_N, lost


def _same_tags(soft: SoftLabels, number: int, utterance: Utterance, whole_words: bool, tags: Sequence[str]) -> bool:
    """Return whether each word's likeliest tag is its label, where it has one that its words can carry."""
    if utterance.entities is None:
        return True
    words = word_spans(utterance.text, whole_words)
    gold, _ = align(utterance.entities, Encoding([0] * len(words), words), {tag: i for i, tag in enumerate(tags)})
    first = soft.first_word_N[number]
    best = soft.tags_UL[first : first + len(words)].argmax(axis=1).tolist()
    return all(label in (MISSING, got) for label, got in zip(gold, best, strict=True))


def _average(members: Sequence[Logs], votes: Sequence[float]) -> tuple[Logs, Bools]:
    """Return the logarithm of the mean probabilities, and for which rows the members' best classes are the same."""
    stacked = np.stack(members).astype(np.float32)
    best = stacked.argmax(axis=-1)
    with np.errstate(divide="ignore"):  # where all say 0
        mean: Logs = np.log(np.average(np.exp(stacked), axis=0, weights=votes)).astype(np.float16)
    same: Bools = (best == best[0]).all(axis=0)
    return mean, same


def _answers(
    teacher: JointTeacher,
    texts: Sequence[str],
    words: Sequence[Sequence[Span]],
    whole_words: bool,
    intents: Sequence[str],
    tags: Sequence[str],
    folder: Path,
) -> tuple[Logs, Logs]:
    """Return a teacher's log-probabilities of a block, (N, C) and (U, L), read from disk where they are there."""
    path = _path(teacher, texts, whole_words, folder)
    known = teacher.labels
    shapes = [(len(texts), len(known.intents)), (sum(map(len, words)), len(known.tags))]
    kept = _kept(path, shapes)
    if kept is None:
        kept = teacher.read(texts, words)
        write_whole(path, save({"intents": kept[0], "tags": kept[1]}))
    order_C = [known.intents.index(name) for name in intents]
    order_L = [known.tags.index(name) for name in tags]
    return kept[0][:, order_C], kept[1][:, order_L]


def _path(teacher: JointTeacher, texts: Sequence[str], whole_words: bool, folder: Path) -> Path:
    named = "\0".join([teacher.fingerprint, RULE, str(whole_words), *texts])
    return folder / "joint" / f"{hashlib.sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()}.safetensors"


def _kept(path: Path, shapes: Sequence[tuple[int, int]]) -> tuple[Logs, Logs] | None:
    if not path.is_file():
        return None
    try:
        arrays = load_file(path)
        intents_NC, tags_UL = arrays["intents"], arrays["tags"]
    except (OSError, SafetensorError, KeyError, ValueError):
        return None  # a damaged block is computed again
    if [intents_NC.shape, tags_UL.shape] != shapes or {intents_NC.dtype, tags_UL.dtype} != {np.dtype(np.float16)}:
        return None
    return intents_NC, tags_UL


def _read(predictor: Predictor, texts: Sequence[str], words: Sequence[Sequence[Span]]) -> tuple[Logs, Logs]:
    grammar = TagGrammar(predictor.tags)
    intents_NC = np.empty((len(texts), len(predictor.intents)), dtype=np.float16)
    by_text: dict[int, Logs] = {}
    for rows, batch, output in predictor.outputs(texts, show_progress=False):
        assert output.intent_logits_BC is not None and output.tag_logits_BTL is not None
        intents_NC[rows] = log_softmax(output.intent_logits_BC)
        log_probs_BTL = log_softmax(output.tag_logits_BTL)
        for i, row in enumerate(rows.tolist()):
            offsets = batch.encodings[i].offsets
            found = word_log_probs(log_probs_BTL[i, : len(offsets)], offsets, words[row], grammar)
            by_text[row] = found.astype(np.float16)
    return intents_NC, np.concatenate([by_text[row] for row in range(len(texts))])
