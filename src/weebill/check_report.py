"""A data check as people see it: tables in the terminal, one self-contained page. Finds and counts nothing."""

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
from weebill.page_parts import STYLE, escaped, hue, marked_text
from weebill.report import COLOURS
from weebill.showing import TERMINAL_CHARACTERS, excerpt, shown

SHOWN_FINDINGS = 5  # of a kind, in the terminal
COPIES = ("intent-conflict", "entity-conflict", "duplicate", "near-duplicate", "leakage", "near-leakage")
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_PAGE_FINDINGS = 200  # of a kind, on the page


def terminal(report: DataReport) -> Iterator[RenderableType]:
    """Yield what the terminal shows: the inputs, then every kind of finding with examples and its fix."""
    table = Table("input", "format", title="data")
    for path, title in report.inputs.items():
        table.add_row(Text(shown(path)), title)
    yield table
    rows = ", ".join(f"{count:,}{'' if split == 'all' else f' in {split}'}" for split, count in report.rows.items())
    rows = shown(rows, TERMINAL_CHARACTERS)
    yield Text(f"rows: {rows or 'none'}; {_counted(len(report.intents), 'intent')}, "
               f"{_counted(len(report.labels), 'entity label')}")  # fmt: skip
    for kind, group in groupby(report.findings, key=lambda finding: finding.kind):
        yield _kind(kind, list(group))
    yield Text.from_markup(
        ", ".join(f"[{_STYLES[s]}]{_counted(report.count(s), s)}[/]" for s in SEVERITIES)
        + "; a finding may be of many places, which its heading counts"
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _kind(kind: str, findings: Sequence[Finding]) -> RenderableType:
    about = KINDS[kind]
    total = sum(finding.count for finding in findings)
    parts: list[RenderableType] = [
        Text.from_markup(
            f"\n[{_STYLES[about.severity]}]{about.severity}[/] [bold]{escape(about.title)}[/]: {total:,}"
            + (f" in {len(findings):,} findings" if len(findings) > 1 else "")
        ),
        Text(f"  fix: {about.fix}", style="dim"),
    ]
    for finding in findings[:SHOWN_FINDINGS]:
        if finding.message != about.title:
            times = f" ({finding.count:,})" if finding.count > 1 else ""
            parts.append(Text(f"  {shown(finding.message, TERMINAL_CHARACTERS)}{times}"))
        for row in finding.examples[: 2 if kind in COPIES else 1 if len(findings) > 1 else 3]:
            parts.append(Text(f"    {shown(row.source)}  ", style="dim") + coloured_row(row))
        if not finding.examples and finding.places:
            parts.append(Text(f"    {shown(', '.join(finding.places[:3]))}", style="dim"))
    if len(findings) > SHOWN_FINDINGS:
        parts.append(Text(f"  … {len(findings) - SHOWN_FINDINGS:,} more, all with --json or --html", style="dim"))
    return Group(*parts)


def coloured_row(row: Row) -> Text:
    """Return the text, or a part of a long one, with its spans coloured and labelled, then the intent."""
    out, last = Text(), 0
    text, spans = excerpt(row.text, row.spans or (), TERMINAL_CHARACTERS)
    for span in spans:
        colour = COLOURS[zlib.crc32(span.label.encode("utf-8", "replace")) % len(COLOURS)]
        start = max(last, span.start)
        out.append(shown(text[last:start]))
        out.append(shown(text[start : span.end]), style=f"{colour} underline")
        out.append(f"({shown(span.label, TERMINAL_CHARACTERS)})", style=colour)
        last = max(last, span.end)
    out.append(shown(text[last:]))
    if row.intents:
        out.append(f"  → {shown(' + '.join(row.intents), TERMINAL_CHARACTERS)}", style="bold")
    return out


def page(report: DataReport) -> str:
    """Return the report as one HTML page that needs nothing else."""
    badges = "".join(f'<span class="badge {s}">{report.count(s):,} {s}{"s" * (report.count(s) != 1)}</span>'
                     for s in SEVERITIES)  # fmt: skip
    inputs = "".join(f"<li><code>{escaped(path)}</code> {escaped(title)}</li>" for path, title in report.inputs.items())
    sections = [
        _section(kind, list(group)) for kind, group in groupby(report.findings, key=lambda finding: finding.kind)
    ]
    return _PAGE.substitute(
        title="Data check", style=STYLE, badges=badges, inputs=inputs, facts=_facts(report),
        sections="".join(sections) or '<p class="fine">Nothing was found.</p>',
        intents=_bars("Intents", report.intents, report.rows),
        labels=_bars("Entity labels", report.labels, report.rows),
    )  # fmt: skip


def _facts(report: DataReport) -> str:
    facts = [(f"{count:,}", f"rows in {split}" if split != "all" else "rows") for split, count in report.rows.items()]
    facts += [(f"{len(report.intents):,}", "intents"), (f"{len(report.labels):,}", "entity labels")]
    return "".join(f"<div><b>{number}</b>{escaped(what)}</div>" for number, what in facts)


def _section(kind: str, findings: Sequence[Finding]) -> str:
    about, total = KINDS[kind], sum(finding.count for finding in findings)
    items = "".join(_finding(finding) for finding in findings[:_PAGE_FINDINGS])
    more = f"<p>… and {len(findings) - _PAGE_FINDINGS:,} more.</p>" if len(findings) > _PAGE_FINDINGS else ""
    return (
        f'<details class="{about.severity}"{" open" if about.severity == "error" else ""}><summary>'
        f'<span class="badge {about.severity}">{about.severity}</span> {escaped(about.title)} '
        f"<b>{total:,}</b></summary>"
        f'<p class="fix"><b>Fix</b> {escaped(about.fix, code=True)}</p>{items}{more}</details>'
    )


def _finding(finding: Finding) -> str:
    head = ""
    if finding.message != KINDS[finding.kind].title:
        count = f" <small>× {finding.count:,}</small>" if finding.count > 1 else ""
        head = f"<h4>{escaped(finding.message)}{count}</h4>"
    examples = "".join(f"<li>{marked(row)}<small>{escaped(row.source)}</small></li>" for row in finding.examples)
    rest = [place for place in finding.places if place not in {row.source for row in finding.examples}]
    more = " …" if len(rest) > 20 else ""
    places = f"<p><small>also {escaped(', '.join(rest[:20]))}{more}</small></p>" if rest else ""
    return f'<div class="finding">{head}<ul>{examples}</ul>{places}</div>'


def marked(row: Row) -> str:
    """Return the text as HTML, each span in the colour of its label."""
    intent = f'<span class="intent">{escaped(" + ".join(row.intents))}</span>' if row.intents else ""
    return marked_text(row.text, row.spans or ()) + intent


def _bars(title: str, counts: Mapping[str, Mapping[str, int]], splits: Mapping[str, int]) -> str:
    if not counts:
        return ""
    longest = max(sum(by.values()) for by in counts.values())
    rows = []
    for label, by in counts.items():
        total = sum(by.values())
        few = ' class="few"' if total < MIN_EXAMPLES else ""
        cells = "".join(f"<td>{by.get(split, 0):,}</td>" for split in splits) if len(splits) > 1 else ""
        rows.append(f'<tr{few}><th style="--h:{hue(label)}">{escaped(label)}</th><td>{total:,}</td>{cells}<td '
                    f'class="bar"><div style="--h:{hue(label)};width:{100 * total / longest:.1f}%"></div></td></tr>'
                    )  # fmt: skip
    heads = "".join(f"<td>{escaped(split)}</td>" for split in splits) if len(splits) > 1 else ""
    return (f"<details open><summary>{title} <b>{len(counts):,}</b></summary><table><tr><td></td><td>all</td>{heads}"
            f"<td></td></tr>{''.join(rows)}</table></details>")  # fmt: skip


_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>$title</title><meta name="viewport" content="width=device-width">
<style>
$style
.inputs { list-style: none; padding: 0; color: var(--soft) }
details.error { border-left: 4px solid var(--error) } details.warning { border-left: 4px solid var(--warning) }
details.note { border-left: 4px solid var(--note) }
.fix { margin: .8rem 0; color: var(--soft) } .fix b { color: var(--ink) }
.finding { border-top: 1px solid var(--line); padding: .35rem 0 }
.finding ul { list-style: none; margin: .3rem 0; padding: 0 } .finding li { padding: .25rem 0 }
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
