"""What a tokenizer does to texts: compression, unused tokens, pieces of entity values, size curve. Trains nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from weebill.errors import DataError
from weebill.schema import Utterance
from weebill.tokenizer import Tokenizer

RAREST = 20


@dataclass(frozen=True, slots=True)
class LabelPieces:
    """How the distinct values of one entity label break into tokens, in running text; `examples` are the worst."""

    label: str
    values: int
    tokens_per_value: float
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class TokenizerStats:
    """Counts over a set of texts; [CLS] and [SEP] are not counted. A word is what white space parts."""

    texts: int
    bytes: int
    words: int
    tokens: int
    bytes_per_token: float
    tokens_per_word: float
    unused_ids: tuple[int, ...]
    rarest_ids: tuple[tuple[int, str, int], ...]
    labels: tuple[LabelPieces, ...]

    def to_json(self) -> dict[str, object]:
        """Return the statistics as JSON values."""
        return asdict(self)


def tokenizer_stats(tokenizer: Tokenizer, texts: Iterable[str], utterances: Sequence[Utterance] = ()) -> TokenizerStats:
    """Return what the tokenizer does to the texts, and to the entity values of the utterances, by label.

    Raises:
        DataError: the texts are empty.
    """
    used: Counter[int] = Counter()
    num_texts = num_bytes = num_words = 0
    for text in texts:
        num_texts += 1
        num_bytes += len(text.encode("utf-8", "replace"))
        num_words += len(text.split())
        used.update(tokenizer.encode_ordinary(text))
    if not used:
        raise DataError("expected texts to count tokens in, got none; check the input")
    special = set(tokenizer.special_tokens.values())
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in special and tokenizer.token_bytes(i)]
    tokens = used.total()
    rarest = sorted((i for i in ordinary if used[i]), key=lambda i: (used[i], -i))[:RAREST]
    return TokenizerStats(
        texts=num_texts,
        bytes=num_bytes,
        words=num_words,
        tokens=tokens,
        bytes_per_token=num_bytes / tokens,
        tokens_per_word=tokens / max(1, num_words),
        unused_ids=tuple(i for i in ordinary if not used[i]),
        rarest_ids=tuple((i, tokenizer.token_name(i), used[i]) for i in rarest),
        labels=_label_pieces(tokenizer, utterances),
    )


def _label_pieces(tokenizer: Tokenizer, utterances: Sequence[Utterance], examples: int = 3) -> tuple[LabelPieces, ...]:
    values: dict[str, dict[str, tuple[str, ...]]] = {}
    for utterance in utterances:
        encoding = tokenizer.encode(utterance.text)
        for entity in utterance.entities or ():
            inside = [
                utterance.text[start:end]
                for start, end in encoding.offsets
                if start < end and start < entity.end and entity.start < end
            ]
            value = utterance.text[entity.start : entity.end]
            values.setdefault(entity.label, {})[value] = tuple(inside)
    found = []
    for label, pieces in sorted(values.items()):
        worst = sorted(pieces.values(), key=lambda p: (-len(p), p))[:examples]
        mean = sum(map(len, pieces.values())) / len(pieces)
        found.append(LabelPieces(label, len(pieces), mean, tuple(worst)))
    return tuple(sorted(found, key=lambda row: -row.tokens_per_value))


def readable_pieces(tokenizer: Tokenizer, text: str) -> list[tuple[str, list[int]]]:
    """Return the text cut as the tokenizer cuts it, each piece with its token ids.

    A character that several tokens share is one piece with all of them.

    Example:
        >>> readable_pieces(Tokenizer({}), "aé")
        [('a', [68]), ('é', [131, 106])]
    """
    pieces: list[tuple[str, list[int]]] = []
    waiting, ids = b"", list[int]()
    for token_id in tokenizer.encode_ordinary(text):
        waiting += tokenizer.token_bytes(token_id)
        ids.append(token_id)
        try:
            pieces.append((waiting.decode("utf-8"), ids))
        except UnicodeDecodeError:
            continue
        waiting, ids = b"", []
    return pieces


def size_curve(tokenizer: Tokenizer, texts: Sequence[str], points: int = 8) -> list[tuple[int, float]]:
    """Return (vocabulary size, bytes per token) at sizes evenly spread on a log scale, from one trained tokenizer.

    Every size is cut from the tokenizer given, which is what training at that size would have made.

    Raises:
        ConfigError: the tokenizer cannot be cut.
        DataError: the texts are empty.
    """
    smallest = len(tokenizer.special_tokens) + 256
    num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if not num_bytes:
        raise DataError("expected texts to draw a curve from, got none; check the input")
    ratio = (tokenizer.vocab_size / smallest) ** (1 / max(1, points - 1))
    sizes = sorted({min(tokenizer.vocab_size, round(smallest * ratio**i)) for i in range(points)})
    curve = []
    for size in sizes:
        smaller = tokenizer.cut(size)
        curve.append((size, num_bytes / sum(len(smaller.encode_ordinary(text)) for text in texts)))
    return curve
