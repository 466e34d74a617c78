"""One part of an Office file, such as the body of a letter or a slide, as people see it.

:class:`Story` follows the XML of a part from beginning to end, once and without keeping it. Text that was inserted is
read and text that was deleted is not; so are content controls, smart tags, the results of fields, text boxes (of two
versions of one, the first), tables with what is nested in them, notes and comments at the end of their paragraph.
Names of elements are told without their namespaces: WordprocessingML and DrawingML call paragraphs, runs and tables
alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from weft.characters import superscript
from weft.formats.numbering import Numbering, is_on, list_of
from weft.formats.package import Package, attribute, local
from weft.formats.symbols import symbol

_LEFT_OUT = frozenset(
    """del moveFrom delText instrText delInstrText sdtPr sdtEndPr pPrChange rPrChange sectPrChange tblPrChange
    tblGridChange trPrChange tcPrChange tblPrExChange numberingChange""".split()  # noqa: SIM905
)
_LAID_OUT = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_OPERATORS = {"den": "/", "sup": "^", "sub": "_", "rad": "√", "d": "("}
"""What stands before a part of a formula."""
_OPERANDS = frozenset(("num", "den", "sup", "sub"))


@dataclass
class _Paragraph:
    pieces: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)  # what is anchored in it: text boxes, notes, comments
    number: str | None = None
    level: int | None = None
    style: str = ""
    joined: bool = False  # its end was deleted: what follows continues it


@dataclass
class _Run:
    begin: int
    hidden: bool = False
    raised: bool = False


@dataclass
class _Row:
    cells: list[str] = field(default_factory=list)
    deleted: bool = False


class Story:
    """A part, read.

    Args:
        package: the file.
        name: the part.
        numbering: the file's lists, counted on.
        anchored: what a reference, told by its element, puts into its line, and behind its paragraph.

    Attributes:
        notes: of each note or comment in the part, by its id: who wrote it, if the part says so, and its text.

    Raises:
        DataError: the part can't be read.
    """

    def __init__(
        self,
        package: Package,
        name: str,
        numbering: Numbering | None = None,
        anchored: Callable[[str, Any], tuple[str, list[str]]] = lambda kind, element: ("", []),
    ) -> None:
        self.numbering, self.anchored = numbering or Numbering(), anchored
        self.notes: dict[str, tuple[str, str]] = {}
        self._boxes: list[list[str]] = [[]]  # the part, and each box or cell that is open in it
        self._paragraphs: list[_Paragraph] = []  # those that are open in the innermost box
        self._around: list[list[_Paragraph]] = []  # those that are open around each box
        self._runs: list[_Run] = []
        self._tables: list[list[str]] = []
        self._rows: list[_Row] = []
        self._unseen: list[bool] = []  # of each open cell or shape
        self._codes: list[bool] = []  # of each open field: whether its code is being read, and not yet its result
        self._operands: list[int] = []  # where the open parts of formulas begin, in their paragraph's pieces
        self._versions: list[int] = []  # of each open choice between versions: how much had been read before it
        self._skipped = self._read = 0
        self._carried: list[str] = []
        for event, element in package.events(name):
            kind = local(element)
            if self._skipped or (event == "start" and self._is_left_out(kind)):
                self._skipped += 1 if event == "start" else -1
            elif event == "start":
                self._start(kind, element)
            else:
                self._end(kind, element)
                if kind in ("p", "r", "tr", "tbl"):
                    _forget(element)

    @property
    def blocks(self) -> list[str]:
        """Its paragraphs and tables, in order."""
        return self._boxes[0]

    def _is_left_out(self, kind: str) -> bool:
        if kind in ("Choice", "Fallback"):
            return bool(self._versions) and self._read > self._versions[-1]
        return kind in _LEFT_OUT

    def _start(self, kind: str, element: Any) -> None:
        if kind == "p":
            self._paragraphs.append(_Paragraph(self._carried))
            self._carried = []
        elif kind == "r" and self._paragraphs:
            self._runs.append(_Run(len(self._paragraphs[-1].pieces)))
        elif kind in ("txbxContent", "footnote", "endnote", "comment", "sp", "tc"):
            self._boxes.append([])
            self._around.append(self._paragraphs)
            self._paragraphs = []
            hidden = kind == "tc" and "1" in (attribute(element, "hMerge"), attribute(element, "vMerge"))
            self._unseen.append(hidden)
        elif kind == "tbl":
            self._tables.append([])
        elif kind == "tr":
            self._rows.append(_Row())
        elif kind == "AlternateContent":
            self._versions.append(self._read)
        elif kind in _OPERATORS or kind in _OPERANDS:
            self._put(_OPERATORS.get(kind, ""))
            if kind in _OPERANDS and self._paragraphs:
                self._operands.append(len(self._paragraphs[-1].pieces))

    def _end(self, kind: str, element: Any) -> None:
        if kind == "t":
            self._put(element.text or "")
        elif kind in _LAID_OUT and local(element.getparent()) != "tabs":
            self._put(_LAID_OUT[kind])
        elif kind == "sym":
            self._put(symbol(attribute(element, "font"), attribute(element, "char")))
        elif kind == "r" and self._runs:
            self._end_run(self._runs.pop())
        elif kind == "p":
            self._end_paragraph(self._paragraphs.pop())
        elif kind in ("pPr", "rPr", "tcPr", "trPr", "ph"):
            self._properties(kind, element)
        elif kind == "fldChar":
            self._field(element)
        elif kind in ("txbxContent", "sp"):
            self._hand_on(self._close_box())
        elif kind in ("footnote", "endnote", "comment"):
            text = "\n".join(self._close_box())
            self.notes[attribute(element, "id")] = attribute(element, "author"), text
        elif kind in ("tc", "tr", "tbl"):
            self._end_of_table(kind)
        elif kind == "AlternateContent":
            self._versions.pop()
        elif kind in _OPERANDS and self._operands:
            begin, pieces = self._operands.pop(), self._paragraphs[-1].pieces
            operand = "".join(pieces[begin:])
            pieces[begin:] = [operand if operand.isalnum() or not operand else f"({operand})"]
        elif kind == "d":
            self._put(")")
        elif kind == "textpath":
            self._put(attribute(element, "string"))
        else:
            inline, behind = self.anchored(kind, element)
            if self._paragraphs:
                self._put(inline)
                self._paragraphs[-1].after += behind
            else:
                self._boxes[-1] += behind
            self._read += bool(behind)

    def _put(self, text: str) -> None:
        hidden = self._runs and self._runs[-1].hidden
        if text and self._paragraphs and not hidden and not any(self._codes):
            self._paragraphs[-1].pieces.append(text)
            self._read += 1

    def _properties(self, kind: str, element: Any) -> None:
        names = {local(child): child for child in element}
        parent = local(element.getparent())
        if kind == "ph" and attribute(element, "type") == "sldNum" and self._unseen:
            self._unseen[-1] = True
        elif kind == "rPr" and parent == "r" and self._runs:
            style = attribute(names["rStyle"], "val") if "rStyle" in names else ""
            hidden = style in self.numbering.styles and self.numbering.styles[style].hidden
            self._runs[-1].hidden = is_on(names["vanish"]) if "vanish" in names else hidden
            raised = "vertAlign" in names and attribute(names["vertAlign"], "val") == "superscript"
            self._runs[-1].raised = raised or attribute(element, "baseline", "0").rstrip("%") > "0"
        elif kind == "pPr" and parent == "p":
            paragraph = self._paragraphs[-1]
            paragraph.number, paragraph.level = list_of(element)
            paragraph.style = attribute(names["pStyle"], "val") if "pStyle" in names else ""
            mark = [local(child) for child in names["rPr"]] if "rPr" in names else []
            paragraph.joined = "del" in mark or "moveFrom" in mark
        elif kind == "tcPr" and self._unseen:
            goes_on = [names[name] for name in ("vMerge", "hMerge") if name in names]
            goes_on = [one for one in goes_on if attribute(one, "val", "continue") == "continue"]
            self._unseen[-1] |= bool(goes_on) or "cellDel" in names
        elif kind == "trPr" and self._rows:
            self._rows[-1].deleted |= "del" in names

    def _end_run(self, run: _Run) -> None:
        if run.raised and self._paragraphs:
            pieces = self._paragraphs[-1].pieces
            before = "".join(pieces[max(0, run.begin - 3) : run.begin])
            pieces[run.begin :] = [superscript("".join(pieces[run.begin :]), before)]

    def _end_paragraph(self, paragraph: _Paragraph) -> None:
        text = "".join(paragraph.pieces).strip(" \n")
        if paragraph.joined:
            self._carried = paragraph.pieces
        elif text.strip():
            mark = self.numbering.mark(paragraph.number, paragraph.level, paragraph.style)
            self._hand_on([mark + text])
        self._hand_on(paragraph.after)

    def _hand_on(self, blocks: list[str]) -> None:
        """Blocks stand in the innermost open box, or behind the paragraph that they are anchored in."""
        (self._paragraphs[-1].after if self._paragraphs else self._boxes[-1]).extend(blocks)

    def _close_box(self) -> list[str]:
        """What a box holds that ends here; nothing if it is not seen."""
        self._paragraphs = self._around.pop()
        blocks = self._boxes.pop()
        return [] if self._unseen.pop() else blocks

    def _end_of_table(self, kind: str) -> None:
        if kind == "tc":
            text = "\n".join(self._close_box())
            if self._rows:
                self._rows[-1].cells.append(text)
        elif kind == "tr":
            row = self._rows.pop()
            if self._tables and any(row.cells) and not row.deleted:
                self._tables[-1].append("\t".join(row.cells).rstrip("\t"))
        else:
            rows = self._tables.pop()
            self._hand_on(["\n".join(rows)] if rows else [])

    def _field(self, element: Any) -> None:
        kind = attribute(element, "fldCharType")
        if kind == "begin":
            self._put(_filled_in(element))
            self._codes.append(True)
        elif kind == "separate" and self._codes:
            self._codes[-1] = False
        elif kind == "end" and self._codes:
            self._codes.pop()


def _filled_in(field: Any) -> str:
    """What a form's field without a result shows: a box that is checked or not, or what was chosen of a list."""
    for element in field.iter():
        switches = {local(child): child for child in element}
        if local(element) == "checkBox":
            switch = switches.get("checked", switches.get("default"))
            return "☒" if switch is not None and is_on(switch) else "☐"
        if local(element) == "ddList":
            entries = [attribute(child, "val") for child in element if local(child) == "listEntry"]
            chosen = switches.get("result", switches.get("default"))
            place = attribute(chosen, "val", "0") if chosen is not None else "0"
            return entries[int(place)] if place.isdecimal() and int(place) < len(entries) else ""
    return ""


def _forget(element: Any) -> None:
    """Let go of an element that has been read, and of those before it."""
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]
