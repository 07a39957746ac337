"""In which precision a run computes: what its recipe asks for, where the machine can. Trains nothing."""

from functools import cache

import torch

from weebill.errors import ConfigError


def settled_precision(wanted: str) -> str:
    """Return "no", "bf16" or "fp16" for `training.precision`.

    On a CPU without instructions for bf16 that is "no": PyTorch has no LSTM in bf16 there, and products in it, done
    without them, take several times as long as in float32.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    gpu = torch.cuda.is_available()
    if wanted == "fp16" and not gpu:
        raise ConfigError("training.precision = fp16: expected a GPU, got none; set it to bf16, no or auto")
    if wanted == "bf16" and not gpu:
        return "bf16" if cpu_knows_bf16() else "no"
    if wanted != "auto":
        return wanted
    if not gpu:
        return "no"  # at 64 dimensions the casts cost more on CPU than the narrower products save
    emulated = torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0)  # but "supported"
    return "fp16" if emulated else "bf16"


@cache
def cpu_knows_bf16() -> bool:
    """Return whether an LSTM runs in bf16. Draws nothing from torch's generator."""
    with torch.random.fork_rng(devices=[]):
        lstm = torch.nn.LSTM(1, 1)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            lstm(torch.zeros(1, 1, 1))
    except RuntimeError:
        return False
    return True
