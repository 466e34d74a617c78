"""OpenDocument: texts (.odt), presentations (.odp) and the rows of spreadsheets (.ods)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.errors import DataError
from weft.formats.numerals import BY_SIGN, numeral
from weft.formats.package import Package
from weft.formats.sheets import Row

_LEFT_OUT = frozenset(("tracked-changes", "hidden-text", "creator", "date", "sequence-decls", "forms", "note-citation"))
_LAID_OUT = {"tab": "\t", "line-break": "\n", "soft-page-break": ""}
_BOXES = frozenset(
    (
        "text-box",
        "note-body",
        "annotation",
        "table-cell",
        "covered-table-cell",
        "list-item",
        "notes",
        "header",
        "footer",
    )
)
_WIDEST = 20_000
"""Cells or rows, at most, that one element stands for; a sheet has 16,384 columns."""


def opened(data: bytes) -> Package:
    """A file of OpenDocument.

    Raises:
        DataError: it is damaged, or protected by a password.
    """
    package = Package(data)
    manifest = "META-INF/manifest.xml"
    if manifest in package and b"encryption-data" in package.read(manifest):
        raise DataError("it is protected by a password; save it without one")
    return package


def open_text(data: bytes) -> str:
    """What a text or a presentation says, headers before it and footers behind.

    Raises:
        DataError: it can't be read.
    """
    content = _read(data)
    headers, footers = (list(dict.fromkeys(content.margins[kind])) for kind in ("header", "footer"))
    return "\n\n".join([*headers, *content.boxes[0], *footers])


def open_sheets(data: bytes) -> list[tuple[str, list[Row]]]:
    """The sheets of a spreadsheet by name, with the rows that are not empty.

    Raises:
        DataError: it can't be read.
    """
    return _read(data, is_sheet=True).sheets


def _read(data: bytes, is_sheet: bool = False) -> _Content:
    package = opened(data)
    content = _Content(is_sheet)
    for name in ("styles.xml", "content.xml"):
        if name in package or name == "content.xml":
            package.feed(name, content)
    return content


@dataclass
class _Paragraph:
    pieces: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)  # what is anchored in it: text boxes, notes, comments


@dataclass
class _List:
    style: str
    number: int | None = None  # of the item before; None before the first


class _Content:
    """The parts of a file, as lxml tells of them piece by piece."""

    def __init__(self, is_sheet: bool) -> None:
        self.boxes: list[list[str]] = [[]]  # the text, and each box, cell or item that is open in it
        self.margins: dict[str, list[str]] = {"header": [], "footer": []}
        self.sheets: list[tuple[str, list[Row]]] = []
        self.is_sheet = is_sheet
        self._paragraphs: list[_Paragraph] = []  # those that are open in the innermost box
        self._around: list[list[_Paragraph]] = []  # those that are open around each box
        self._tables: list[list[str]] = []
        self._rows: list[list[str]] = []
        self._repeats: list[int] = []
        self._row = 0  # the number of a spreadsheet's row
        self._lists: list[_List] = []
        self._style = ""
        self._levels: dict[tuple[str, int], tuple[str, int]] = {}  # of lists: how a level counts, and from where
        self._skipped = self._notes = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        kind = tag.rpartition("}")[2]
        if self._skipped or kind in _LEFT_OUT:
            self._skipped += 1
            return
        known = {name.rpartition("}")[2]: value for name, value in attributes.items()}
        if kind in ("p", "h"):
            self._paragraphs.append(_Paragraph())
        elif kind in _BOXES:
            self.boxes.append([])
            self._around.append(self._paragraphs)
            self._paragraphs = []
            if kind == "list-item" and self._lists:
                self._count(known)
        elif kind == "table":
            self._tables.append([])
            if self.is_sheet and len(self._tables) == 1:
                self.sheets.append((known.get("name", ""), []))
                self._row = 0
        elif kind == "table-row":
            self._rows.append([])
            self._repeats.append(_count(known.get("number-rows-repeated")))
        elif kind == "list":
            self._lists.append(_List(known.get("style-name", self._lists[-1].style if self._lists else "")))
        elif kind == "list-style":
            self._style = known.get("name", "")
        elif kind == "list-level-style-number":
            level = self._style, _count(known.get("level"))
            self._levels[level] = known.get("num-format", ""), _count(known.get("start-value"))
        elif kind == "s":
            self.data(" " * min(_count(known.get("c")), 1000))
        if kind in ("table-cell", "covered-table-cell"):
            self._repeats.append(_count(known.get("number-columns-repeated")))

    def end(self, tag: str) -> None:
        kind = tag.rpartition("}")[2]
        if self._skipped:
            self._skipped -= 1
        elif kind in _LAID_OUT:
            self.data(_LAID_OUT[kind])
        elif kind in ("p", "h"):
            paragraph = self._paragraphs.pop()
            text = "".join(paragraph.pieces).strip()
            self._hand_on([text] if text else [])
            self._hand_on(paragraph.after)
        elif kind in ("table-cell", "covered-table-cell"):
            text = "\n".join(self._close_box())
            repeated = self._repeats.pop()
            # Empty cells are repeated to the edge of the sheet; those at the end of a row go with its end.
            self._rows[-1] += [text] * (min(repeated, _WIDEST) if not text else repeated)
        elif kind == "table-row":
            self._end_row()
        elif kind == "table":
            rows = self._tables.pop()
            if not (self.is_sheet and not self._tables):
                self._hand_on(["\n".join(rows)] if rows else [])
        elif kind == "list":
            self._lists.pop()
        elif kind in _BOXES:
            self._end_box(kind)

    def data(self, text: str) -> None:
        if self._paragraphs and not self._skipped:
            self._paragraphs[-1].pieces.append(text)

    def close(self) -> None:
        pass

    def _hand_on(self, blocks: list[str]) -> None:
        (self._paragraphs[-1].after if self._paragraphs else self.boxes[-1]).extend(blocks)

    def _end_row(self) -> None:
        cells, repeated = self._rows.pop(), self._repeats.pop()
        while cells and not cells[-1]:
            cells.pop()
        if self.is_sheet and len(self._tables) == 1:
            times = min(repeated, _WIDEST) if cells else 0
            self.sheets[-1][1].extend((self._row + time, cells) for time in range(1, times + 1))
            self._row += repeated
        elif cells and self._tables:
            self._tables[-1].append("\t".join(cells))

    def _close_box(self) -> list[str]:
        self._paragraphs = self._around.pop()
        return self.boxes.pop()

    def _end_box(self, kind: str) -> None:
        blocks = self._close_box()
        if kind in self.margins:
            self.margins[kind] += blocks
        elif kind == "note-body":
            self._notes += 1
            self.data(f"[{self._notes}]")
            self._hand_on([f"[{self._notes}] " + "\n".join(blocks)])
        elif kind == "annotation":
            self._hand_on(["[Comment: " + "\n".join(blocks) + "]"] if blocks else [])
        elif kind == "list-item" and blocks and self._lists:
            self._hand_on([self._mark() + blocks[0], *blocks[1:]])
        elif kind == "notes":
            self._hand_on(["Notes: " + "\n".join(blocks)] if blocks else [])
        else:
            self._hand_on(blocks)

    def _level(self) -> tuple[str, int]:
        return self._levels.get((self._lists[-1].style, len(self._lists)), ("", 1))

    def _count(self, known: Mapping[str, str]) -> None:
        inner, (_, start) = self._lists[-1], self._level()
        given = known.get("start-value", "")
        inner.number = int(given) if given.isdecimal() else start if inner.number is None else inner.number + 1

    def _mark(self) -> str:
        form, _ = self._level()
        number = self._lists[-1].number
        return f"{numeral(number, BY_SIGN.get(form, 'decimal'))}. " if form and number is not None else "- "


def _count(given: str | None) -> int:
    """How often something is repeated."""
    return int(given) if given is not None and given.isdecimal() and len(given) < 9 else 1
