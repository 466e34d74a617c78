"""A data set of questions about pictures, which can't be answered without looking.

:func:`balanced` is given all questions that the captions of pictures answer (:mod:`weft.questions`) and chooses a few
of each picture; :func:`flickr8k_questions` writes those of Flickr8k as conversations.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from weft.conversations import picture_line, write_lines
from weft.flickr8k import splits
from weft.questions import Kind, Question, questions
from weft.whole_files import write_bytes

OPEN = 4
"""Questions of a picture, at most, that ask for more than yes or no."""
YES_NO = 3
"""Questions of a picture, at most, that ask for yes or no."""
SHARE = 0.4
"""The part of the answers to one question, asked of many pictures, that may be the same."""

_Asked = dict[str, dict[str, list[int]]]


def balanced(pictures: Sequence[Sequence[Question]], rng: random.Random) -> list[list[Question]]:
    """Choose from the questions of many pictures, so that no question gives its answer away.

    Each yes-no question is asked of as many pictures where the answer is yes as of those where it is no. Of every other
    question no answer has more than :data:`SHARE`, as COCO-QA bounds answers that are too common; where it has too few
    different answers for that, each is asked for once.

    Args:
        pictures: the questions of each picture, each text once.
        rng: decides which are chosen.

    Returns:
        For each picture at most :data:`OPEN` and :data:`YES_NO` questions, in the order in which they were given.
    """
    kept: list[set[Question]] = [set() for _ in pictures]
    for text, answers in _by_text(pictures, yes_no=False).items():
        limit = _limit([len(places) for places in answers.values()])
        for answer, places in answers.items():
            for place in rng.sample(places, min(limit, len(places))):
                kept[place].add(_find(pictures[place], text, answer))
    for place, chosen in enumerate(kept):
        asked = [question for question in pictures[place] if question in chosen]
        kept[place] = set(rng.sample(asked, min(OPEN, len(asked))))
    _add_pairs(pictures, kept, rng)
    return [[one for one in asked if one in chosen] for asked, chosen in zip(pictures, kept, strict=True)]


def _by_text(pictures: Sequence[Sequence[Question]], yes_no: bool) -> _Asked:
    """Of which pictures each question is asked, by text and answer."""
    asked: _Asked = {}
    for place, one in enumerate(pictures):
        for question in one:
            if (question.kind == "yes-no") == yes_no:
                asked.setdefault(question.text, {}).setdefault(question.answer, []).append(place)
    return asked


def _limit(counts: Sequence[int]) -> int:
    """How often an answer may be given: as often as leaves each at most its share, and once at least."""
    limits = range(max(counts), 0, -1)
    return next((one for one in limits if one <= SHARE * sum(min(count, one) for count in counts)), 1)


def _find(asked: Sequence[Question], text: str, answer: str) -> Question:
    return next(one for one in asked if (one.text, one.answer) == (text, answer))


def _add_pairs(pictures: Sequence[Sequence[Question]], kept: list[set[Question]], rng: random.Random) -> None:
    """Add yes-no questions in pairs of one yes and one no, rare ones first, to pictures that have few questions."""
    room = [YES_NO] * len(pictures)
    asked = _by_text(pictures, yes_no=True)
    for text in sorted(asked, key=lambda text: (min(len(asked[text].get(one, ())) for one in ("yes", "no")), text)):
        sides = {answer: asked[text].get(answer, []) for answer in ("yes", "no")}
        for places in sides.values():
            rng.shuffle(places)
            places.sort(key=lambda place: len(kept[place]))
        open_ = {answer: [place for place in places if room[place]] for answer, places in sides.items()}
        for pair in zip(open_["yes"], open_["no"], strict=False):
            for answer, place in zip(("yes", "no"), pair, strict=True):
                kept[place].add(_find(pictures[place], text, answer))
                room[place] -= 1


def flickr8k_questions(folder: str | Path, out: str | Path, seed: int = 0) -> dict[str, dict[Kind, int]]:
    """Write ``questions-SPLIT.jsonl`` for each ``SPLIT.parquet`` of a folder, and pictures that are not there yet.

    A line is a conversation of one question and its answer, with the ``kind`` of the question.

    Args:
        folder: holds Parquet files with the columns ``image`` (``{"bytes": ..., "path": ...}``) and ``captions``.
        out: folder to write to; that of :func:`weft.flickr8k.flickr8k`, whose pictures are used.
        seed: decides which questions are asked.

    Returns:
        For each split how many questions of each kind.

    Raises:
        DataError: the folder holds no Parquet file, or one has other columns.
    """
    pictures = Path(out) / "pictures"
    counts: dict[str, dict[Kind, int]] = {}
    for split, photos in splits(folder):
        for photo in photos:
            if not (pictures / photo.name).is_file():
                write_bytes(pictures / photo.name, photo.file)
        chosen = balanced([questions(photo.captions) for photo in photos], random.Random(seed))
        lines = (
            picture_line(f"pictures/{photo.name}", one.text, one.answer, kind=one.kind)
            for photo, asked in zip(photos, chosen, strict=True)
            for one in asked
        )
        write_lines(out, {f"questions-{split}": lines})
        counts[split] = dict(Counter(question.kind for one in chosen for question in one))
    return counts
