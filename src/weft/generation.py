"""Loading the weaves that ship with Weft, and anyone's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from weft.errors import PartError
from weft.model import WeftModel

SHIPPED = ("photos",)
"""Names of the weaves in ``weft/models``."""


def shipped(name: str) -> Path:
    """The folder of a weave that ships with Weft.

    Raises:
        PartError: there is none of this name.
    """
    folder = Path(str(files("weft") / "models" / name))
    if name not in SHIPPED or not folder.is_dir():
        raise PartError(f"No weave named {name!r} ships with Weft; there are: {', '.join(SHIPPED)}.")
    return folder


def load(name_or_path: str | Path | None = None, *, dtype: torch.dtype | None = None, **options: Any) -> WeftModel:
    """A model that is ready to be asked.

    Args:
        name_or_path: a shipped weave (``"photos"``, the default), a folder that ``save_pretrained`` wrote, or a Hub id.
        dtype: floating-point type; by default the one it was saved in.
        **options: for ``WeftModel.from_pretrained`` (``device_map``, ...).

    Raises:
        PartError: the weave or a frozen part can't be found.
    """
    name = "photos" if name_or_path is None else name_or_path
    folder = shipped(str(name)) if str(name) in SHIPPED and not Path(name).exists() else name
    return WeftModel.from_pretrained(folder, dtype=dtype, **options)
