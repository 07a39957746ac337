"""What weebill's pages are made of: their style, escaped texts, texts with coloured spans. Draws no whole page."""

import html
import zlib
from collections.abc import Sequence

from weebill.interchange import Span
from weebill.schema import Entity
from weebill.showing import PAGE_CHARACTERS, excerpt, is_visible, shown

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5b6170; --line: #e3e5ea; --card: #fff; --ground: #f6f7f9;
        --error: #c92a3a; --warning: #8f5500; --note: #1b6fa8; --l: 88%; --s: 78% }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #a3a9b5; --line: #33373f; --card: #1d2026;
        --ground: #14161a; --error: #ff6b78; --warning: #ffb34d; --note: #62b5ee; --l: 26%; --s: 45% } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto;
       max-width: 64rem; padding: 2.5rem 1.25rem 5rem }
h1 { margin: 0 0 .5rem; letter-spacing: -.02em } h4 { margin: .4rem 0; font-weight: 600 }
code { background: var(--line); padding: .1em .35em; border-radius: 4px; font-size: .9em }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0 2rem }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .6rem 1rem;
             color: var(--soft) }
.facts b { display: block; font-size: 1.5rem; color: var(--ink); font-variant-numeric: tabular-nums }
.badge { font-size: .78rem; font-weight: 600; padding: .18em .7em; border-radius: 99px; margin-right: .4rem;
         border: 1px solid currentColor }
.badge.error { color: var(--error) } .badge.warning { color: var(--warning) } .badge.note { color: var(--note) }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: .6rem 0;
          padding: .7rem 1rem; overflow-x: auto }
summary { cursor: pointer; font-weight: 600 } summary b { color: var(--soft); font-weight: 500 }
small { color: var(--soft); margin-left: .6rem; overflow-wrap: anywhere }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
mark { color: inherit; background: hsl(var(--h) var(--s) var(--l)); border-radius: 5px; padding: .12em .3em }
mark i { font-size: .7em; font-style: normal; opacity: .85; margin-left: .4em }
.intent { color: var(--soft); border: 1px solid var(--line); border-radius: 99px; padding: .05em .6em; font-size: .85em;
          margin-left: .5em }
.code { font: .7em ui-monospace, monospace; color: var(--error); border: 1px solid; border-radius: 3px; padding: 0 .2em
}
table { border-collapse: collapse; width: 100%; margin-top: .6rem; font-size: .9rem }
th { text-align: left; font-weight: 500; white-space: nowrap } td { text-align: right; padding: .15rem .6rem;
     font-variant-numeric: tabular-nums; white-space: nowrap } .few td, .few th { color: var(--warning) }
.bar { width: 45%; text-align: left } .bar div { height: .7rem; border-radius: 4px; min-width: 2px;
       background: hsl(var(--h) 55% 55%) }
.fine { color: var(--soft) }
"""


def marked_text(text: str, spans: Sequence[Span | Entity]) -> str:
    """Return a text as HTML, each span in the colour of its label; of a long text, a part."""
    out, last = "", 0
    text, spans = excerpt(text, list(spans), PAGE_CHARACTERS)
    for span in spans:
        start = max(last, span.start)
        out += f"{visible(text[last:start])}{_mark(text[start : span.end], span.label)}"
        last = max(last, span.end)
    return f'<span class="text" dir="auto">{out}{visible(text[last:])}</span>'


def _mark(text: str, label: str) -> str:
    return f'<mark style="--h:{hue(label)}">{visible(text)}<i>{escaped(label)}</i></mark>'


def hue(label: str) -> int:
    """Return the colour of a label, the same on every page."""
    return zlib.crc32(label.encode("utf-8", "replace")) % 360


def visible(text: str) -> str:
    """Escape a text, and show characters that cannot be seen by their code."""
    return "".join(c if is_visible(c) else f'<span class="code">U+{ord(c):04X}</span>' for c in html.escape(text))


def escaped(text: str, code: bool = False) -> str:
    """Escape a text, cut where it is long; with `code`, what stands between backticks is set as code."""
    text = shown(text, PAGE_CHARACTERS)
    if not code:
        return html.escape(text)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(html.escape(text).split("`")))
