"""Whether a string is a text, or the name of a file: a name is never taken for a text, there or not.

A text is told by its length, its lines and its words; a name by how it ends or begins, or since there is such a file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import Any

from weft.errors import DataError
from weft.picture_kinds import PICTURES

LONGEST_PATH, LONGEST_NAME = 4096, 255
"""Bytes of a path, and of each name in it, beyond which no file has it."""
FEW = 8
"""Words of a file's path, at most, unless it is there."""
_OTHERS = (".doc", ".ppt", ".xls", ".xml", ".zip")
"""What the names of documents end in that are not read."""
_ROOTED = re.compile(r"(~?[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|file://)\S")
"""How paths begin."""


def names_file(text: str) -> bool:
    """Whether a string is the name of a file: there is one, or it ends or begins as such a name does."""
    from weft.documents import READERS

    if "\n" in text or not text.strip() or not may_be_path(text):
        return False
    if os.path.isfile(text):
        return True
    words = len(text.split())
    ending = PurePath(text).suffix.lower()
    known = ending in READERS or ending in PICTURES or ending in _OTHERS
    if words == 1 and ("/" in text or "\\" in text):
        return True
    return words <= FEW and (known or _ROOTED.match(text) is not None)


def may_be_path(text: str) -> bool:
    """Whether a file could have this path: systems refuse to look for others."""
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded) <= LONGEST_PATH and max(map(len, encoded.split(b"/"))) <= LONGEST_NAME and b"\0" not in encoded


def text_or_file(given: Any) -> str | Path:
    """A text as it is; the name of a file as a path.

    Raises:
        DataError: it is neither.
    """
    if isinstance(given, Path):
        return given
    if not isinstance(given, str):
        raise DataError(f"A text is {given!r:.100}; give a string, or the path of a document.")
    return Path(given) if names_file(given) else given


def check_words(text: str, what: str) -> None:
    """See to it that a string which is to be read as it is holds words.

    Raises:
        DataError: it is the name of a file.
    """
    if names_file(text):
        raise DataError(f"{what} is {text!r:.200}, the name of a file; give what the file says.")
