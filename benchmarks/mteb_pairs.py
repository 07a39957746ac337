"""MTEB's own evaluators on a model folder and a file of pairs; needs no hub. Compares with `weebill evaluate`.

pip install mteb; then: python benchmarks/mteb_pairs.py MODEL PAIRS (any file that `weebill evaluate` reads as pairs)
"""

import sys

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskPairClassification, AbsTaskSTS
from sentence_transformers import SentenceTransformer

from weebill.evaluate_pairs import evaluate_pairs
from weebill.pairs import read_pairs
from weebill.predictor import load


def metadata(name: str, type: str, main_score: str) -> mteb.TaskMetadata:
    """Return the description of a task whose data lie here; MTEB wants every field, most only for its leaderboard."""
    return mteb.TaskMetadata(
        name=name, type=type, main_score=main_score, description="A local file of pairs.", category="t2t",
        dataset={"path": "local", "revision": "local"}, eval_splits=["dev"], eval_langs=["eng-Latn"],
    )  # fmt: skip


class LocalSTS(AbsTaskSTS):
    """Spearman and Pearson on graded pairs."""

    metadata = metadata("LocalSTS", "STS", "cosine_spearman")
    min_score, max_score = 0, 1


class LocalPairClassification(AbsTaskPairClassification):
    """Average precision and best-threshold accuracy on labelled pairs."""

    metadata = metadata("LocalPairClassification", "PairClassification", "cosine_ap")


def main(model: str, path: str) -> None:
    """Print MTEB's score and weebill's side by side."""
    pairs = read_pairs(path)
    binary = {p.score for p in pairs} == {0.0, 1.0}
    columns = {"sentence1": [p.a for p in pairs], "sentence2": [p.b for p in pairs]}
    gold = {"labels": [int(p.score) for p in pairs]} if binary else {"score": [p.score for p in pairs]}
    task = LocalPairClassification() if binary else LocalSTS()
    task.dataset, task.data_loaded = DatasetDict(dev=Dataset.from_dict(columns | gold)), True  # nothing to download
    result = mteb.evaluate(SentenceTransformer(model), task, cache=None, co2_tracker=False, show_progress_bar=False)
    found = result.task_results[0].scores["dev"][0]
    report = evaluate_pairs(load(model), pairs)
    names = {
        "cosine_spearman": "spearman", "cosine_pearson": "pearson",
        "cosine_ap": "average_precision", "cosine_accuracy": "best_accuracy",
    }  # fmt: skip
    for theirs, ours in names.items():
        if theirs in found:
            print(f"{theirs:16} {found[theirs]:.6f}   weebill {ours:18} {getattr(report, ours):.6f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
