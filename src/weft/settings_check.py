"""Whether settings that somebody wrote are known, and of the right type; what is not is refused with the near one."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from weft.errors import RecipeError
from weft.options import near


def checked(fields: Mapping[Any, Any], hints: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings, each known and of the right type; whole numbers serve as fractions.

    Args:
        fields: the settings.
        hints: the type of each that is known.
        where: what stands in front of a name in a message.

    Raises:
        RecipeError: one is unknown, or of another type.
    """
    for key in fields:
        if key not in hints:
            raise RecipeError(f"{where}unknown key {key!r}; {suggestion(str(key), hints)}")
    return {key: _typed(value, hints[key], f"{where}{key}") for key, value in fields.items()}


def suggestion(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant, or all that is known."""
    known = list(known)
    return near(name.lower(), known, few=len(known))


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value, if it is of the type."""
    if hint is Any:
        return value
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if union else (hint,)
    words: list[str] = []
    for option in options:
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is Literal:
            words += map(str, arguments)
            if value in arguments:
                return value
            continue
        if origin is list and isinstance(value, list):
            return [_typed(item, arguments[0], where) for item in value]
        if origin is dict and isinstance(value, dict):
            return {key: _typed(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if option is float and isinstance(value, str):  # YAML reads 1e-3 as a string
            try:
                return float(value)
            except ValueError:
                continue
        plain = origin or option
        if isinstance(plain, type) and plain is not float and isinstance(value, plain):
            if plain is int and isinstance(value, bool):
                continue
            return value
    if words and isinstance(value, str):
        raise RecipeError(f"{where}: {value!r} is not known; {suggestion(value, words)}")
    wanted = " or ".join(str(getattr(o, "__name__", o)) if typing.get_origin(o) is None else str(o) for o in options)
    raise RecipeError(f"{where}: {value!r} is not {wanted.replace('typing.', '').replace('NoneType', 'null')}.")
