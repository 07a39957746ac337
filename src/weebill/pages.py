"""What the HTML pages need: their text, a policy that holds them to it, the model described. Serves nothing."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from weebill import __version__
from weebill.neighbours import Neighbours
from weebill.predictor import Predictor

NUM_SUGGESTIONS = 5


def read_page(name: str) -> str:
    """Return a page of assets/."""
    return (files("weebill") / "assets" / name).read_text(encoding="utf-8")


def content_security_policy(page: str, scripts: str = "") -> str:
    """Return a policy that lets a page run its own inline scripts and styles, by their hashes, and ask its own server.

    Args:
        page: as HTML.
        scripts: what else it may run, as Content-Security-Policy spells it.

    Example:
        >>> content_security_policy("<style>a {}</style>").split("; ")[2]
        "style-src 'sha256-mkSHzL7faOU7/U/v8Umg+058R69+vN2A2xmE3Fz1q98='"
    """
    hashes = {
        tag: " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
                      for inside in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)) or "'none'"
        for tag in ("script", "style")
    }  # fmt: skip
    return (f"default-src 'none'; script-src {hashes['script']}{scripts}; style-src {hashes['style']}; "
            f"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'")  # fmt: skip


def describe(predictor: Predictor, name: str, examples: Neighbours | None) -> dict[str, Any]:
    """Return what the playground says of a model: its name, sizes and labels, and sentences to try."""
    return {
        "model": name,
        "weebill": __version__,
        "embedding_dim": predictor.embedding_dim,
        "max_tokens": predictor.max_seq_len,
        "vocab_size": predictor.tokenizer.vocab_size,
        "intents": predictor.intents,
        "entities": sorted(tag[2:] for tag in predictor.tags if tag.startswith("B-")),
        "examples": len(examples.utterances) if examples else 0,
        "suggestions": examples.varied(NUM_SUGGESTIONS) if examples else [],
    }
