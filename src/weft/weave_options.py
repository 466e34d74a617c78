"""What may be said of a weave beyond where it sits and what it reads; what can't be is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

import torch
from torch import nn

from weft.errors import WeftError
from weft.memory import Sees
from weft.options import check_count, check_names, check_value, near
from weft.weaving import DERIVED, Initial, ReadingMode, WeaveConfig

DECIDED = DERIVED | {"layers", "initial", "labels"}
"""Fields of a weave's configuration that follow from its parts, or have arguments of their own."""
AT_LEAST_ONE = ("heads", "kv_heads", "head_dim", "connector_heads")
"""Numbers without which there is no attention; all others may be 0."""


def dtype_of(value: torch.dtype | str | None) -> torch.dtype | None:
    """A floating-point type, given as such or by its name (``"bfloat16"``).

    Raises:
        WeftError: there is none of this name.
    """
    if value is None:
        return None
    found = value if isinstance(value, torch.dtype) else getattr(torch, str(value).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise WeftError(f"dtype={value!r} is not known; {near(value, ['bfloat16', 'float16', 'float32'])}")
    return found


def check_weave_options(initial: Any, options: Mapping[str, Any]) -> None:
    """See to it that a weave can be made as somebody asked for.

    Args:
        initial: how its fusion layers are to start.
        options: further fields of :class:`~weft.weaving.WeaveConfig`.

    Raises:
        WeftError: an option is unknown, or has a value that it can't have.
    """
    known = {field.name: field.type for field in fields(WeaveConfig) if field.name not in DECIDED}
    arguments = ("vision", "text", "name", "every", "start", "layers", "initial", "labels", "tokenizer", "dtype")
    check_names(options, [*known, *arguments], "weave")
    check_value("initial", initial, get_args(Initial))
    for name, value in options.items():
        if known[name] == "bool" and not isinstance(value, bool):
            raise WeftError(f"{name}={value!r} is no truth value; give True or False.")
        if known[name] == "int":
            check_count(name, value, least=1 if name in AT_LEAST_ONE else 0)
        if known[name] == "float" and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise WeftError(f"{name}={value!r} is no number.")
    if options.get("rotary_theta") and options.get("head_dim", 2) % 2:
        raise WeftError(
            f"head_dim={options['head_dim']} can't turn in pairs, as rotary positions do; give an even one."
        )
    if not 0 <= options.get("dropout", 0.0) < 1:
        raise WeftError(f"dropout={options['dropout']} is no probability; give one from 0 on and below 1.")
    check_value("sees", options.get("sees", "all"), get_args(Sees))
    for value in (options.get("reading", "once"), *options.get("reading_by_task", {}).values()):
        check_value("reading", value, get_args(ReadingMode))


def check_places(every: Any, start: Any, layers: Any) -> None:
    """See to it that decoder layers are named by whole numbers.

    Raises:
        WeftError: they are not.
    """
    if layers is not None and (isinstance(layers, str) or not isinstance(layers, Iterable)):
        raise WeftError(f"layers={layers!r} is no list; give the numbers of decoder layers, as in [4, 8].")
    for name, numbers, least in (("every", [every], 1), ("start", [start], 0), ("layers", layers or [], 0)):
        for number in numbers:
            if number is not None:
                check_count(name, number, least=least)


def check_divides(name: str, value: int, of: str, whole: int) -> None:
    """See to it that something can be shared out evenly.

    Raises:
        WeftError: it can't.
    """
    if whole % value:
        raise WeftError(f"{name}={value} does not divide {of}={whole}; give a divisor of it.")


def check_weave_name(name: Any) -> None:
    """See to it that a weave can have a name: it names a folder and a module as well.

    Raises:
        WeftError: it can't.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or hasattr(nn.ModuleDict, name):
        raise WeftError(f"name={name!r} can't name a weave; give letters, digits, '-' and '_', as in 'photos'.")
