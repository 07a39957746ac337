"""A teacher without vectors, fitted in minutes: a linear classifier over n-grams for intents, a CRF over words.

On a few thousand rows such models read as well as a small network from random weights, and err elsewhere: a student of
both is better than either.
"""

import hashlib
import importlib.metadata
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from weebill.cooccurrence import neighbour_vectors
from weebill.distill_config import LinearConfig
from weebill.encodings import Encoding
from weebill.errors import DataError, MissingExtraError
from weebill.geometry import unit_rows
from weebill.joint_teacher import JointTeacher, Labels, Logs
from weebill.linear_models import LEAST, fit_classifier, fit_tagger, logs, said, tag_log_probs, words_of
from weebill.schema import Utterance
from weebill.soft_tags import Span, word_spans
from weebill.tags import MISSING, align

NAME = "linear"
RULE = "4"  # raise it when the same rows give other answers
KNOWN_FROM, MOST_WORDS = 3, 30_000  # times a word occurs, and words, that groups are made of
WIDTH = 100  # of the vectors they are made from
WORTH_PROCESSES = 100  # texts
_PACKAGES = {"sklearn": "scikit-learn", "pycrfsuite": "python-crfsuite"}


def require_linear() -> None:
    """Refuse a linear teacher where its libraries are not installed.

    Raises:
        MissingExtraError: scikit-learn or python-crfsuite is not there.
    """
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "linear", "a linear teacher (linear.votes)")


def linear_teacher(
    config: LinearConfig,
    rows: Sequence[Utterance],
    labels: Labels,
    whole_words: bool,
    texts: Sequence[str],
    show_progress: bool = True,
) -> JointTeacher:
    """Return a teacher that is fitted when it is first asked something whose answer is not on disk.

    Args:
        config: how.
        rows: people's labels; rows may lack intent or entities.
        labels: what it answers with. What no row has is hardly probable.
        whole_words: see `soft_tags.word_spans`.
        texts: that show which words are alike.
        show_progress: a progress bar on standard error.

    Raises:
        DataError: fewer than two intents among the rows, or no entities.
        MissingExtraError: see `require_linear`.
    """
    require_linear()
    num_intents = len({u.intent for u in rows} - {None})
    if num_intents < 2 or not any(u.entities for u in rows):
        raise DataError(f"linear.votes: expected rows that people labelled, not generated ones, with two intents or "
                        f"more, and with entities, got {num_intents} intents and {sum(bool(u.entities) for u in rows)} "
                        f"rows with entities; add rows, or set linear.votes = 0")  # fmt: skip
    versions = [importlib.metadata.version(package) for package in _PACKAGES.values()]
    asked = (RULE, versions, config.iterations, config.groups, whole_words, labels)
    digest = hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass"))
    for u in rows:
        spans = None if u.entities is None else [(e.start, e.end, e.label) for e in u.entities]
        digest.update(repr((u.text, u.intent, spans)).encode("utf-8", "surrogatepass"))
    for text in texts if config.groups else ():
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    model = _LinearModel(config, rows, labels, whole_words, texts, show_progress)
    return JointTeacher(NAME, labels, digest.hexdigest(), model.read, config.votes, model.fit)


def word_groups(texts: Sequence[str], sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return for each word that occurs often enough the number of its group, once for each number of groups.

    Words that stand near the same words come together: "monday" with "friday". k-means over `neighbour_vectors` of
    length 1. Draws nothing from torch's generator.

    Source: Brown et al. 1992 and Turian et al. 2010 for the use; theirs are made in another way.
    """
    from sklearn.cluster import MiniBatchKMeans

    texts_words = [words_of(text, word_spans(text)) for text in texts]
    times = Counter(word for words in texts_words for word in words)
    known = [word for word, n in times.most_common(MOST_WORDS) if n >= KNOWN_FROM]
    if not known:
        return {}
    number = {word: i for i, word in enumerate(known, start=1)}  # 0: all others
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids = [[number.get(word, 0) for word in words] for words in texts_words]
        vectors_VD = unit_rows(neighbour_vectors(ids, len(known) + 1, WIDTH))[1:]
    found = []
    for size in sizes:
        means = MiniBatchKMeans(min(size, len(known)), random_state=0, n_init=3, batch_size=4096)
        found.append(means.fit_predict(vectors_VD).tolist())
    return dict(zip(known, zip(*found, strict=True), strict=True))


class _LinearModel:
    """Both models, fitted when they are first used; on several cores at a time, if torch may use them."""

    def __init__(
        self,
        config: LinearConfig,
        rows: Sequence[Utterance],
        labels: Labels,
        whole_words: bool,
        texts: Sequence[str],
        show_progress: bool,
    ):
        self.config, self.rows, self.labels, self.whole_words = config, rows, labels, whole_words
        self.texts, self.show_progress = texts, show_progress

    def fit(self) -> None:
        """Fit both, with a progress bar."""
        self.fitted  # noqa: B018

    def read(self, texts: Sequence[str], words: Sequence[Sequence[Span]]) -> tuple[Logs, Logs]:
        """Return log-probabilities of intents and of words' tags, as `joint_teacher.soft_labels` asks for them."""
        from joblib import Parallel, delayed

        classifier, folder = self.fitted
        jobs = torch.get_num_threads() if len(texts) >= WORTH_PROCESSES else 1
        share = max(1, -(-len(texts) // jobs))
        beside = Parallel(jobs, return_as="generator")(
            delayed(tag_log_probs)(folder, texts[i : i + share], words[i : i + share], len(self.labels.tags))
            for i in range(0, len(texts), share)
        )
        intents_NC = np.full((len(texts), len(self.labels.intents)), LEAST)
        columns = [self.labels.intents.index(name) for name in classifier.classes_]
        intents_NC[:, columns] = classifier.predict_proba([said(text) for text in texts])
        return logs(intents_NC), np.concatenate(list(beside))

    @cached_property
    def fitted(self) -> tuple[Any, Path]:
        """The classifier, and the folder of the CRF, which is there as long as this object is."""
        from joblib import Parallel, delayed

        groups, alike = dict[str, tuple[int, ...]](), None
        if self.config.groups:
            groups = word_groups(self.texts, self.config.groups)
            finest = self.config.groups.index(max(self.config.groups))
            alike = {word: str(numbers[finest]) for word, numbers in groups.items()}
        tagged, rows = self._tagged_rows(), [u for u in self.rows if u.intent is not None]
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with Progress(console=Console(stderr=True), disable=not self.show_progress) as progress:
            progress.add_task(f"linear teacher: intents of {len(rows):,} texts", total=None)
            task = progress.add_task("linear teacher: tags", total=self.config.iterations)
            beside = Parallel(min(2, torch.get_num_threads()), return_as="generator")(
                [delayed(fit_classifier)([said(u.text) for u in rows], [u.intent for u in rows], alike)]
            )
            fit_tagger(folder, tagged, groups, self.config.iterations, lambda: progress.advance(task))
            progress.update(task, completed=self.config.iterations)  # it ends sooner where nothing gets better
            return next(beside), folder

    def _tagged_rows(self) -> list[tuple[str, list[Span], list[int]]]:
        numbers = {tag: i for i, tag in enumerate(self.labels.tags)}
        tagged = []
        for u in self.rows:
            spans = word_spans(u.text, self.whole_words)
            if u.entities is not None and spans:
                gold, _ = align(u.entities, Encoding([0] * len(spans), spans), numbers)
                if MISSING not in gold:
                    tagged.append((u.text, spans, gold))
        if not any(tag != numbers["O"] for _, _, gold in tagged for tag in gold):
            raise DataError("linear.votes: expected rows with entities that begin and end where words do, got none; "
                            "set heads.entity_boundaries = 'any'")  # fmt: skip
        return tagged
