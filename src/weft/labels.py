"""What is known about a document, as labels that a search can ask for.

:func:`labels` is given a document's metadata, and :func:`wanted` what somebody asks of it; both write a value alike, so
that ``true`` of a JSON file is ``True`` of a program, and 2020 is 2020 in whichever way it is given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from weft.errors import DataError

_WHOLE = re.compile(r"-?\d{1,15}\.0+", re.ASCII)
"""A whole number as programs write it that have it as a float."""

Value = str | int | float | bool | None
"""What may be asked for; None for what no document says."""


def labels(metadata: Mapping[str, str]) -> list[str]:
    """The labels of a document: each name that has a value, alone and with it."""
    found = []
    for name, value in metadata.items():
        if value.strip():
            found += [_composed(name), f"{_composed(name)}={_written(value)}"]
            if _WHOLE.fullmatch(value.strip()):
                found.append(f"{_composed(name)}={_written(float(value))}")
    return found


def wanted(name: str, value: Value) -> tuple[str, bool]:
    """The label that a document must have, or must not have (False) where there is to be no value of a name.

    Raises:
        DataError: it is no value that metadata can have.
    """
    if value is not None and not isinstance(value, (str, int, float)):
        raise DataError(f"where: {name}={value!r:.100} can't be; give a text, a number, True, False or None.")
    if value is None or (isinstance(value, str) and not value.strip()):
        return _composed(name), False
    return f"{_composed(name)}={_written(value)}", True


def _written(value: Value) -> str:
    """A value as labels have it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = _composed(str(value)).strip()
    return text.lower() if text.lower() in ("true", "false") else text


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
