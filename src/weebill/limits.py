"""How much `weebill serve` accepts; enforces nothing and imports nothing, for the command line shows the defaults."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is beyond is refused: with 413, and with 429 beyond the last one."""

    max_body_bytes: int = 2_000_000
    max_texts: int = 2_048  # in one request, as many as OpenAI's
    max_text_chars: int = 10_000
    max_waiting_texts: int = 8_192  # of all requests together
