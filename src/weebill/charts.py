"""Charts as inline SVG that follows the page's colours: confidence, calibration, curves, confusion. Counts nothing.

Every chart says in words what it shows (aria-label), and its numbers show when pointed at (title).
"""

import math
from collections.abc import Callable, Mapping, Sequence

from weebill.metrics import ConfidenceBin
from weebill.page_parts import escaped

STYLE = """
svg { width: 100%; height: auto; display: block; overflow: visible } svg text { fill: var(--soft); font-size: 11px }
.axis { stroke: var(--line); stroke-width: 1; fill: none } .ideal { stroke: var(--soft); stroke-dasharray: 4 4 }
.good { fill: #2f9e6e } .bad { fill: #d9534f } .tone { fill: #3d7fd1 }
.line { fill: none; stroke-width: 2; stroke: hsl(var(--h) 55% 50%) }
.matrix { min-width: 46rem; max-width: 70rem } .matrix text { font-size: 9px }
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 380, 230, 44, 34, 12
Series = Mapping[str, Sequence[tuple[float, float]]]
Show = Callable[[float], str]


def confidence_chart(bins: Sequence[ConfidenceBin]) -> str:
    """Return how many right and wrong answers have which confidence."""
    most = _round_up(max((b.count for b in bins), default=0) or 1)
    total, right = sum(b.count for b in bins), sum(b.right for b in bins)
    parts = [_y_axis(most, lambda v: f"{v:,.0f}"), _x_axis(1.0, lambda v: f"{100 * v:.0f} %"), _x_title("confidence")]
    for b in bins:
        wrong = b.count - b.right
        says = f"{100 * b.low:.0f} to {100 * b.high:.0f} %: {b.right:,} right, {wrong:,} wrong"
        parts.append(f"<g><title>{says}</title>{_bar(b, 0, b.right / most, 'good')}"
                     f"{_bar(b, b.right / most, b.count / most, 'bad')}</g>")  # fmt: skip
    return _svg(parts, f"Confidence of {total:,} answers, {right:,} right and {total - right:,} wrong")


def reliability_chart(bins: Sequence[ConfidenceBin], error: float) -> str:
    """Return accuracy against confidence; on the dashed line they are equal."""
    parts = [_y_axis(1.0, lambda v: f"{100 * v:.0f} %"), _x_axis(1.0, lambda v: f"{100 * v:.0f} %"),
             _x_title("confidence")]  # fmt: skip
    for b in bins:
        if b.count:
            says = f"{b.count:,} answers, confidence {100 * b.confidence:.1f} %, right {100 * b.right / b.count:.1f} %"
            parts.append(f"<g><title>{says}</title>{_bar(b, 0, b.right / b.count, 'tone')}</g>")
    (x1, y1), (x2, y2) = _at(0, 0), _at(1, 1)
    parts.append(f'<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    return _svg(parts, f"Accuracy against confidence; expected calibration error {100 * error:.2f} %")


def line_chart(title: str, series: Series, mark: float | None = None) -> str:
    """Return curves over the steps of a run; `mark` is the step of the best evaluation."""
    points = [p for some in series.values() for p in some if math.isfinite(p[1])]
    if not points:
        return ""
    last, top = max(x for x, _ in points) or 1, _round_up(max(max(y for _, y in points), 1e-12))
    low = min(0.0, min(y for _, y in points))
    parts = [_y_axis(top, lambda v: f"{v:.3g}", low), _x_axis(last, lambda v: f"{v:,.0f}"), _x_title("step")]
    if mark is not None:
        (x, y1), (_, y2) = _at(mark / last, 0), _at(0, 1)
        parts.append(f'<line class="ideal" x1="{x}" y1="{y1}" x2="{x}" y2="{y2}"><title>best: step {mark:,.0f}'
                     f"</title></line>")  # fmt: skip
    legend = []
    for number, (name, some) in enumerate(series.items()):
        found = [(x, y) for x, y in some if math.isfinite(y)]
        path = " ".join("{},{}".format(*_at(x / last, (y - low) / (top - low))) for x, y in found)
        colour = f"--h:{round(210 + 360 * number / len(series)) % 360}"
        parts.append(f'<polyline class="line" style="{colour}" points="{path}"><title>{escaped(name)}</title>'
                     f"</polyline>")  # fmt: skip
        legend.append(f'<li style="{colour}">{escaped(name)} <b>{found[-1][1]:.3g}</b></li>' if found else "")
    return f"<figure><figcaption>{escaped(title)}</figcaption>{_svg(parts, title)}<ul>{''.join(legend)}</ul></figure>"


def confusion_matrix(counts: Mapping[tuple[str, str], int], classes: Sequence[str]) -> str:
    """Return a cell per (gold, predicted) pair that occurs, gold downwards; darker = a larger share of its gold row."""
    size, left, top = 11, 150, 130
    place = {name: i for i, name in enumerate(classes)}
    totals: dict[str, int] = {}
    for (gold, _), count in counts.items():
        totals[gold] = totals.get(gold, 0) + count
    edge = size * len(classes)
    parts = [f'<rect class="axis" x="{left}" y="{top}" width="{edge}" height="{edge}"/>']
    for name, i in place.items():
        middle = size * (i + 0.5)
        shown = escaped(name if len(name) <= 26 else name[:25] + "…")
        parts.append(f'<text x="{left - 4}" y="{top + middle + 3}" text-anchor="end">{shown}</text>')
        parts.append(f'<text transform="translate({left + middle + 3} {top - 4}) rotate(-90)">{shown}</text>')
    for (gold, predicted), count in counts.items():
        if gold in place and predicted in place:
            share = count / totals[gold]
            kind = "tone" if gold == predicted else "bad"
            parts.append(f'<rect class="{kind}" x="{left + size * place[predicted] + 0.5}" y="'
                         f'{top + size * place[gold] + 0.5}" width="{size - 1}" height="{size - 1}" opacity="'
                         f'{0.2 + 0.8 * share:.2f}"><title>{escaped(gold)} read as {escaped(predicted)}: {count:,} of '
                         f"{totals[gold]:,}</title></rect>")  # fmt: skip
    says = f"Confusion matrix of {len(classes)} intents; the tables below have its numbers"
    return (f'<svg class="matrix" viewBox="0 0 {left + edge + 4} {top + edge + 4}" role="img" aria-label="{says}">'
            f"{''.join(parts)}</svg>")  # fmt: skip


def _round_up(value: float) -> float:
    """Return a number not below `value` that has round quarters.

    Example:
        >>> [_round_up(x) for x in (0.93, 2.6, 678)]
        [1.0, 4.0, 800.0]
    """
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 4, 8, 10) if unit * step >= value)


def _svg(parts: Sequence[str], says: str) -> str:
    return (f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escaped(says)}">'
            f"{''.join(parts)}</svg>")  # fmt: skip


def _at(x: float, y: float) -> tuple[float, float]:
    """Return where a point of the unit square is drawn."""
    across, up = _WIDTH - _LEFT - 8, _HEIGHT - _BOTTOM - _TOP
    return round(_LEFT + across * x, 1), round(_HEIGHT - _BOTTOM - up * y, 1)


def _bar(b: ConfidenceBin, low: float, high: float, kind: str) -> str:
    (x1, y1), (x2, y2) = _at(b.low, high), _at(b.high, low)
    return (f'<rect class="{kind}" x="{x1 + 1}" y="{y1}" width="{round(x2 - x1 - 2, 1)}" height="{round(y2 - y1, 1)}"/>'
            )  # fmt: skip


def _y_axis(top: float, show: Show, low: float = 0.0) -> str:
    lines = []
    for i in range(5):
        (x1, y), (x2, _) = _at(0, i / 4), _at(1, i / 4)
        value = low + (top - low) * i / 4
        lines.append(f'<line class="axis" x1="{x1}" y1="{y}" x2="{x2}" y2="{y}"/><text x="{x1 - 5}" y="{y + 4}" '
                     f'text-anchor="end">{show(value)}</text>')  # fmt: skip
    return "".join(lines)


def _x_axis(last: float, show: Show) -> str:
    labels = []
    for i in range(5):
        x, y = _at(i / 4, 0)
        anchor = "end" if i == 4 else "middle"
        labels.append(f'<text x="{x}" y="{y + 15}" text-anchor="{anchor}">{show(last * i / 4)}</text>')
    return "".join(labels)


def _x_title(title: str) -> str:
    x, y = _at(0.5, 0)
    return f'<text x="{x}" y="{y + 30}" text-anchor="middle">{title}</text>'
