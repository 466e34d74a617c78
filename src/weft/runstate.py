"""The state of a training run on disk: safetensors and JSON, written in one move, resumed to the same result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weft.errors import DataError
from weft.optimizers import named


def save_run(
    path: Path,
    learned: nn.Module | Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
    fields: dict[str, Any],
) -> None:
    """Write weights, their running averages, the optimizer's state, that of the random numbers, and plain values."""
    parameters = named(learned)
    tensors = {f"weights.{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    tensors |= {f"average.{name}": tensor for name, tensor in zip(parameters, averages, strict=False)}
    tensors["random"] = torch.get_rng_state()
    fields = {**fields, "optimizer": type(optimizer).__name__}
    partial = path.with_suffix(".partial")
    kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    save_file(kept, partial, metadata={"state": json.dumps(fields)})
    partial.replace(path)


@torch.no_grad()
def load_run(
    path: Path, learned: nn.Module | Mapping[str, Tensor], optimizer: torch.optim.Optimizer, averages: list[Tensor]
) -> dict[str, Any]:
    """Put a run back where it stood; returns the plain values.

    Raises:
        DataError: the file is of a run with other shapes, or with another optimizer.
    """
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["state"])
    another = DataError(f"{path} is of another recipe; remove it, or give another output folder.")
    if fields.get("optimizer") != type(optimizer).__name__:
        raise another
    tensors = load_file(path)
    kept: dict[str, dict[str, Tensor]] = {}
    for full in tensors:
        if full.startswith("optimizer."):
            _, key, name = full.split(".", 2)
            kept.setdefault(name, {})[key] = tensors[full]
    try:
        for number, (name, parameter) in enumerate(named(learned).items()):
            parameter.copy_(tensors[f"weights.{name}"])
            if averages:
                averages[number].copy_(tensors[f"average.{name}"])
            optimizer.state[parameter] = {
                key: tensor.to("cpu" if key == "step" else parameter.device) for key, tensor in kept[name].items()
            }
    except (KeyError, RuntimeError):
        raise another from None
    torch.set_rng_state(tensors["random"])
    return fields


@contextmanager
def swapped(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Within it, parameters hold other values."""
    with torch.no_grad():
        kept = [parameter.detach().clone() for parameter in parameters]
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
