"""The pair report by hand and against sentence-transformers; what the pairs cannot show is None; pictures."""

import sys
import zlib
from dataclasses import fields, replace

import numpy as np
import pytest

import weebill.evaluate_pairs
from weebill.embedding_pictures import draw_pairs, draw_utterances, plot_label_map
from weebill.errors import ArtifactError, DataError, MissingExtraError
from weebill.evaluate import EvalReport
from weebill.evaluate_pairs import embed_pairs, evaluate_pairs, pair_correlations, pair_groups, pair_report
from weebill.report import pair_headline
from weebill.schema import ScoredPair, Utterance

ANGLES = {"east": 0, "east again": 5, "north-east": 45, "north": 90, "west": 180, "west again": 170, "south": 270}


class Compass:
    """A predictor whose embedding is the direction a text names, of any length; unknown texts get one by chance."""

    def embed(self, texts, show_progress=None):
        turn = [np.radians(ANGLES.get(t, zlib.crc32(t.encode()) / 2**32 * 360)) for t in texts]
        return 7 * np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)


PAIRS = [
    ScoredPair("east", "east again", 1.0),
    ScoredPair("west", "west again", 1.0),
    ScoredPair("east", "north-east", 0.0),
    ScoredPair("north", "south", 0.0),
]


def test_labels_by_hand():
    """Similarities: cos 5°, cos 10°, cos 45°, cos 180°: both positives above both negatives, each partner nearest."""
    report = evaluate_pairs(Compass(), PAIRS)
    assert (report.rows, report.positives, report.queries, report.candidates) == (4, 2, 2, 4)
    assert (report.average_precision, report.best_accuracy) == (1.0, 1.0)
    assert np.cos(np.radians(45)) < report.best_threshold < np.cos(np.radians(10))
    assert (report.recall_at_1, report.mean_reciprocal_rank) == (1.0, 1.0)
    wanted = np.mean([2 - 2 * np.cos(np.radians(angle)) for angle in (5, 10)])
    assert report.alignment == pytest.approx(wanted, abs=1e-6)
    assert report.uniformity < 0
    assert set(report.intervals) == set(report.to_json()) - {
        "rows", "positives", "queries", "candidates", "best_threshold", "intervals",
    }  # fmt: skip
    assert all(low <= high for low, high in report.intervals.values())
    assert pair_headline(report) == "average precision 100.00 (0.00 to 100.00)"  # four pairs say little


def test_recall_counts_every_partner_and_leaves_out_what_is_linked():
    """ "east" has two partners at 5° and 180°; "north-east" is linked to it through "east again", so it takes no rank.

    Left to rank: east again (5°), south (90°), west (180°, partner). Found at 1: one of two. "east again" finds its
    partner "north-east" at once, "north" finds "south" behind north-east (45°), east again (85°) and west (90°).
    """
    pairs = [
        ScoredPair("east", "east again", 1.0),
        ScoredPair("east", "west", 1.0),
        ScoredPair("east again", "north-east", 0.9),
        ScoredPair("north", "south", 0.8),
    ]
    report = evaluate_pairs(Compass(), pairs)
    assert (report.queries, report.candidates) == (3, 4)
    assert report.recall_at_1 == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert report.mean_reciprocal_rank == pytest.approx((1 + 1 + 1 / 4) / 3)
    denied = evaluate_pairs(Compass(), [*pairs, ScoredPair("north-east", "east", 0.0)])  # now it is wrong, not left out
    assert denied.recall_at_10 == 1.0 and denied.recall_at_1 <= report.recall_at_1


def test_retrieval_equals_sentence_transformers():
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    rng = np.random.default_rng(0)
    pairs = [ScoredPair(f"q{rng.integers(30)}", f"c{i}", float(rng.random() < 0.6)) for i in range(90)]
    report = evaluate_pairs(Compass(), pairs)
    relevant = {}
    for pair in pairs:
        if pair.score == 1:
            relevant.setdefault(pair.a, set()).add(pair.b)
    corpus = {p.b: p.b for p in pairs}

    class Model:
        def encode_query(self, texts, **_):
            return Compass().embed(list(texts))

        encode_document = encode_query

    evaluator = InformationRetrievalEvaluator(
        {q: q for q in relevant}, corpus, relevant, mrr_at_k=[90], accuracy_at_k=[1], precision_recall_at_k=[1, 5, 10],
        ndcg_at_k=[10], map_at_k=[100], score_functions={"cosine": _cosine}, main_score_function="cosine",
    )  # fmt: skip
    theirs = evaluator.compute_metrices(Model())["cosine"]
    assert report.queries == len(relevant)
    assert [report.recall_at_1, report.recall_at_5, report.recall_at_10] == pytest.approx(
        [theirs["recall@k"][k] for k in (1, 5, 10)]
    )
    assert report.mean_reciprocal_rank == pytest.approx(theirs["mrr@k"][90])


def _cosine(a, b):
    from sentence_transformers.util import cos_sim

    return cos_sim(a, b)


def test_what_the_pairs_cannot_show_is_none():
    graded = evaluate_pairs(Compass(), [replace(p, score=s) for p, s in zip(PAIRS, (0.7, 0.6, 0.3, 0.0), strict=True)])
    assert graded.spearman == pytest.approx(1.0)
    assert (graded.average_precision, graded.best_threshold, graded.recall_at_1, graded.alignment) == (None,) * 4
    positives = evaluate_pairs(Compass(), PAIRS[:2])
    assert (positives.spearman, positives.pearson, positives.average_precision, positives.best_accuracy) == (None,) * 4
    assert positives.recall_at_1 == 1.0 and positives.uniformity is not None
    twice = evaluate_pairs(Compass(), [ScoredPair("east", "east", 1.0)])  # a text finds itself: no retrieval to measure
    assert (twice.queries, twice.recall_at_1, twice.uniformity) == (0, None, None)
    assert twice.alignment == 0.0 and pair_headline(twice) == "alignment (less = better) 0.000 (0.000 to 0.000)"


def test_pairs_without_anything_to_measure_are_refused():
    with pytest.raises(DataError, match=r"two different scores, or positive pairs .*, got 2 pairs, all scored 0.5"):
        evaluate_pairs(Compass(), [replace(p, score=0.5) for p in PAIRS[:2]])
    with pytest.raises(DataError, match="got no pairs"):
        evaluate_pairs(Compass(), [])
    with pytest.raises(DataError, match="expected pairs with at least two different scores, got 2 pairs with 1"):
        pair_correlations(Compass(), PAIRS[:2])


def test_training_watches_the_same_correlations():
    pairs = [ScoredPair(f"a{i}", f"b{i}", i / 40) for i in range(41)]
    report = evaluate_pairs(Compass(), pairs)
    assert pair_correlations(Compass(), pairs) == {"spearman": report.spearman, "pearson": report.pearson}


def test_report_is_fixed_by_its_seed_also_when_it_samples(monkeypatch):
    pairs = [ScoredPair(f"a{i}", f"b{i}", float(i % 2)) for i in range(80)]
    monkeypatch.setattr(weebill.evaluate_pairs, "MAX_QUERIES", 12)
    monkeypatch.setattr(weebill.evaluate_pairs, "MAX_UNIFORMITY_TEXTS", 30)
    embedded = embed_pairs(Compass(), pairs)
    assert pair_report(embedded).queries == 12
    assert pair_report(embedded) == pair_report(embedded)
    assert pair_report(embedded, seed=1).uniformity != pair_report(embedded).uniformity


def test_groups_are_scores_or_fifths_of_the_scale_and_chance():
    groups = pair_groups(embed_pairs(Compass(), PAIRS))
    assert [(g.name, len(g.first_N)) for g in groups] == [("score 1", 2), ("score 0", 2), ("random pairs", 4)]
    assert groups[0].similarity_N == pytest.approx(np.cos(np.radians([5, 10])), abs=1e-6)
    graded = embed_pairs(Compass(), [ScoredPair(f"a{i}", f"b{i}", i / 10) for i in range(11) if i not in (4, 5)])
    sizes = [(g.name, len(g.first_N)) for g in pair_groups(graded)]
    assert sizes == [("score 0.8–1", 3), ("score 0.6–0.8", 2), ("score 0.2–0.4", 2), ("score 0–0.2", 2),
                     ("random pairs", 9)]  # fmt: skip
    assert sorted(pair_groups(graded)[-1].second_N) == sorted(graded.second_N)


def test_pictures(tmp_path):
    embedded = embed_pairs(Compass(), PAIRS)
    draw_pairs(embedded, pair_report(embedded), "compass", tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["map.png", "similarity.png"]
    vectors = Compass().embed([f"text {i}" for i in range(40)])
    plot_label_map(vectors, [f"label {i % 13}" for i in range(40)], "compass", tmp_path / "map.svg")
    assert "<svg" in (tmp_path / "map.svg").read_text(encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"expected a picture named \.png"):
        plot_label_map(vectors, ["x"] * 40, "compass", tmp_path / "map.xyz")
    empty = {"by_label": {}, "by_intent": {}, "intervals": {}}
    report = EvalReport(
        **dict.fromkeys(f.name for f in fields(EvalReport)) | empty | {"rows": 2, "intent_accuracy": 0.5}
    )
    draw_utterances(Compass(), [Utterance("east", "turn"), Utterance("west")], report, "compass", tmp_path)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_without_matplotlib_name_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"drawing needs matplotlib.*pip install 'weebill\[plots\]'"):
        plot_label_map(np.eye(3, dtype=np.float32), ["x"] * 3, "compass", tmp_path / "map.png")
