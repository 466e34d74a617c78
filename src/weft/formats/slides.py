"""Presentations: .pptx, and the templates, shows and files with macros that are like them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from weft.formats.graphics import chart, diagram
from weft.formats.package import Package, Related, attribute, elements
from weft.formats.story import Story


def slides(data: bytes) -> Iterator[tuple[int, str]]:
    """The slides of a presentation: the number of each, and its text with its notes and comments.

    Raises:
        DataError: it can't be read.
    """
    package = Package(data)
    main = package.main()
    parts = package.related(main)
    ids = [_relation(element) for element in elements(package.root(main), "sldId")]
    for number, name in enumerate((parts[one].name for one in ids if one in parts), 1):
        text = "\n\n".join(_slide(package, name))
        if text:
            yield number, text


def _slide(package: Package, name: str) -> Iterator[str]:
    parts = package.related(name)

    def shown(kind: str, element: Any) -> tuple[str, list[str]]:
        if kind == "chart":
            return "", chart(package, parts.get(_relation(element), Related("", "")).name)
        if kind == "relIds":
            return "", diagram(package, parts.get(attribute(element, "dm"), Related("", "")).name)
        return "", []

    yield from Story(package, name, anchored=shown).blocks
    for kind, part in parts.values():
        if kind == "notesSlide" and part in package:
            yield from (f"Notes: {text}" for text in ["\n".join(Story(package, part).blocks)] if text)
        elif kind == "comments" and part in package:
            said = [element.text for element in elements(package.root(part), "text", "t")]
            yield from (f"[Comment: {text}]" for text in said if text)


def _relation(element: Any) -> str:
    """The relation that an element names, beside which it may have an ``id`` of its own."""
    return next((str(value) for key, value in element.attrib.items() if key.endswith("}id")), "")
