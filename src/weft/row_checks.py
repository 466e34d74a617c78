"""Whether what a row of data says can be written down at all: characters, and nothing that is half of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.errors import DataError


def check_characters(value: Any, where: str) -> None:
    """Refuse text that holds half a surrogate pair, which no tokenizer takes: what is left of an emoji that was cut.

    Args:
        value: a text, or lists and objects of such.
        where: what to call it.

    Raises:
        DataError: there is one.
    """
    if isinstance(value, str):
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError as error:
            half, near = value[error.start], value[max(0, error.start - 20) : error.start]
            shown = near.encode(errors="replace").decode()
            raise DataError(
                f"{where}: behind {shown!r} stands half a character (\\u{ord(half):04x}); write the whole one, or "
                "leave it out."
            ) from None
    elif isinstance(value, Mapping):
        for key, one in value.items():
            check_characters(key, where)
            check_characters(one, where)
    elif isinstance(value, (list, tuple)):
        for one in value:
            check_characters(one, where)
