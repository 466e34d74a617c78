"""What becomes of the rows of a data set: how many are read, which are left out and why, what of them nobody reads.

A :class:`Tally` is filled by whoever reads the data; its sentences are for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.conversation_forms import READ
from weft.options import mistyped

SHOWN = 3
"""Rows that a sentence names."""


@dataclass
class Tally:
    """What became of the rows of one data set.

    Attributes:
        rows: those that were read.
        left_out: those that are not used, by the reason.
        noticed: those that are used, but not as a whole, by what of them is not.
        unread: columns that nobody reads.
    """

    rows: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    noticed: dict[str, list[str]] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)

    def read(self, fields: Mapping[str, Any]) -> None:
        """Count a row."""
        self.rows += 1
        self.unread.update(dict.fromkeys(str(name) for name in fields if name not in READ and fields[name] is not None))

    def leave_out(self, why: str, rows: Iterable[str]) -> None:
        """Count rows that are not used.

        Args:
            why: the reason, as the rest of a sentence: ``"have more than 8,192 tokens"``.
            rows: file and line of each.
        """
        if found := list(rows):
            self.left_out.setdefault(why, []).extend(found)

    def notice(self, what: str, row: str) -> None:
        """Count a row of which not all is used; ``what`` as for :meth:`leave_out`."""
        self.noticed.setdefault(what, []).append(row)

    @property
    def reasons(self) -> str:
        """Why rows are left out, as the end of a sentence."""
        return "; ".join(f"{len(rows):,} {why} ({_places(rows)})" for why, rows in self.left_out.items())

    @property
    def sentences(self) -> list[str]:
        """All that people may not expect."""
        said = []
        if self.left_out:
            count = sum(map(len, self.left_out.values()))
            said.append(f"{count:,} of {self.rows:,} rows are left out: {self.reasons}.")
        said += [f"{len(rows):,} rows {what} ({_places(rows)})." for what, rows in self.noticed.items()]
        meant = {name: mistyped(name, READ) for name in self.unread}
        said += [f"The column {name!r} is not read; did you mean {one!r}?" for name, one in meant.items() if one]
        if plain := [name for name, one in meant.items() if not one]:
            said.append(f"Columns that are not read: {', '.join(plain)}.")
        return said


def _places(rows: list[str]) -> str:
    shown = ", ".join(rows[:SHOWN])
    return f"{shown}, and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else shown
