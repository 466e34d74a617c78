"""Files of many kinds as texts: what a knowledge base is made of.

:func:`read_documents` is given a file and hands on :class:`Document` objects: one for a text, a page of HTML, a PDF or
a Word file, and one for each row of a table of questions and answers or of a JSONL file. Each format is read by a
library that is kept for it; nothing in a file is run, and nothing it refers to is fetched.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.errors import DataError


@dataclass(frozen=True)
class Document:
    """A text with what is known about it.

    Attributes:
        text: what it says; spans of passages refer to it.
        part: which part of its file it is: empty for a whole file, else ``row 3`` or the ``id`` of a JSONL object.
        metadata: further fields, as strings.
    """

    text: str
    part: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def read_documents(path: Path) -> list[Document]:
    """The documents of a file, by its ending.

    Raises:
        DataError: the file can't be read as what its ending says; file and reason are named.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: files that end in {path.suffix or 'nothing'} are none of {', '.join(READERS)}.")
    try:
        return list(reader(path))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}).") from None
    except Exception as error:  # whatever a library makes of a damaged file
        raise DataError(f"{path} can't be read as {path.suffix.lower()} ({type(error).__name__}: {error}).") from None


def decoded(data: bytes) -> str:
    """Bytes as text: UTF-8, or else the encoding that fits them best; line ends are kept as ``\\n``.

    Raises:
        DataError: they are no text.
    """
    from charset_normalizer import from_bytes

    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("it holds zero bytes, and is no text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        best = from_bytes(data).best()
        if best is None:
            raise DataError("its encoding can't be told; save it as UTF-8") from None
        text = str(best)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded_file(path: Path) -> str:
    try:
        return decoded(path.read_bytes())
    except DataError as error:
        raise DataError(f"{path} can't be read: {error}.") from None


def _plain(path: Path) -> Iterator[Document]:
    yield Document(_decoded_file(path))


def _html(path: Path) -> Iterator[Document]:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(path.read_bytes(), "html.parser")
    title = page.title.get_text(" ", strip=True) if page.title else ""
    for hidden in page(["head", "script", "style", "template", "noscript"]):
        hidden.extract()
    for block in page.find_all(BLOCKS):
        block.append("\n\n")
    body = "\n".join(" ".join(line.split()) for line in page.get_text().split("\n")).strip()
    yield Document(f"{title}\n\n{body}" if title else body)


BLOCKS = ["p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "section", "article", "td"]
"""HTML elements after which a line ends."""


def _pdf(path: Path) -> Iterator[Document]:
    from pypdf import PdfReader

    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise DataError(f"{path} is encrypted; save it without a password.")
    pages = [page.extract_text() for page in reader.pages]
    if not any(page.strip() for page in pages):
        raise DataError(f"{path} holds no text (scanned pages?); run it through OCR first.")
    yield Document("\n\n".join(pages))


def _docx(path: Path) -> Iterator[Document]:
    import docx
    from docx.table import Table

    lines = []
    for block in docx.Document(str(path)).iter_inner_content():
        if isinstance(block, Table):
            lines += ["\t".join(cell.text for cell in row.cells) for row in block.rows]
        else:
            lines.append(block.text)
    yield Document("\n\n".join(lines))


def _table(path: Path) -> Iterator[Document]:
    """Rows of questions and answers; columns named ``question`` and ``answer``, or else all columns of a row."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = list(csv.DictReader(io.StringIO(_decoded_file(path), newline=""), delimiter=delimiter, strict=True))
    for number, row in enumerate(rows, 2):
        fields = {str(name).strip(): value.strip() for name, value in row.items() if isinstance(value, str)}
        if None in row:
            raise DataError(f"{path}: row {number} has more cells than the header names.")
        asked = {name.lower(): value for name, value in fields.items()}
        if "question" in asked and "answer" in asked:
            rest = {name: value for name, value in fields.items() if name.lower() not in ("question", "answer")}
            yield Document(f"{asked['question']}\n{asked['answer']}", f"row {number}", rest)
        else:
            yield Document("\n".join(f"{name}: {value}" for name, value in fields.items() if value), f"row {number}")


def _jsonl(path: Path) -> Iterator[Document]:
    """Objects with a ``text``, and perhaps an ``id``; further plain fields are metadata."""
    for number, line in enumerate(_decoded_file(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number} is not JSON ({error}).") from None
        if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
            raise DataError(f"{path}:{number} has no 'text'; a line is an object with at least that.")
        plain = {name: str(value) for name, value in fields.items() if isinstance(value, (str, int, float, bool))}
        known = plain.pop("id", f"line {number}")
        yield Document(plain.pop("text"), known, plain)


READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _plain,
    ".md": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".csv": _table,
    ".tsv": _table,
    ".jsonl": _jsonl,
}
"""What reads each kind of file."""
