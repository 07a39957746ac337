"""A data check as people see it: tables in the terminal, one self-contained page. Finds and counts nothing."""

import html
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from string import Template

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from weebill.findings import KINDS, MIN_EXAMPLES, SEVERITIES, DataReport, Finding
from weebill.interchange import Row
from weebill.report import COLOURS

SHOWN_FINDINGS = 5  # of a kind, in the terminal
COPIES = ("intent-conflict", "entity-conflict", "duplicate", "near-duplicate", "leakage", "near-leakage")
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_PAGE_FINDINGS = 200  # of a kind, on the page


def terminal(report: DataReport) -> Iterator[RenderableType]:
    """Yield what the terminal shows: the inputs, then every kind of finding with examples and its fix."""
    table = Table("input", "format", title="data")
    for path, title in report.inputs.items():
        table.add_row(Text(path), title)
    yield table
    rows = ", ".join(f"{count:,}{'' if split == 'all' else f' in {split}'}" for split, count in report.rows.items())
    yield Text(f"rows: {rows or 'none'}; {len(report.intents):,} intents, {len(report.labels):,} entity labels")
    for kind, group in groupby(report.findings, key=lambda finding: finding.kind):
        yield _kind(kind, list(group))
    yield Text.from_markup(", ".join(f"[{_STYLES[s]}]{report.count(s):,} {s}s[/]" for s in SEVERITIES))


def _kind(kind: str, findings: Sequence[Finding]) -> RenderableType:
    about = KINDS[kind]
    total = sum(finding.count for finding in findings)
    parts: list[RenderableType] = [
        Text.from_markup(f"\n[{_STYLES[about.severity]}]{about.severity}[/] [bold]{escape(about.title)}[/]: {total:,}"),
        Text(f"  fix: {about.fix}", style="dim"),
    ]
    for finding in findings[:SHOWN_FINDINGS]:
        if finding.message != about.title:
            parts.append(Text(f"  {finding.message}" + (f" ({finding.count:,})" if finding.count > 1 else "")))
        for row in finding.examples[: 2 if kind in COPIES else 1 if len(findings) > 1 else 3]:
            parts.append(Text(f"    {row.source}  ", style="dim") + coloured_row(row))
        if not finding.examples and finding.places:
            parts.append(Text(f"    {', '.join(finding.places[:3])}", style="dim"))
    if len(findings) > SHOWN_FINDINGS:
        parts.append(Text(f"  … {len(findings) - SHOWN_FINDINGS:,} more, all with --json or --html", style="dim"))
    return Group(*parts)


def coloured_row(row: Row) -> Text:
    """Return the text with its spans coloured and labelled, then the intent."""
    out, last = Text(), 0
    for span in sorted(row.spans or (), key=lambda s: s.start):
        colour = COLOURS[zlib.crc32(span.label.encode()) % len(COLOURS)]
        out.append(row.text[last : max(last, span.start)])
        out.append(row.text[max(last, span.start) : span.end], style=f"{colour} underline")
        out.append(f"({span.label})", style=colour)
        last = max(last, span.end)
    out.append(row.text[last:])
    if row.intents:
        out.append(f"  → {' + '.join(row.intents)}", style="bold")
    return out


def page(report: DataReport) -> str:
    """Return the report as one HTML page that needs nothing else."""
    badges = "".join(f'<span class="badge {s}">{report.count(s):,} {s}{"s" * (report.count(s) != 1)}</span>'
                     for s in SEVERITIES)  # fmt: skip
    inputs = "".join(f"<li><code>{_text(path)}</code> {_text(title)}</li>" for path, title in report.inputs.items())
    sections = [
        _section(kind, list(group)) for kind, group in groupby(report.findings, key=lambda finding: finding.kind)
    ]
    return _PAGE.substitute(
        title="Data check", badges=badges, inputs=inputs, facts=_facts(report),
        sections="".join(sections) or '<p class="fine">Nothing was found.</p>',
        intents=_bars("Intents", report.intents, report.rows),
        labels=_bars("Entity labels", report.labels, report.rows),
    )  # fmt: skip


def _facts(report: DataReport) -> str:
    facts = [(f"{count:,}", f"rows in {split}" if split != "all" else "rows") for split, count in report.rows.items()]
    facts += [(f"{len(report.intents):,}", "intents"), (f"{len(report.labels):,}", "entity labels")]
    return "".join(f"<div><b>{number}</b>{_text(what)}</div>" for number, what in facts)


def _section(kind: str, findings: Sequence[Finding]) -> str:
    about, total = KINDS[kind], sum(finding.count for finding in findings)
    items = "".join(_finding(finding) for finding in findings[:_PAGE_FINDINGS])
    more = f"<p>… and {len(findings) - _PAGE_FINDINGS:,} more.</p>" if len(findings) > _PAGE_FINDINGS else ""
    return (
        f'<details class="{about.severity}"{" open" if about.severity == "error" else ""}><summary>'
        f'<span class="badge {about.severity}">{about.severity}</span> {_text(about.title)} <b>{total:,}</b></summary>'
        f'<p class="fix"><b>Fix</b> {_text(about.fix, code=True)}</p>{items}{more}</details>'
    )


def _finding(finding: Finding) -> str:
    head = ""
    if finding.message != KINDS[finding.kind].title:
        count = f" <small>× {finding.count:,}</small>" if finding.count > 1 else ""
        head = f"<h4>{_text(finding.message)}{count}</h4>"
    examples = "".join(f"<li>{marked(row)}<small>{_text(row.source)}</small></li>" for row in finding.examples)
    rest = [place for place in finding.places if place not in {row.source for row in finding.examples}]
    places = f"<p><small>also {_text(', '.join(rest[:20]))}{' …' if len(rest) > 20 else ''}</small></p>" if rest else ""
    return f'<div class="finding">{head}<ul>{examples}</ul>{places}</div>'


def marked(row: Row) -> str:
    """Return the text as HTML, each span in the colour of its label."""
    out, last = "", 0
    for span in sorted(row.spans or (), key=lambda s: s.start):
        start = max(last, span.start)
        out += f"{_visible(row.text[last:start])}{_mark(row.text[start : span.end], span.label)}"
        last = max(last, span.end)
    intent = f'<span class="intent">{_text(" + ".join(row.intents))}</span>' if row.intents else ""
    return f'<span class="text">{out}{_visible(row.text[last:])}</span>{intent}'


def _mark(text: str, label: str) -> str:
    return f'<mark style="--h:{_hue(label)}">{_visible(text)}<i>{_text(label)}</i></mark>'


def _hue(label: str) -> int:
    return zlib.crc32(label.encode()) % 360


def _visible(text: str) -> str:
    """Escape a text, and show characters that cannot be seen by their code."""
    return "".join(c if c.isprintable() else f'<span class="code">U+{ord(c):04X}</span>' for c in html.escape(text))


def _text(text: str, code: bool = False) -> str:
    """Escape a text; with `code`, what stands between backticks is set as code."""
    if not code:
        return html.escape(text)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(html.escape(text).split("`")))


def _bars(title: str, counts: Mapping[str, Mapping[str, int]], splits: Mapping[str, int]) -> str:
    if not counts:
        return ""
    longest = max(sum(by.values()) for by in counts.values())
    rows = []
    for label, by in counts.items():
        total = sum(by.values())
        few = ' class="few"' if total < MIN_EXAMPLES else ""
        cells = "".join(f"<td>{by.get(split, 0):,}</td>" for split in splits) if len(splits) > 1 else ""
        rows.append(f'<tr{few}><th style="--h:{_hue(label)}">{_text(label)}</th><td>{total:,}</td>{cells}<td '
                    f'class="bar"><div style="--h:{_hue(label)};width:{100 * total / longest:.1f}%"></div></td></tr>'
                    )  # fmt: skip
    heads = "".join(f"<td>{_text(split)}</td>" for split in splits) if len(splits) > 1 else ""
    return (f"<details open><summary>{title} <b>{len(counts):,}</b></summary><table><tr><td></td><td>all</td>{heads}"
            f"<td></td></tr>{''.join(rows)}</table></details>")  # fmt: skip


_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>$title</title><meta name="viewport" content="width=device-width">
<style>
:root { color-scheme: light dark; --ink: #1d2129; --soft: #667; --line: #e3e5ea; --card: #fff; --ground: #f6f7f9;
        --error: #c92a3a; --warning: #b26a00; --note: #1b6fa8; --l: 88%; --s: 78% }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #9aa; --line: #33373f; --card: #1d2026;
        --ground: #14161a; --error: #ff6b78; --warning: #ffb34d; --note: #62b5ee; --l: 26%; --s: 45% } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto;
       max-width: 64rem; padding: 2.5rem 1.25rem 5rem }
h1 { margin: 0 0 .5rem; letter-spacing: -.02em } h4 { margin: .4rem 0; font-weight: 600 }
code { background: var(--line); padding: .1em .35em; border-radius: 4px; font-size: .9em }
.inputs { list-style: none; padding: 0; color: var(--soft) }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0 2rem }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .6rem 1rem;
             color: var(--soft) }
.facts b { display: block; font-size: 1.5rem; color: var(--ink); font-variant-numeric: tabular-nums }
.badge { font-size: .78rem; font-weight: 600; padding: .18em .7em; border-radius: 99px; margin-right: .4rem;
         border: 1px solid currentColor }
.badge.error { color: var(--error) } .badge.warning { color: var(--warning) } .badge.note { color: var(--note) }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: .6rem 0;
          padding: .7rem 1rem; overflow-x: auto }
details.error { border-left: 4px solid var(--error) } details.warning { border-left: 4px solid var(--warning) }
details.note { border-left: 4px solid var(--note) }
summary { cursor: pointer; font-weight: 600 } summary b { color: var(--soft); font-weight: 500 }
.fix { margin: .8rem 0; color: var(--soft) } .fix b { color: var(--ink) }
.finding { border-top: 1px solid var(--line); padding: .35rem 0 }
.finding ul { list-style: none; margin: .3rem 0; padding: 0 } .finding li { padding: .25rem 0 }
small { color: var(--soft); margin-left: .6rem; overflow-wrap: anywhere }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
mark { color: inherit; background: hsl(var(--h) var(--s) var(--l)); border-radius: 5px; padding: .12em .3em }
mark i { font-size: .7em; font-style: normal; opacity: .75; margin-left: .4em }
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
</style>
<h1>$title</h1>
<p>$badges</p>
<ul class="inputs">$inputs</ul>
<div class="facts">$facts</div>
$sections
<h2>What is in the data</h2>
$intents
$labels
</html>
""")
