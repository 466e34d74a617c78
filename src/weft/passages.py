"""Long texts cut into passages: at the ends of sentences, with some overlap, each knowing where it stood.

:func:`cut` is given a text and hands on spans of it. It knows no tokenizer and no file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from weft.hashes import content_hash
from weft.instructions import QUESTION

LONGEST = 800
"""Characters of a passage, by default: about 200 tokens of English."""
OVERLAP = 160
"""Characters, at most, that a passage repeats of the one before it, by default."""

PIECE = 2400
"""Characters of a passage, at most, where a document is read as a whole: about 600 tokens of English."""
PASSAGES = 5
"""Passages that are looked up for an answer, by default."""
BOUND = 16
"""Passages of one text that are read, at most, by default; what a token costs grows no further beyond them."""

Span = tuple[int, int]
"""Where something begins and ends in a text, in characters."""


@dataclass(frozen=True)
class Piece:
    """A passage of a text, to be encoded.

    Attributes:
        text: the passage.
        name: what to call it: its document, or its id.
        start: the character of its document at which it begins.
        question: the question in whose sight it is encoded; empty for one that serves all questions.
    """

    text: str
    name: str = "text"
    start: int = 0
    question: str = ""

    @property
    def content(self) -> str:
        """What its features depend on, beside the encoder: the passage, or a hash of it and of its question."""
        return content_hash(QUESTION, self.question, self.text) if self.question else self.text


_END = re.compile(r"""(?:(?<![.!?…।؟۔])[.!?…।؟۔]+["'”’)\]]*(?=\s) | [。！？]+["'”’」』）]* | \n\s*\n)""", re.VERBOSE)
_NO_END = re.compile(
    r"""(?:^|[\s("'“‘\[])(?:[A-Z] | Mr | Mrs | Ms | Dr | Prof | St | Jr | Sr | vs | No | Nos | Fig | Figs | pp? | cf
    | e\.g | i\.e | approx | Inc | Ltd | Co | Corp | Gen | Col | Sgt | Rev | Hon | Jan | Feb | Mar | Apr | Aug | Sept?
    | Oct | Nov | Dec)\.$""",
    re.VERBOSE,
)


def sentences(text: str) -> list[Span]:
    """The sentences of a text, in order, without the space around them.

    A sentence ends at a full stop, question or exclamation mark with space behind it (not at that of an initial or a
    common abbreviation), at its Hindi, Arabic, Chinese and Japanese counterparts, and at an empty line.
    """
    ends = [
        match.end()
        for match in _END.finditer(text)
        if not _NO_END.search(text[max(0, match.start() - 12) : match.end()])
    ]
    spans = []
    for begin, end in zip([0, *ends], [*ends, len(text)], strict=True):
        stripped = text[begin:end].strip()
        if stripped:
            first = begin + text[begin:end].index(stripped)
            spans.append((first, first + len(stripped)))
    return spans


def cut(text: str, longest: int = LONGEST, overlap: int = OVERLAP) -> list[Span]:
    """Passages of a text: as many whole sentences as fit, beginning with the last ones of the passage before.

    A sentence that is longer than a passage is cut between lines or words, or else behind a comma of a script without
    spaces. Time grows with the length of the text, whatever stands in it.

    Args:
        text: any text.
        longest: characters of a passage, at most.
        overlap: characters, at most, that a passage repeats.

    Raises:
        ValueError: ``longest`` is not above ``overlap``, or that is below zero.
    """
    if not 0 <= overlap < longest:
        raise ValueError(f"longest={longest} and overlap={overlap}: a passage must be longer than what it repeats.")
    pieces = [piece for span in sentences(text) for piece in _at_words(text, span, longest)]
    passages: list[Span] = []
    first = 0
    while first < len(pieces):
        begin, last = pieces[first][0], first
        while last + 1 < len(pieces) and pieces[last + 1][1] - begin <= longest:
            last += 1
        passages.append((begin, pieces[last][1]))
        if last + 1 == len(pieces):
            break
        following = last + 1
        while following - 1 > first and _may_repeat(pieces, following - 1, last, longest, overlap):
            following -= 1
        first = following
    return passages


def _may_repeat(pieces: list[Span], first: int, last: int, longest: int, overlap: int) -> bool:
    """Whether the passage after piece ``last`` can begin as early as at ``first``, and still hold something new."""
    begin = pieces[first][0]
    return pieces[last][1] - begin <= overlap and pieces[last + 1][1] - begin <= longest


def _at_words(text: str, span: Span, longest: int) -> Iterator[Span]:
    """A span in pieces of at most ``longest`` characters, cut at the end of a line or between words where it can be,
    or else behind a comma."""
    begin, end = span
    while end - begin > longest:
        first, last = begin + longest // 2, begin + longest
        place = _last_space(text, first, last)
        yield begin, begin + len(text[begin:place].rstrip())
        begin = _SPACES.match(text, place, end).end()  # type: ignore[union-attr]  # it matches nothing, too
    yield begin, end


def _last_space(text: str, first: int, last: int) -> int:
    """Where to cut between two places: at the last end of a line, or else space, or else behind the last comma of a
    script without spaces, or else anywhere but within a character that is written as several."""
    for space in (_LINE, _SPACE, _COMMA):
        found = space.match(text, first, last + (space is not _COMMA))
        if found:
            return found.end() - (space is not _COMMA)
    place = last
    while place > first and (unicodedata.category(text[place])[0] == "M" or "\u200d" in text[place - 1 : place + 1]):
        place -= 1
    return place if place > first else last


_LINE, _SPACE, _COMMA = (re.compile(rf".*{mark}", re.DOTALL) for mark in (r"\n", r"\s", "[、，；：]"))
"""Up to the last one."""
_SPACES = re.compile(r"\s*")
