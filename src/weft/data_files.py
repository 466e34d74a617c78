"""Files of a data set: JSON Lines, or a JSON file of one list, as objects that know where they stood.

:func:`rows_of_file` is given a file, perhaps packed by gzip, in any Unicode encoding, and hands on its rows one after
the other; :func:`text_of_file` its text. :func:`parsed` reads the JSON of one row more strictly than Python does: what
is no JSON, or says two things at once, is refused.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from weft.errors import DataError

Files = str | Path | Sequence[str | Path]
"""One file, or several."""
_GZIP = b"\x1f\x8b"
_OTHERS = {
    b"PAR1": "a Parquet file; give its rows in Python: datasets.load_dataset('parquet', data_files=...)['train']",
    b"ARROW1": "an Arrow file; give its rows in Python: datasets.Dataset.from_file(...)",
    b"PK\x03\x04": "a ZIP archive; unpack it, and give the JSONL file in it",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it first: zstd -d",
    b"BZh": "packed by bzip2; unpack it first: bunzip2",
    b"\xfd7zXZ": "packed by xz; unpack it first: unxz",
    b"SQLite format 3": "a database; write its rows to a JSONL file",
    b"\x89PNG": "a picture; give a JSONL file that names it",
    b"\xff\xd8\xff": "a picture; give a JSONL file that names it",
    b"%PDF": "a PDF; give a JSONL file of conversations about it",
}
"""What files begin with that hold no text, and what to do about them."""
_TABLES = {".csv", ".tsv"}


def listed(files: Files) -> list[str | Path]:
    """One file or several, as a list."""
    return [files] if isinstance(files, (str, Path)) else list(files)


def rows_of_file(path: Path, parse: bool = True) -> Iterator[tuple[Any, str]]:
    """The rows of a file, each with what to call it: file and line.

    Args:
        path: one JSON object a line, where empty lines are passed over; or one list of objects.
        parse: whether lines are read; otherwise there is None for each.

    Raises:
        DataError: it is no such file, can't be read, or a line is no JSON.
    """
    with _opened(path) as file:
        first = file.readline()
        while first and not first.strip():
            first = file.readline()
        if first.lstrip().startswith("["):
            file.seek(0)
            yield from _listed(file.read(), path)
            return
        file.seek(0)
        for number, line in enumerate(file, 1):
            if line.strip():
                yield parsed(line, f"{path}:{number}") if parse else None, f"{path}:{number}"


def text_of_file(path: Path) -> str:
    """The text of a file; errors as for :func:`rows_of_file`."""
    with _opened(path) as file:
        return file.read()


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """A file as text, in the encoding that its first bytes tell; what keeps it from being read is said."""
    if path.is_dir():
        inside = next(
            (file.name for file in sorted(path.iterdir()) if file.suffix in (".jsonl", ".json")), "train.jsonl"
        )
        raise DataError(f"{path} is a folder; give a JSONL file, such as {path / inside}.")
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a JSONL file of chat messages.")
    try:
        with path.open("rb") as file:
            begin = file.read(16)
        unpack = begin.startswith(_GZIP)
        if unpack:
            with gzip.open(path) as packed:
                begin = packed.read(16)
        for magic, what in _OTHERS.items():
            if begin.startswith(magic):
                raise DataError(f"{path} is {what}.")
        encoding = json.detect_encoding(begin.ljust(4, b" "))
        encoding = "utf-8-sig" if encoding == "utf-8" else encoding
        with (gzip.open if unpack else open)(path, "rt", encoding=encoding) as text:
            yield cast("IO[str]", text)
    except UnicodeDecodeError as error:
        raise DataError(f"{_where(path, error, unpack)}; save the file as UTF-8.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is damaged: what gzip packed was cut off, or has changed; copy it again.") from None
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}).") from None


def _where(path: Path, error: UnicodeDecodeError, unpack: bool) -> str:
    """The line of a file that is not in the encoding of the others."""
    with (gzip.open if unpack else open)(path, "rb") as file:
        for number, line in enumerate(cast("IO[bytes]", file), 1):
            try:
                line.decode(error.encoding)
            except UnicodeDecodeError as found:
                if error.encoding in ("utf-8", "utf-8-sig"):
                    return f"{path}:{number}: byte {found.start + 1} (0x{line[found.start]:02X}) is not UTF-8"
                break
    return f"{path}: it is not the {error.encoding.upper()} that it begins as"


def parsed(text: str, where: str) -> Any:
    """What a line of JSON holds.

    Args:
        text: the line.
        where: what to call it.

    Raises:
        DataError: it is no JSON, or holds a key twice, a number that there is none of (``NaN``), or more than can be
            read.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        hint = "each line is one whole object with 'messages', or the file one list of them"
        if Path(where.rpartition(":")[0]).suffix.lower() in _TABLES:
            hint = "tables are not read; write each row as one JSON object a line"
        raise DataError(f"{where}: not JSON ({error.msg}); {hint}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {_why(error)}.") from None


def _listed(text: str, path: Path) -> Iterator[tuple[Any, str]]:
    """The objects of a file that holds one list, read one after the other."""
    at, counted, line, number = text.index("[") + 1, 0, 1, 0
    at = _behind(text, at)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        number += 1
        where = f"{path}:{line}, object {number}"
        try:
            fields, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}), in object {number} of its list.") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: {_why(error)}.") from None
        yield fields, where
        at = _behind(text, at)
        if text[at : at + 1] == ",":
            at = _behind(text, at + 1)
        elif text[at : at + 1] != "]":
            raise DataError(f"{where}: the list ends behind it without a ']'; the file seems cut off.")
    if text[at + 1 :].strip():
        raise DataError(f"{path}: something stands behind the list; a file holds one list, or one object a line.")


def _behind(text: str, at: int) -> int:
    """The next place that is no white space."""
    while text[at : at + 1].isspace():
        at += 1
    return at


def _why(error: Exception) -> str:
    return "it is nested too deeply to be read" if isinstance(error, RecursionError) else str(error)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys stand once each: of two values nobody knows which was meant."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object; leave one out")
    return fields


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON; write null, or leave the key out")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
