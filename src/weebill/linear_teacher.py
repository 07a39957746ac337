"""A teacher without vectors, fitted in minutes: a linear classifier over n-grams for intents, a CRF over words.

On a few thousand rows such models read as well as a small network from random weights, and err elsewhere: a student of
both is better than either.
"""

import hashlib
import importlib.metadata
import re
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress

from weebill.cooccurrence import neighbour_vectors
from weebill.counting import well_formed
from weebill.distill_config import LinearConfig
from weebill.encodings import Encoding
from weebill.errors import DataError, MissingExtraError
from weebill.geometry import unit_rows
from weebill.joint_teacher import JointTeacher, Labels, Logs
from weebill.schema import Utterance
from weebill.soft_tags import Span, word_spans
from weebill.tags import MISSING, align

NAME = "linear"
RULE = "4"  # raise it when the same rows give other answers
STRENGTH = 30.0  # C of the logistic regression: MASSIVE dev 86.5 % right
CRF_L2 = 0.1
LEAST = 1e-7  # probability, of labels that no row has too: float16 holds its logarithm
KNOWN_FROM, MOST_WORDS = 3, 30_000  # times a word occurs, and words, that groups are made of
WIDTH = 100  # of the vectors they are made from
_PACKAGES = {"sklearn": "scikit-learn", "pycrfsuite": "python-crfsuite"}
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")

Groups = Mapping[str, tuple[int, ...]]
Words = Sequence[str]


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


def word_groups(texts: Sequence[str], sizes: Sequence[int], seed: int = 0) -> Groups:
    """Return for each word that occurs often enough the number of its group, once for each number of groups.

    Words that stand near the same words come together: "monday" with "friday". k-means over `neighbour_vectors` of
    length 1. Draws nothing from torch's generator.

    Source: Brown et al. 1992 and Turian et al. 2010 for the use; theirs are made in another way.
    """
    from sklearn.cluster import MiniBatchKMeans

    texts_words = [_words(text, word_spans(text)) for text in texts]
    times = Counter(word for words in texts_words for word in words)
    known = [word for word, n in times.most_common(MOST_WORDS) if n >= KNOWN_FROM]
    if not known:
        return {}
    number = {word: i for i, word in enumerate(known, start=1)}  # 0: all others
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids = [[number.get(word, 0) for word in words] for words in texts_words]
        vectors_VD = unit_rows(neighbour_vectors(ids, len(known) + 1, WIDTH))[1:]
    found = []
    for size in sizes:
        means = MiniBatchKMeans(min(size, len(known)), random_state=seed, n_init=3, batch_size=4096)
        found.append(means.fit_predict(vectors_VD).tolist())
    return dict(zip(known, zip(*found, strict=True), strict=True))


class _LinearModel:
    """Both models; each part is fitted when it is first used."""

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
        self._tagger, self._classifier  # noqa: B018

    def read(self, texts: Sequence[str], words: Sequence[Sequence[Span]]) -> tuple[Logs, Logs]:
        """Return log-probabilities of intents and of words' tags, as `joint_teacher.soft_labels` asks for them."""
        intents_NC = np.full((len(texts), len(self.labels.intents)), LEAST)
        columns = [self.labels.intents.index(name) for name in self._classifier.classes_]
        intents_NC[:, columns] = self._classifier.predict_proba([_said(text) for text in texts])
        tagger, known = self._tagger, self._tagger.labels()
        tags_UL = np.full((sum(map(len, words)), len(self.labels.tags)), LEAST)
        first = 0
        for text, spans in zip(texts, words, strict=True):
            tagger.set(text_features(text, spans, self._groups))
            for i in range(len(spans)):
                for tag in known:
                    tags_UL[first + i, int(tag)] = tagger.marginal(tag, i)
            first += len(spans)
        return _logs(intents_NC), _logs(tags_UL)

    @cached_property
    def _groups(self) -> Groups:
        return word_groups(self.texts, self.config.groups) if self.config.groups else {}

    @cached_property
    def _classifier(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union

        counts = partial(TfidfVectorizer, lowercase=False, sublinear_tf=True)
        of_words = partial(counts, ngram_range=(1, 3), token_pattern=r"\S+")
        grams = [of_words(), counts(ngram_range=(2, 5), analyzer="char_wb")]
        if self.config.groups:
            grams.append(of_words(preprocessor=self._finest_groups))
        model = make_pipeline(make_union(*grams), LogisticRegression(C=STRENGTH, max_iter=200))
        rows = [u for u in self.rows if u.intent is not None]
        said = [_said(u.text) for u in rows]
        with self._progress() as progress:
            progress.add_task(f"linear teacher: intents of {len(rows):,} texts", total=None)
            return model.fit(said, [u.intent for u in rows])

    def _finest_groups(self, said: str) -> str:
        finest = self.config.groups.index(max(self.config.groups))
        return " ".join(str(self._groups[word][finest]) if word in self._groups else word for word in said.split(" "))

    @cached_property
    def _tagger(self) -> Any:
        import pycrfsuite

        class Trainer(pycrfsuite.BaseTrainer):  # type: ignore[misc]
            def message(self, said: str) -> None:
                if said.startswith("***** Iteration"):
                    progress.advance(task)

        numbers = {tag: i for i, tag in enumerate(self.labels.tags)}
        trainer = Trainer()
        trainer.select("lbfgs")
        trainer.set_params({"c1": 0.0, "c2": CRF_L2, "max_iterations": self.config.iterations})
        known = set()  # tags go by number: to CRFsuite a name ends at its first NUL
        for u in self.rows:
            spans = word_spans(u.text, self.whole_words)
            if u.entities is not None and spans:
                gold, _ = align(u.entities, Encoding([0] * len(spans), spans), numbers)
                if MISSING not in gold:
                    trainer.append(text_features(u.text, spans, self._groups), [str(tag) for tag in gold])
                    known.update(gold)
        if not known - {numbers["O"]}:
            raise DataError("linear.votes: expected rows with entities that begin and end where words do, got none; "
                            "set heads.entity_boundaries = 'any'")  # fmt: skip
        tagger = pycrfsuite.Tagger()
        with self._progress() as progress, tempfile.TemporaryDirectory() as folder:
            task = progress.add_task("linear teacher: tags", total=self.config.iterations)
            path = str(Path(folder, "crf"))
            trainer.train(path)
            progress.update(task, completed=self.config.iterations)  # it ends sooner where nothing gets better
            tagger.open(path)  # reads all of it
        return tagger

    def _progress(self) -> Progress:
        return Progress(console=Console(stderr=True), disable=not self.show_progress)


def text_features(text: str, spans: Sequence[Span], groups: Groups) -> list[list[str]]:
    """Return what a CRF sees of each word of a text; of a character, what it sees of its word, too.

    Args:
        text: any.
        spans: of its words, or of its characters, by `soft_tags.word_spans`.
        groups: see `word_groups`.
    """
    words = word_spans(text)
    of_words = word_features(_words(text, words), groups)
    if list(spans) == words:
        return of_words
    ends, found = [end for _, end in words], []
    for (start, _), own in zip(spans, word_features(_words(text, spans), {}), strict=True):
        it = bisect_right(ends, start)
        place = "first" if words[it][0] == start else "later"
        found.append([*own, *(f"{place} in {feature}" for feature in of_words[it])])
    return found


def word_features(words: Words, groups: Groups) -> list[list[str]]:
    """Return what a CRF sees of each word: it, its neighbours, what it begins and ends with, its shape, its groups.

    Args:
        words: of one text, in lower case.
        groups: see `word_groups`; every word of it has as many.
    """

    def word(i: int) -> str:
        return words[i] if 0 <= i < len(words) else "<" if i < 0 else ">"

    found = []
    for i, it in enumerate(words):
        near = [f"{d}={word(i + d)}" for d in range(-3, 4)]
        near += [f"{d}={word(i + d)} {word(i + d + 1)}" for d in range(-2, 2)]
        near += [f"{d}={word(i + d)} {word(i + d + 1)} {word(i + d + 2)}" for d in range(-2, 1)]
        ends = [end for n in (2, 3, 4) for end in (f"begins={it[:n]}", f"ends={it[-n:]}")]
        text = [f"shape={shape(it)}", f"first={words[0]}", f"first two={' '.join(words[:2])}"]
        alike = [f"{d}, {n}: {g}" for d in range(-2, 3) for n, g in enumerate(groups.get(word(i + d), ()))]
        both = zip(groups.get(word(i - 1), ()), groups.get(it, ()), strict=False)
        alike += [f"both, {n}: {before} {here}" for n, (before, here) in enumerate(both)]
        found.append(["any", *near, *ends, *text, *alike])
    return found


def shape(word: str) -> str:
    """Return a word with an "a" for every letter and a "9" for every digit.

    Example:
        >>> shape("9am"), shape("o'clock")
        ('9aa', "a'aaaaa")
    """
    return _LETTER.sub("a", _DIGIT.sub("9", word))


def _words(text: str, spans: Sequence[Span]) -> list[str]:
    text = well_formed(text)
    return [text[start:end].lower() for start, end in spans]


def _said(text: str) -> str:
    return " ".join(_words(text, word_spans(text)))


def _logs(probabilities: npt.NDArray[np.float64]) -> Logs:
    return np.log(np.maximum(probabilities, LEAST)).astype(np.float16)
