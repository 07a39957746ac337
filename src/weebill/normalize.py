"""Unicode normalisation of texts that remembers where each character came from. Splits and merges nothing.

NORMALIZERS names what a tokenizer may do to a text first: "nfc" composes characters, "lowercase" lower-cases each
character by itself (so a capital sigma always becomes σ, as in Hugging Face tokenizers, never the final ς).
"""

import unicodedata
from collections.abc import Sequence

from weebill.errors import ConfigError

NORMALIZERS = ("nfc", "lowercase")


def check_normalizers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as they will be applied: in the order of NORMALIZERS.

    Raises:
        ConfigError: an unknown name.
    """
    unknown = [name for name in names if name not in NORMALIZERS]
    if unknown:
        raise ConfigError(f"normalizers: expected any of {', '.join(NORMALIZERS)}, got {unknown[0]!r}; correct it")
    return tuple(name for name in NORMALIZERS if name in names)


def normalize(text: str, names: Sequence[str]) -> str:
    """Return the normalised text.

    Example:
        >>> normalize("Cafe\u0301", ("nfc", "lowercase"))
        'café'
    """
    if "nfc" in names and not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "lowercase" in names:
        text = text.replace("Σ", "σ").lower()
    return text


def origins(text: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return, for each character of `normalize(text, names)`, the half-open span of `text` it came from.

    Characters that compose with one another come from their whole span.

    Example:
        >>> origins("Cafe\u0301s", ("nfc", "lowercase"))
        [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6)]
    """
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = start + 1
        while "nfc" in names and end < len(text) and not _starts_fresh(text[end]):
            end += 1
        composed = normalize(text[start:end], [name for name in names if name == "nfc"])
        if composed == text[start:end]:  # each character is its own origin; lower-cased, one may become two
            for i in range(start, end):
                spans += [(i, i + 1)] * len(normalize(text[i], names))
        else:
            spans += [(start, end)] * len(normalize(composed, names))
        start = end
    return spans


def _starts_fresh(character: str) -> bool:
    """Return whether NFC never joins this character to what stands before it."""
    if character < "\u0300":
        return True
    hangul_vowel_or_final = "\u1160" <= character <= "\u11ff"  # compose without being marks
    return not (hangul_vowel_or_final or unicodedata.category(character).startswith("M"))
