"""A training run on disk: everything that decides its next step, written whole, read back bit for bit.

One safetensors file: weights, optimizer moments, random number states; and as JSON in its header the place in the run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from weebill.errors import ArtifactError, ConfigError
from weebill.files import write_whole

VERSION = "2"  # since fingerprints cover the start and the tokenizer


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, and what tells one run from another.

    `fingerprint` covers recipe, data, start and tokenizer: a run goes on only with the same.
    """

    path: Path
    fingerprint: str

    def write(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, atomically.

        Raises:
            ArtifactError: it cannot be written; the one before is whole.
        """
        meta = {"weebill_checkpoint": VERSION, "fingerprint": self.fingerprint, "state": json.dumps(state)}
        write_whole(self.path, save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, metadata=meta))

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and state of the last `write`.

        Raises:
            ArtifactError: no checkpoint there, or a damaged one.
            ConfigError: it is of another run.
        """
        if not self.path.is_file():
            raise ArtifactError(f"{self.path}: expected the checkpoint of a stopped run, got nothing there; run "
                                f"without --resume")  # fmt: skip
        try:
            with safe_open(self.path, framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no iterator there
            state = json.loads(meta["state"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ArtifactError(f"{self.path}: expected a checkpoint, got {error!r}; delete it and start "
                                f"again") from error  # fmt: skip
        version = meta.get("weebill_checkpoint")
        if version != VERSION:
            raise ArtifactError(f"{self.path}: expected a checkpoint of version {VERSION}, got {version!r}; go on with "
                                f"the weebill that wrote it")  # fmt: skip
        if meta.get("fingerprint") != self.fingerprint:
            raise ConfigError(f"{self.path}: expected the recipe, data, start and tokenizer this run was started with, "
                              f"got others; restore them, or delete the checkpoint to start again")  # fmt: skip
        return tensors, state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's moments and step counts by parameter number."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set what `optimizer_tensors` returned; groups and rates stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_states() -> dict[str, Tensor]:
    """Return the states of torch's generators, one for each device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def load_random_states(states: Mapping[str, Tensor]) -> None:
    """Set what `random_states` returned."""
    torch.set_rng_state(states["cpu"])
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.set_rng_state(states[f"cuda{i}"], i)


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix` and a slash, without it."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix` and a slash before their names."""
    return {f"{prefix}/{name}": t for name, t in tensors.items()}
