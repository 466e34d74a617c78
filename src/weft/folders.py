"""What is in a folder of documents: files that can be read, and what is left out and why.

:func:`look_through` follows links, each folder and file being read once, and never one that holds the folder itself.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from weft.charsets import printable

QUIET = frozenset({"thumbs.db", "desktop.ini", "icon\r", "__macosx"})
"""What systems leave in folders for themselves; such files and hidden ones are nobody's documents."""

NOTHING: Mapping[str, str] = MappingProxyType({})

Identity = tuple[int, int]
"""A file's device and number there."""


@dataclass
class Contents:
    """What is in a folder.

    Attributes:
        files: files to read, by their path within the folder as text that can be printed, in order.
        left_out: paths of what is left out, by the reason, which ends a sentence about them.
    """

    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, source: str, reason: str) -> None:
        """Note that something is left out."""
        self.left_out.setdefault(reason, []).append(source)


def look_through(folder: Path, endings: Collection[str], instead: Mapping[str, str] = NOTHING) -> Contents:
    """The files of a folder, in any depth, that end in one of some endings.

    Hidden files and folders, and what systems leave there, are passed over without a word.

    Args:
        folder: where to look.
        endings: of files that can be read, in lower case, each with its dot.
        instead: what to do with files of other endings, for the reason why they are left out.
    """
    found = Contents()
    seen: set[Identity] = {_identity(folder)}
    links: list[Path] = []
    files: list[Path] = []
    pending = [folder]
    while pending or links:
        if not pending:
            link = links.pop(0)
            reason = _reason_not_to_follow(link, folder, seen)
            if reason:
                found.leave_out(_source(link, folder), reason)
                continue
            seen.add(_identity(link))
            if link.is_file():
                files.append(link)
                continue
            pending.append(link)
        for path in _entries(pending.pop(), folder, found):
            try:
                if path.is_symlink():
                    links.append(path)
                elif path.is_dir():
                    if _identity(path) not in seen:
                        seen.add(_identity(path))
                        pending.append(path)
                elif path.is_file():
                    seen.add(_identity(path))
                    files.append(path)
                else:
                    found.leave_out(_source(path, folder), "no files but sockets, pipes or devices")
            except OSError as error:
                found.leave_out(_source(path, folder), f"not to be looked at ({error.strerror or error})")
    for path in sorted(files):
        reason = _reason_not_to_read(path, endings, instead)
        if reason:
            found.leave_out(_source(path, folder), reason)
        else:
            found.files[_source(path, folder)] = path
    return found


def is_quiet(name: str) -> bool:
    """Whether a name is that of a hidden file, of one that a system left, or of one that marks another as open."""
    return name.startswith((".", "~$")) or name.lower() in QUIET


def _entries(path: Path, folder: Path, found: Contents) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        found.leave_out(_source(path, folder), f"folders that can't be read ({error.strerror or error})")
        return
    yield from (path / name for name in names if not is_quiet(name))


def _identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


def _source(path: Path, folder: Path) -> str:
    return printable(path.relative_to(folder).as_posix()) if path != folder else "."


def _reason_not_to_follow(link: Path, folder: Path, seen: set[Identity]) -> str:
    """Why a link is left out, if it is."""
    try:
        target = link.resolve(strict=True)
        if _identity(target) in seen:
            return "links to what is read already"
    except (OSError, RuntimeError):  # a ring of links; Python before 3.13 raises RuntimeError
        return "links that lead nowhere"
    if folder.resolve().is_relative_to(target):
        return "links to a folder that holds this one"
    return "" if target.is_dir() or target.is_file() else "no files but sockets, pipes or devices"


def _reason_not_to_read(path: Path, endings: Collection[str], instead: Mapping[str, str]) -> str:
    """Why a file is left out, if it is."""
    ending = path.suffix.lower()
    if ending not in endings:
        if (mimetypes.guess_type(path.name)[0] or "").startswith("image/"):
            return "pictures"
        if not ending:
            return "files without an ending"
        advice = f" ({instead[ending]})" if ending in instead else ""
        return f"files that end in {printable(ending)}, which are not read{advice}"
    try:
        return "" if path.stat().st_size else "empty files"
    except OSError:
        return "files that vanished meanwhile"
