"""Run a predictor over scored pairs and count: PairReport. The twin of evaluate.py for pairs; draws nothing."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from weebill import geometry, pair_metrics
from weebill.bootstrap import Statistic, estimate
from weebill.data import positive_groups
from weebill.errors import DataError
from weebill.predictor import Predictor
from weebill.schema import ScoredPair

POSITIVE_SCORE = 0.8  # STS 4 of 5: "mostly equivalent, but some unimportant details differ"
MAX_QUERIES = 10_000  # a recall over so many has an interval of at most ±0.01
MAX_UNIFORMITY_TEXTS = 4_000  # eight million pairs of texts


@dataclass(frozen=True, slots=True)
class EmbeddedPairs:
    """N pairs and where a model puts their M distinct texts: unit vectors of D dimensions.

    `first_N` and `second_N` are rows of `texts` and `vectors_MD`; `similarity_N` is the cosine of each pair.
    """

    pairs: Sequence[ScoredPair]
    texts: list[str]
    vectors_MD: geometry.Vectors
    first_N: geometry.Ints
    second_N: geometry.Ints
    gold_N: geometry.Floats
    similarity_N: geometry.Floats

    @property
    def positive_N(self) -> npt.NDArray[np.bool_]:
        """Which pairs are positive: scored at least POSITIVE_SCORE."""
        return self.gold_N >= POSITIVE_SCORE

    @property
    def graded(self) -> bool:
        """Whether there are two different scores, so that there is an order to agree with."""
        return len(np.unique(self.gold_N)) > 1

    @property
    def binary(self) -> bool:
        """Whether the scores are labels: both 0 and 1 occur and nothing else."""
        return set(self.gold_N.tolist()) == {0.0, 1.0}


@dataclass(frozen=True, slots=True)
class PairGroup:
    """Some pairs to be shown together: rows of the embedded texts, and their cosine similarity."""

    name: str
    first_N: geometry.Ints
    second_N: geometry.Ints
    similarity_N: geometry.Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """How well cosine similarity tells close pairs from others; None where the pairs cannot show it.

    Correlations, in [-1, 1], need two different scores. `average_precision`, `best_accuracy` (fractions) and
    `best_threshold` (a similarity) need labels: the scores 0 and 1, both of them. Retrieval and alignment need positive
    pairs, scored at least POSITIVE_SCORE; uniformity needs two different texts.

    Retrieval: each first text of a positive pair looks for its positive partners among all distinct second texts of the
    pairs, negatives' too. `recall_at_k` is the fraction of its partners among the k nearest, so one of two partners at
    rank 1 gives recall@1 of 0.5; `mean_reciprocal_rank` takes the nearest partner. A wrong text as near as a partner
    goes first. The query itself and what other positive pairs link to it take no rank unless a pair says that they
    differ. `queries` counts the first texts, at most MAX_QUERIES drawn by seed; `candidates` the second texts.

    `alignment` (mean squared distance of positives, 0 to 4) and `uniformity` (log mean Gaussian kernel over distinct
    texts, at most MAX_UNIFORMITY_TEXTS drawn by seed): less = better, both after Wang & Isola 2020.

    `intervals`: `bootstrap.estimate` of each score given, drawing pairs; queries for retrieval, texts for uniformity.
    They say what other pairs of the same kind could have shown, not what another training seed would.
    """

    rows: int
    positives: int
    queries: int
    candidates: int
    spearman: float | None = None
    pearson: float | None = None
    average_precision: float | None = None
    best_accuracy: float | None = None
    best_threshold: float | None = None
    recall_at_1: float | None = None
    recall_at_5: float | None = None
    recall_at_10: float | None = None
    mean_reciprocal_rank: float | None = None
    alignment: float | None = None
    uniformity: float | None = None
    intervals: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


def embed_pairs(predictor: Predictor, pairs: Sequence[ScoredPair], show_progress: bool | None = None) -> EmbeddedPairs:
    """Return the pairs with their embeddings, each distinct text embedded once.

    Raises:
        DataError: no pairs, or neither two different scores nor a positive pair, so that there is nothing to measure.
    """
    scores = {p.score for p in pairs}
    if len(scores) < 2 and max(scores, default=0.0) < POSITIVE_SCORE:
        got = f"{len(pairs)} pairs, all scored {scores.pop():g}" if scores else "no pairs"
        raise DataError(f"expected pairs with at least two different scores, or positive pairs (scored "
                        f"{POSITIVE_SCORE} or more), got {got}; nothing can be measured on them")  # fmt: skip
    row = {text: i for i, text in enumerate(dict.fromkeys(text for p in pairs for text in (p.a, p.b)))}
    vectors_MD = geometry.unit_rows(predictor.embed(list(row), show_progress=show_progress))
    first_N, second_N = np.array([row[p.a] for p in pairs]), np.array([row[p.b] for p in pairs])
    return EmbeddedPairs(
        pairs=pairs,
        texts=list(row),
        vectors_MD=vectors_MD,
        first_N=first_N,
        second_N=second_N,
        gold_N=np.array([p.score for p in pairs]),
        similarity_N=_similarity(vectors_MD, first_N, second_N),
    )


def pair_correlations(
    predictor: Predictor, pairs: Sequence[ScoredPair], show_progress: bool | None = None
) -> dict[str, float]:
    """Return Spearman's and Pearson's correlation of cosine similarity with the scores: what training watches.

    Raises:
        DataError: fewer than two different scores, so no order to compare with.
    """
    if len(scores := {p.score for p in pairs}) < 2:
        raise DataError(f"expected pairs with at least two different scores, got {len(pairs)} pairs with "
                        f"{len(scores)}; rank correlation needs an order")  # fmt: skip
    embedded = embed_pairs(predictor, pairs, show_progress)
    gold_N, similarity_N, once_1N = embedded.gold_N, embedded.similarity_N, np.ones((1, len(pairs)))
    return {
        "spearman": float(pair_metrics.spearman(gold_N, similarity_N, once_1N)[0]),
        "pearson": float(pair_metrics.pearson(gold_N, similarity_N, once_1N)[0]),
    }


def evaluate_pairs(predictor: Predictor, pairs: Sequence[ScoredPair], show_progress: bool | None = None) -> PairReport:
    """Return every score that the pairs allow, with intervals.

    Raises:
        DataError: as `embed_pairs`.
    """
    return pair_report(embed_pairs(predictor, pairs, show_progress))


def pair_report(embedded: EmbeddedPairs, seed: int = 0) -> PairReport:
    """Return every score that embedded pairs allow, with intervals; deterministic by seed."""
    rng = np.random.default_rng(seed)
    ranks = _partner_ranks(embedded, rng)
    found = {name: estimate(statistic, rows, seed) for name, statistic, rows in _statistics(embedded, ranks, rng)}
    return PairReport(
        rows=len(embedded.gold_N),
        positives=int(embedded.positive_N.sum()),
        queries=len(ranks),
        candidates=len(np.unique(embedded.second_N)),
        intervals={name: interval for name, (_, interval) in found.items()},
        best_threshold=(
            pair_metrics.best_threshold(embedded.positive_N, embedded.similarity_N) if embedded.binary else None
        ),
        **{name: value for name, (value, _) in found.items()},
    )


def statistics(embedded: EmbeddedPairs, seed: int = 0) -> dict[str, tuple[Statistic, int]]:
    """Return each score the pairs allow as a function of counts, and how many rows can be drawn; by name."""
    rng = np.random.default_rng(seed)
    ranks = _partner_ranks(embedded, rng)
    return {name: (statistic, rows) for name, statistic, rows in _statistics(embedded, ranks, rng)}


def pair_groups(embedded: EmbeddedPairs, seed: int = 0) -> list[PairGroup]:
    """Return the pairs by score, highest first, then as many random ones: what chance gives.

    Up to five different scores have a group each ("score 1", "score 0"); more are grouped by fifths of the scale
    ("score 0.8–1"). Random pairs take their second texts from one another, by seed.
    """
    gold_N = embedded.gold_N
    values = np.unique(gold_N)[::-1].tolist()
    if len(values) <= 5:
        rows = {f"score {value:g}": np.flatnonzero(gold_N == value) for value in values}
    else:
        fifth_N = np.minimum((5 * gold_N).astype(int), 4)
        rows = {f"score {i / 5:g}–{(i + 1) / 5:g}": np.flatnonzero(fifth_N == i) for i in range(4, -1, -1)}
    places = {name: (embedded.first_N[found], embedded.second_N[found]) for name, found in rows.items() if len(found)}
    shuffled_N = np.random.default_rng(seed).permutation(embedded.second_N)
    places["random pairs"] = embedded.first_N, shuffled_N
    return [PairGroup(name, *at, _similarity(embedded.vectors_MD, *at)) for name, at in places.items()]


def _similarity(vectors_MD: geometry.Vectors, first_N: geometry.Ints, second_N: geometry.Ints) -> geometry.Floats:
    similarity_N: geometry.Floats = (vectors_MD[first_N] * vectors_MD[second_N]).sum(axis=1).astype(np.float64)
    return similarity_N


def _statistics(
    embedded: EmbeddedPairs, ranks: Sequence[geometry.Ints], rng: np.random.Generator
) -> Iterator[tuple[str, Statistic, int]]:
    """Yield each score the pairs allow: its name, the score as a function of counts, how many rows can be drawn."""
    gold_N, similarity_N, positive_N = embedded.gold_N, embedded.similarity_N, embedded.positive_N
    if embedded.graded:
        yield "spearman", partial(pair_metrics.spearman, gold_N, similarity_N), len(gold_N)
        yield "pearson", partial(pair_metrics.pearson, gold_N, similarity_N), len(gold_N)
    if embedded.binary:
        yield "average_precision", partial(pair_metrics.average_precision, positive_N, similarity_N), len(gold_N)
        yield "best_accuracy", partial(pair_metrics.best_accuracy, positive_N, similarity_N), len(gold_N)
    if ranks:
        for k in (1, 5, 10):
            recalls_Q = np.array([(ranks_of_one <= k).mean() for ranks_of_one in ranks])
            yield f"recall_at_{k}", partial(pair_metrics.mean, recalls_Q), len(ranks)
        reciprocal_Q = np.array([1 / ranks_of_one[0] for ranks_of_one in ranks])
        yield "mean_reciprocal_rank", partial(pair_metrics.mean, reciprocal_Q), len(ranks)
    if positive_N.any():
        first_ND, second_ND = (embedded.vectors_MD[rows[positive_N]] for rows in (embedded.first_N, embedded.second_N))
        distances_N = geometry.squared_distances(first_ND, second_ND)
        yield "alignment", partial(pair_metrics.mean, distances_N), len(distances_N)
    if len(embedded.texts) > 1:
        vectors_MD = embedded.vectors_MD[_draw(len(embedded.texts), MAX_UNIFORMITY_TEXTS, rng)]
        yield "uniformity", partial(geometry.uniformity, vectors_MD), len(vectors_MD)


def _partner_ranks(embedded: EmbeddedPairs, rng: np.random.Generator) -> list[geometry.Ints]:
    """Return the ranks of the partners of each query, as PairReport describes."""
    near, far = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
    for a, b, positive in zip(
        embedded.first_N.tolist(), embedded.second_N.tolist(), embedded.positive_N.tolist(), strict=True
    ):
        if a != b:
            (near if positive else far)[a].add(b)
            (near if positive else far)[b].add(a)
    candidates = np.unique(embedded.second_N).tolist()
    place = {text: i for i, text in enumerate(candidates)}
    group_of = positive_groups(embedded.pairs, POSITIVE_SCORE)
    linked = defaultdict[int, set[int]](set)
    for text in candidates:
        linked[group_of[embedded.texts[text]]].add(text)
    queries = [a for a in dict.fromkeys(embedded.first_N[embedded.positive_N].tolist()) if near[a]]
    queries = [queries[i] for i in _draw(len(queries), MAX_QUERIES, rng)]
    partners, left_out = [], []
    for query in queries:
        group = linked[group_of[embedded.texts[query]]]
        partners.append(np.array([place[t] for t in near[query] if t in place]))
        left_out.append(np.array([place[t] for t in group if t not in near[query] | far[query]], dtype=np.int64))
    vectors_MD = embedded.vectors_MD
    return list(geometry.partner_ranks(vectors_MD[queries], vectors_MD[candidates], partners, left_out))


def _draw(count: int, most: int, rng: np.random.Generator) -> geometry.Ints:
    """Return all row numbers, or `most` of them by chance, ascending."""
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
