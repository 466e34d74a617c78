"""Documents that are a ZIP file of XML parts, opened with bounds: Office Open XML, OpenDocument, EPUB.

What is read of a package may unpack to :data:`LARGEST` bytes in all; entities are not expanded, and nothing is fetched.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import unquote

from weft.errors import DataError

LARGEST = 100 * 2**20
"""Bytes that are read of one package, at most: a book of 10,000 pages takes a third of it."""


class Related(NamedTuple):
    """A part that another one names: what it is to that part, and its name in the package."""

    kind: str
    name: str


class Package:
    """A ZIP file of parts.

    Args:
        data: the file.

    Raises:
        DataError: it is no ZIP file, or encrypted.
    """

    def __init__(self, data: bytes) -> None:
        if data.startswith(b"\xd0\xcf\x11\xe0"):
            raise DataError("it is protected by a password, or in a format from before 2007; save it anew without")
        try:
            self.zip = zipfile.ZipFile(BytesIO(data))
        except zipfile.BadZipFile:
            raise DataError("it is damaged, or not what its name says (no ZIP file)") from None
        self.names = {info.filename.replace("\\", "/").lstrip("/"): info for info in self.zip.infolist()}
        self.left = LARGEST

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        """A part, unpacked.

        Raises:
            DataError: there is no such part, it is encrypted or damaged, or too much has been unpacked with it.
        """
        info = self.names.get(name)
        if info is None:
            raise DataError(f"it is damaged (without its part {name})")
        if info.flag_bits & 1:
            raise DataError("it is protected by a password; save it without one")
        self.left -= info.file_size  # zipfile unpacks no more than is declared
        if self.left < 0:
            raise DataError(f"it unpacks to more than {LARGEST // 2**20} MB; split it")
        try:
            return self.zip.read(info)
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise DataError(f"it is damaged ({error})") from None

    def events(self, name: str) -> Iterator[tuple[str, Any]]:
        """The elements of an XML part, each as it begins (``"start"``) and, with all its own, as it ends (``"end"``).

        Raises:
            DataError: it can't be unpacked, or is no XML.
        """
        from lxml import etree

        try:
            yield from etree.iterparse(
                BytesIO(self.read(name)),
                events=("start", "end"),
                resolve_entities=False,
                no_network=True,
                remove_comments=True,
                remove_pis=True,
            )
        except etree.XMLSyntaxError as error:
            raise DataError(f"it is damaged ({name}: {error.msg})") from None

    def feed(self, name: str, target: Any) -> None:
        """Tell a target of an XML part: ``start`` and ``end`` of its elements, ``data`` between them.

        Raises:
            DataError: it can't be unpacked, or is no XML.
        """
        from lxml import etree

        parser = etree.XMLParser(target=target, resolve_entities=False, no_network=True)
        try:
            parser.feed(self.read(name))
            parser.close()
        except etree.XMLSyntaxError as error:
            raise DataError(f"it is damaged ({name}: {error.msg})") from None

    def root(self, name: str) -> Any:
        """The root element of an XML part, of those that are small."""
        root = None
        for _, element in self.events(name):
            root = element
        return root

    def related(self, name: str) -> dict[str, Related]:
        """The parts that a part of Office Open XML names, by the ids that it gives them."""
        folder, file = posixpath.split(name)
        relations = posixpath.join(folder, "_rels", f"{file}.rels")
        if relations not in self:
            return {}
        return {
            one.get("Id", ""): Related(
                one.get("Type", "").rsplit("/", 1)[-1],
                posixpath.normpath(posixpath.join("/", folder, unquote(one.get("Target", "")))).lstrip("/"),
            )
            for one in self.root(relations)
            if one.get("TargetMode") != "External"
        }

    def main(self) -> str:
        """The name of the part that a package of Office Open XML begins with.

        Raises:
            DataError: it has none.
        """
        for kind, name in self.related("").values():
            if kind == "officeDocument" and name in self:
                return name
        raise DataError("it is damaged (without a main part)")


def local(element: Any) -> str:
    """An element's name without its namespace, which differs between versions of a format."""
    return element.tag.rpartition("}")[2]


def elements(root: Any, *names: str) -> list[Any]:
    """All elements within one, and itself, that have one of some names, in order."""
    return [element for element in root.iter() if local(element) in names]


def attribute(element: Any, name: str, default: str = "") -> str:
    """An element's attribute, in whatever namespace, by its local name."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return str(value)
    return default
