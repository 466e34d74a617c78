"""Questions that what is read beside them does not answer, of three kinds.

:class:`Unanswerable` is given texts in sections, and asks a question about one of them once more: of sections of
another text, of other sections of the same one, or of the same sections with a name or a number in it exchanged. Each
is asked of as many sections as the question that has its answer, so that their number tells nothing.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from weft.conversations import Documents, document_line
from weft.entity_swaps import EntitySwaps
from weft.instructions import NOT_SAID

Kind = Literal["story", "section", "exchanged"]
"""What makes a question unanswerable: that another text is read, that other sections are, that it asks something
else."""
KINDS: tuple[Kind, ...] = ("story", "section", "exchanged")
MOST = 0.6
"""Share of an answer's longer words from which on a section is taken to hold it."""


@dataclass(frozen=True)
class Asked:
    """A question about a text.

    Attributes:
        text: the name of the text.
        question: what is asked.
        answers: right answers, the first of which is learned.
        held: indices of the sections that hold the answer, in order.
    """

    text: str
    question: str
    answers: tuple[str, ...]
    held: tuple[int, ...]


class Unanswerable:
    """Asks questions of what does not answer them.

    Args:
        texts: the sections of each text, by its name.
        asked: the questions about them, which are looked through for names as well.
        near: how many sections beside one that holds the answer may go on with it.
    """

    def __init__(self, texts: Mapping[str, Documents], asked: Sequence[Asked], *, near: int = 1) -> None:
        self.texts, self.near = texts, near
        words = {name: [said for _, said in sections] for name, sections in texts.items()}
        for one in asked:
            words[one.text].append(one.question)
        self._swaps = EntitySwaps({name: "\n".join(said) for name, said in words.items()})

    def any_lines(self, asked: Asked, documents: Documents, rng: random.Random) -> list[str]:
        """A line of any kind that the question has, or none.

        Args:
            asked: the question.
            documents: what it is asked of where it has its answer.
            rng: makes the choices.
        """
        found = (self.lines(kind, asked, documents, rng) for kind in rng.sample(KINDS, len(KINDS)))
        return next((lines for lines in found if lines), [])

    def lines(self, kind: Kind, asked: Asked, documents: Documents, rng: random.Random) -> list[str]:
        """A line of one kind, or none; other arguments as for :meth:`any_lines`."""
        question: str | None = asked.question
        if kind == "exchanged":
            question = self._swaps.question(asked.question, asked.text, [said for _, said in documents], rng)
        elif kind == "section":
            documents = self.beside(asked, len(documents), rng)
        else:
            documents = self.elsewhere(asked, len(documents), rng)
        if question is None or not documents:
            return []
        return [document_line(documents, question, NOT_SAID, kind=kind)]

    def beside(self, asked: Asked, count: int, rng: random.Random) -> list[tuple[str, str]]:
        """Sections of the same text that hold no answer, and do not stand beside one that does; where it has fewer than
        so many, some of another text with them."""
        told = self.texts[asked.text]
        far = [index for index in range(len(told)) if all(abs(index - held) > self.near for held in asked.held)]
        found = self._silent(asked, told, far, count, rng)
        return [*found, *self.elsewhere(asked, count - len(found), rng)] if found else []

    def elsewhere(self, asked: Asked, count: int, rng: random.Random) -> list[tuple[str, str]]:
        """So many sections of another text that hold no answer; of several, where one has fewer."""
        names = [name for name in self.texts if name != asked.text]
        found: list[tuple[str, str]] = []
        while len(found) < count and names:
            told = self.texts[names.pop(rng.randrange(len(names)))]
            found += self._silent(asked, told, range(len(told)), count - len(found), rng)
        return found

    def _silent(
        self, asked: Asked, told: Documents, among: Sequence[int], count: int, rng: random.Random
    ) -> list[tuple[str, str]]:
        silent = [index for index in among if not says(told[index][1], asked.answers)]
        return [told[index] for index in tempting(asked.question, told, silent, count, rng)]


def says(section: str, answers: Sequence[str]) -> bool:
    """Whether a section may hold one of the answers: its words as they stand, or most of the longer ones."""
    flat, words = _flat(section), _words(section)
    for answer in answers:
        longer = {word for word in _words(answer) if len(word) > 3}
        if answer.strip(" .").casefold() in flat or (longer and len(longer & words) > MOST * len(longer)):
            return True
    return False


def tempting(question: str, told: Documents, among: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """Up to ``count`` sections of a text, in its order: half those that a search by words would find, half any."""
    frequency, wanted = _frequencies(tuple(text for _, text in told)), _words(question)
    shared = {index: wanted & _words(told[index][1]) for index in among}
    found = sorted(among, key=lambda index: -math.fsum(1 / frequency[word] for word in shared[index]))
    chosen = found[: (count + rng.randint(0, 1)) // 2]
    rest = found[len(chosen) :]
    return sorted([*chosen, *rng.sample(rest, min(count - len(chosen), len(rest)))])


@lru_cache(maxsize=16384)
def _flat(text: str) -> str:
    return " ".join(text.split()).casefold()


@lru_cache(maxsize=1024)
def _frequencies(sections: tuple[str, ...]) -> Counter[str]:
    """In how many sections of a text each word stands."""
    return Counter(word for section in sections for word in _words(section))


@lru_cache(maxsize=16384)
def _words(text: str) -> frozenset[str]:
    """The words of a text; a section is looked at for every question about its story."""
    return frozenset(re.findall(r"\w+", text.casefold()))
