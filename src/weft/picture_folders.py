"""What of a folder is a picture: by how its files begin, whatever they are called.

:func:`pictures_in` hands on the files to be looked at, among them those that are pictures of a kind that is not read,
which are refused by name as they would be alone; and folders in it, to be told of. What a system has put there by
itself, a name hides, or is no picture, is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from weft.errors import PictureError
from weft.folders import QUIET
from weft.images import USUAL
from weft.picture_kinds import HEAD, PICTURES, known_formats, shows_something, unread_kind

SYSTEM = QUIET | {"ehthumbs.db", "@eadir", "$recycle.bin"}
"""What systems put into folders of pictures."""
_BY_NAME = ("TGA", "SUN", "SGI", "PCX", "DCX", "CUR", "ICO", "PPM")
"""Formats that begin as much else does: of these the name counts."""


@dataclass(frozen=True)
class FoundPictures:
    """What a folder holds.

    Attributes:
        files: its pictures, in order of their names.
        folders: folders in it that may hold further ones, which are not looked into.
    """

    files: tuple[Path, ...]
    folders: tuple[Path, ...]


def pictures_in(folder: Path) -> FoundPictures:
    """The pictures of a folder.

    Raises:
        PictureError: the folder can't be read.
    """
    shown = _shown(folder)
    files = tuple(entry for entry in shown if not entry.is_dir() and _says_picture(entry))
    return FoundPictures(files, tuple(entry for entry in shown if entry.is_dir() and _may_hold_some(entry)))


def _shown(folder: Path) -> list[Path]:
    """What of a folder somebody has put there."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise PictureError(f"{folder} can't be read ({error.strerror}).") from None
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM]


def _may_hold_some(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in PICTURES or entry.is_dir() for entry in _shown(folder))
    except PictureError:
        return True


def _says_picture(file: Path) -> bool:
    """Whether a file is a picture, or says by its name or its beginning that it is one."""
    if file.suffix.lower() in PICTURES:
        return True
    if not file.is_file():  # a link that leads nowhere, a pipe
        return shows_something(unread_kind(b"", file.name))
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD)
    except OSError:
        return False
    return shows_something(unread_kind(head, file.name)) or (not head.isascii() and _is_known(file))


def _is_known(file: Path) -> bool:
    """Whether Pillow knows a file by how it begins."""
    for formats in (lambda: USUAL, known_formats):  # knowing all of them takes as long as a picture
        try:
            with Image.open(file, formats=[name for name in formats() if name not in _BY_NAME]):
                return True
        except Exception:  # Pillow raises many kinds
            continue
    return False
