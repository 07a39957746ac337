"""An evaluation as one HTML page that needs nothing else: scores, charts, every error in its text. Scores nothing.

The page asks nobody for anything and says so to the browser (Content-Security-Policy); without its script everything
is there but the filters.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Any

from weebill import charts
from weebill.bootstrap import LEVEL
from weebill.evaluate import Evaluation
from weebill.ledger import LedgerEntry
from weebill.metrics import ERROR_KINDS, SpanError, SpanScores, confidence_bins, span_errors
from weebill.page_parts import STYLE, escaped, hue, marked_text
from weebill.report import SCORE_NAMES, SEVERAL_INTENTS
from weebill.schema import Entity, Prediction, Utterance

SHOWN_INTENTS = 80  # in the confusion matrix
SHOWN_CONFUSIONS = 30
SHOWN_ENTRIES = 200  # of the ledger
_HEADLINES = ("intent_accuracy", "span_f1", "exact_match", "calibration_error")


def page(evaluation: Evaluation, model: str, data: str, events: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the page.

    Args:
        evaluation: with intervals or without.
        model: its name, as shown.
        data: what was evaluated on, as shown.
        events: of the run that made the model (log.jsonl), for its learning curves.
    """
    report = evaluation.report
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_digest(_SCRIPT)}'"
    return _PAGE.substitute(
        policy=policy, style=STYLE + charts.STYLE + _STYLE, script=_SCRIPT, title=escaped(f"{model} on {data}"),
        model=escaped(model), data=escaped(data), rows=f"{report.rows:,}", facts=_facts(evaluation),
        scores=_scores(evaluation), curves=_curves(events), intents=_intents(evaluation),
        entities=_entities(evaluation), ledger=_ledger(evaluation.ledger), errors=_errors(evaluation),
    )  # fmt: skip


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _facts(evaluation: Evaluation) -> str:
    report = evaluation.report
    return "".join(f"<div><b>{_percent(getattr(report, name))}</b>{escaped(SCORE_NAMES[name])}</div>"
                   for name in _HEADLINES if getattr(report, name) is not None)  # fmt: skip


def _scores(evaluation: Evaluation) -> str:
    report, rows = evaluation.report, []
    for name, shown in SCORE_NAMES.items():
        value, interval = getattr(report, name), report.intervals.get(name)
        low, high = interval or (0.0, 0.0)
        edges = f"{100 * low:.2f} to {100 * high:.2f}" if interval else ""
        drawn = (f'<div class="range"><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i></div>'
                 if interval else "")  # fmt: skip
        rows.append(f"<tr><th>{escaped(shown)}</th><td>{_percent(value)}</td><td>{edges}</td>"
                    f'<td class="bar">{drawn}</td></tr>')  # fmt: skip
    several = f'<p class="fine">{SEVERAL_INTENTS}</p>' if evaluation.intent_separator is not None else ""
    long = f'<p class="fine">{report.long_texts:,} texts are longer than the model reads at once.</p>'
    head = f"<tr><td></td><td>value</td><td>{100 * LEVEL:.0f} % interval</td><td class=bar></td></tr>"
    table = f'<table class="scores">{head}{"".join(rows)}</table>'
    return _section("Scores", table + several + (long if report.long_texts else ""), is_open=True)


def _section(title: str, body: str, count: str = "", is_open: bool = False, name: str = "") -> str:
    """Return a part that folds; it can be scrolled sideways by keyboard, too."""
    anchor = f' id="{name}"' if name else ""
    return (f"<details{' open' if is_open else ''}{anchor}><summary><h2>{title}</h2> <b>{count}</b></summary>"
            f'<div class="wide" tabindex="0" role="region" aria-label="{title}">{body}</div></details>')  # fmt: skip


def _curves(events: Sequence[Mapping[str, Any]]) -> str:
    rows = [event for event in events if event.get("event") == "eval"]
    if not rows:
        return ""
    best = [float(row["step"]) for row in rows if row.get("best")]

    def series(kind: str) -> dict[str, list[tuple[float, float]]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            for name, value in row.get(kind, {}).items():
                found.setdefault(name, []).append((float(row["step"]), float(value)))
        return found

    rate = [(float(row["step"]), float(row["learning_rate"])) for row in rows if "learning_rate" in row]
    losses, metrics = series("losses"), series("metrics")
    if "tag_loss" in metrics:
        losses["tags, on dev, unweighted"] = metrics.pop("tag_loss")
    drawn = [charts.line_chart("Loss", losses),
             charts.line_chart("Dev score", metrics, best[-1] if best else None),
             charts.line_chart("Learning rate", {"learning rate": rate})]  # fmt: skip
    return _section("Learning curves", f'<div class="charts">{"".join(drawn)}</div>')


def _intents(evaluation: Evaluation) -> str:
    report = evaluation.report
    answered = [(u.intent, p) for u, p in zip(evaluation.utterances, evaluation.predictions, strict=True) if u.intent]
    if not answered or report.calibration_error is None:
        return ""
    bins = confidence_bins([p.score for _, p in answered], [gold == p.intent for gold, p in answered])
    confidence = (
        f'<div class="charts"><figure><figcaption>Confidence of right and wrong intents</figcaption>'
        f'{charts.confidence_chart(bins)}<ul><li class="key good-key">right</li><li class="key bad-key">wrong</li></ul>'
        f"</figure><figure><figcaption>Reliability: how often answers of a confidence are right</figcaption>"
        f"{charts.reliability_chart(bins, report.calibration_error)}<ul><li>expected calibration error <b>"
        f"{_percent(report.calibration_error)}</b></li></ul></figure></div>"
    )
    counts = Counter((gold, p.intent) for gold, p in answered)
    wrong = {pair: count for pair, count in counts.most_common() if pair[0] != pair[1]}
    rows = "".join(f"<tr><th>{escaped(gold)}</th><td class=to>{escaped(got)}</td><td>{count:,}</td></tr>"
                   for (gold, got), count in list(wrong.items())[:SHOWN_CONFUSIONS])  # fmt: skip
    confusions = (f"<table class=narrow><tr><td class=to>gold</td><td class=to>read as</td><td>times</td></tr>{rows}"
                  f"</table>")  # fmt: skip
    busy = Counter[str]()
    for (gold, got), count in wrong.items():
        busy[gold] += count
        busy[got] += count
    classes = sorted(name for name, _ in busy.most_common(SHOWN_INTENTS))
    names = {name for pair in counts for name in pair}
    shown = f"{len(classes)} of {len(names)} intents: those with most errors" if classes else "no errors"
    return (
        _section("Confidence and calibration", confidence, is_open=True)
        + _section(
            "Confused intents",
            f'<p class="fine">{shown}; gold downwards, read as across</p>'
            f"{charts.confusion_matrix(counts, classes)}<h3>Most frequent</h3>{confusions}",
            f"{sum(wrong.values()):,}",
        )
        + _section("Scores by intent", _by_label(report.by_intent, {}), f"{len(report.by_intent):,}")
    )


def _by_label(scores: Mapping[str, SpanScores], kinds: Mapping[str, Counter[str]]) -> str:
    heads = "".join(f"<td>{kind}</td>" for kind in ERROR_KINDS) if kinds else ""
    rows = []
    for label, one in sorted(scores.items(), key=lambda item: -item[1].gold):
        counts = "".join(f"<td>{kinds[label][kind] or ''}</td>" for kind in ERROR_KINDS) if kinds else ""
        rows.append(f"<tr><th>{escaped(label)}</th><td>{one.gold:,}</td><td>{one.predicted:,}</td><td>"
                    f"{_percent(one.precision)}</td><td>{_percent(one.recall)}</td><td>{_percent(one.f1)}</td>{counts}"
                    f'<td class="bar short"><div style="--h:{hue(label)};width:{100 * one.f1:.1f}%"></div></td></tr>'
                    )  # fmt: skip
    return (f"<table><tr><td></td><td>gold</td><td>read</td><td>precision</td><td>recall</td><td>F1</td>{heads}"
            f"<td></td></tr>{''.join(rows)}</table>")  # fmt: skip


def _entities(evaluation: Evaluation) -> str:
    report = evaluation.report
    if not report.span_errors:
        return ""
    kinds = {label: Counter[str]() for label in report.by_label}
    for utterance, prediction in zip(evaluation.utterances, evaluation.predictions, strict=True):
        for error in (
            span_errors(utterance.entities or (), prediction.entities) if utterance.entities is not None else ()
        ):
            of = error.gold or error.predicted
            assert of is not None
            kinds[of.label][error.kind] += 1
    most = max(report.span_errors.values()) or 1
    rows = "".join(
        f'<tr><th>{kind}</th><td>{count:,}</td><td class="bar"><div style="--h:{hue(kind)};width:'
        f'{100 * count / most:.1f}%"></div></td></tr>'
        for kind, count in report.span_errors.items()
    )
    says = ("label: right place, another label; boundary: right label, overlapping another place; missed: nothing read "
            "there; spurious: nothing annotated there")  # fmt: skip
    return _section("Wrong entities by kind", f'<table class="narrow">{rows}</table><p class="fine">{says}</p>',
                    f"{sum(report.span_errors.values()):,}", is_open=True) + _section(
        "Scores by entity label", _by_label(report.by_label, kinds), f"{len(report.by_label):,}")  # fmt: skip


def _ledger(entries: Sequence[LedgerEntry]) -> str:
    if not entries:
        return ""
    rows = "".join(
        f'<tr><td class="to">{escaped(e.source)}</td><td class="to">{escaped(e.label)}</td><td class="to">'
        f'{escaped(e.excerpt)}</td><td class="to">{escaped(e.reason)}</td><td class="to">{escaped(e.fix)}</td></tr>'
        for e in entries[:SHOWN_ENTRIES]
    )
    more = f"<p>… and {len(entries) - SHOWN_ENTRIES:,} more</p>" if len(entries) > SHOWN_ENTRIES else ""
    return _section("What no model could find", f'<table class="ledger"><tr><td class="to">where</td><td class="to">'
                    f'label</td><td class="to">text</td><td class="to">why</td><td class="to">what to do</td></tr>'
                    f"{rows}</table>{more}", f"{len(entries):,}")  # fmt: skip


def _errors(evaluation: Evaluation) -> str:
    found = list(_wrong(evaluation))
    if not found:
        return '<p class="fine">Nothing was read otherwise than annotated.</p>'
    kinds = ("intent", *ERROR_KINDS)
    boxes = "".join(f'<label><input type="checkbox" value="{kind}"> {kind} <b>'
                    f"{sum(kind in some for _, _, some in found):,}</b></label>" for kind in kinds)  # fmt: skip
    items = "".join(_error(utterance, prediction, some) for utterance, prediction, some in found)
    return (
        f'<h2 id="errors">Errors <b>{len(found):,} of {evaluation.report.rows:,} texts</b></h2>'
        f'<form id="filter" hidden><label>Search <input type="search" name="q" autocomplete="off"></label>'
        f'<label>Order <select name="order"><option value="">as in the data<option value="-">surest first'
        f'<option value="+">least sure first</select></label><fieldset><legend>Kind</legend>{boxes}</fieldset>'
        f'<p class="fine" role="status" id="shown"></p></form><ol id="list">{items}</ol>'
    )


def _wrong(evaluation: Evaluation) -> Iterator[tuple[Utterance, Prediction, list[str]]]:
    """Yield what is wrong, with the kinds of its errors."""
    for utterance, prediction in zip(evaluation.utterances, evaluation.predictions, strict=True):
        kinds = ["intent"] if utterance.intent not in (None, prediction.intent) else []
        errors: list[SpanError] = []
        if utterance.entities is not None:
            errors = span_errors(utterance.entities, prediction.entities)
        kinds += dict.fromkeys(error.kind for error in errors)
        if kinds:
            yield utterance, prediction, kinds


def _error(utterance: Utterance, prediction: Prediction, kinds: Sequence[str]) -> str:
    wrong_intent = "intent" in kinds
    got = (f'<span class="intent{" wrong" if wrong_intent else ""}">{escaped(prediction.intent)} '
           f"{100 * prediction.score:.0f} %</span>")  # fmt: skip
    gold = f'<span class="intent">{escaped(utterance.intent)}</span>' if utterance.intent is not None else ""
    tags = "".join(f'<span class="badge">{kind}</span>' for kind in kinds)
    return (
        f'<li data-k="|{"|".join(kinds)}|" data-s="{prediction.score:.4f}"><p>{tags}<small>{escaped(utterance.source)}'
        f"</small></p><dl>{_reading('gold', utterance.text, utterance.entities, gold)}"
        f"{_reading('read', utterance.text, prediction.entities, got)}</dl></li>"
    )


def _reading(name: str, text: str, spans: Sequence[Entity] | None, intent: str) -> str:
    return f"<div><dt>{name}</dt><dd>{marked_text(text, spans or ())}{intent}</dd></div>"


_STYLE = """
h2 { display: inline; font-size: 1.1rem; margin: 0 } h2 b { color: var(--soft); font-weight: 500 }
h3 { margin: 1rem 0 0 }
#errors { display: block; font-size: 1.5rem; margin: 2.5rem 0 .8rem }
details { overflow: visible } .wide { overflow-x: auto; padding: .2rem }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.5rem; margin-top: .8rem }
figure { margin: 0 } figcaption { font-weight: 600; margin-bottom: .4rem }
figure ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .3rem 0; color:
            var(--soft); font-size: .85rem }
figure li[style]::before, .key::before { content: ""; display: inline-block; width: .7em; height: .7em; border-radius:
            3px; margin-right: .4em; background: hsl(var(--h) 55% 50%) }
.good-key::before { background: #2f9e6e } .bad-key::before { background: #d9534f }
.bar .range { position: relative; height: .7rem; background: var(--line); border-radius: 4px }
.range i { position: absolute; top: 0; bottom: 0; min-width: 3px; border-radius: 4px; background: #3d7fd1 }
.narrow { width: auto; min-width: 18rem } .narrow .bar { width: 12rem } .short { width: 18% } td.to { text-align: left }
.ledger td { white-space: normal; vertical-align: top; min-width: 8rem; border-top: 1px solid var(--line) }
form { background: var(--ground); border-bottom: 1px solid var(--line); position: sticky; top: 0; z-index: 1; padding:
       .6rem 0; display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center } form[hidden] { display: none }
form p { margin: 0 } fieldset { border: 0; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: .1rem .9rem }
legend { float: left; margin-right: .9rem } fieldset b { color: var(--soft); font-weight: 400 }
input[type=search], select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--soft);
       border-radius: 8px; padding: .25rem .6rem; max-width: 100% }
ol { list-style: none; padding: 0; margin: .6rem 0 } #list li { background: var(--card); border: 1px solid var(--line);
     border-radius: 10px; margin: .6rem 0; padding: .6rem 1rem; content-visibility: auto;
     contain-intrinsic-size: auto 7rem }
#list p { margin: 0 0 .4rem } dl { margin: 0 } dl div { display: flex; gap: .8rem; padding: .15rem 0 }
dt { color: var(--soft); flex: 0 0 2.6rem } dd { margin: 0; min-width: 0 } .wrong { color: var(--error); border-color:
     currentColor } .badge { color: var(--soft) } .intent { display: inline-block;
     overflow-wrap: anywhere }
@media print { #list li { content-visibility: visible } form { display: none } }
@media (max-width: 34rem) { body { padding: 1.5rem .8rem 3rem } form { position: static } dl div { display: block }
     th { white-space: normal } td { padding: .15rem .35rem } .scores .bar { display: none } }
"""

_SCRIPT = """
const form = document.getElementById("filter"), list = document.getElementById("list");
if (form) {
  const items = [...list.children], texts = items.map(item => {  // with the labels in the text, and without them
    const plain = item.cloneNode(true);
    plain.querySelectorAll("i").forEach(label => label.remove());
    return (plain.textContent + item.textContent).toLowerCase();
  });
  const update = () => {
    const wanted = form.q.value.trim().toLowerCase();
    const kinds = [...form.querySelectorAll("input:checked")].map(box => box.value);
    let shown = 0;
    items.forEach((item, i) => {
      const of_kind = !kinds.length || kinds.some(kind => item.dataset.k.includes("|" + kind + "|"));
      const fits = of_kind && texts[i].includes(wanted);
      item.hidden = !fits;
      shown += fits;
    });
    document.getElementById("shown").textContent = `${shown} of ${items.length} shown`;
  };
  form.order.addEventListener("change", () => {
    const sign = {"-": -1, "+": 1}[form.order.value];
    const ordered = sign ? [...items].sort((a, b) => sign * (a.dataset.s - b.dataset.s)) : items;
    list.append(...ordered);
  });
  form.addEventListener("input", update);
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = false;
  update();
}
"""

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="$policy">
<title>$title</title><meta name="viewport" content="width=device-width, initial-scale=1">
<style>$style</style></head>
<body><main>
<h1>Evaluation</h1>
<p class="fine"><code>$model</code> on <code>$data</code>, $rows texts</p>
<div class="facts">$facts</div>
$scores
$curves
$intents
$entities
$ledger
$errors
</main><script>$script</script></body></html>
""")
