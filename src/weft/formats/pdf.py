"""PDFs, as PDFium reads them, which shows them in Chromium.

Files that open without a password are read, encrypted or not; fields that were filled in and text that was put onto a
page are read with it.
"""

from __future__ import annotations

import re
from threading import Lock
from typing import Any

from weft.characters import RIGHT_TO_LEFT
from weft.charsets import REPLACEMENT
from weft.errors import DataError
from weft.formats.hyphens import DIVIDED, undivided
from weft.records import places

_RIGHT_TO_LEFT = re.compile(f"[{RIGHT_TO_LEFT}]+")
_PDFIUM = Lock()
"""PDFium works for one thread at a time."""


def pdf_text(data: bytes) -> tuple[str, tuple[str, ...]]:
    """What the pages of a PDF say, with an empty line between them, and notes on what can't be read of them.

    Raises:
        DataError: it can't be read, needs a password, or holds no text.
    """
    from pypdfium2 import PdfDocument, PdfiumError
    from pypdfium2.raw import FPDF_ERR_PASSWORD

    with _PDFIUM:
        try:
            document = PdfDocument(data)
        except PdfiumError as error:
            if error.err_code == FPDF_ERR_PASSWORD:
                raise DataError("it opens with a password only; save it without one") from None
            raise DataError("it is damaged, or no PDF") from None
        try:
            pages = [_page(document, number) for number in range(len(document))]
        finally:
            document.close()
    empty = [number for number, page in enumerate(pages, 1) if not re.search(r"\w", page)]
    if len(empty) == len(pages):
        raise DataError("it holds no text (scanned pages?); run it through OCR first")
    unnamed = sum(page.count(REPLACEMENT) for page in pages)
    notes = []
    if empty:
        notes.append(f"has no text on {places(empty, 'page', 'pages')} (scanned, or empty)")
    if unnamed:
        what = f"{unnamed:,} characters" if unnamed > 1 else "a character"
        notes.append(f"shows {what} that its fonts do not name, read as {REPLACEMENT}")
    return undivided("\n\n".join(page for page in pages if re.search(r"\w", page))), tuple(notes)


def _page(document: Any, number: int) -> str:
    from pypdfium2.raw import FLAT_PRINT, FPDFPage_Flatten

    page = document[number]
    FPDFPage_Flatten(page, FLAT_PRINT)  # what was filled in and put onto it becomes part of the page
    page.close()
    page = document[number]
    words = page.get_textpage()
    text = words.get_text_range()
    if _RIGHT_TO_LEFT.search(text) or len(text) < words.count_chars():
        text = _as_read(words)
    words.close()
    page.close()
    return str(text).replace("\r\n", "\n")


def _as_read(words: Any) -> str:
    """The text of a page, character by character.

    Letters of Arabic and Hebrew, which PDFium hands on from the left in some words, are put in order, and what a font
    shows without saying which character it is becomes U+FFFD, where PDFium leaves it out.
    """
    from pypdfium2.raw import FPDFText_GetUnicode

    places = range(words.count_chars())
    text = "".join(chr(FPDFText_GetUnicode(words, place)) for place in places)

    def from_the_right(match: re.Match[str]) -> str:
        first, last = (words.get_charbox(place)[0] for place in (match.start(), match.end() - 1))
        return match[0][::-1] if first < last else match[0]

    return _RIGHT_TO_LEFT.sub(from_the_right, text).replace("\0", REPLACEMENT).replace("\x02", DIVIDED)
