"""weebill: a small, fast road from raw text to intent, entities and embeddings.

Importing this imports no torch; names are loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weebill.errors import ArtifactError, ConfigError, DataError, MissingExtraError, WeebillError
    from weebill.multitask import MultiTaskModel
    from weebill.predictor import Predictor, load
    from weebill.schema import Entity, Prediction, ScoredPair, Utterance
    from weebill.sent_transformer import SentenceTransformer
    from weebill.tokenizer import Tokenizer
    from weebill.verification import verify

__version__ = "0.1.0"

_HOME = {
    "ArtifactError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "Entity": "schema",
    "MissingExtraError": "errors",
    "MultiTaskModel": "multitask",
    "Prediction": "schema",
    "Predictor": "predictor",
    "ScoredPair": "schema",
    "SentenceTransformer": "sent_transformer",
    "Tokenizer": "tokenizer",
    "Utterance": "schema",
    "WeebillError": "errors",
    "load": "predictor",
    "verify": "verification",
}

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "Entity",
    "MissingExtraError",
    "MultiTaskModel",
    "Prediction",
    "Predictor",
    "ScoredPair",
    "SentenceTransformer",
    "Tokenizer",
    "Utterance",
    "WeebillError",
    "load",
    "verify",
]


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'weebill' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"weebill.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from weebill.errors import MissingExtraError

        raise MissingExtraError("torch", "train", f"weebill.{name}") from error
