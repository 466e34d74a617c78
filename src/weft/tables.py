"""Tables of comma-separated values, as spreadsheets and people write them: one record a row.

:func:`read_table` is given a text and finds out what divides its cells. A row that is not as it should be costs nothing
but itself; what is odd is told.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from weft.records import Record, places, record

DELIMITERS = ",;\t|"
"""What may divide cells, the likeliest first."""
NOTHING = "\x1f"
"""What divides no cells: no text has it."""
LARGEST_CELL = 2**31 - 1
"""Characters of a cell, at most."""
PATIENCE = 200
"""Lines of a row, at most, in a table in which quotes that are never closed have been followed in vain."""


def read_table(text: str, delimiter: str | None = None) -> tuple[list[Record], list[str]]:
    """The rows of a table below its header, and notes on what is odd about them, each as the end of a sentence.

    Args:
        text: the table.
        delimiter: what divides cells, if the header has any; None to find out.
    """
    lines = text.split("\n")
    named = lines[0].strip().strip('"')
    if named[:4].lower() == "sep=" and len(named) == 5:  # for Excel, which does not show the line
        delimiter, lines = named[4], lines[1:]
    elif named[:4].lower() == "sep=" and not named[4:]:  # a tab that was stripped
        delimiter, lines = "\t", lines[1:]
    elif delimiter is None or not any(delimiter in line for line in lines[:PATIENCE]):
        delimiter = find_delimiter(lines)
    rows = Rows(lines, delimiter)
    records: list[Record] = []
    longer, shorter = [], []
    for number, cells in rows:
        if len(cells) > len(rows.header):
            longer.append(number)
        elif len(cells) < len(rows.header):
            shorter.append(number)
        names = [*rows.header, *(f"column {place}" for place in range(len(rows.header) + 1, len(cells) + 1))]
        records.append(record(list(zip(names, cells, strict=False)), f"row {number}"))
    odd = {
        "more cells than the header names, kept as further columns": longer,
        "fewer cells than the header names": shorter,
        "quotes that are not closed as they should be, read as they stand": rows.unquoted,
    }
    return records, [f"has {said} in {places(numbers, 'row', 'rows')}" for said, numbers in odd.items() if numbers]


def find_delimiter(lines: Sequence[str]) -> str:
    """What divides the cells of a table: that by which most of its first rows have as many cells as the header; what
    divides nothing where the header is one cell by all of them."""
    best, most = NOTHING, (0.0, 0)
    for delimiter in DELIMITERS:
        rows = Rows(lines[:PATIENCE], delimiter)
        widths = Counter(len(cells) for _, cells in islice(rows, PATIENCE // 2))
        width = len(rows.header)
        alike = widths[width] / max(1, widths.total()) if widths else 1.0
        if width > 1 and (alike, width) > most:
            best, most = delimiter, (alike, width)
    return best


class Rows:
    """The rows of a table below its header, each with its number, the header's being that of the first row with cells.

    Args:
        lines: the lines of the table.
        delimiter: what divides cells.

    Attributes:
        header: the names of the columns; ``column 2`` for one that has none.
        unquoted: the numbers of rows whose quotes are not closed as they should be.
    """

    def __init__(self, lines: Sequence[str], delimiter: str) -> None:
        if csv.field_size_limit() < LARGEST_CELL:
            csv.field_size_limit(LARGEST_CELL)
        self.lines, self.delimiter = lines, delimiter
        self.unquoted: list[int] = []
        self.wasted = 0
        self.header: list[str] = []
        self._rows = self._with_cells()
        _, cells = next(self._rows, (0, []))
        self.header = [cell or f"column {place}" for place, cell in enumerate(cells, 1)]

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self._rows

    def _with_cells(self) -> Iterator[tuple[int, list[str]]]:
        """Rows that are not empty, without the empty cells that go beyond the header's."""
        for number, row in enumerate(self._all(), 1):
            cells = [cell.strip() for cell in row]
            while len(cells) > len(self.header) and not cells[-1]:
                cells.pop()
            if any(cells):
                yield number, cells

    def _all(self) -> Iterator[list[str]]:
        at, number = 0, 0
        while at < len(self.lines):
            row, taken = self._quoted(at)
            number += 1
            width = len(self.header)
            if row is None or (taken > 1 and width and len(row) != width):
                alone = self._alone(self.lines[at])
                if row is None or len(alone) == width:  # the quote has swallowed rows
                    self.wasted += taken
                    self.unquoted.append(number)
                    row, taken = alone, 1
            at += taken
            yield row

    def _quoted(self, at: int) -> tuple[list[str] | None, int]:
        """The row that begins at a line, and the lines that it takes; None where its quotes are not as they should
        be."""
        reader = csv.reader(self._some(at), delimiter=self.delimiter, strict=True)
        try:
            return next(reader, []), max(1, reader.line_num)
        except csv.Error:
            return None, max(1, reader.line_num)

    def _some(self, at: int) -> Iterator[str]:
        """Lines from one on, only some of them once many have been followed in vain: time is to grow with the table."""
        patience = PATIENCE if self.wasted > 2 * len(self.lines) else len(self.lines)
        for place in range(at, min(at + patience, len(self.lines))):
            yield self.lines[place] + "\n"

    def _alone(self, line: str) -> list[str]:
        """The cells of a line whose quotes are not as they should be: with them, or without where that makes as many
        cells as the header has."""
        plain = line.split(self.delimiter)
        lenient = next(csv.reader([line], delimiter=self.delimiter), [])
        return lenient if len(lenient) == len(self.header) != len(plain) else plain
