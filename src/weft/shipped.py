"""The weaves that ship with Weft, each in a folder of ``weft/models`` with its card."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from weft.errors import PartError

SHIPPED = ("photos", "reader")
"""Their names."""


def shipped(name: str) -> Path:
    """The folder of a weave that ships with Weft.

    Raises:
        PartError: there is none of this name.
    """
    folder = Path(str(files("weft") / "models" / name))
    if name not in SHIPPED or not folder.is_dir():
        raise PartError(f"No weave named {name!r} ships with Weft; there are: {', '.join(SHIPPED)}.")
    return folder


def woven_folder(name_or_path: str | Path | None = None) -> str | Path:
    """Where a woven model lies: that of a shipped weave (``"photos"``, the default), or the path or Hub id as given."""
    if name_or_path is None:
        return shipped(SHIPPED[0])
    is_name = str(name_or_path) in SHIPPED and not Path(name_or_path).exists()
    return shipped(str(name_or_path)) if is_name else name_or_path
