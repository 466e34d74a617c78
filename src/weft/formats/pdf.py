"""PDFs, as PDFium reads them, which shows them in Chromium.

Files that open without a password are read, encrypted or not; fields that were filled in and text that was put onto a
page are read with it.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from weft.errors import DataError
from weft.formats.hyphens import undivided
from weft.records import places

_PDFIUM = Lock()
"""PDFium works for one thread at a time."""


def pdf_text(data: bytes) -> tuple[str, tuple[str, ...]]:
    """What the pages of a PDF say, with an empty line between them, and notes on those that say nothing.

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
            raise DataError(f"it is damaged, or no PDF ({error})") from None
        try:
            pages = [_page(document, number) for number in range(len(document))]
        finally:
            document.close()
    if not any(page.strip() for page in pages):
        raise DataError("it holds no text (scanned pages?); run it through OCR first")
    empty = [number for number, page in enumerate(pages, 1) if not page.strip()]
    notes = (f"has no text on {places(empty, 'page', 'pages')} (scanned, or empty)",) if empty else ()
    return undivided("\n\n".join(page for page in pages if page.strip())), notes


def _page(document: Any, number: int) -> str:
    from pypdfium2.raw import FLAT_PRINT, FPDFPage_Flatten

    page = document[number]
    FPDFPage_Flatten(page, FLAT_PRINT)
    page.close()
    page = document[number]
    words = page.get_textpage()
    text = words.get_text_range()
    words.close()
    page.close()
    return text.replace("\r\n", "\n").replace("\0", "")
