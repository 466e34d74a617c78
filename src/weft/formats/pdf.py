"""PDFs, as PDFium reads them, which shows them in Chromium.

Files that open without a password are read, encrypted or not; fields that were filled in and text that was put onto a
page are read with it.
"""

from __future__ import annotations

from threading import Lock

from weft.errors import DataError
from weft.formats.hyphens import undivided

_PDFIUM = Lock()
"""PDFium works for one thread at a time."""


def pdf_text(data: bytes) -> str:
    """What the pages of a PDF say, each in the order in which it was written, with an empty line between them.

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
    return undivided("\n\n".join(pages))


def _page(document, number: int) -> str:
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
