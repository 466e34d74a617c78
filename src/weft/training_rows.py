"""Rows to learn from: a prompt and the answers to it, as tokens; and many of them, in a file of their own.

A :class:`RowFile` is filled row by row, and hands each on when it is asked for: of a row no more than its length stays
in memory.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from weft.hashes import content_hash
from weft.passages import Piece


@dataclass(frozen=True)
class RowPassage:
    """A passage that a row reads.

    Attributes:
        text: the passage.
        column: the column from which on it may be seen.
        supports: whether it is of a document that holds the answer.
        question: the question in whose sight it is encoded; empty for one that serves all questions.
    """

    text: str
    column: int
    supports: bool
    question: str = ""

    @property
    def piece(self) -> Piece:
        """The passage as it is encoded."""
        return Piece(self.text, question=self.question)


@dataclass(frozen=True, eq=False)
class Row:
    """A prompt and the answers to it, as tokens.

    Attributes:
        prompt: tokens up to the first one to be learned.
        answers: for each answer its tokens, and which of them are to be learned.
        pictures: files of the pictures.
        columns: the column from which on each picture may be seen.
        where: file and line of the first example in it.
        passages: those of its documents.
        exchanged: for each picture the names that are exchanged, and for what; None for one that is left out.
        number: its place in its data set; -1 for one of none.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[tuple[int, ...], tuple[bool, ...]], ...]
    pictures: tuple[str, ...]
    columns: tuple[int, ...]
    where: str
    passages: tuple[RowPassage, ...] = ()
    exchanged: tuple[tuple[tuple[str, str | None], ...], ...] = ()
    number: int = -1

    def __len__(self) -> int:
        """Tokens that are computed: of an answer's last token nothing is asked."""
        return len(self.prompt) + sum(len(tokens) - 1 for tokens, _ in self.answers)

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return sum(sum(flags) for _, flags in self.answers)


class RowFile(Sequence[Row]):
    """Rows in a temporary file; those that are alike but for their answers are one row.

    Args:
        folder: where the file is; by default the folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._starts = array("q", [0])
        self._lines: list[tuple[int, ...]] = []  # of each row, those with its answers
        self._rows: dict[str, int] = {}
        self._answers, self._prompts, self._read = array("q"), array("q"), array("q")  # of each line
        self._digest = hashlib.sha256()

    def add(self, row: Row, apart: str = "") -> None:
        """Add a row.

        Args:
            row: the row.
            apart: rows that differ in this are never one.
        """
        tokens = sum(len(answer) - 1 for answer, _ in row.answers)
        fields = [row.prompt, row.answers, row.pictures, row.columns, row.where]
        fields += [[(p.text, p.column, p.supports, p.question) for p in row.passages], row.exchanged]
        line = json.dumps(fields, separators=(",", ":")).encode()
        self._file.seek(self._starts[-1])
        self._file.write(line)
        number = len(self._starts) - 1
        self._starts.append(self._starts[-1] + len(line))
        self._answers.append(tokens)
        self._prompts.append(len(row.prompt))
        self._read.append(sum(len(passage.text) for passage in row.passages))
        exchanged = [row.exchanged] if any(row.exchanged) else []
        self._digest.update(repr((row.prompt, row.answers, row.columns, row.passages, *exchanged)).encode())
        key = content_hash(repr((row.prompt, row.pictures, row.columns, row.passages, row.exchanged)), apart)
        place = self._rows.setdefault(key, len(self._lines))
        if place == len(self._lines):
            self._lines.append(())
        self._lines[place] += (number,)

    def length(self, number: int) -> int:
        """The length of a row, which need not be read for that."""
        lines = self._lines[number]
        return self._prompts[lines[0]] + sum(self._answers[line] for line in lines)

    def read(self, number: int) -> int:
        """Characters of the passages that a row reads."""
        return self._read[self._lines[number][0]]

    @property
    def added(self) -> int:
        """Rows that were added, before any was dropped or put together with others."""
        return len(self._starts) - 1

    def drop_longer(self, longest: int) -> list[str]:
        """Drop rows of more tokens; returns file and line of each."""
        return self._drop(number for number in range(len(self)) if self.length(number) > longest)

    def drop_showing(self, pictures: frozenset[str]) -> list[tuple[str, str]]:
        """Drop rows that show one of some pictures; returns file and line of each, and which it shows."""
        shown = {number: pictures.intersection(row.pictures) for number, row in enumerate(self)} if pictures else {}
        found = [(number, min(some)) for number, some in shown.items() if some]
        places = [(self._line(line).where, picture) for number, picture in found for line in self._lines[number]]
        self._drop(number for number, _ in found)
        return places

    def _drop(self, numbers: Iterable[int]) -> list[str]:
        dropped = set(numbers)
        places = [self._line(line).where for line in sorted(line for at in dropped for line in self._lines[at])]
        self._lines = [lines for number, lines in enumerate(self._lines) if number not in dropped]
        return places

    def separate(self) -> None:
        """Give each answer a row of its own."""
        self._lines = [(line,) for lines in self._lines for line in lines]

    @property
    def shares(self) -> bool:
        """Whether some row has several answers."""
        return any(len(lines) > 1 for lines in self._lines)

    def content(self) -> str:
        """A name for all that was added; where its pictures lie does not matter."""
        return self._digest.hexdigest()

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, number: int) -> Row: ...

    @overload
    def __getitem__(self, number: slice) -> list[Row]: ...

    def __getitem__(self, number: int | slice) -> Row | list[Row]:
        if isinstance(number, slice):
            return [self[place] for place in range(len(self))[number]]
        number = range(len(self))[number]
        first, *others = (self._line(line) for line in self._lines[number])
        answers = (*first.answers, *(answer for row in others for answer in row.answers))
        return replace(first, answers=answers, number=number)

    def _line(self, line: int) -> Row:
        start, end = self._starts[line], self._starts[line + 1]
        self._file.seek(start)
        fields = json.loads(self._file.read(end - start))
        prompt, answers, pictures, columns, where, passages, exchanged = fields
        return Row(
            tuple(prompt),
            tuple((tuple(tokens), tuple(flags)) for tokens, flags in answers),
            tuple(pictures),
            tuple(columns),
            where,
            tuple(RowPassage(*passage) for passage in passages),
            _exchanged(exchanged),
        )


def _exchanged(given: list[Any]) -> tuple[tuple[tuple[str, str | None], ...], ...]:
    return tuple(tuple((name, stands) for name, stands in pairs) for pairs in given)


class SomeRows(Sequence[Row]):
    """Some rows of a file, read when they are asked for.

    Args:
        rows: the file.
        numbers: which of them, in this order.
    """

    def __init__(self, rows: Sequence[Row], numbers: Sequence[int]) -> None:
        self.rows, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self.rows[number] for number in self.numbers[place]]
        return self.rows[self.numbers[place]]

    def __iter__(self) -> Iterator[Row]:
        return (self.rows[number] for number in self.numbers)
