"""Standard input and output of the command line, in whatever locale it runs.

What programs read is always UTF-8; what people read is in the encoding of their terminal, with a question mark for
what that has not got, and in UTF-8 where that would be ASCII. A name that is no UTF-8 comes out as the bytes that it
is; in JSON, which can't hold it, its broken bytes are replaced, and ``uri`` beside it leads to the file.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import typer

from weft.errors import DataError

ERRORS = "weft.lenient"
"""How characters are written that an encoding has not got."""
_NO_TEXTS = {b"%PDF-": "a PDF", b"PK\x03\x04": "a Word file or an archive", b"\xd0\xcf\x11\xe0": "an Office file"}


def set_up_streams() -> None:
    """Let standard output and error take every text, and tell there what the library warns of."""
    codecs.register_error(ERRORS, _lenient)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
    log = logging.getLogger("weft")
    if not log.handlers and not logging.getLogger().handlers:
        handler = _ToStandardError()
        handler.setFormatter(logging.Formatter("weft: %(message)s"))
        log.addHandler(handler)


class _ToStandardError(logging.Handler):
    """Writes records to whatever standard error is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(self.format(record), err=True)


def _lenient(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes that a file's name holds as they are; a question mark for any other character."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = (
        bytes([ord(one) - 0xDC00]) if "\udc80" <= one <= "\udcff" else b"?"
        for one in error.object[error.start : error.end]
    )
    return b"".join(written), error.end


def echo_json(told: dict[str, Any], file: str = "") -> None:
    """Write an object on a line, in UTF-8.

    Args:
        told: the object.
        file: the name of the file that it is about.
    """
    from weft.charsets import HALF, sound

    if HALF.search(file):
        told = {**told, "uri": Path(file).absolute().as_uri()}
    line = sound(json.dumps(told, ensure_ascii=False))
    typer.echo(line.encode())


def input_bytes() -> bytes:
    """What standard input holds.

    Raises:
        DataError: there is none, or nothing in it.
    """
    if sys.stdin is None:
        raise DataError("Standard input is closed; give the name of a file instead of -.")
    found = sys.stdin.buffer.read()
    if not found:
        raise DataError("Standard input is empty; pipe a file into it, or give the name of one instead of -.")
    return found


def text_of(data: bytes) -> str:
    """What came by standard input as text, whatever its encoding.

    Raises:
        DataError: it is none.
    """
    from weft.charsets import decode

    kind = next((kind for start, kind in _NO_TEXTS.items() if data.startswith(start)), None)
    if kind is not None:
        raise DataError(f"Standard input holds {kind}; save it to a file, and give its name.")
    try:
        decoded = decode(data)
    except DataError as error:
        raise DataError(f"Standard input can't be read: {error}.") from None
    for note in decoded.notes:
        logging.getLogger("weft").warning("Standard input %s.", note)
    return decoded.text
