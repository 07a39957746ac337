"""Pictures of embeddings: similarity histograms, and maps on the plane of most variance. Computes no score."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from weebill.evaluate import EvalReport
from weebill.evaluate_pairs import EmbeddedPairs, PairGroup, PairReport, pair_groups
from weebill.geometry import Vectors, principal_plane, unit_rows
from weebill.pictures import new_figure, save_figure
from weebill.predictor import Predictor
from weebill.report import headline, pair_headline
from weebill.schema import Utterance

_LABEL_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf",
                  "#222222")  # fmt: skip
_GREY = "#d5d5d5"
_MAX_LINES = 40  # in one panel; more cover each other


def draw_pairs(embedded: EmbeddedPairs, report: PairReport, title: str, folder: Path) -> None:
    """Write similarity.png and map.png of pairs, by score and beside random pairs; the title gets the score.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: a picture cannot be written.
    """
    groups, title = pair_groups(embedded), f"{title}: {pair_headline(report)}"
    plot_similarity(groups, title, folder / "similarity.png", report.best_threshold)
    plot_pair_map(embedded.vectors_MD, groups, title, folder / "map.png")


def draw_utterances(
    predictor: Predictor, utterances: Sequence[Utterance], report: EvalReport, title: str, folder: Path
) -> None:
    """Write map.png of the texts, coloured by intent; the title gets the score.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the picture cannot be written.
    """
    vectors_ND = unit_rows(predictor.embed([u.text for u in utterances]))
    labels = [u.intent or "no intent" for u in utterances]
    plot_label_map(vectors_ND, labels, f"{title}: {headline(report)}", folder / "map.png")


def plot_similarity(groups: Sequence[PairGroup], title: str, path: Path, threshold: float | None = None) -> None:
    """Draw a histogram of cosine similarity for each group of pairs, one above the other, with its median.

    Each is scaled to its own size, so that shapes compare. A `threshold` is drawn through all of them.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the picture cannot be written, or its kind is not known.
    """
    figure = new_figure(7, 1.2 + 0.85 * len(groups))
    panels = figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0]
    lowest = min(0.0, *(group.similarity_N.min() for group in groups))
    for axes, group, colour in zip(panels, groups, _colours(len(groups)), strict=True):
        similarity_N = np.clip(group.similarity_N, None, 1)  # rounding may leave 1.0000001
        share_N = np.full(len(similarity_N), 100 / len(similarity_N))
        axes.hist(similarity_N, np.linspace(lowest, 1, 51), weights=share_N, color=colour)
        median = np.median(similarity_N)
        axes.axvline(median, color="#222222", linewidth=1)
        label = f"{group.name}\n{len(similarity_N):,} pairs, median {median:.2f}"
        axes.annotate(label, (0.01, 0.93), xycoords="axes fraction", va="top", fontsize=8)
        axes.set_ylim(top=1.15 * axes.get_ylim()[1])
        axes.spines[["top", "right"]].set_visible(False)
        if threshold is not None:
            axes.axvline(threshold, color="#222222", linewidth=1, linestyle="--")
    dashed = "" if threshold is None else f" (dashed: best threshold, {threshold:.2f})"
    panels[-1].set_xlabel(f"cosine similarity{dashed}")
    figure.supylabel("% of the group's pairs", fontsize=10)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def plot_pair_map(vectors_MD: Vectors, groups: Sequence[PairGroup], title: str, path: Path) -> None:
    """Draw all texts as dots, once for each group of pairs, with lines between the texts of some of its pairs.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the picture cannot be written, or its kind is not known.
    """
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = new_figure(0.5 + 3 * columns, 1 + 3 * lines)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    points_M2, shares = principal_plane(vectors_MD)
    for axes, group, colour in zip(panels, groups, _colours(len(groups)), strict=False):
        shown = np.unique(np.linspace(0, len(group.first_N) - 1, _MAX_LINES).astype(int))  # evenly through the file
        ends_2N = np.stack([group.first_N[shown], group.second_N[shown]])
        axes.scatter(points_M2[:, 0], points_M2[:, 1], s=2, color=_GREY, linewidths=0)
        axes.plot(*points_M2[ends_2N].transpose(2, 0, 1), color=colour, linewidth=1, marker="o", markersize=2.5)
        axes.set_title(f"{group.name} ({len(shown)} of {len(group.first_N):,})", fontsize=9)
        axes.set_aspect("equal")
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    names = _axis_names(shares)
    figure.supxlabel(names["xlabel"], fontsize=10)
    figure.supylabel(names["ylabel"], fontsize=10)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def plot_label_map(vectors_ND: Vectors, labels: Sequence[str], title: str, path: Path) -> None:
    """Draw texts as dots coloured by label: the most frequent labels each in its colour, all others grey.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the picture cannot be written, or its kind is not known.
    """
    figure = new_figure(8.5, 6)
    axes = figure.subplots()
    points_N2, shares = principal_plane(vectors_ND)
    counts = Counter(labels).most_common()
    colour_of = {label: colour for (label, _), colour in zip(counts, _LABEL_COLOURS, strict=False)}
    label_N = np.array(labels)
    for label, colour in colour_of.items():
        x_N, y_N = points_N2[label_N == label].T
        axes.scatter(x_N, y_N, s=12, color=colour, alpha=0.8, linewidths=0, label=f"{label} ({len(x_N):,})")
    x_N, y_N = points_N2[~np.isin(label_N, list(colour_of))].T
    if len(x_N):
        others = f"{len(counts) - len(colour_of)} others ({len(x_N):,})"
        axes.scatter(x_N, y_N, s=5, color=_GREY, linewidths=0, label=others, zorder=0)
    axes.set_aspect("equal")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False, markerscale=1.5)
    axes.set(**_axis_names(shares))
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def _axis_names(shares: tuple[float, float]) -> dict[str, str]:
    return {
        "xlabel": f"first principal axis ({100 * shares[0]:.0f} % of the variance)",
        "ylabel": f"second principal axis ({100 * shares[1]:.0f} %)",
    }


def _colours(count: int) -> list[tuple[float, float, float, float]]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.15 + 0.65 * i / max(1, count - 1)) for i in range(count)]
