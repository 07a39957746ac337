"""Draws the road, docs/images/road.svg: python docs/images/road.py. Boxes have a ground of their own, for light and dark."""

from pathlib import Path

WIDTH, HEIGHT = 1120, 430
INK, GROUND, LINE, QUIET = "#12303a", "#f4fbfa", "#1f8a80", "#7d8b92"  # QUIET is readable on white and on black
ROAD_Y, ROAD_H = 62, 92
SHOP_Y, SHOP_H = 290, 84

ROAD = [  # left, width, title, lines
    (16, 96, "texts", ["“wake me up", "at nine am”"]),
    (152, 150, "Tokenizer", ["byte-level BPE:", "truncates, pads,", "knows offsets"]),
    (342, 150, "EncodedBatch", ["input_ids (B, T)", "attention_mask (B, T)", "offsets"]),
    (532, 130, "Backend", ["torch or ONNX:", "encoder, heads"]),
    (702, 166, "ModelOutput", ["embedding (B, D)", "intent_logits (B, C)", "tag_logits (B, T, L)"]),
    (908, 196, "predictions", ["intent  alarm_set", "14–21  time “nine am”", "decoded by the predictor"]),
]
SHOP = [
    (16, 196, "data", ["read, check, split, generate", "spans → tags on tokens"]),
    (252, 180, "tokenizer train", ["merges from your texts"]),
    (472, 180, "pretrain", ["pairs, triplets, texts", "→ encoder"]),
    (692, 180, "finetune, distill", ["intents and entities", "→ joint model"]),
    (912, 192, "evaluate, export, serve", ["all through the predictor", "of the road above"]),
]


def main() -> None:
    """Write the picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d"'
        f' font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif">',
        '<title id="t">The road from text to prediction, and the workshop that trains what stands on it</title>',
        '<desc id="d">Texts go through Tokenizer, EncodedBatch, Backend and ModelOutput to predictions. Below: data, '
        "tokenizer train, pretrain, finetune or distill, then evaluate, export, serve.</desc>",
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{QUIET}"/></marker></defs>',
        label(16, 38, "The road: every prediction takes it"),
        label(16, SHOP_Y - 24, "The workshop: makes what stands on the road"),
    ]
    parts += [box(x, ROAD_Y, width, ROAD_H, title, lines) for x, width, title, lines in ROAD]
    parts += [box(x, SHOP_Y, width, SHOP_H, title, lines) for x, width, title, lines in SHOP]
    parts += arrows(ROAD, ROAD_Y + ROAD_H / 2) + arrows(SHOP, SHOP_Y + SHOP_H / 2)
    # what the workshop makes goes up to the road
    for shop, road, word in ((1, 1, "tokenizer.json"), (3, 3, "weights")):
        x0, x1 = (row[i][0] + row[i][1] / 2 for row, i in ((SHOP, shop), (ROAD, road)))
        middle = (ROAD_Y + ROAD_H + SHOP_Y) / 2 - 16
        parts.append(path(f"M{x0:g} {SHOP_Y - 4} V{middle:g} H{x1:g} V{ROAD_Y + ROAD_H + 8}", dashed=True))
        parts.append(label(max(x0, x1) + 10, middle + 5, word))
    body = "\n".join([*parts, "</svg>"]) + "\n"
    Path(__file__).with_name("road.svg").write_text(body, encoding="utf-8")


def box(x: float, y: float, width: float, height: float, title: str, lines: list[str]) -> str:
    """Return a box with a title and lines of text."""
    rows = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="9" fill="{GROUND}" stroke="{LINE}"'
            f' stroke-width="1.6"/>',
            f'<text x="{x + 11}" y="{y + 25}" font-size="16" font-weight="600" fill="{INK}">{title}</text>']  # fmt: skip
    for i, line in enumerate(lines):
        at = y + 45 + 17 * i
        rows.append(f'<text x="{x + 11}" y="{at}" font-size="13" fill="{INK}" xml:space="preserve">{line}</text>')
    return "\n".join(rows)


def arrows(row: list[tuple[int, int, str, list[str]]], y: float) -> list[str]:
    """Return an arrow from each box to the next."""
    return [path(f"M{x + width + 4} {y:g} H{after[0] - 6}") for (x, width, *_), after in zip(row, row[1:], strict=False)]


def path(d: str, dashed: bool = False) -> str:
    """Return a line with a tip."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{d}" fill="none" stroke="{QUIET}" stroke-width="1.8"{dash} marker-end="url(#tip)"/>'


def label(x: float, y: float, text: str) -> str:
    """Return text that lies on the page itself."""
    return f'<text x="{x:g}" y="{y:g}" font-size="14" font-weight="600" fill="{QUIET}">{text}</text>'


if __name__ == "__main__":
    main()
