"""Files of many kinds as texts: what a knowledge base is made of.

:func:`read_documents` is given a file and hands on :class:`Document` objects: one for a text, a page of HTML, a PDF or
a Word file, and one for each slide, each row of a table or each object of JSON. :mod:`weft.formats`
has a reader for each kind; what it reads is brought into one form (:mod:`weft.characters`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from weft.characters import as_seen
from weft.charsets import decode, printable, sound
from weft.errors import DataError
from weft.formats.book import book_text
from weft.formats.html import markup, page_text
from weft.formats.mail import mail, saved_page
from weft.formats.opendocument import open_sheets, open_text
from weft.formats.pdf import pdf_text
from weft.formats.rich_text import rich_text
from weft.formats.sheets import Row, records, workbook
from weft.formats.slides import slides
from weft.formats.word import word_text
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


Reader = Callable[[bytes], Iterator[Document]]
"""What makes documents of a file's content, and raises DataError with the reason alone where it can't."""


def read_documents(path: Path) -> list[Document]:
    """The documents of a file, by its ending.

    Raises:
        DataError: the file can't be read as what its ending says; file and reason are named.
    """
    name = printable(path)
    try:
        data = path.read_bytes() if path.suffix.lower() in READERS else b""
    except OSError as error:
        raise DataError(f"{name} can't be read ({error.strerror or error}).") from None
    return read_data(data, name)


def read_data(data: bytes, name: str) -> list[Document]:
    """The documents of a file's content, by the ending of its name.

    Raises:
        DataError: it can't be read as what its ending says; the name and the reason are given.
    """
    ending = PurePath(name).suffix.lower()
    reader = READERS.get(ending)
    if reader is None:
        advice = INSTEAD.get(ending, f"give one of {', '.join(READERS)}")
        raise DataError(f"{name}: files that end in {ending or 'nothing'} are not read; {advice}.")
    try:
        return [_tidy(document) for document in reader(data)]
    except DataError as error:
        raise DataError(f"{name} can't be read: {error}.") from None
    except ModuleNotFoundError as error:
        raise DataError(
            f"{name} can't be read without {error.name}; run pip install '.[knowledge]' in Weft's folder."
        ) from None
    except Exception as error:  # whatever a library makes of a damaged file
        raise DataError(f"{name} can't be read as {ending} ({type(error).__name__}: {error}).") from None


def _tidy(document: Document) -> Document:
    """A document as people see it, and as it can be stored."""
    whole = _sound(document)
    return replace(whole, text=as_seen(whole.text))


def _sound(document: Document) -> Document:
    """A document without halves of surrogate pairs, which JSON and damaged files may hold."""
    text, part = sound(document.text), sound(document.part)
    metadata = {sound(name): sound(value) for name, value in document.metadata.items()}
    if (text, part, metadata) == (document.text, document.part, document.metadata):
        return document
    note = f"has half characters (surrogates){' in ' + part if part else ''}, replaced by \ufffd"
    return replace(document, text=text, part=part, metadata=metadata, notes=(*document.notes, note))


def _plain(data: bytes) -> Iterator[Document]:
    decoded = decode(data)
    yield Document(decoded.text, notes=decoded.notes)


def _html(data: bytes) -> Iterator[Document]:
    page = markup(data)
    yield Document(page_text(page.text), notes=page.notes)


def _pdf(data: bytes) -> Iterator[Document]:
    text, notes = pdf_text(data)
    yield Document(text, notes=notes)


def _whole(read: Callable[[bytes], str]) -> Reader:
    """A reader of files that are one text."""

    def reader(data: bytes) -> Iterator[Document]:
        yield Document(read(data))

    return reader


def _slides(data: bytes) -> Iterator[Document]:
    for number, text in slides(data):
        yield Document(text, f"slide {number}")


def _workbook(data: bytes) -> Iterator[Document]:
    """A sheet's rows, each as a record, and what stands above their header."""
    sheets, notes = workbook(data)
    return _sheets(sheets, notes)


def _open_sheets(data: bytes) -> Iterator[Document]:
    return _sheets(open_sheets(data), [])


def _sheets(sheets: Sequence[tuple[str, Sequence[Row]]], notes: Sequence[str]) -> Iterator[Document]:
    found = [one for title, rows in sheets for one in records(title, rows)]
    return _of_records(found or [Record("", "")], notes)


def _mail(data: bytes) -> Iterator[Document]:
    """A mail, and what is attached to it, each part of it by its file's name."""
    text, attachments = mail(data)
    documents, notes = [], []
    for name, attached in attachments:
        if PurePath(name).suffix.lower() not in READERS:
            notes.append(f"has the attachment {name}, which is not read")
            continue
        try:
            inner = read_data(attached, name)
        except DataError as error:
            notes.append(f"has an attachment that was left out ({str(error).rstrip('.')})")
            continue
        notes += [f"has the attachment {name}, which {note}" for one in inner for note in one.notes]
        documents += [replace(one, part=f"{name} {one.part}".strip(), notes=()) for one in inner]
    yield Document(text, notes=tuple(notes))
    yield from documents


def _table(data: bytes) -> Iterator[Document]:
    """Rows of questions and answers; columns named ``question`` and ``answer``, or else all columns of a row."""
    return _records(data, read_table)


def _tabbed(data: bytes) -> Iterator[Document]:
    return _records(data, lambda text: read_table(text, "\t"))


def _jsonl(data: bytes) -> Iterator[Document]:
    """Objects with a ``text``, and perhaps an ``id``, whose further fields are metadata; or all fields of others."""
    return _records(data, read_lines)


def _json(data: bytes) -> Iterator[Document]:
    """The objects of a list, as in JSONL, or all that is in one value."""
    return _records(data, read_json)


def _records(data: bytes, read: Callable[[str], tuple[list[Record], list[str]]]) -> Iterator[Document]:
    decoded = decode(data)
    records, notes = read(decoded.text)
    return _of_records(records, (*decoded.notes, *notes))


def _of_records(records: Sequence[Record], notes: Sequence[str]) -> Iterator[Document]:
    """Records as documents, the first of which has the notes on the file."""
    for number, one in enumerate(records):
        yield Document(one.text, one.part, one.metadata, () if number else tuple(notes))


READERS: dict[str, Reader] = {
    **dict.fromkeys((".txt", ".text", ".log"), _plain),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"), _plain),
    **dict.fromkeys((".rst", ".adoc", ".asciidoc", ".org", ".tex", ".yaml", ".yml", ".srt", ".vtt"), _plain),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _html),
    **dict.fromkeys((".mht", ".mhtml"), _whole(saved_page)),
    ".pdf": _pdf,
    **dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), _whole(word_text)),
    **dict.fromkeys((".odt", ".ott", ".odp", ".otp"), _whole(open_text)),
    ".rtf": _whole(rich_text),
    ".epub": _whole(book_text),
    ".eml": _mail,
    **dict.fromkeys((".pptx", ".pptm", ".potx", ".ppsx"), _slides),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx"), _workbook),
    **dict.fromkeys((".ods", ".ots"), _open_sheets),
    ".csv": _table,
    **dict.fromkeys((".tsv", ".tab"), _tabbed),
    ".json": _json,
    **dict.fromkeys((".jsonl", ".ndjson"), _jsonl),
}
"""What reads each kind of file."""

INSTEAD = {
    **dict.fromkeys((".doc", ".dot", ".wpd", ".wps", ".pages", ".hwp"), "save it as .docx"),
    **dict.fromkeys((".xls", ".xlsb", ".numbers"), "save it as .xlsx"),
    **dict.fromkeys((".ppt", ".pps", ".key"), "save it as .pptx"),
    **dict.fromkeys((".msg", ".mbox"), "save each mail as .eml"),
    **dict.fromkeys((".mobi", ".azw", ".azw3", ".fb2"), "convert it to .epub"),
    **dict.fromkeys((".djvu", ".ps", ".xps"), "convert it to .pdf"),
}
"""What to do with kinds of files that hold text and are not read."""
