"""Spreadsheets: the rows of a workbook's visible sheets, with their values as the sheet shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from io import BytesIO
from typing import Any

from weft.formats.package import Package
from weft.records import Names, Record, record

Row = tuple[int, list[str]]
"""A row's number, and its cells as they are shown."""
_TITLE = 20
"""Rows at the top of a sheet in which its header is looked for."""
_LOOKED_AT = 200
"""Rows of which a header must name most."""
_NUMBER = re.compile(r"[-+]?[\d.,]+%?")
_CURRENCY = re.compile(r'\[\$([^\]-]+)[^\]]*\]|"([^"]*[^"\s\d.,%-][^"]*)"|([€$£¥₹])')


def workbook(data: bytes) -> tuple[list[tuple[str, list[Row]]], list[str]]:
    """The visible sheets of an .xlsx file, by name and in order, and notes on what could not be read.

    Raises:
        DataError: it can't be read.
    """
    from openpyxl import load_workbook

    package = Package(data)
    parts = [name for name in package.names if name.endswith(".xml") and "media/" not in name]
    formulas = sum(_without_value(package.read(name)) for name in parts)  # and no more than a package may unpack to
    book = load_workbook(BytesIO(data), read_only=True, data_only=True)
    try:
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
        found = [(sheet.title, list(_rows(sheet))) for sheet in sheets]
        hidden = len(book.worksheets) - len(sheets)
    finally:
        book.close()
    notes = []
    if hidden:
        notes.append(f"has {hidden} hidden sheet{'s' if hidden > 1 else ''}, left out")
    if formulas:
        what = f"{formulas:,} formulas" if formulas > 1 else "a formula"
        notes.append(f"has {what} without a value, left out; open and save it in a spreadsheet program")
    return found, notes


def records(title: str, rows: Sequence[Row]) -> Iterator[Record]:
    """A sheet as records: a row each below a header, if it has one, and what stands above as a text.

    Args:
        title: the sheet's name.
        rows: its rows, without those that are empty.
    """
    header = _header(rows)
    above = rows if header is None else rows[:header]
    if above:
        yield Record("\n".join("\t".join(cells).strip("\t") for _, cells in above), title)
    if header is None:
        return
    names, free = [], Names()
    for place, name in enumerate(rows[header][1], 1):
        names.append(free.free(name or f"column {place}"))
    for number, cells in rows[header + 1 :]:
        names += [free.free(f"column {place}") for place in range(len(names) + 1, len(cells) + 1)]
        yield record(list(zip(names, cells, strict=False)), f"{title} row {number}")


def _header(rows: Sequence[Row]) -> int | None:
    """Which of the rows names the columns: the first of words alone below which most are rows of a table."""
    widths = [_width(cells) for _, cells in rows[:_LOOKED_AT]]
    for place, (_, cells) in enumerate(rows[:_TITLE]):
        width, below = widths[place], widths[place + 1 :]
        tabular = sum(1 for other in below if other > 1 and width <= 2 * other <= 4 * width)
        if width > 1 and below and 2 * tabular >= len(below):
            is_named = not any(cell.endswith(":") or _NUMBER.fullmatch(cell) for cell in cells)
            return place if is_named else None
    return None


def _width(cells: Sequence[str]) -> int:
    return sum(1 for cell in cells if cell)


def _rows(sheet: Any) -> Iterator[Row]:
    sheet.reset_dimensions()  # what a file says of its size may be wrong
    for number, row in enumerate(sheet.rows, 1):
        cells = [_shown(cell.value, getattr(cell, "number_format", "General")) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield number, cells


def _shown(value: Any, form: str) -> str:
    """A cell's value, as the sheet shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, (int, float)):
        form = (form or "General").split(";")[0]
        if "%" in form:
            return f"{value * 100:.15g}%"
        sign, digits = _CURRENCY.search(form), f"{value:.15g}"
        if sign is None:
            return digits
        unit = next(group for group in sign.groups() if group).strip()
        return f"{unit}{digits}" if sign.start() < form.find("0") else f"{digits} {unit}"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "minutes")
    if isinstance(value, (date, time, timedelta)):
        return str(value)
    return " ".join(str(value).split(" ")).strip()


def _without_value(part: bytes) -> int:
    """How many formulas of a part have never been computed."""
    return sum(part.count(end) for end in (b"</f></c>", b"</f><v/></c>", b"</f><v></v></c>", b"</f><v /></c>"))
