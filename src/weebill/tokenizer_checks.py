"""What the arguments of a tokenizer must be: its texts, lengths and numbers, checked before use. Reads no files."""

from collections.abc import Iterable, Sequence

from weebill.errors import ConfigError


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no list of texts: one text, a generator, or a list with the NaN of an empty cell in it.

    Raises:
        ConfigError: it is one text, or not all of it is text.
    """
    check_several(texts)
    if not hasattr(texts, "__len__"):
        raise ConfigError(f"expected a list of texts, got {type(texts).__name__}; make one of it: list(texts)")
    if set(map(type, texts)) - {str}:
        for i, text in enumerate(texts):
            check_text(text, f"texts[{i}]: ")


def check_several(texts: Iterable[str]) -> None:
    """Refuse one text where several are expected: it would be taken for as many texts as it has letters.

    Raises:
        ConfigError: it is a str.
    """
    if isinstance(texts, str):
        raise ConfigError(f"expected a list of texts, got one, {texts[:60]!r}; put it into one: [text]")


def check_text(text: str, where: str = "") -> None:
    """Refuse what is no text.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{where}expected a text, got {text!r:.40} ({type(text).__name__}); leave it out or make it "
                          f"a text")  # fmt: skip


def check_training(vocab_size: int, special_tokens: Sequence[str], min_frequency: int) -> None:
    """Refuse numbers and names that no tokenizer can be trained with.

    Raises:
        ConfigError: no room for special tokens and bytes, special tokens alike, empty or of one character, or a
            frequency below 0.
    """
    count = len(special_tokens)
    if vocab_size < count + 256:
        raise ConfigError(f"vocab_size: expected at least {count + 256} ({count} special tokens and 256 bytes), got "
                          f"{vocab_size}; raise it")  # fmt: skip
    if len(set(special_tokens)) < count or not all(special_tokens):
        raise ConfigError(f"special_tokens: expected distinct names, got {list(special_tokens)}; correct them")
    bytes_too = [token for token in special_tokens if len(token) == 1]
    if bytes_too:
        raise ConfigError(f"special_tokens: expected names of two characters or more, got {bytes_too[0]!r}, which "
                          f"texts have; write it otherwise, as [{bytes_too[0]}]")  # fmt: skip
    if min_frequency < 0:
        raise ConfigError(f"min_frequency: expected 0 or more, got {min_frequency}; correct it")


def check_dropout(dropout: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: not in [0, 1], which NaN is not, either.
    """
    if not 0 <= dropout <= 1:
        raise ConfigError(f"dropout: expected a share from 0 to 1, got {dropout}; correct it")


def room_for_text(max_length: int, frame: tuple[Sequence[int], Sequence[int]]) -> int:
    """Return how many tokens of a text fit between those of its frame.

    Raises:
        ConfigError: not even the frame fits.

    Example:
        >>> room_for_text(5, ([1], [2]))
        3
    """
    needed = sum(map(len, frame))
    if max_length < needed:
        raise ConfigError(f"max_length: expected at least {needed}, for the special tokens around a text, got "
                          f"{max_length}; raise it")  # fmt: skip
    return max_length - needed
