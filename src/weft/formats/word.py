"""Word files: .docx, and the templates and files with macros that are like them.

Headers stand before the text and footers behind it, each once; notes and comments behind the paragraphs that refer to
them; charts and diagrams where they are shown. Numbers of lists and headings are counted as Word counts them.
"""

from __future__ import annotations

from typing import Any

from weft.formats.graphics import chart, diagram
from weft.formats.html import markup, page_text
from weft.formats.numbering import Numbering
from weft.formats.numerals import numeral
from weft.formats.package import Package, Related, attribute
from weft.formats.story import Story

_NOTES = {"footnoteReference": "footnotes", "endnoteReference": "endnotes", "commentReference": "comments"}


def word_text(data: bytes) -> str:
    """What a Word file says, as it is printed, and what was written beside it.

    Raises:
        DataError: it can't be read.
    """
    return _File(Package(data)).text()


class _File:
    def __init__(self, package: Package) -> None:
        self.package, self.main = package, package.main()
        self.parts = package.related(self.main)
        self.numbering = Numbering.of(package, self.main)
        self.notes = {kind: self._notes(kind) for kind in _NOTES.values()}
        self.noted: dict[str, int] = dict.fromkeys(_NOTES.values(), 0)
        self.margins: dict[str, list[str]] = {"headerReference": [], "footerReference": []}

    def text(self) -> str:
        body = Story(self.package, self.main, self.numbering, self._anchored).blocks
        headers, footers = (self._margin(names) for names in self.margins.values())
        return "\n\n".join([*headers, *body, *footers])

    def _notes(self, kind: str) -> dict[str, tuple[str, str]]:
        names = [part.name for part in self.parts.values() if part.kind == kind and part.name in self.package]
        return Story(self.package, names[0], self.numbering).notes if names else {}

    def _anchored(self, kind: str, element: Any) -> tuple[str, list[str]]:
        """What a reference of the body puts into its line, and behind its paragraph."""
        if kind in _NOTES:
            return self._note(_NOTES[kind], element)
        if kind in self.margins:
            self.margins[kind].append(attribute(element, "id"))
        elif kind == "altChunk":
            return "", self._chunk(self._part(attribute(element, "id")))
        elif kind == "chart":
            return "", chart(self.package, self._part(attribute(element, "id")).name)
        elif kind == "relIds":
            return "", diagram(self.package, self._part(attribute(element, "dm")).name)
        return "", []

    def _part(self, name: str) -> Related:
        return self.parts.get(name, Related("", ""))

    def _note(self, kind: str, element: Any) -> tuple[str, list[str]]:
        author, text = self.notes[kind].get(attribute(element, "id"), ("", ""))
        if not text:
            return "", []
        if kind == "comments":
            return "", [f"[Comment by {author}: {text}]" if author else f"[Comment: {text}]"]
        self.noted[kind] += 1
        number = numeral(self.noted[kind], "decimal" if kind == "footnotes" else "lowerRoman")
        return f"[{number}]", [f"[{number}] {text}"]

    def _margin(self, names: list[str]) -> list[str]:
        """Headers or footers, each text once."""
        texts: dict[str, None] = {}
        for name in dict.fromkeys(self._part(one).name for one in names):
            if name in self.package:
                texts.update(dict.fromkeys(Story(self.package, name, self.numbering).blocks))
        return list(texts)

    def _chunk(self, part: Related) -> list[str]:
        """A document of another kind that Word takes in when it opens this one."""
        if part.name not in self.package:
            return []
        data = self.package.read(part.name)
        if data.startswith(b"PK"):
            return [word_text(data)]
        text = markup(data).text
        return [page_text(text) if "<" in text else text]
