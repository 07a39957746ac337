"""What trains and how fast: parameter groups with discriminative learning rates. Builds no optimizer."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from weebill.config import TrainingConfig


def parameter_groups(model: nn.Module, settings: TrainingConfig) -> list[dict[str, Any]]:
    """Return optimizer groups that cover every parameter once.

    Heads learn at `head_learning_rate`, the top encoder layer and the projection at `learning_rate`, each layer below
    `layer_decay` times slower, learned positions below the lowest. Word embeddings have a rate of their own: they start
    as loud as the positions (entries near 1), where Adam's steps at an ordinary rate move them little. Biases, norms,
    positions and embeddings have no weight decay.

    Source:
        Howard and Ruder 2018, ULMFiT, section 3.2 (discriminative fine-tuning).
    """
    num_layers = len({n.split("layers.")[1].split(".")[0] for n, _ in model.named_parameters() if "layers." in n})
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        part, rate = _part_and_rate(name, num_layers, settings)
        decays = parameter.ndim > 1 and part not in ("word embeddings", "positions")
        group = groups.setdefault((part, decays), {
            "params": [], "name": part, "lr": rate, "peak_lr": rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
        })  # fmt: skip
        group["params"].append(parameter)
    return list(groups.values())


def _part_and_rate(name: str, num_layers: int, settings: TrainingConfig) -> tuple[str, float]:
    rate = settings.learning_rate
    if "_head." in name:
        return name.split(".")[0], settings.head_learning_rate or rate
    if "layers." in name:
        layer = int(name.split("layers.")[1].split(".")[0])
        return f"layer {layer}", rate * settings.layer_decay ** (num_layers - 1 - layer)
    if "projection" in name:
        return "projection", rate
    lowest = rate * settings.layer_decay**num_layers
    if "word_embeddings" in name:
        return "word embeddings", settings.embedding_learning_rate or lowest
    return "positions" if "position_table" in name else "embedding norm", lowest


def trainable_table(groups: list[dict[str, Any]]) -> Iterator[tuple[str, int, float]]:
    """Yield (part, number of parameters, peak learning rate), weight-decay groups of one part joined."""
    parts: dict[str, tuple[int, float]] = {}
    for group in groups:
        count = parts.get(group["name"], (0, 0.0))[0] + sum(p.numel() for p in group["params"])
        parts[group["name"]] = (count, group["peak_lr"])
    for part, (count, rate) in parts.items():
        yield part, count, rate
