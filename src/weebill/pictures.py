"""Pictures: a text with its pieces coloured (HTML and terminal), and plots (matplotlib). Computes nothing it draws."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from weebill.errors import ArtifactError, MissingExtraError
from weebill.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pieces = Sequence[tuple[str, Sequence[int]]]
_BACKGROUNDS = ("#cfe8ff", "#ffe0b8", "#d8f3cf", "#f3d4f0", "#fff3b0")
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 18px/2.1 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
body {{ color: #222; background: #fff }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere }}
mark {{ color: #222; border-radius: 4px; padding: 2px 0 }}
small {{ color: #555 }}
{colours}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def pieces_html(title: str, texts: Sequence[Pieces]) -> str:
    """Return one self-contained page with every piece of every text coloured; its ids show when pointed at."""
    colours = "\n".join(f".c{i} {{ background: {colour} }}" for i, colour in enumerate(_BACKGROUNDS))
    body = []
    for pieces in texts:
        marks = "".join(
            f'<mark class="c{i % len(_BACKGROUNDS)}" title="{" ".join(map(str, ids))}">{html.escape(piece)}</mark>'
            for i, (piece, ids) in enumerate(pieces)
        )
        body.append(f"<p>{marks}<br><small>{sum(len(ids) for _, ids in pieces)} tokens</small></p>")
    return _PAGE.format(title=html.escape(title), colours=colours, body="\n".join(body))


def pieces_text(pieces: Pieces) -> Text:
    """Return the same colouring for a terminal."""
    out = Text()
    for i, (piece, _) in enumerate(pieces):
        out.append(piece, style=f"black on {_BACKGROUNDS[i % len(_BACKGROUNDS)]}")
    return out


def plot_size_curve(curve: Sequence[tuple[int, float]], path: Path) -> None:
    """Draw bytes per token against vocabulary size (log scale) as .png, .svg or .pdf.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the picture cannot be written, or its kind is not known.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    axes.plot([size for size, _ in curve], [value for _, value in curve], marker="o")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="vocabulary size (tokens)", ylabel="bytes per token", title="What vocabulary size buys")
    axes.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    for size, value in curve:
        axes.annotate(f"{value:.2f}", (size, value), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    save_figure(figure, path)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, inches wide and high.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", "drawing") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as .png, .svg or .pdf.

    Raises:
        ArtifactError: the picture cannot be written, or its kind is not known.
    """
    import io

    body = io.BytesIO()
    try:
        figure.savefig(body, format=path.suffix.lstrip(".") or "png", dpi=150)
    except ValueError as error:
        raise ArtifactError(f"{path}: expected a picture named .png, .svg or .pdf, got: {error}; rename it") from error
    write_whole(path, body.getvalue())


def training_curves(events: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a PNG of a run: losses, dev scores with the best marked, learning rate, gradient norms by loss.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    import io

    rows = [event for event in events if event["event"] == "eval"]
    with_norms = any(row.get("grad_norms") for row in rows)  # a single loss has none
    figure = new_figure(14 if with_norms else 11, 3.6)
    losses, scores, rates, *norms = figure.subplots(1, 4 if with_norms else 3)
    drawn = [(losses, "losses", "training loss"), (scores, "metrics", "dev score")]
    drawn += [(axes, "grad_norms", "gradient norm, shared weights") for axes in norms]
    for axes, kind, title in drawn:
        for name in dict.fromkeys(name for row in rows for name in row.get(kind, {})):
            points = [(row["step"], row[kind][name]) for row in rows if name in row.get(kind, {})]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axes.set(xlabel="step", title=title)
        axes.legend(fontsize=8)
    best = [row["step"] for row in rows if row["best"]]
    if best:  # no score is better than none where it is not a number
        scores.axvline(best[-1], color="grey", linestyle=":")
        scores.annotate("best", (best[-1], 0.02), xycoords=("data", "axes fraction"), fontsize=8, ha="right")
    rates.plot([row["step"] for row in rows], [row["learning_rate"] for row in rows], marker="o", markersize=3)
    rates.set(xlabel="step", title="learning rate (top layer)")
    for axes in (losses, scores, rates, *norms):
        axes.grid(alpha=0.3)
    body = io.BytesIO()
    figure.savefig(body, format="png", dpi=130)
    return body.getvalue()
