"""The state of a training run on disk: safetensors and JSON, written in one move, resumed to the same result.

The state before the last one is kept beside it, for a machine that dies while it writes or a file that is damaged
later; :func:`newest_state` finds the last one that is sound.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weft.errors import DataError
from weft.optimizers import named
from weft.whole_files import whole


@dataclass(frozen=True)
class RunState:
    """A state of a run that can be gone on from.

    Attributes:
        file: where it is; None where there is none.
        fields: its plain values.
        damaged: newer ones that can't be read.
    """

    file: Path | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    damaged: tuple[Path, ...] = ()


def previous(path: Path) -> Path:
    """Where the state before the last one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def newest_state(path: Path) -> RunState:
    """The last sound state of a run.

    Raises:
        DataError: there are states, and none is sound.
    """
    damaged: list[Path] = []
    for file in filter(Path.exists, (path, previous(path))):
        if (fields := _fields_in(file)) is not None:
            return RunState(file, fields, tuple(damaged))
        damaged.append(file)
    if damaged:
        names = " and ".join(map(str, damaged))
        be = "are" if len(damaged) > 1 else "is"
        raise DataError(f"{names} {be} damaged (cut off?); copy a sound one there, or start anew without resuming.")
    return RunState()


def _fields_in(file: Path) -> dict[str, Any] | None:
    """The plain values of a state; None where it is damaged."""
    try:
        with safe_open(file, framework="pt") as stored:
            fields = json.loads(stored.metadata()["state"])
        return {**fields, "step": int(fields["step"])}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def save_run(
    path: Path,
    learned: nn.Module | Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
    fields: dict[str, Any],
) -> None:
    """Write weights, their running averages, the optimizer's state, that of the random numbers, and plain values; the
    state that was there is kept as the previous one.

    Raises:
        WeftError: it can't be written; what was there stays.
    """
    parameters = named(learned)
    tensors = {f"weights.{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    tensors |= {f"average.{name}": tensor for name, tensor in zip(parameters, averages, strict=False)}
    tensors["random"] = torch.get_rng_state()
    fields = {**fields, "optimizer": type(optimizer).__name__}
    kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with whole(path, settled=True) as partial:
        save_file(kept, partial, metadata={"state": json.dumps(fields)})
        if path.is_file() and _fields_in(path) is not None:
            path.replace(previous(path))


@torch.no_grad()
def load_run(
    path: Path, learned: nn.Module | Mapping[str, Tensor], optimizer: torch.optim.Optimizer, averages: list[Tensor]
) -> dict[str, Any]:
    """Put a run back where it stood; returns the plain values.

    Raises:
        DataError: the file is of a run with other shapes, or with another optimizer.
    """
    another = DataError(f"{path} is of another recipe; remove it, or give another output folder.")
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["state"])
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
            if tensors[f"weights.{name}"].shape != parameter.shape:
                raise another
            parameter.copy_(tensors[f"weights.{name}"])
            if averages:
                averages[number].copy_(tensors[f"average.{name}"])
            optimizer.state[parameter] = {
                key: tensor.to("cpu" if key == "step" else parameter.device) for key, tensor in kept[name].items()
            }
        torch.set_rng_state(tensors["random"])
    except (KeyError, RuntimeError, TypeError):
        raise another from None
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
