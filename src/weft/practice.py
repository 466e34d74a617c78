"""Practice in reading: questions about sections of texts, asked of these and of others beside them.

:func:`reading_of` decides what a question is asked of where it has its answer; :func:`cloze_lines` makes questions of
the texts' own sentences. :mod:`weft.unanswerable` asks the same questions of what does not answer them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from weft.cloze import clozes
from weft.conversations import Documents, document_line
from weft.unanswerable import Asked, Unanswerable, tempting

ALONE, AMONG = 0.25, 0.9
"""Share of questions that are asked of the sections alone that hold the answer; share up to which others of the same
text stand beside these, and from which on some of another text."""


def reading_of(asked: Asked, texts: Mapping[str, Documents], rng: random.Random, *, most: int) -> list[tuple[str, str]]:
    """What a question is asked of: the sections that hold the answer, alone or among others.

    Args:
        asked: the question.
        texts: the sections of each text, by its name.
        rng: makes the choices.
        most: sections of the same text that are put beside them, at most; one less of another.
    """
    told = texts[asked.text]
    documents = [told[index] for index in asked.held]
    others = [index for index in range(len(told)) if index not in asked.held]
    chance = rng.random()
    if chance < ALONE:
        return documents
    if chance < AMONG and others:
        added = tempting(asked.question, told, others, rng.randint(1, most), rng)
        return [told[index] for index in sorted([*asked.held, *added])]
    return mixed(documents, asked.text, texts, rng.randint(1, max(1, most - 1)), rng)


def mixed(
    documents: Documents, text: str, texts: Mapping[str, Documents], count: int, rng: random.Random
) -> list[tuple[str, str]]:
    """Sections of a text and up to so many of another, where there is one, in any order."""
    names = [name for name in texts if name != text]
    other = texts[rng.choice(names)] if names else ()
    found = [*documents, *rng.sample(list(other), min(count, len(other)))]
    rng.shuffle(found)
    return found


def answered_line(asked: Asked, texts: Mapping[str, Documents], documents: Documents) -> str:
    """A question with its answer, of some documents."""
    told = texts[asked.text]
    answer, *references = dict.fromkeys(asked.answers)
    return document_line(documents, asked.question, answer, references, [told[index][0] for index in asked.held])


def cloze_lines(
    texts: Mapping[str, Documents], rng: random.Random, *, count: int, most: int = 3
) -> tuple[list[str], list[str]]:
    """Questions that :func:`weft.cloze.clozes` makes of texts: with their answer, and of what does not answer them.

    Args:
        texts: the sections of each text, by its name.
        rng: makes the choices.
        count: questions about a section, at most.
        most: sections that stand beside the one that holds the answer, at most.
    """
    made = [
        Asked(name, one.question, (one.answer,), (index,))
        for name, sections in texts.items()
        for index, (_, text) in enumerate(sections)
        for one in clozes(text, rng, count)
    ]
    silent = Unanswerable(texts, made, near=0)
    answered, unanswerable = [], []
    for asked in made:
        documents = reading_of(asked, texts, rng, most=most)
        answered.append(answered_line(asked, texts, documents))
        unanswerable += silent.any_lines(asked, documents, rng)
    return answered, unanswerable
