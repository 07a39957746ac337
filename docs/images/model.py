"""Draws the encoder and the heads with the shapes between them, docs/images/model.svg: python docs/images/model.py."""

from pathlib import Path

WIDTH, HEIGHT = 1080, 384
INK, GROUND, HEAD, LINE, QUIET = "#12303a", "#f4fbfa", "#fff6ec", "#1f8a80", "#7d8b92"
MIDDLE = 192

BOXES = [  # left, top, width, height, ground, title, lines
    (12, 138, 150, 108, GROUND, "tokens", ["ids", "and mask"]),
    (226, 138, 190, 108, GROUND, "embeddings", ["a row per token", "+ sines of positions", "LayerNorm"]),
    (492, 112, 184, 160, GROUND, "N layers", ["attention", "add, LayerNorm", "feed-forward", "add, LayerNorm"]),
    (792, 8, 276, 108, GROUND, "pooling, projection", ["[CLS] or the mean of all;", "linear"]),
    (792, 138, 276, 108, HEAD, "intent head", ["state of [CLS];", "linear"]),
    (792, 268, 276, 108, HEAD, "tag head", ["all states; BiLSTM,", "linear, GELU, linear"]),
]
SHAPES = [  # x, y, what goes along an arrow
    (170, 180, "(B, T)"),
    (420, 180, "(B, T, D)"),
    (690, 180, "(B, T, D)"),
]
RESULTS = {8: "→ embedding (B, E)", 138: "→ intent logits (B, C)", 268: "→ tag logits (B, T, L)"}  # by top of the box


def main() -> None:
    """Write the picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d"'
        f' font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif">',
        '<title id="t">Encoder and heads, with the shapes of what goes between them</title>',
        '<desc id="d">Token ids become embeddings, positions are added, N layers of attention and feed-forward give '
        "token states. From these come the sentence embedding, the intent logits and the tag logits.</desc>",
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{QUIET}"/></marker></defs>',
        *(box(*given) for given in BOXES),
        *(path(f"M{start} {MIDDLE} H{end}") for start, end in ((166, 220), (420, 486))),
        *(path(f"M680 {MIDDLE} H766 V{top + 54} H786") for top in RESULTS),
        *(text(x, y, words, 14, QUIET) for x, y, words in SHAPES),
        *(text(803, top + 96, words, 15, LINE) for top, words in RESULTS.items()),
    ]
    body = "\n".join([*parts, "</svg>"]) + "\n"
    Path(__file__).with_name("model.svg").write_text(body, encoding="utf-8")


def box(x: int, y: int, width: int, height: int, ground: str, title: str, lines: list[str]) -> str:
    """Return a box with a title and lines of text."""
    rows = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="9" fill="{ground}" stroke="{LINE}"'
            f' stroke-width="1.6"/>', text(x + 11, y + 27, title, 18, INK)]  # fmt: skip
    rows += [text(x + 11, y + 50 + 21 * i, line, 15, INK, weight=400) for i, line in enumerate(lines) if line]
    return "\n".join(rows)


def path(d: str) -> str:
    """Return a line with a tip."""
    return f'<path d="{d}" fill="none" stroke="{QUIET}" stroke-width="1.8" marker-end="url(#tip)"/>'


def text(x: int, y: int, words: str, size: int, colour: str, weight: int = 600) -> str:
    """Return words at a place."""
    return (f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
            f"{words}</text>")  # fmt: skip


if __name__ == "__main__":
    main()
