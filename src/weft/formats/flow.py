"""Text that is laid out as it comes: words, lines, blocks, list items and table cells of a marked-up document.

:class:`Flow` is told what begins and ends, and hands on plain text: blocks with an empty line between them, the cells
of a row with tabs between them, a mark before each item of a list.
"""

from __future__ import annotations

import re

SPACE, LINE, BLOCK = 1, 2, 3
_GAPS = ("", " ", "\n", "\n\n")
_SPACES = re.compile(r"[ \t\r\n\f]+")


class Flow:
    """A text under construction."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.gap = 0
        self.tabs = 0
        self.mark = ""
        self.fresh = True  # nothing stands yet in this document, item or cell, so nothing has to be kept apart from it
        self.rows: list[tuple[int, int]] = []  # of each open table: where its row begins in the pieces, and its cells

    def __str__(self) -> str:
        return "".join(self.pieces)

    def words(self, text: str) -> None:
        """Running text: spaces and line ends are a space."""
        if not text:
            return
        text = _SPACES.sub(" ", text)
        core = text.strip(" ")
        if text[0] == " ":
            self.apart(SPACE)
        if core:
            self.verbatim(core)
            if text[-1] == " ":
                self.apart(SPACE)

    def verbatim(self, text: str) -> None:
        """Text whose spaces and line ends count."""
        if self.pieces:
            self.pieces.append(_GAPS[self.gap])
        self.pieces += ["\t" * self.tabs, self.mark, text]
        self.gap, self.tabs, self.mark, self.fresh = 0, 0, "", False

    def apart(self, gap: int) -> None:
        """What comes next stands apart: by a ``SPACE``, on a new ``LINE``, or as a new ``BLOCK``."""
        if not self.fresh:
            self.gap = max(self.gap, gap)

    def line_end(self) -> None:
        """A line ends here; a second end leaves an empty line."""
        self.apart(BLOCK if self.gap >= LINE else LINE)

    def item(self, mark: str) -> None:
        """An item of a list begins."""
        self.apart(LINE)
        self.mark, self.fresh = mark, True

    def item_end(self) -> None:
        """An item of a list ends."""
        self.mark, self.fresh = "", not self.pieces
        self.apart(LINE)

    def table(self) -> None:
        """A table begins."""
        self.apart(BLOCK)
        self.rows.append((len(self.pieces), 0))

    def row(self) -> None:
        """A row of a table begins."""
        self.fresh = not self.pieces
        self.apart(LINE)
        self.tabs = 0
        if self.rows:
            self.rows[-1] = len(self.pieces), 0

    def cell(self) -> None:
        """A cell of a row begins."""
        if self.rows:
            begin, cells = self.rows[-1]
            if cells:
                self.gap = 0 if len(self.pieces) > begin else self.gap
                self.tabs += 1
            self.rows[-1] = begin, cells + 1
        self.fresh = True

    def table_end(self) -> None:
        """A table ends."""
        if self.rows:
            self.rows.pop()
        self.tabs, self.fresh = 0, not self.pieces
        self.apart(BLOCK)
