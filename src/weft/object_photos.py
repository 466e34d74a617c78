"""Photos of one thing each, as conversations: what it is called, and what can be told of such a photo without a person.

A data set of such photos says what is on each and no more. The sentences here say that in many forms, with the colour
behind it where that is plain to see; and some say it of a photo whose thing is called something else, together with
its names, so that a weave learns to say what it reads rather than what it has seen before.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from weft.conversations import picture_line, write_lines
from weft.errors import DataError
from weft.everyday_words import ANIMALS, SCENES, THINGS, with_article
from weft.images import load_image
from weft.instructions import CAPTION, TITLE

DEV = 10
"""One photo in so many is kept for development."""
FORMS = (
    "{A}.",
    "{A}{behind}.",
    "A close-up of {a}.",
    "A picture of {a}{behind}.",
    "A photo of {a}.",
    "There is {a} in the picture.",
    "There is {a}{behind}.",
    "This is {a}.",
    "{A} seen up close.",
    "{A} is shown{behind}.",
    "{A} is in the middle of the picture.",
    "The picture shows {a}{behind}.",
)
"""Sentences about a photo of one thing."""
PLACES = ("{A} in its surroundings.", "A view of {a}.", "{A} seen from a distance.", "A scene with {a}.", "{A}.")
"""Sentences about a photo of a place, or of what people go to."""
STANDS = ("{A} is standing{behind}.", "{A} is looking around.", "{A} by itself{behind}.")
"""Further sentences about a photo of an animal."""
LIES = ("{A} on its own{behind}.", "{A} by itself.", "{A} with nobody near it.")
"""Further sentences about a photo of a thing."""
SENTENCES = 3
"""Sentences about a photo."""


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
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or not {"picture", "plain_noun"} <= rows[0].keys():
        raise DataError(f"{file} has no columns 'picture' and 'plain_noun'.")
    photos = [ObjectPhoto(Path(folder) / "pictures" / row["picture"], row["plain_noun"]) for row in rows]
    missing = next((photo.file for photo in photos if not photo.file.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing} doesn't exist, but {file} names it.")
    return photos


def write_object_photos(folder: str | Path, out: str | Path, seed: int = 0) -> dict[str, int]:
    """Write ``objects-train.jsonl`` and ``objects-dev.jsonl``, and copy the photos to ``pictures/``.

    Args:
        folder: see :func:`object_photos`.
        out: folder to write to.
        seed: decides which sentences are said of a photo.

    Returns:
        Conversations of each file.
    """
    lines: dict[str, list[str]] = {"objects-train": [], "objects-dev": []}
    pictures = Path(out) / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(object_photos(folder)):
        (pictures / photo.file.name).write_bytes(photo.file.read_bytes())
        picture, rng = f"pictures/{photo.file.name}", random.Random(f"{seed} {photo.file.name}")
        if number % DEV == 0:
            sentence = f"A photo of {with_article(photo.noun)}."
            lines["objects-dev"].append(picture_line(picture, CAPTION, sentence, objects=[photo.noun]))
        else:
            lines["objects-train"] += lines_of(photo, picture, rng)
    return write_lines(out, lines)


def lines_of(photo: ObjectPhoto, picture: str, rng: random.Random) -> Iterator[str]:
    """Conversations about one photo: what it shows, its title, and the same under another name.

    Args:
        photo: the photo.
        picture: its file, as lines name it.
        rng: decides what is said.
    """
    behind = background(np.asarray(load_image(photo.file).resize((64, 64), Image.Resampling.BOX)))
    sentences = sentences_about(photo.noun, behind, rng)
    for sentence in sentences:
        yield picture_line(picture, CAPTION, sentence)
    yield picture_line(picture, TITLE, f"{photo.noun[0].upper()}{photo.noun[1:]}{behind}")
    if photo.noun not in SCENES:
        others = ANIMALS if photo.noun in ANIMALS else THINGS
        other = rng.choice([noun for noun in others if noun != photo.noun])
        for sentence in sentences_about(other, behind, rng)[:2]:
            yield picture_line(picture, CAPTION, sentence, names={photo.noun: other})


def sentences_about(noun: str, behind: str, rng: random.Random) -> Sequence[str]:
    """Some sentences that say of a photo what is on it.

    Args:
        noun: what is on it.
        behind: the colour behind that, as :func:`background` tells it.
        rng: decides which.
    """
    forms = (*PLACES, *FORMS[:6]) if noun in SCENES else (*FORMS, *(STANDS if noun in ANIMALS else LIES))
    a = with_article(noun)
    chosen = dict.fromkeys(rng.sample(forms, len(forms)))
    made = (form.format(a=a, A=a[0].upper() + a[1:], behind=behind) for form in chosen)
    return list(dict.fromkeys(made))[:SENTENCES]


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
