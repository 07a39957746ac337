"""Draws the road, docs/images/road.svg: python docs/images/road.py. Boxes bring their own ground, light or dark."""

from itertools import pairwise
from pathlib import Path

WIDTH, HEIGHT = 1080, 400
INK, GROUND, LINE, QUIET = "#12303a", "#f4fbfa", "#1f8a80", "#7d8b92"  # QUIET is readable on white and on black
ROAD_Y, ROAD_H = 60, 108
SHOP_Y, SHOP_H = 270, 92

ROAD = [  # left, width, title, lines
    (12, 128, "texts", ["“wake me up", "at nine am”"]),
    (176, 152, "Tokenizer", ["byte-level BPE:", "truncates, pads,", "knows offsets"]),
    (452, 152, "Backend", ["torch or ONNX:", "one encoder,", "two heads"]),
    (728, 146, "Predictor", ["softmax, best", "legal tags,", "tags → spans"]),
    (912, 156, "predictions", ["alarm_set", "14–21 time", "“nine am”"]),
]
BETWEEN = [  # left, title, lines: what goes from Tokenizer to Backend, from Backend to Predictor
    (338, "EncodedBatch", ["ids (B, T)", "mask (B, T)"]),
    (614, "ModelOutput", ["intents (B, C)", "tags (B, T, L)"]),
]
SHOP = [
    (12, 184, "data", ["check, split, generate;", "spans → tags"]),
    (232, 150, "tokenizer", ["merges learned", "from your texts"]),
    (418, 158, "pretrain", ["pairs, triplets", "→ encoder"]),
    (612, 180, "finetune, distill", ["intents and entities", "→ joint model"]),
    (828, 240, "evaluate, export", ["all by the Predictor", "above; then serve"]),
]


def main() -> None:
    """Write the picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d"'
        f' font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif">',
        '<title id="t">The road from text to prediction, and the workshop that trains what stands on it</title>',
        '<desc id="d">Texts go through Tokenizer, Backend and Predictor to predictions. Below: data, '
        "tokenizer train, pretrain, finetune or distill, then evaluate, export, serve.</desc>",
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{QUIET}"/></marker></defs>',
        label(12, 36, "The road: every prediction takes it", 17),
        label(12, HEIGHT - 10, "The workshop: makes what stands on the road", 17),
    ]
    parts += [box(x, ROAD_Y, width, ROAD_H, title, lines) for x, width, title, lines in ROAD]
    parts += [box(x, SHOP_Y, width, SHOP_H, title, lines) for x, width, title, lines in SHOP]
    parts += arrows(ROAD, ROAD_Y + ROAD_H / 2) + arrows(SHOP, SHOP_Y + SHOP_H / 2)
    for x, title, lines in BETWEEN:
        y = ROAD_Y + ROAD_H / 2
        parts += [label(x, y - 10, title, 13)] + [label(x, y + 21 + 18 * i, line, 14) for i, line in enumerate(lines)]
    # what the workshop makes goes up to the road
    for shop, road, word in ((1, 1, "tokenizer.json"), (3, 2, "weights")):
        x0, x1 = (row[i][0] + row[i][1] / 2 for row, i in ((SHOP, shop), (ROAD, road)))
        middle = (ROAD_Y + ROAD_H + SHOP_Y) / 2
        parts.append(path(f"M{x0:g} {SHOP_Y - 4} V{middle:g} H{x1:g} V{ROAD_Y + ROAD_H + 8}", dashed=True))
        parts.append(label(max(x0, x1) + 10, middle + 5, word, 15))
    body = "\n".join([*parts, "</svg>"]) + "\n"
    Path(__file__).with_name("road.svg").write_text(body, encoding="utf-8")


def box(x: float, y: float, width: float, height: float, title: str, lines: list[str]) -> str:
    """Return a box with a title and lines of text."""
    rows = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="9" fill="{GROUND}" stroke="{LINE}"'
            f' stroke-width="1.6"/>',
            f'<text x="{x + 11}" y="{y + 27}" font-size="18" font-weight="600" fill="{INK}">{title}</text>',
            ]  # fmt: skip
    for i, line in enumerate(lines):
        at = y + 50 + 20 * i
        rows.append(f'<text x="{x + 11}" y="{at}" font-size="15" fill="{INK}" xml:space="preserve">{line}</text>')
    return "\n".join(rows)


def arrows(row: list[tuple[int, int, str, list[str]]], y: float) -> list[str]:
    """Return an arrow from each box to the next."""
    return [path(f"M{x + width + 4} {y:g} H{after[0] - 6}") for (x, width, *_), after in pairwise(row)]


def path(d: str, dashed: bool = False) -> str:
    """Return a line with a tip."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{d}" fill="none" stroke="{QUIET}" stroke-width="1.8"{dash} marker-end="url(#tip)"/>'


def label(x: float, y: float, text: str, size: int) -> str:
    """Return text that lies on the page itself."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="600" fill="{QUIET}">{text}</text>'


if __name__ == "__main__":
    main()
