"""From utterances and pairs to batches: triplets, samplers, length buckets, collation. No torch and no file reading."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from weebill.encodings import EncodedBatch, Encoding, ModelTokenizer
from weebill.errors import ConfigError, DataError
from weebill.label_facts import SHOWN_PLACES
from weebill.schema import Overflow, ScoredPair, Utterance
from weebill.splitting import connected
from weebill.tags import MISSING, TOO_LONG, Misaligned, align
from weebill.windows import Windows

PROGRESS_FROM_TEXTS = 2_000
WINDOW_BATCHES = 64
_LOG = logging.getLogger("weebill")
Ints = npt.NDArray[np.int64]


def pad(rows: Sequence[Sequence[int]], value: int) -> Ints:
    """Return the rows as a rectangle, filled up with `value` on the right.

    Example:
        >>> pad([[1, 2, 3], [4]], 0).tolist()
        [[1, 2, 3], [4, 0, 0]]
    """
    out = np.full((len(rows), max(map(len, rows), default=0)), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def batches_by_length(
    tokenizer: ModelTokenizer,
    texts: Sequence[str],
    max_seq_len: int,
    batch_size: int,
    *,
    show_progress: bool | None = None,
    on_overflow: Overflow = "truncate",
) -> Iterator[tuple[Ints, EncodedBatch]]:
    """Yield (row numbers, batch) so that texts of similar length share a batch; every text occurs once.

    Texts longer than `max_seq_len` tokens are truncated. A warning says how many, unless `on_overflow` says that they
    are an error, or that the caller reads them again in windows.

    Raises:
        DataError: a text is too long, and `on_overflow` is "error".
    """
    batches: Iterable[tuple[Ints, EncodedBatch]] = _windowed_batches(tokenizer, texts, max_seq_len, batch_size)
    show = len(texts) >= PROGRESS_FROM_TEXTS if show_progress is None else show_progress
    if show:
        from rich.console import Console  # here, as reading one text needs neither
        from rich.progress import track

        count = math.ceil(len(texts) / batch_size)
        batches = track(batches, description="texts", total=count, console=Console(stderr=True), transient=True)
    truncated = 0
    for rows, batch in batches:
        if too_long := batch.truncated:
            truncated += len(too_long)
            if on_overflow == "error":
                _refuse_long(texts, rows, too_long, max_seq_len)
        yield rows, batch
    if truncated and on_overflow == "truncate":
        _LOG.warning("%d of %d texts are longer than the model's %d tokens; what is beyond was not read", truncated,
                     len(texts), max_seq_len)  # fmt: skip


def _refuse_long(texts: Sequence[str], rows: Ints, too_long: Mapping[int, int], max_seq_len: int) -> None:
    place, dropped = next(iter(too_long.items()))
    row = int(rows[place])
    raise DataError(f"text {row + 1} of {len(texts)}: expected at most {max_seq_len} tokens, got "
                    f"{max_seq_len + dropped} in {texts[row][:60]!r}…; shorten it, or have long texts read in windows "
                    f"(on_overflow = window)")  # fmt: skip


def _windowed_batches(
    tokenizer: ModelTokenizer, texts: Sequence[str], max_seq_len: int, batch_size: int
) -> Iterator[tuple[Ints, EncodedBatch]]:
    """Sort texts by characters, and windows of many batches, tokenized at once, by tokens.

    Of MASSIVE's utterances in batches of 64, 3 % is padding; sorted by characters alone, 27 %.
    """
    if 0 < len(texts) <= batch_size:  # one batch, in any order
        yield np.arange(len(texts)), tokenizer.encode_batch(texts, max_length=max_seq_len)
        return
    order = np.argsort([-len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), batch_size * WINDOW_BATCHES):
        rows = order[start : start + batch_size * WINDOW_BATCHES]
        window = tokenizer.encode_batch([texts[i] for i in rows], max_length=max_seq_len)
        by_tokens = np.argsort(-window.lengths_B, kind="stable")
        for first in range(0, len(rows), batch_size):
            chosen = by_tokens[first : first + batch_size]
            yield rows[chosen], window.select(chosen)


@dataclass(frozen=True, slots=True)
class Triplet:
    """Texts of a triplet; texts of one group are known to mean the same and are never each other's negatives."""

    anchor: str
    positive: str
    negative: str
    group: int = 0
    negative_group: int = -1


def positive_groups(pairs: Sequence[ScoredPair], positive_score: float) -> dict[str, int]:
    """Return the group of every text: texts linked by positive pairs, in any number of steps, share one.

    Example:
        >>> positive_groups([ScoredPair("a", "b", 1.0), ScoredPair("c", "b", 0.9), ScoredPair("a", "d", 0.1)], 0.8)
        {'a': 0, 'b': 0, 'c': 0, 'd': 1}
    """
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b)))
    linked = [[pair.a, pair.b] for pair in pairs if pair.score >= positive_score]
    groups = connected([*([text] for text in texts), *linked])
    number = {row: i for i, group in enumerate(groups) for row in group}
    return {text: number[row] for row, text in enumerate(texts)}


def triplets_from_pairs(
    pairs: Sequence[ScoredPair], positive_score: float, negative_score: float, seed: int
) -> list[Triplet]:
    """Return one triplet per positive pair, in both directions alternating.

    The negative is a partner of the anchor (or of the positive) in a pair scored at most `negative_score`, or a random
    text of another group when there is none. Texts linked by positive pairs form a group, any other text one of its
    own; groups are numbered from 0.

    Raises:
        DataError: no pair is scored at least `positive_score`, or all texts mean the same.
    """
    positives = [p for p in pairs if p.score >= positive_score and p.a != p.b]
    if not positives:
        best = max((p.score for p in pairs), default=float("nan"))
        raise DataError(f"expected pairs of different texts scored at least {positive_score} as positives, got none "
                        f"among {len(pairs)} (highest score {best}); lower loss.positive_score or add positive "
                        f"pairs")  # fmt: skip
    groups = positive_groups(pairs, positive_score)
    far: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.score <= negative_score:
            far.setdefault(pair.a, []).append(pair.b)
            far.setdefault(pair.b, []).append(pair.a)
    texts = sorted({t for p in pairs for t in (p.a, p.b)})
    if max(groups.values()) == 0:
        raise DataError(f"expected texts of different meanings, as negatives, got {len(texts)} texts that positive "
                        f"pairs link to one group; add pairs of other texts")  # fmt: skip
    rng = np.random.default_rng(seed)
    out = []
    for i, pair in enumerate(positives):
        anchor, positive = (pair.a, pair.b) if i % 2 == 0 else (pair.b, pair.a)
        near = [t for t in (*far.get(anchor, ()), *far.get(positive, ())) if groups[t] != groups[anchor]]
        negative = near[int(rng.integers(len(near)))] if near else texts[int(rng.integers(len(texts)))]
        while groups[negative] == groups[anchor]:
            negative = texts[int(rng.integers(len(texts)))]
        out.append(Triplet(anchor, positive, negative, groups[anchor], groups[negative]))
    return out


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Utterances ready for training: token ids, tag ids (MISSING = no loss) and intent ids per row.

    `misaligned` lists the entities that no row carries, `shortened` the texts whose end no row carries, with the number
    of tokens that are gone. `utterances` has the utterance of each row; None for a window, which is a part of one.
    """

    token_ids: list[list[int]]
    tags: list[list[int]]
    intents: Ints
    misaligned: list[tuple[Utterance, Misaligned]]
    shortened: list[tuple[Utterance, int]] = field(default_factory=list)
    utterances: list[Utterance | None] = field(default_factory=list)


def label_rows(
    utterances: Sequence[Utterance],
    tokenizer: ModelTokenizer,
    max_seq_len: int,
    intents: Sequence[str],
    tags: Sequence[str],
    on_overflow: Overflow = "truncate",
) -> LabelledRows:
    """Tokenize utterances and align their labels; what could not be aligned is listed, never turned into "O".

    A row per utterance, in order. With `on_overflow` "window" a text of more than `max_seq_len` tokens has a row for
    each of its windows, with the text's intent; an entity that a window cuts is MISSING there, and whole in the next.

    Raises:
        DataError: texts are too long and `on_overflow` is "error"; all are named.
    """
    tag_ids = {tag: i for i, tag in enumerate(tags)}
    intent_ids = {intent: i for i, intent in enumerate(intents)}
    found = LabelledRows([], [], np.empty(0, dtype=np.int64), [])
    ids: list[int] = []
    for utterance in utterances:
        whole = tokenizer.encode(utterance.text, max_length=max_seq_len)
        rows = [whole]
        if whole.dropped_tokens:
            if on_overflow == "window":
                windows = Windows(tokenizer, utterance.text, max_seq_len)
                whole, rows = windows.whole, windows.encodings()
            else:
                found.shortened.append((utterance, whole.dropped_tokens))
        lost = set(utterance.entities or ())
        for encoding in rows:
            labels, here = tag_labels(utterance, encoding, tag_ids)
            lost &= {one.entity for one in here}
            found.token_ids.append(encoding.token_ids)
            found.tags.append(labels)
            found.utterances.append(utterance if len(rows) == 1 else None)
            ids.append(MISSING if utterance.intent is None else intent_ids[utterance.intent])
        if lost:
            why = {one.entity: one for one in align(utterance.entities or (), whole, tag_ids)[1]}
            found.misaligned.extend((utterance, why.get(e, Misaligned(e, TOO_LONG))) for e in sorted(lost))
    if on_overflow == "error" and found.shortened:
        places = [f"{u.source or repr(u.text[:60])} ({max_seq_len + dropped})" for u, dropped in found.shortened]
        more = f" and {len(places) - SHOWN_PLACES} more" if len(places) > SHOWN_PLACES else ""
        raise DataError(f"expected training texts of at most {max_seq_len} tokens, as on_overflow = error asks, got "
                        f"{len(places)} longer ones: {', '.join(places[:SHOWN_PLACES])}{more}; shorten them, raise "
                        f"encoder.max_seq_len, or set on_overflow to window or truncate")  # fmt: skip
    return replace(found, intents=np.array(ids, dtype=np.int64))


def tag_labels(
    utterance: Utterance, encoding: Encoding, tag_ids: Mapping[str, int]
) -> tuple[list[int], list[Misaligned]]:
    """Return one tag id per token, MISSING where nobody annotated it, and the entities that could not be aligned."""
    if utterance.entities is None:
        return [MISSING] * len(encoding.token_ids), []
    return align(utterance.entities, encoding, tag_ids)


def sampling_weights(intents: Ints, power: float) -> npt.NDArray[np.float64]:
    """Return each row's chance of being drawn, proportional to its intent's frequency ** -power.

    Example:
        >>> sampling_weights(np.array([0, 0, 0, 1]), 1.0).round(3).tolist()
        [0.167, 0.167, 0.167, 0.5]
    """
    counts = Counter(intents.tolist())
    weights = np.array([counts[i] ** -power for i in intents.tolist()])
    chances: npt.NDArray[np.float64] = weights / weights.sum()
    return chances


def class_weights(
    rows: Sequence[Sequence[int]], num_classes: int, power: float, beta: float | None = None
) -> npt.NDArray[np.float32]:
    """Return tag class weights by rarity, scaled so that the average token weighs 1.

    Args:
        rows: tag ids; MISSING does not count.
        num_classes: L.
        power: weight = frequency ** -power.
        beta: instead, weight = (1 - beta) / (1 - beta ** frequency), one by the effective number of examples.

    Source: Cui et al. 2019, equation 2, for beta; near 1 it is as power 1, but frequencies beyond 1 / (1 - beta) are
        all alike.
    """
    counts = np.bincount([t for row in rows for t in row if t != MISSING], minlength=num_classes).astype(np.float64)
    seen = np.maximum(counts, 1.0)
    weights = seen**-power if beta is None else (1 - beta) / (1 - beta**seen)
    scaled: npt.NDArray[np.float32] = (weights * (counts.sum() / max((weights * counts).sum(), 1e-12))).astype(
        np.float32
    )
    return scaled


def epoch_batches(
    lengths: Sequence[int],
    batch_size: int,
    rng: np.random.Generator,
    weights: npt.NDArray[np.float64] | None = None,
    window: int = 16,
) -> list[Ints]:
    """Return one epoch of row numbers in batches; each `window` of batches is sorted by length to spare padding.

    With `weights`, rows are drawn with replacement by weight; without, every row occurs once. The last, smaller batch
    is kept. Deterministic given `rng`.
    """
    count = len(lengths)
    order = rng.permutation(count) if weights is None else rng.choice(count, size=count, p=weights)
    batches = []
    for start in range(0, count, batch_size * window):
        chunk = sorted(order[start : start + batch_size * window].tolist(), key=lambda i: lengths[i])
        batches += [np.array(chunk[i : i + batch_size]) for i in range(0, len(chunk), batch_size)]
    rng.shuffle(batches)
    return batches


def passes(
    lengths: Sequence[int],
    weight: float,
    batch_size: int,
    rng: np.random.Generator,
    weights: npt.NDArray[np.float64] | None = None,
) -> list[Ints]:
    """Return the batches of `weight` passes over the rows; of a part of a pass, that share of its batches."""
    whole, rest = divmod(weight, 1.0)
    batches = [b for _ in range(int(whole)) for b in epoch_batches(lengths, batch_size, rng, weights)]
    if rest:
        part = epoch_batches(lengths, batch_size, rng, weights)
        batches += part[: max(1, round(len(part) * rest))]
    return batches


def mask_tokens(input_ids_BT: Ints, tokenizer: ModelTokenizer, fraction: float, rng: np.random.Generator) -> Ints:
    """Return the batch with `fraction` of its tokens, special ones aside, read as [MASK]: no word is always there.

    Source: word dropout of Iyyer et al. 2015 (deep averaging networks), with BERT's [MASK] for the word that is gone.
    """
    if not fraction:
        return input_ids_BT
    mask_id, chosen_BT = _choose_tokens(input_ids_BT, tokenizer, fraction, rng, "loss.token_dropout")
    masked: Ints = np.where(chosen_BT, mask_id, input_ids_BT)
    return masked


def corrupt_tokens(
    input_ids_BT: Ints, tokenizer: ModelTokenizer, fraction: float, rng: np.random.Generator
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return the batch as masked-language modelling shows it, and which tokens are to be guessed.

    Of `fraction` of the tokens, special ones aside, 80 % are read as [MASK], 10 % as a random token, 10 % as they are.

    Shape: (B, T) -> (B, T), bool (B, T)
    Source: Devlin et al. 2019, section 3.1.
    """
    mask_id, chosen_BT = _choose_tokens(input_ids_BT, tokenizer, fraction, rng, "loss masked_lm")
    kind_BT = rng.random(input_ids_BT.shape)
    ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.special_tokens.values()))
    random_BT = rng.choice(ordinary, input_ids_BT.shape)
    corrupted_BT = np.where(chosen_BT & (kind_BT < 0.8), mask_id, input_ids_BT)
    corrupted_BT = np.where(chosen_BT & (kind_BT >= 0.9), random_BT, corrupted_BT)
    return corrupted_BT, chosen_BT


def _choose_tokens(
    input_ids_BT: Ints, tokenizer: ModelTokenizer, fraction: float, rng: np.random.Generator, purpose: str
) -> tuple[int, npt.NDArray[np.bool_]]:
    if tokenizer.mask_id is None:
        raise ConfigError(f"{purpose} needs a tokenizer with [MASK], got one without; set it otherwise or train one "
                          f"with `weebill tokenizer train`")  # fmt: skip
    ordinary_BT = ~np.isin(input_ids_BT, list(tokenizer.special_tokens.values()))
    chosen_BT: npt.NDArray[np.bool_] = ordinary_BT & (rng.random(input_ids_BT.shape) < fraction)
    return tokenizer.mask_id, chosen_BT
