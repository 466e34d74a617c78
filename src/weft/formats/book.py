"""Books: .epub, chapter after chapter."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from weft.errors import DataError
from weft.formats.html import markup, page_text
from weft.formats.package import Package, attribute, elements

_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Encryption that only fonts have."""


def book_text(data: bytes) -> str:
    """What a book says, in the order of its pages.

    Raises:
        DataError: it can't be read, or is protected against copying.
    """
    package = Package(data)
    if "META-INF/encryption.xml" in package:
        methods = elements(package.root("META-INF/encryption.xml"), "EncryptionMethod")
        if any(not attribute(one, "Algorithm").startswith(_FONTS) for one in methods):
            raise DataError("it is protected against copying (DRM)")
    roots = elements(package.root("META-INF/container.xml"), "rootfile")
    if not roots:
        raise DataError("it is damaged (without a list of its pages)")
    main = attribute(roots[0], "full-path")
    listing = package.root(main)
    titles = [one.text or "" for one in elements(listing, "title")]
    files = {attribute(one, "id"): attribute(one, "href") for one in elements(listing, "item")}
    pages = [files.get(attribute(one, "idref"), "") for one in elements(listing, "itemref")]
    names = [posixpath.normpath(posixpath.join(posixpath.dirname(main), unquote(page))) for page in pages if page]
    texts = [page_text(markup(package.read(name)).text) for name in names if name in package]
    return "\n\n".join(text for text in [*titles[:1], *texts] if text.strip())
