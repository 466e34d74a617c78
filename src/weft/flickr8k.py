"""Flickr8k as training data: Parquet files of pictures and captions, turned into conversations.

Captions are cleaned of their tokenized spacing, begin with a capital and end with a full stop. Titles are made from
them by :func:`title_of`, a rule without a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.conversations import picture_line, write_lines
from weft.errors import DataError
from weft.instructions import CAPTION, TITLE
from weft.whole_files import write_bytes

ENDS_A_TITLE = frozenset(
    """is are was were as while who that which and with wearing in on at near through across along over under behind
    by beside into from for of to during next inside outside down up against around between""".split()  # noqa: SIM905
)
"""Words before which a title ends once it has enough of them, and that never end it."""

TITLED = 4
"""One picture in so many is asked for a title: enough to learn the manner, and little to compute."""


def clean(caption: str) -> str:
    """``" a dog runs , fast ."`` as ``"A dog runs, fast."``"""
    text = " ".join(caption.replace('"', " ").split())
    text = re.sub(r"\s+([,.;:!?'])", r"\1", text).strip(" .")
    return text[:1].upper() + text[1:] + "." if text else ""


def title_of(captions: Sequence[str], words: int = 5) -> str:
    """A title of two to five words, made from a picture's captions.

    The shortest caption of three words or more is taken. Its leading article goes, and it is cut after ``words`` words,
    or before the first word of :data:`ENDS_A_TITLE` that follows at least three; such words and articles are then
    taken off the end. ``"A brown dog runs through the grass."`` gives ``"Brown dog runs"``.

    Args:
        captions: captions of one picture.
        words: longest title.
    """
    split = [caption.strip(" .").replace(",", "").split() for caption in captions]
    chosen = min((one for one in split if len(one) >= 3), key=len, default=max(split, key=len, default=[]))
    if chosen and chosen[0].lower() in ("a", "an", "the"):
        chosen = chosen[1:]
    title: list[str] = []
    for word in chosen[:words]:
        if len(title) >= 3 and word.lower() in ENDS_A_TITLE:
            break
        title.append(word)
    while len(title) > 1 and title[-1].lower() in ENDS_A_TITLE | {"a", "an", "the", "his", "her", "its", "their"}:
        title.pop()
    text = " ".join(title)
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Photo:
    """A photo of the data set: what its file is called, what is in it, and what people wrote about it."""

    name: str
    file: bytes
    captions: list[str]


def splits(folder: str | Path) -> Iterator[tuple[str, list[Photo]]]:
    """The photos of each ``SPLIT.parquet`` of a folder, in order of names.

    Args:
        folder: holds Parquet files with the columns ``image`` (``{"bytes": ..., "path": ...}``) and ``captions``.

    Raises:
        DataError: the folder holds no Parquet file, or one is damaged, has other columns or a row without a picture.
    """
    try:
        from pyarrow import ArrowException, parquet  # an extra: only this data set needs it
    except ImportError:
        raise DataError("Parquet files need pyarrow; pip install weft[data].") from None

    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no Parquet files; give the folder with train.parquet and dev.parquet.")
    for file in files:
        try:
            table = parquet.read_table(file)
        except (ArrowException, OSError) as error:
            raise DataError(f"{file} is no Parquet file that can be read ({error}); copy it again.") from None
        if not {"image", "captions"} <= set(table.column_names):
            raise DataError(f"{file} has the columns {table.column_names}; it needs 'image' and 'captions'.")
        photos = []
        for number, row in enumerate(table.select(["image", "captions"]).to_pylist()):
            image, captions = row["image"], row["captions"]
            if not isinstance(image, dict) or not isinstance(image.get("bytes"), bytes):
                raise DataError(f"{file}, row {number}: 'image' must hold the bytes of a picture under 'bytes'.")
            if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
                raise DataError(f"{file}, row {number}: 'captions' must be a list of strings.")
            name = Path(image.get("path") or f"{file.stem}_{number:05}.jpg").name
            photos.append(Photo(name, image["bytes"], captions))
        yield file.stem, photos


def flickr8k(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write ``pictures/`` and, for each ``SPLIT.parquet`` of a folder, ``SPLIT.jsonl``.

    Each picture gives one conversation for each caption, and one in :data:`TITLED` another that asks for its title.

    Args:
        folder: holds Parquet files with the columns ``image`` (``{"bytes": ..., "path": ...}``) and ``captions``.
        out: folder to write to.

    Returns:
        Pictures of each split.

    Raises:
        DataError: the folder holds no Parquet file, or one has other columns.
    """
    pictures = Path(out) / "pictures"
    counts = {}
    for split, photos in splits(folder):
        lines = []
        for number, photo in enumerate(photos):
            write_bytes(pictures / photo.name, photo.file)
            captions = [text for text in map(clean, photo.captions) if text]
            lines += [picture_line(f"pictures/{photo.name}", CAPTION, caption) for caption in captions]
            if number % TITLED == 0:
                lines.append(picture_line(f"pictures/{photo.name}", TITLE, title_of(captions)))
        write_lines(out, {split: lines})
        counts[split] = len(photos)
    return counts
