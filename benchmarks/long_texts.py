"""What a joint model makes of texts longer than it reads: rules for the intent, entities by window, retrieval.

python benchmarks/long_texts.py tiny --data massive/en-US.jsonl --split dev --other wikipedia.txt.gz
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import weebill
from weebill.corpus import stream_texts
from weebill.evaluate import evaluate
from weebill.formats import read_utterances
from weebill.geometry import unit_rows
from weebill.predictor import Predictor
from weebill.schema import Utterance
from weebill.sources import texts_of
from weebill.windows import Windows

Logits = npt.NDArray[np.float32]
UTTERANCES, LONG_TEXTS, PARAGRAPHS = 1_000, 1_000, 600
console = Console()


def softmax(logits_WC: Logits) -> Logits:
    """Return probabilities, row by row."""
    odds_WC = np.exp(logits_WC - logits_WC.max(axis=1, keepdims=True))
    found: Logits = odds_WC / odds_WC.sum(axis=1, keepdims=True)
    return found


def surest(logits_WC: Logits) -> Logits:
    """Return the row whose best intent is furthest ahead of its next."""
    two_W2 = np.sort(logits_WC, axis=1)[:, -2:]
    found: Logits = logits_WC[(two_W2[:, 1] - two_W2[:, 0]).argmax()]
    return found


RULES: dict[str, Callable[[Logits], Logits]] = {
    "first window alone": lambda logits_WC: logits_WC[0],
    "mean of the windows' logits": lambda logits_WC: logits_WC.mean(axis=0),
    "mean of their probabilities": lambda logits_WC: softmax(logits_WC).mean(axis=0),
    "surest window, by its margin": surest,
}


def window_logits(nlu: Predictor, text: str) -> Logits:
    """Return the intent logits of each window of a text."""
    outputs = [nlu.backend.run(batch) for batch in Windows(nlu.tokenizer, text, nlu.max_seq_len).batches(64)]
    return np.concatenate([output.intent_logits_BC for output in outputs if output.intent_logits_BC is not None])


def tokens(nlu: Predictor, text: str) -> int:
    return len(nlu.tokenizer.encode(text).token_ids)


def surrounded(
    nlu: Predictor, utterance: Utterance, others: Sequence[str], rng: random.Random, first: bool
) -> tuple[str, str]:
    """Return the utterance amid other texts, or before them, twice as long as the model reads; and its intent."""
    parts = [utterance.text]
    while tokens(nlu, " ".join(parts)) <= 2 * nlu.max_seq_len:
        parts.insert(len(parts) if first or rng.random() < 0.5 else 0, rng.choice(others))
    return " ".join(parts), str(utterance.intent)


def bench_intents(nlu: Predictor, utterances: Sequence[Utterance], sentences: Sequence[str]) -> None:
    """Print the intent accuracy of each rule, where a request is in longer talk."""
    rng = random.Random(0)
    chosen = rng.sample(utterances, min(UTTERANCES, len(utterances)))
    alike = {u.intent: [other.text for other in utterances if other.intent == u.intent] for u in chosen}
    kinds = {
        "among Wikipedia sentences": [surrounded(nlu, u, sentences, rng, first=False) for u in chosen],
        "before them": [surrounded(nlu, u, sentences, rng, first=True) for u in chosen],
        "among utterances of the same intent": [surrounded(nlu, u, alike[u.intent], rng, first=False) for u in chosen],
    }
    title = f"intent accuracy, {len(chosen):,} utterances in texts of more than {2 * nlu.max_seq_len} tokens"
    table = Table("the intent of the text is that of", *kinds, title=title)
    read = {kind: [(window_logits(nlu, text), intent) for text, intent in rows] for kind, rows in kinds.items()}
    for name, rule in RULES.items():
        right = [np.mean([nlu.intents[rule(w).argmax()] == intent for w, intent in rows]) for rows in read.values()]
        table.add_row(name, *(f"{100 * share:.1f}" for share in right))
    console.print(table)


def joined(utterances: Sequence[Utterance]) -> Utterance:
    """Return utterances as one text, with the entities of all."""
    text, entities = "", []
    for u in utterances:
        text += " " if text else ""
        entities += [replace(e, start=e.start + len(text), end=e.end + len(text)) for e in u.entities or ()]
        text += u.text
    return Utterance(text, None, tuple(entities))


def bench_entities(nlu: Predictor, utterances: Sequence[Utterance]) -> None:
    """Print span F1 of texts that the model could read at once, read so and in smaller windows."""
    rng, whole = random.Random(0), nlu.max_seq_len
    texts = list[Utterance]()
    while len(texts) < LONG_TEXTS:
        parts = rng.sample(utterances, 2)
        wanted = rng.randint(whole // 2 + 1, whole)
        while tokens(nlu, joined(parts).text) < wanted:
            parts.append(rng.choice(utterances))
        text = joined(parts if tokens(nlu, joined(parts).text) <= whole else parts[:-1])
        if whole // 2 < tokens(nlu, text.text) <= whole:
            texts.append(text)
    title = f"strict span F1, {len(texts):,} texts of {whole // 2 + 1} to {whole} tokens, several utterances each"
    table = Table("read at once", "windows", "truncated", title=title)
    for size in (whole, whole // 2, whole // 4):
        nlu.max_seq_len = size
        scores = [_span_f1(nlu, texts, "window")]
        if size < whole:
            scores.append(_span_f1(nlu, texts, "truncate"))
        table.add_row(f"{size} tokens", *(f"{100 * score:.1f}" for score in scores))
    nlu.max_seq_len = whole
    console.print(table)


def _span_f1(nlu: Predictor, texts: Sequence[Utterance], overflow: weebill.schema.Overflow) -> float:
    before, nlu.on_overflow = nlu.on_overflow, overflow
    found = evaluate(nlu, texts).span_f1
    nlu.on_overflow = before
    return found or 0.0


def long_paragraphs(nlu: Predictor, path: Path) -> Iterator[str]:
    """Yield lines of a file that the model does not read at once."""
    return (line.strip() for line in stream_texts([path]) if tokens(nlu, line) > nlu.max_seq_len)


def bench_retrieval(nlu: Predictor, path: Path) -> None:
    """Print how often the paragraph closest to one of its own sentences is that one."""
    rng = random.Random(0)
    paragraphs = list(islice(long_paragraphs(nlu, path), PARAGRAPHS))
    parted = [[s for s in p.replace("? ", ". ").split(". ") if len(s.split()) > 3] or [p] for p in paragraphs]
    kinds = {
        "its first sentence": [parts[0] for parts in parted],
        "any": [rng.choice(parts) for parts in parted],
        "its last sentence": [parts[-1] for parts in parted],
    }
    vectors = {}
    for overflow in ("window", "truncate"):
        nlu.on_overflow = overflow  # type: ignore[assignment]  # one of the names it may have
        vectors[overflow] = unit_rows(nlu.embed(paragraphs))
    title = f"which of {len(paragraphs)} paragraphs holds this sentence? recall@1"
    table = Table("sentence", "windows", "truncated", title=title)
    nlu.on_overflow = "window"
    for name, queries in kinds.items():
        query_ND = unit_rows(nlu.embed(queries))
        right = [
            np.mean((query_ND @ found_ND.T).argmax(axis=1) == range(len(queries))) for found_ND in vectors.values()
        ]
        table.add_row(name, *(f"{100 * share:.1f}" for share in right))
    console.print(table)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split")
    parser.add_argument("--other", type=Path, required=True, help="prose, a paragraph a line")
    given = parser.parse_args()
    nlu = weebill.load(given.model, on_overflow="window")
    utterances = read_utterances(given.data, split=given.split)
    sentences = [s for s in islice(texts_of(given.other, sentences=True), 20_000) if 20 < len(s) < 200]
    bench_intents(nlu, utterances, sentences)
    bench_entities(nlu, utterances)
    bench_retrieval(nlu, given.other)


if __name__ == "__main__":
    main()
