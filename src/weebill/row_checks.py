"""What one row shows by itself: spans, characters, length. Compares no rows; keeps nothing but the ledger."""

import re
import unicodedata
from dataclasses import replace
from itertools import pairwise

from weebill.encodings import ModelTokenizer
from weebill.findings import Ledger
from weebill.interchange import Row, Span
from weebill.tags import is_inside_word

INTENT_KEYS = ("label", "labels", "category", "class", "cats")  # of other tools
ENTITY_KEYS = ("entities", "labels", "tags")
_SPACES = "\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\u0085\t\n\r\x0b\x0c"
_HIDDEN = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
ODD_SPACE = re.compile(f"[{_SPACES}]")
INVISIBLE_CHARACTER = re.compile(f"[{_HIDDEN}]")
_FULL_WIDTH_DIGIT = re.compile("[\uff10-\uff19]")
_LATIN = "A-Za-z\u00c0-\u024f"
_LOOK_LATIN = "АВЕЅІЈКМНОРСТУХаеѕіјорсухΑΒΕΖΗΙΚΜΝΟΡΤΥΧοϲ"
_WORD = re.compile(r"[^\W\d_]+")
_MIXED_WORD = re.compile(f"(?=.*[{_LATIN}])(?=.*[{_LOOK_LATIN}])[{_LATIN}{_LOOK_LATIN}]+")
_MARKUP = re.compile(r"\[[^\[\]]*\]\s*\([\w:. -]*\)?|\]\s*\{|\{\s*\"entity\"|\[\S+ : [^\]]*\]?")
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00f0\u0178")


class RowChecks:
    """Checks rows one after another against a tokenizer and its model's length in tokens."""

    def __init__(self, ledger: Ledger, tokenizer: ModelTokenizer, max_seq_len: int):
        self.ledger, self.tokenizer, self.max_seq_len = ledger, tokenizer, max_seq_len
        self.spans = 0
        self.cutting = 0  # of `spans`, how many begin or end inside a word

    def check(self, row: Row) -> None:
        """Add what is wrong with a row to the ledger."""
        add = self.ledger.add
        for doubt in row.doubts:
            add("broken-tags", replace(row, source=doubt.source), f"{doubt.tag}, read as {doubt.read_as}")
        if not row.text.strip():
            add("empty-text", row)
            return
        if row.text != row.text.strip():
            add("text-white-space", row)
        if not row.text.isascii() or not row.text.isprintable():
            self._characters(row)
        if _MARKUP.search(row.text):
            add("markup-left", row)
        for intent in row.intents or ():
            if intent != intent.strip() or "\n" in intent:
                add("label-white-space", row, f"intent {intent!r}")
        if row.intents is None:
            add("no-intent", row)
        unread = (row.intents is None, INTENT_KEYS, "intent"), (row.spans is None, ENTITY_KEYS, "spans")
        for key, what in ((key, what) for missing, keys, what in unread if missing for key in keys if key in row.extra):
            add("unread-key", row, f"key {key!r} of rows without {what}")
        if row.spans is None:
            add("no-entities", row)
        elif row.spans:
            self._spans(row, row.spans)
        if len(row.text.encode("utf-8", "replace")) + 2 > self.max_seq_len:  # a token has a byte at least
            dropped = self.tokenizer.encode(row.text, max_length=self.max_seq_len).dropped_tokens
            if dropped:
                add("text-too-long", row, f"texts past the model's {self.max_seq_len} tokens")

    def _characters(self, row: Row) -> None:
        found = {
            "odd-space": ODD_SPACE.findall(row.text.strip()),
            "invisible-character": INVISIBLE_CHARACTER.findall(row.text),
            "odd-character": _FULL_WIDTH_DIGIT.findall(row.text) + _look_alikes(row.text),
            "broken-character": re.findall("\ufffd", row.text),
        }
        for kind, characters in found.items():
            for character in dict.fromkeys(characters):
                name = unicodedata.name(character, "control character").lower()
                self.ledger.add(kind, row, f"U+{ord(character):04X} {name}")
        if _MOJIBAKE.search(row.text):
            self.ledger.add("mojibake", row)
        if unicodedata.normalize("NFC", row.text) != row.text:
            self.ledger.add("not-composed", row)

    def _spans(self, row: Row, spans: tuple[Span, ...]) -> None:
        text, add = row.text, self.ledger.add
        self.spans += len(spans)
        if len({(s.start, s.end, s.label) for s in spans}) < len(spans):
            add("span-twice", row)
        ordered = sorted({(s.start, s.end, s.label) for s in spans})
        if any(a[1] > b[0] for a, b in pairwise(ordered)):
            add("span-overlap", row)
        doubtful = False
        for start, end, label in ordered:
            if text[start].isspace() or text[end - 1].isspace():
                add("span-white-space", row)
            elif is_inside_word(text, start) or is_inside_word(text, end):
                self.cutting += 1
                add("span-cuts-word", row)
            else:
                doubtful |= not (text[start - 1 : start].isspace() or start == 0)
                doubtful |= not (text[end : end + 1].isspace() or end == len(text))
            if label.split() != [label]:
                add("label-white-space", row, f"entity label {label!r}")
        if doubtful:  # an edge between a letter and a sign: does the tokenizer cut there?
            offsets = self.tokenizer.encode(text).offsets
            starts, ends = {a for a, b in offsets if a < b}, {b for a, b in offsets if a < b}
            for start, end, _ in ordered:
                cut = (start not in starts and not is_inside_word(text, start)) or (
                    end not in ends and not is_inside_word(text, end)
                )
                if cut and not text[start].isspace() and not text[end - 1].isspace():
                    add("span-cuts-token", row)


def _look_alikes(text: str) -> list[str]:
    """Return the letters of other alphabets in words that are Latin but for letters that look it.

    Example:
        >>> [f"U+{ord(c):04X}" for c in _look_alikes("p\u0430ris, \u043a\u043e\u0442, SMS\u043a\u0438")]
        ['U+0430']
    """
    words = [match[0] for match in _WORD.finditer(text) if _MIXED_WORD.fullmatch(match[0])]
    return [character for word in words for character in word if character in _LOOK_LATIN]
