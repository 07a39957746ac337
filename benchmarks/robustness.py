"""What typing errors, case, punctuation, fillers and unknown values cost a joint model; how sure it is of other text.

python benchmarks/robustness.py tiny --data massive/en-US.jsonl --split dev [--other wikipedia.txt.gz]
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import weebill
from weebill.corpus import stream_texts
from weebill.evaluate import evaluate
from weebill.formats import read_utterances
from weebill.noise import leave_out, swap_letters, typing_error
from weebill.schema import Utterance

FILLERS = ("um ", "hey there ", "could you please ", "ok so ", "i was wondering if you could ")


def typo(u: Utterance, rng: random.Random) -> Utterance:
    """Swap two letters inside one word."""
    return typing_error(u, rng, [swap_letters])


def missing_letter(u: Utterance, rng: random.Random) -> Utterance:
    """Leave a letter of a word out."""
    return typing_error(u, rng, [leave_out])


def filler(u: Utterance, rng: random.Random) -> Utterance:
    """Put a filler in front."""
    words = rng.choice(FILLERS)
    moved = (replace(e, start=e.start + len(words), end=e.end + len(words)) for e in u.entities or ())
    return replace(u, text=words + u.text, entities=tuple(moved))


def invented_values(u: Utterance, rng: random.Random) -> Utterance:
    """Replace every word of every entity by one that does not exist."""
    text, done, entities = "", 0, []
    for e in sorted(u.entities or ()):
        made = " ".join(
            "".join(rng.choice(s) for s in ("bdfgklmnprst", "aeiou") * 2) for _ in u.text[e.start : e.end].split()
        )
        text += u.text[done : e.start]
        entities.append(replace(e, start=len(text), end=len(text) + len(made)))
        text, done = text + made, e.end
    return replace(u, text=text + u.text[done:], entities=tuple(entities))


CHANGES: dict[str, Callable[[Utterance, random.Random], Utterance]] = {
    "as it is": lambda u, _: u,
    "UPPER CASE": lambda u, _: replace(u, text=u.text.upper()),
    "Capital and full stop": lambda u, _: replace(u, text=u.text[:1].upper() + u.text[1:] + "."),
    "two letters of a word swapped": typo,
    "a letter left out": missing_letter,
    "a filler in front": filler,
    "values that do not exist": invented_values,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split")
    parser.add_argument("--other", type=Path, help="texts of another kind, one a line")
    given = parser.parse_args()
    nlu = weebill.load(given.model)
    utterances = read_utterances(given.data, split=given.split)
    table = Table(
        "utterances", "intent", "span F1 (strict)", "exact match", title=f"{given.model} on {given.data.name}"
    )
    for name, change in CHANGES.items():
        rng = random.Random(0)
        scores = evaluate(nlu, [change(u, rng) for u in utterances])
        found = (scores.intent_accuracy, scores.span_f1, scores.exact_match)
        table.add_row(name, *(f"{100 * (score or 0):.1f}" for score in found))
    Console().print(table)
    sure = {"these utterances": [p.score for p in nlu.parse([u.text for u in utterances])]}
    if given.other:
        texts = [text for text in stream_texts([given.other]) if 20 < len(text) < 200]
        sure["other text"] = [p.score for p in nlu.parse(list(islice(texts, 2_000)))]
    table = Table("intent score", "median", "above 0.5", "above 0.9", title="how sure it is")
    for name, scores_N in ((name, np.array(scores)) for name, scores in sure.items()):
        table.add_row(name, f"{np.median(scores_N):.2f}", *(f"{100 * (scores_N > x).mean():.0f} %" for x in (0.5, 0.9)))
    Console().print(table)


if __name__ == "__main__":
    main()
