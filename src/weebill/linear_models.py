"""What a linear teacher is made of: a classifier over n-grams, a CRF over words, and what it sees of them.

Knows nothing of PyTorch, so that other processes, which fit and read too, start quickly.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weebill.counting import well_formed
from weebill.soft_tags import Span, word_spans

STRENGTH = 30.0  # C of the logistic regression: MASSIVE dev 86.5 % right
CRF_L2 = 0.1
LEAST = 1e-7  # probability, of labels that no row has too: float16 holds its logarithm
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")

Groups = Mapping[str, tuple[int, ...]]
Words = Sequence[str]


def fit_classifier(texts: Sequence[str], intents: Sequence[str], alike: Mapping[str, str] | None) -> Any:
    """Return a pipeline of scikit-learn that tells the intents of texts, which `said` gives.

    Args:
        texts: of the rows.
        intents: two or more.
        alike: words to the name of their group, which is seen beside the word; None: no groups.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    counts = partial(TfidfVectorizer, lowercase=False, sublinear_tf=True)
    of_words = partial(counts, ngram_range=(1, 3), token_pattern=r"\S+")
    grams = [of_words(), counts(ngram_range=(2, 5), analyzer="char_wb")]
    if alike is not None:
        grams.append(of_words(preprocessor=partial(_with_groups, alike)))
    return make_pipeline(make_union(*grams), LogisticRegression(C=STRENGTH, max_iter=200)).fit(texts, intents)


def _with_groups(alike: Mapping[str, str], text: str) -> str:
    return " ".join(alike.get(word, word) for word in text.split(" "))


def fit_tagger(
    folder: Path,
    rows: Sequence[tuple[str, Sequence[Span], Sequence[int]]],
    groups: Groups,
    iterations: int,
    on_iteration: Callable[[], None],
) -> None:
    """Fit a CRF and write it where `tag_log_probs` finds it.

    Args:
        folder: an empty one.
        rows: texts, the spans of their words, or characters, and the tag of each by number.
        groups: see `linear_teacher.word_groups`.
        iterations: of L-BFGS, at most.
        on_iteration: called after each.
    """
    import pycrfsuite

    class Trainer(pycrfsuite.BaseTrainer):  # type: ignore[misc]
        def message(self, said: str) -> None:
            if said.startswith("***** Iteration"):
                on_iteration()

    trainer = Trainer()
    trainer.select("lbfgs")
    trainer.set_params({"c1": 0.0, "c2": CRF_L2, "max_iterations": iterations})
    for text, spans, tags in rows:
        trainer.append(text_features(text, spans, groups), [str(tag) for tag in tags])  # a name would end at its NUL
    trainer.train(str(folder / "crf"))
    (folder / "groups.json").write_text(json.dumps(groups), encoding="utf-8")


def tag_log_probs(
    folder: Path, texts: Sequence[str], words: Sequence[Sequence[Span]], num_tags: int
) -> npt.NDArray[np.float16]:
    """Return what a CRF of `fit_tagger` says of each word of all texts; log(`LEAST`) for tags it does not know.

    Shape: (U, num_tags)
    """
    tagger, groups = read_tagger(folder)
    known = tagger.labels()
    tags_UL = np.full((sum(map(len, words)), num_tags), LEAST)
    first = 0
    for text, spans in zip(texts, words, strict=True):
        tagger.set(text_features(text, spans, groups))
        for i in range(len(spans)):
            for tag in known:
                tags_UL[first + i, int(tag)] = tagger.marginal(tag, i)
        first += len(spans)
    return logs(tags_UL)


@lru_cache(maxsize=1)
def read_tagger(folder: Path) -> tuple[Any, Groups]:
    """Return the CRF that `fit_tagger` wrote, and the groups it sees."""
    import pycrfsuite

    tagger = pycrfsuite.Tagger()
    tagger.open(str(folder / "crf"))  # reads all of it
    return tagger, json.loads((folder / "groups.json").read_text(encoding="utf-8"))


def logs(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    """Return the logarithms, of `LEAST` where a probability is less."""
    return np.log(np.maximum(probabilities, LEAST)).astype(np.float16)


def text_features(text: str, spans: Sequence[Span], groups: Groups) -> list[list[str]]:
    """Return what a CRF sees of each word of a text; of a character, what it sees of its word, too.

    Args:
        text: any.
        spans: of its words, or of its characters, by `soft_tags.word_spans`.
        groups: see `linear_teacher.word_groups`.
    """
    words = word_spans(text)
    of_words = word_features(words_of(text, words), groups)
    if list(spans) == words:
        return of_words
    ends, found = [end for _, end in words], []
    for (start, _), own in zip(spans, word_features(words_of(text, spans), {}), strict=True):
        it = bisect_right(ends, start)
        place = "first" if words[it][0] == start else "later"
        found.append([*own, *(f"{place} in {feature}" for feature in of_words[it])])
    return found


def word_features(words: Words, groups: Groups) -> list[list[str]]:
    """Return what a CRF sees of each word: it, its neighbours, what it begins and ends with, its shape, its groups.

    Args:
        words: of one text, in lower case.
        groups: see `linear_teacher.word_groups`; every word of it has as many.
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


def words_of(text: str, spans: Sequence[Span]) -> list[str]:
    """Return the words of a text in lower case; lone surrogates are replaced."""
    text = well_formed(text)
    return [text[start:end].lower() for start, end in spans]


def said(text: str) -> str:
    """Return the words of a text in lower case, one space between each two."""
    return " ".join(words_of(text, word_spans(text)))
