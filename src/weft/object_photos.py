"""Photos of one thing each, as conversations: what it is called, and what can be told of such a photo without a person.

A data set of such photos says what is on each and no more. The sentences here say that in some short forms, with the
colour behind it where that is plain to see; a weave that has learned from captions writes others (:mod:`weft.written`).
Some are said of a photo whose thing is called something else, together with its names, so that a weave learns to say
what it reads rather than what it has seen before.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weft.conversations import picture_line, read_text, write_lines
from weft.errors import DataError
from weft.everyday_words import ANIMALS, SCENES, THINGS, with_article
from weft.images import load_image
from weft.instructions import CAPTION, TITLE
from weft.model import WeftModel
from weft.whole_files import write_bytes
from weft.written import captions_from

DEV = 10
"""One photo in so many is kept for development."""
FORMS = ("{A}.", "{A}{behind}.", "A close-up of {a}.", "A picture of {a}{behind}.", "There is {a}{behind}.")
"""Sentences about a photo of one thing."""
PLACES = ("{A}.", "A view of {a}.", "A picture of {a}.", "{A} seen from a distance.")
"""Sentences about a photo of a place, or of what people go to."""
SENTENCES = 2
"""Sentences about a photo."""
WHAT = ("What is this?", "What is it?", "What is in the picture?", "What does the picture show?", "What can you see?")
"""Ways to ask for the thing on a photo; the answer is its noun, as in questions about Flickr8k."""
WHAT_ANIMAL = ("What animal is this?", "What animal is it?", "What animal is in the picture?")


@dataclass(frozen=True)
class ObjectPhoto:
    """A photo of one thing.

    Attributes:
        file: where it is.
        noun: what is on it, as a plain noun.
    """

    file: Path
    noun: str


def object_photos(folder: str | Path) -> list[ObjectPhoto]:
    """The photos of a folder that holds ``labels.tsv`` and ``pictures/``.

    Raises:
        DataError: ``labels.tsv`` is missing or has other columns, or a photo is missing.
    """
    file = Path(folder) / "labels.tsv"
    if not file.is_file():
        raise DataError(f"{file} is missing; give a folder with labels.tsv and pictures/.")
    rows = list(csv.DictReader(read_text(file).splitlines(), delimiter="\t", restval="", quoting=csv.QUOTE_NONE))
    if not rows or not {"picture", "plain_noun"} <= rows[0].keys():
        raise DataError(f"{file} has no columns 'picture' and 'plain_noun'.")
    photos = [ObjectPhoto(Path(folder) / "pictures" / row["picture"], row["plain_noun"]) for row in rows]
    missing = next((photo.file for photo in photos if not photo.file.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing} doesn't exist, but {file} names it.")
    return photos


def write_object_photos(
    folder: str | Path, out: str | Path, writer: WeftModel | None = None, seed: int = 0
) -> dict[str, int]:
    """Write ``objects-train.jsonl`` and ``objects-dev.jsonl``, and copy the photos to ``pictures/``.

    Args:
        folder: see :func:`object_photos`.
        out: folder to write to.
        writer: writes captions that begin with what is on a photo; None for sentences of fixed forms alone.
        seed: decides which sentences are said of a photo.

    Returns:
        Conversations of each file.
    """
    pictures = Path(out) / "pictures"
    photos = object_photos(folder)
    for photo in photos:
        write_bytes(pictures / photo.file.name, photo.file.read_bytes())
    kept = photos[::DEV]
    learned = [photo for number, photo in enumerate(photos) if number % DEV]
    written: Iterable[str | None] = repeat(None, len(learned))
    if writer is not None:
        written = captions_from(writer, [(photo.file, _capital(with_article(photo.noun))) for photo in learned])
    lines: dict[str, list[str]] = {"objects-train": [], "objects-dev": []}
    for photo, caption in zip(learned, written, strict=True):
        rng = random.Random(f"{seed} {photo.file.name}")
        lines["objects-train"] += lines_of(photo, f"pictures/{photo.file.name}", caption, rng)
    for photo in kept:
        sentence = f"A photo of {with_article(photo.noun)}."
        lines["objects-dev"].append(
            picture_line(f"pictures/{photo.file.name}", CAPTION, sentence, objects=[photo.noun])
        )
    return write_lines(out, lines)


def lines_of(photo: ObjectPhoto, picture: str, written: str | None, rng: random.Random) -> Iterator[str]:
    """Conversations about one photo: what it shows, its title, questions, and the same under another name.

    Args:
        photo: the photo.
        picture: its file, as lines name it.
        written: a caption that was written for it, beginning with what is on it.
        rng: decides what is said.
    """
    behind = background(np.asarray(load_image(photo.file).resize((64, 64), Image.Resampling.BOX)))
    beginning = _capital(with_article(photo.noun))
    rest = None if written is None else written.removeprefix(beginning)
    yield from _lines_about(photo.noun, picture, behind, rest, rng)
    if photo.noun not in SCENES:
        other = rng.choice([noun for noun in _alike(photo.noun) if noun != photo.noun])
        yield from _lines_about(other, picture, behind, rest, rng, names={photo.noun: other})


def _lines_about(
    noun: str, picture: str, behind: str, rest: str | None, rng: random.Random, **more: Any
) -> Iterator[str]:
    """Captions, a title, and questions with their answers."""
    for sentence in _sentences(noun, behind, rest, rng):
        yield picture_line(picture, CAPTION, sentence, **more)
    yield picture_line(picture, TITLE, f"{_capital(noun)}{behind}", **more)
    for question, answer in questions_about(noun, rng):
        yield picture_line(picture, question, answer, **more)


def _alike(noun: str) -> Sequence[str]:
    """What a noun may be exchanged for, or mistaken for."""
    return ANIMALS if noun in ANIMALS else THINGS


def questions_about(noun: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Questions about a photo, with their answers: what is on it, and whether this or something like it is.

    Args:
        noun: what is on it.
        rng: decides how it is asked, and what is not there.
    """
    yield rng.choice([*WHAT, *(WHAT_ANIMAL if noun in ANIMALS else ())]), noun
    missing = rng.choice([other for other in _alike(noun) if other not in noun and noun not in other])
    for name, answer in ((noun, "yes"), (missing, "no")):
        yield f"Is there {with_article(name)} in the picture?", answer


def _sentences(noun: str, behind: str, rest: str | None, rng: random.Random) -> list[str]:
    """What was written and one of the fixed forms, or two of these."""
    if rest is None:
        return sentences_about(noun, behind, rng)
    sentences = [f"{_capital(with_article(noun))}{rest}", *sentences_about(noun, behind, rng)]
    return list(dict.fromkeys(sentences))[:SENTENCES]


def sentences_about(noun: str, behind: str, rng: random.Random) -> list[str]:
    """Some sentences that say of a photo what is on it.

    Args:
        noun: what is on it.
        behind: the colour behind that, as :func:`background` tells it.
        rng: decides which.
    """
    forms = PLACES if noun in SCENES else FORMS
    a = with_article(noun)
    made = (form.format(a=a, A=_capital(a), behind=behind) for form in rng.sample(forms, len(forms)))
    return list(dict.fromkeys(made))[:SENTENCES]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def background(pixels: np.ndarray) -> str:
    """What is behind the thing in the middle of a photo, where that is of one colour: ``" on a white background"``.

    Args:
        pixels: the photo in RGB, ``[height, width, 3]``, from 0 to 255.
    """
    height, width = pixels.shape[:2]
    edge = np.ones((height, width), bool)
    edge[height // 8 : -height // 8, width // 8 : -width // 8] = False
    colours = pixels[edge].astype(np.float32) / 255
    brightest, darkest = colours.max(1), colours.min(1)
    if np.mean(darkest > 0.85) > 0.8:
        return " on a white background"
    if np.mean(brightest < 0.15) > 0.8:
        return " on a black background"
    red, green, blue = colours.T
    if np.mean((green > red * 1.05) & (green > blue * 1.15)) > 0.75:
        return " with a green background"
    top = pixels[: height // 4].reshape(-1, 3).astype(np.float32) / 255
    if np.mean((top[:, 2] > top[:, 0] * 1.2) & (top[:, 2] > 0.4)) > 0.8:
        whole = np.mean((blue > red * 1.2) & (blue > 0.3)) > 0.8
        return " with a blue background" if whole else " under a blue sky"
    return ""
