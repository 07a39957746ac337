"""Two models on the same data: how far apart are their scores, and would other rows agree? Draws nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weebill import evaluate, evaluate_pairs
from weebill.bootstrap import Floats, Statistic, estimate
from weebill.errors import ConfigError, DataError
from weebill.predictor import Predictor
from weebill.schema import ScoredPair, Utterance

LESS_IS_BETTER = frozenset({"alignment", "uniformity", "calibration_error"})
Statistics = Mapping[str, tuple[Statistic, int]]


@dataclass(frozen=True, slots=True)
class Difference:
    """One score of two models, b - a, and the bootstrap interval of the difference over the same resamples of rows."""

    name: str
    a: float
    b: float
    interval: tuple[float, float]

    @property
    def better(self) -> str | None:
        """Return "a" or "b", or None when the interval holds 0: these rows do not show which is better."""
        low, high = self.interval
        if low <= 0 <= high:
            return None
        return "b" if (low > 0) != (self.name in LESS_IS_BETTER) else "a"


def compare_on_utterances(a: Predictor, b: Predictor, utterances: Sequence[Utterance]) -> list[Difference]:
    """Return the difference of every score that the annotation allows.

    Raises:
        ArtifactError: a model without heads.
        ConfigError: models that join several intents in different ways.
        DataError: no utterances.
    """
    if not utterances:
        raise DataError("expected utterances to compare on, got none; check --data and --split")
    separators = {p.intent_separator for p in (a, b) if p.intent_separator is not None}
    if len(separators) > 1:
        raise ConfigError(f"expected models that join intents in one way, got {' and '.join(sorted(separators))} as "
                          f"heads.intent_separator; compare models of one annotation")  # fmt: skip
    found, separator = [], next(iter(separators), None)
    for predictor in (a, b):
        predictions = predictor.parse([u.text for u in utterances])
        found.append({name: (s, rows) for name, s, rows in evaluate.statistics(utterances, predictions, separator)})
    return _differences(*found)


def compare_on_pairs(a: Predictor, b: Predictor, pairs: Sequence[ScoredPair]) -> list[Difference]:
    """Return the difference of every score that the pairs allow.

    Raises:
        DataError: as `evaluate_pairs.embed_pairs`.
    """
    return _differences(*(evaluate_pairs.statistics(evaluate_pairs.embed_pairs(p, pairs)) for p in (a, b)))


def _differences(of_a: Statistics, of_b: Statistics) -> list[Difference]:
    found = []
    for name, (statistic_a, rows) in of_a.items():
        statistic_b, _ = of_b[name]

        def difference(counts_RN: Floats, a: Statistic = statistic_a, b: Statistic = statistic_b) -> Floats:
            return b(counts_RN) - a(counts_RN)

        once = np.ones((1, rows))
        found.append(
            Difference(name, float(statistic_a(once)[0]), float(statistic_b(once)[0]), estimate(difference, rows)[1])
        )
    return found
