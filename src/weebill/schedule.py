"""Learning rate as a pure function of step; knows nothing of optimizers."""

import math


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, final_fraction: float = 0.0) -> float:
    """Return the share of the peak learning rate at `step` (0-based).

    Rises linearly to 1 over `warmup_steps`, then follows half a cosine down to `final_fraction` at `total_steps`.

    Source:
        Loshchilov and Hutter 2017, SGDR, equation 5, with one cycle and a linear warm-up.

    Example:
        >>> [round(warmup_cosine(s, 10, 2), 2) for s in (0, 1, 2, 6, 10)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))
