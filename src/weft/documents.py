"""Files of many kinds as texts: what a knowledge base is made of.

:func:`read_documents` is given a file and hands on :class:`Document` objects: one for a text, a page of HTML, a PDF or
a Word file, and one for each row of a table or each object of JSON. Each format is read by a
library that is kept for it; nothing in a file is run, and nothing it refers to is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from weft.charsets import Decoded, decode, printable, sound
from weft.errors import DataError
from weft.json_records import read_json, read_lines
from weft.records import Record
from weft.tables import read_table


@dataclass(frozen=True)
class Document:
    """A text with what is known about it.

    Attributes:
        text: what it says; spans of passages refer to it.
        part: which part of its file it is: empty for a whole file, else ``row 3`` or the ``id`` of an object.
        metadata: further fields, as strings.
        notes: what was guessed, replaced or left out in reading its file, each as the end of a sentence about that.
    """

    text: str
    part: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_documents(path: Path) -> list[Document]:
    """The documents of a file, by its ending.

    Raises:
        DataError: the file can't be read as what its ending says; file and reason are named.
    """
    reader, name = READERS.get(path.suffix.lower()), printable(path)
    if reader is None:
        raise DataError(f"{name}: files that end in {path.suffix or 'nothing'} are none of {', '.join(READERS)}.")
    try:
        return [_sound(document) for document in reader(path)]
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name} can't be read ({error.strerror or error}).") from None
    except Exception as error:  # whatever a library makes of a damaged file
        raise DataError(f"{name} can't be read as {path.suffix.lower()} ({type(error).__name__}: {error}).") from None


def _sound(document: Document) -> Document:
    """A document without halves of surrogate pairs, which JSON and damaged files may hold."""
    text, part = sound(document.text), sound(document.part)
    metadata = {sound(name): sound(value) for name, value in document.metadata.items()}
    if (text, part, metadata) == (document.text, document.part, document.metadata):
        return document
    note = f"has half characters (surrogates){' in ' + part if part else ''}, replaced by \ufffd"
    return replace(document, text=text, part=part, metadata=metadata, notes=(*document.notes, note))


def decoded(data: bytes) -> str:
    """Bytes as text: UTF-8, or else the encoding that fits them best; line ends are kept as ``\\n``.

    Raises:
        DataError: they are no text.
    """
    return decode(data).text


def _decoded_file(path: Path) -> Decoded:
    try:
        return decode(path.read_bytes())
    except DataError as error:
        raise DataError(f"{printable(path)} can't be read: {error}.") from None


def _plain(path: Path) -> Iterator[Document]:
    decoded = _decoded_file(path)
    yield Document(decoded.text, notes=decoded.notes)


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
    delimiter = "\t" if path.suffix.lower() == ".tsv" else None
    return _records(path, lambda text: read_table(text, delimiter))


def _jsonl(path: Path) -> Iterator[Document]:
    """Objects with a ``text``, and perhaps an ``id``, whose further fields are metadata; or all fields of others."""
    return _records(path, read_lines)


def _json(path: Path) -> Iterator[Document]:
    """The objects of a list, as in JSONL, or all that is in one value."""
    return _records(path, read_json)


def _records(path: Path, read: Callable[[str], tuple[list[Record], list[str]]]) -> Iterator[Document]:
    """Records as documents, the first of which has the notes on the file."""
    decoded = _decoded_file(path)
    try:
        records, notes = read(decoded.text)
    except DataError as error:
        raise DataError(f"{printable(path)} can't be read: {error}.") from None
    for number, one in enumerate(records):
        yield Document(one.text, one.part, one.metadata, () if number else (*decoded.notes, *notes))


READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _plain,
    ".text": _plain,
    ".log": _plain,
    ".md": _plain,
    ".markdown": _plain,
    ".mdown": _plain,
    ".mkd": _plain,
    ".rst": _plain,
    ".adoc": _plain,
    ".asciidoc": _plain,
    ".org": _plain,
    ".tex": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".csv": _table,
    ".tsv": _table,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
}
"""What reads each kind of file."""
