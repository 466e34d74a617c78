"""Files that results are written to: each result has its own, and nobody's file is lost for one.

:func:`file_names` gives results of several files names that differ; :func:`check_free` refuses to write over a file
that Weft has not written, and :func:`save_sheet` marks a picture as one that it has.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from PIL import Image

from weft.errors import WeftError

WRITER = "Weft"
"""Who wrote a file, in its metadata."""
MARK = f'<meta name="generator" content="{WRITER}">'
"""The same in a page."""
BEGINNING = 2**16
"""Bytes of a file in which the mark stands."""
_SOFTWARE = 0x0131
"""EXIF's tag for it."""


def file_names(sources: Sequence[str], ending: str) -> list[str]:
    """For each source the name of the file for its result: its stem; its whole name where several have that stem, the
    path to it where several have that name, and a number behind it where a source comes twice.

    Names that differ in nothing but case count as the same, as they do on many disks.

    Args:
        sources: what the results are of, mostly paths.
        ending: what the names end in.
    """
    ways = [list(_names_of(source)) for source in sources]
    names = [way.pop(0) for way in ways]
    while True:
        count = Counter(name.lower() for name in names)
        twice = [place for place, name in enumerate(names) if count[name.lower()] > 1 and ways[place]]
        if not twice:
            break
        for place in twice:
            names[place] = ways[place].pop(0)
    given: set[str] = set()
    for place, name in enumerate(names):
        number = 1
        while names[place].lower() in given:
            number += 1
            names[place] = f"{name}-{number}"
        given.add(names[place].lower())
    return [f"{name}{ending}" for name in names]


def _names_of(source: str) -> Iterator[str]:
    """Names for what belongs to a source, each more exact than the one before."""
    path = PurePath(source)
    yield path.stem or "result"
    yield path.name or "result"
    for count in range(2, len(path.parts) + 1):
        yield "-".join(part.strip(os.sep) or "root" for part in path.parts[-count:])


def check_free(target: Path, sources: Sequence[str] = (), mark: bytes = MARK.encode()) -> None:
    """See to it that nobody's file is lost for a result.

    Args:
        target: the file that is to be written.
        sources: files that are read for it.
        mark: what stands near the beginning of such a file that Weft has written, unless it is a picture.

    Raises:
        WeftError: one of the sources is there, or another file that Weft has not written.
    """
    if any(source != "-" and _same(target, Path(source)) for source in sources):
        raise WeftError(f"{target} is one of the files that are read; give another name for what is written.")
    if target.is_dir():
        raise WeftError(f"{target} is a folder; give the name of a file.")
    if target.exists() and target.stat().st_size and not _written_here(target, mark):
        raise WeftError(f"{target} is there already, and Weft has not written it; give another name, or remove it.")


def save_sheet(sheet: Image.Image, target: Path) -> None:
    """Write a picture, marked as Weft's own."""
    exif = Image.Exif()
    exif[_SOFTWARE] = WRITER
    sheet.save(target, exif=exif)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _written_here(file: Path, mark: bytes) -> bool:
    """Whether Weft has written a file."""
    try:
        with file.open("rb") as opened:
            if mark in opened.read(BEGINNING):
                return True
        with Image.open(file) as image:
            return bool(image.getexif().get(_SOFTWARE) == WRITER)
    except Exception:  # it is no picture, or a damaged one
        return False
