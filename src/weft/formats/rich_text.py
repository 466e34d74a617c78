"""Rich text: .rtf."""

from __future__ import annotations

from weft.errors import DataError


def rich_text(data: bytes) -> str:
    """What a file of rich text says.

    Raises:
        DataError: it is none.
    """
    from striprtf.striprtf import rtf_to_text

    if not data.lstrip().startswith(b"{\\rtf"):
        raise DataError("it is no rich text, whatever its name says")
    return str(rtf_to_text(data.decode("latin-1"), errors="replace")).strip()
