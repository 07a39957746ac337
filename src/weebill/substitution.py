"""Texts with words replaced by others that were seen between the same two words. Labels are for teachers to say."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from weebill.schema import Utterance

EDGE = ""  # stands before the first word of a text, and after its last
Frames = Mapping[tuple[str, str], Sequence[str]]


def word_frames(texts: Iterable[str]) -> Frames:
    """Return the words that stand between each two words, as often as they do; words are what white space parts.

    Example:
        >>> word_frames(["play some jazz", "play some rock", "hear some rock"])["some", ""]
        ['jazz', 'rock', 'rock']
    """
    found: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        words = [EDGE, *text.split(), EDGE]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            found.setdefault((before, after), []).append(word)
    return found


def replace_words(
    utterances: Sequence[Utterance], frames: Frames, share: float, copies: int, seed: int
) -> Iterator[Utterance]:
    """Yield copies of utterances, without labels, in which each word is replaced with a chance of `share`.

    In its place comes a word that stood between the same two, drawn as often as it did; what comes out reads like a
    text as far as one word to either side goes. A copy in which none was replaced is left out.

    Args:
        utterances: any.
        frames: of `word_frames`.
        share: between 0 and 1.
        copies: of each utterance.
        seed: decides which words.

    Example:
        >>> frames = word_frames(["play some jazz", "hear some rock"])
        >>> [u.text for u in replace_words([Utterance("play some jazz")], frames, 1.0, 1, 0)]
        ['hear some jazz']
    """
    rng = random.Random(f"replaced words {seed}")
    for _ in range(copies):
        for utterance in utterances:
            words = [EDGE, *utterance.text.split(), EDGE]
            before = list(words)
            for i in range(1, len(words) - 1):
                if rng.random() < share:
                    words[i] = rng.choice(frames.get((words[i - 1], words[i + 1]), words[i : i + 1]))
            if words != before:
                yield Utterance(" ".join(words[1:-1]), source=utterance.source)
