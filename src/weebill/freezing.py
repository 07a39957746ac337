"""What trains, from when on and how fast: frozen parts, discriminative learning rates. Builds no optimizer."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from weebill.config import FreezingConfig, TrainingConfig


def parameter_groups(model: nn.Module, settings: TrainingConfig) -> list[dict[str, Any]]:
    """Return optimizer groups that cover every parameter once.

    Heads learn at `head_learning_rate`, the top encoder layer and the projection at `learning_rate`, each layer below
    `layer_decay` times slower, learned positions below the lowest. Word embeddings have a rate of their own: they start
    as large as the positions (entries near 1), where Adam's steps at an ordinary rate move them little. Biases, norms,
    positions and embeddings have no weight decay.

    Source:
        Howard and Ruder 2018, ULMFiT, section 3.2 (discriminative fine-tuning).
    """
    num_layers = _num_layers(model)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        part = _part(name)
        rate = _rate(part, num_layers, settings)
        decays = parameter.ndim > 1 and part not in ("word embeddings", "positions")
        group = groups.setdefault((part, decays), {
            "params": [], "name": part, "lr": rate, "peak_lr": rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
        })  # fmt: skip
        group["params"].append(parameter)
    return list(groups.values())


def _part(name: str) -> str:
    """Return the part of the model that a parameter is of, by its name."""
    if name == "log_variances":
        return "task weights"
    if "_head." in name:
        return name.split(".")[0]
    if "layers." in name:
        return f"layer {name.split('layers.')[1].split('.')[0]}"
    named = {"projection": "projection", "word_embeddings": "word embeddings", "position_table": "positions"}
    return next((part for key, part in named.items() if key in name), "embedding norm")


def _rate(part: str, num_layers: int, settings: TrainingConfig) -> float:
    rate = settings.learning_rate
    if part == "task weights" or part.endswith("_head"):
        return settings.head_learning_rate or rate
    if part.startswith("layer "):
        return rate * settings.layer_decay ** (num_layers - 1 - int(part.split()[1]))
    if part == "projection":
        return rate
    lowest = rate * settings.layer_decay**num_layers
    return (settings.embedding_learning_rate or lowest) if part == "word embeddings" else lowest


def first_epochs(model: nn.Module, config: FreezingConfig) -> dict[str, int | None]:
    """Return the parts that do not train from the first epoch on, with the epoch in which they begin; None = never.

    Source:
        Gradual unfreezing: Howard and Ruder 2018, ULMFiT, section 3.3.
    """
    found = {}
    for part in {_part(name) for name, _ in model.named_parameters()}:
        first = _first_epoch(part, _num_layers(model), config)
        if first != 1:
            found[part] = first
    return found


def _first_epoch(part: str, num_layers: int, config: FreezingConfig) -> int | None:
    if part == "task weights" or part.endswith("_head"):
        return None if getattr(config, part, False) else 1
    layer = num_layers - 1 if part == "projection" else int(part.split()[1]) if part.startswith("layer ") else -1
    if config.encoder or (config.lower_layers and layer < config.lower_layers):
        return None
    return 1 + config.epochs_per_layer * (num_layers - layer)


def freeze(model: nn.Module, config: FreezingConfig, epoch: int) -> None:
    """Still what does not train in this epoch, counted from 1: no gradients and no dropout; call it in training mode.

    Without a gradient AdamW leaves a weight as it is, weight decay and moments included.
    """
    later = first_epochs(model, config)
    for name, parameter in model.named_parameters():
        first = later.get(_part(name), 1)
        parameter.requires_grad_(first is not None and first <= epoch)
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
    encoder = model.get_submodule("encoder")
    if not any(p.requires_grad for name, p in model.named_parameters() if _part(name) == "embedding norm"):
        encoder.training = False  # the dropout after the embeddings; layers have flags of their own


def _num_layers(model: nn.Module) -> int:
    return len({n.split("layers.")[1].split(".")[0] for n, _ in model.named_parameters() if "layers." in n})


def trainable_table(groups: list[dict[str, Any]]) -> Iterator[tuple[str, int, float]]:
    """Yield (part, number of parameters, peak learning rate), weight-decay groups of one part joined."""
    parts: dict[str, tuple[int, float]] = {}
    for group in groups:
        count = parts.get(group["name"], (0, 0.0))[0] + sum(p.numel() for p in group["params"])
        parts[group["name"]] = (count, group["peak_lr"])
    for part, (count, rate) in parts.items():
        yield part, count, rate
