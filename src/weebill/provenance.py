"""What a model folder remembers of its training: recipe, result, versions, fingerprint of the data. No torch."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from weebill import __version__
from weebill.config import Recipe
from weebill.distill_config import DistillRecipe


def data_fingerprint(inputs: Sequence[Any]) -> str:
    """Return a digest of dataclass values by their content: where their files lie does not change it."""
    digest = hashlib.sha256()
    for item in inputs:
        content = {name: value for name, value in dataclasses.asdict(item).items() if name != "source"}
        digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()


def training_record(recipe: Recipe, end: Mapping[str, Any], inputs: Sequence[Any]) -> dict[str, object]:
    """Return what weebill.json keeps of a run: recipe, metrics, versions and a fingerprint of the data."""
    packages = ["torch", "numpy", "accelerate", "safetensors", "regex"]
    if isinstance(recipe, DistillRecipe) and recipe.linear.votes:
        packages += ["scikit-learn", "python-crfsuite"]
    return {
        "recipe": recipe.model_dump(),
        "result": {k: v for k, v in end.items() if k != "event"},
        "versions": {"weebill": __version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "data_sha256": data_fingerprint(inputs),
        "data_rows": len(inputs),
    }
