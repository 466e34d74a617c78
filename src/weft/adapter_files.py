"""Adapters of a language model on disk, beside a weave: PEFT's own files, which PEFT reads as well."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from weft.adapters import (
    DEFAULT,
    active_adapters,
    adapted_modules,
    adapter_config,
    adapter_names,
    adapter_tensors,
    adapters_hash,
    check_unmerged,
    freeze,
    imported_peft,
    switch_adapters,
    use_adapters,
)
from weft.errors import PartError, WeftError
from weft.parts import resolve
from weft.whole_files import read_tensors

ADAPTERS = "adapters"
"""The folder of the adapters of a saved model's language model, each in one named after it."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WRAPPED = "base_model.model."
"""What PEFT puts in front of the names in an adapter's file."""


def save_adapters(language_model: nn.Module, folder: Path) -> dict[str, Any]:
    """Write the adapters that are in place; returns what :func:`load_adapters` has to know of them.

    Args:
        language_model: the language model.
        folder: where each gets a folder of its own.

    Raises:
        WeftError: one is folded into the weights at the moment.
    """
    names = adapter_names(language_model)
    check_unmerged(language_model)
    for name in names:
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        config = adapter_config(language_model, name)
        held = {
            f"{_WRAPPED}{key}": tensor.contiguous() for key, tensor in adapter_tensors(language_model, name).items()
        }
        save_file(held, target / WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(str(target))
    if not names:
        return {}
    return {"names": names, "active": active_adapters(language_model), "hash": adapters_hash(language_model)}


def load_adapters(language_model: nn.Module, folder: Path, kept: Mapping[str, Any]) -> None:
    """Put the adapters of a saved model in place, as they were; they are frozen.

    Args:
        language_model: the language model.
        folder: the folder that :func:`save_adapters` wrote to.
        kept: what it returned.

    Raises:
        PartError: an adapter is missing or does not fit.
        WeftError: the language model has adapters already, or PEFT is not installed.
    """
    if not kept:
        return
    if names := adapter_names(language_model):
        raise WeftError(f"The language model has adapters already ({', '.join(names)}); give one without.")
    for name in kept["names"]:
        put_adapter(language_model, folder / name, name)
    use_adapters(language_model, kept["active"] or kept["names"])
    switch_adapters(language_model, bool(kept["active"]))
    freeze(language_model)


def put_adapter(language_model: nn.Module, source: str | Path, name: str = DEFAULT, *, learns: bool = False) -> None:
    """Put an adapter that PEFT has written in place, where it has a say.

    Args:
        language_model: the language model.
        source: its folder, or a Hub id.
        name: what to call it.
        learns: whether it wants gradients.

    Raises:
        PartError: it is missing, or was made for another model.
        WeftError: there is one of this name, or PEFT is not installed.
    """
    peft = imported_peft()
    if name in adapter_names(language_model):
        raise WeftError(f"The language model has an adapter named {name!r} already; give another adapter_name.")
    folder = resolve(source).path
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise PartError(f"{source} holds no adapter: it needs {CONFIG} and {WEIGHTS}, as PEFT writes them.")
    stored = read_tensors(folder / WEIGHTS, "copy the adapter again.")
    tensors = {_name_in(language_model, key): tensor for key, tensor in stored.items()}
    around = any(key.removeprefix(_WRAPPED) not in tensors for key in stored)
    unfit = PartError(f"The adapter in {source} was made for another model than this language model.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several adapters in one model, which is what is wanted
            config = peft.PeftConfig.from_pretrained(str(folder))
            # Of one that was made on the woven model, the tensors say where it belongs: its names are not those here.
            places = {"state_dict": tensors} if around else {}
            peft.inject_adapter_in_model(config, language_model, name, low_cpu_mem_usage=True, **places)
            if around:
                config.target_modules = set(adapted_modules(language_model, name))
            found = peft.set_peft_model_state_dict(language_model, tensors, name, low_cpu_mem_usage=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise unfit from error
    if found.unexpected_keys or any(
        one.device.type == "meta" for one in adapter_tensors(language_model, name).values()
    ):
        raise unfit
    use_adapters(language_model, [name])
    if not learns:
        freeze(language_model)


def refill_adapters(language_model: nn.Module, folder: Path) -> None:
    """Give the adapters that are in place the weights that :func:`save_adapters` wrote."""
    for name in adapter_names(language_model):
        tensors = {_name_in(language_model, key): one for key, one in _stored(folder / name).items()}
        imported_peft().set_peft_model_state_dict(language_model, tensors, name)


def _stored(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / WEIGHTS, "resume the run to find the best weights anew.")


def _name_in(language_model: nn.Module, key: str) -> str:
    """The name of an adapter's tensor in a language model, for one that was made on it or on a model around it."""
    name = key.removeprefix(_WRAPPED)
    around = "language_model."
    inside = name.startswith(around) and not hasattr(language_model, "language_model")
    return name.removeprefix(around) if inside else name
