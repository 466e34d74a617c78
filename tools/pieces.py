"""Folders and files as archives cut in pieces, for ways that are narrow: a few megabytes at once, in any order.

    python tools/pieces.py cut NAME INTO PATH...      PATHs, relative to here, as INTO/NAME.1-of-2 and INTO/NAME.2-of-2
    python tools/pieces.py join FROM                  unpack here every archive of which all pieces lie in FROM

An archive is a tar file; its last piece ends with the SHA-256 of all that comes before. Needs Python alone.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

PIECE = 15 * 2**20
"""Bytes of a piece: small enough for ways that take files of 16 MiB."""
_PIECE = re.compile(r"(?P<name>.+)\.(?P<number>\d+)-of-(?P<count>\d+)")
_DIGEST = hashlib.sha256().digest_size
_BLOCK = 2**20


class PiecesError(Exception):
    """Pieces don't fit together."""


def cut(name: str, into: Path, paths: Iterable[Path], root: Path = Path(), size: int = PIECE) -> list[Path]:
    """Pack files and folders.

    Args:
        name: what to call the archive; pieces of an earlier one of this name are removed.
        into: folder of the pieces.
        paths: what to pack, relative to ``root``; of a link what it leads to.
        root: the folder in which the same paths are to be found after unpacking.
        size: bytes of a piece, at most.
    """
    into.mkdir(parents=True, exist_ok=True)
    for old in _pieces(into).get(name, {}).values():
        old.unlink()
    with tempfile.TemporaryFile() as whole:
        with tarfile.open(fileobj=whole, mode="w", dereference=True) as archive:
            for path in paths:
                archive.add(root / path, arcname=str(path))
        digest, length = _digest(whole)
        whole.write(digest)
        whole.seek(0)
        count = -(-(length + _DIGEST) // size)
        made = [into / f"{name}.{number}-of-{count}" for number in range(1, count + 1)]
        for piece in made:
            with piece.open("wb") as file:
                _copy(whole, file, size)
    return made


def join(source: Path, root: Path = Path()) -> dict[str, list[int]]:
    """Unpack every archive of which all pieces are there; the others say what they lack.

    A piece of an archive that has been unpacked is removed, so that nothing is unpacked twice.

    Args:
        source: folder of the pieces.
        root: folder to unpack into.

    Returns:
        For each archive the numbers of the pieces that are missing; none for one that was unpacked.

    Raises:
        PiecesError: pieces of two archives of one name are there, or a piece is damaged.
    """
    missing: dict[str, list[int]] = {}
    for name, found in sorted(_pieces(source).items()):
        (count, *others) = {count for _, count in found}
        if others:
            raise PiecesError(f"{source} holds pieces of two archives {name!r}; remove the older ones.")
        missing[name] = [number for number in range(1, count + 1) if (number, count) not in found]
        if missing[name]:
            continue
        with tempfile.TemporaryFile() as whole:
            for number in range(1, count + 1):
                with found[number, count].open("rb") as file:
                    _copy(file, whole, sys.maxsize)
            _check(name, whole)
            with tarfile.open(fileobj=whole, mode="r") as archive:
                archive.extractall(root, filter="data")
        for piece in found.values():
            piece.unlink()
    return missing


def _pieces(folder: Path) -> dict[str, dict[tuple[int, int], Path]]:
    """Pieces in a folder, by the archive's name, and by number and count."""
    found: dict[str, dict[tuple[int, int], Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _PIECE.fullmatch(path.name):
            found.setdefault(match["name"], {})[int(match["number"]), int(match["count"])] = path
    return found


def _check(name: str, whole: IO[bytes]) -> None:
    """Compare an archive with the checksum at its end, and take that away."""
    whole.seek(-_DIGEST, 2)
    end = whole.tell()
    expected = whole.read()
    whole.truncate(end)
    if _digest(whole)[0] != expected:
        raise PiecesError(f"A piece of {name!r} is damaged; bring its pieces anew.")
    whole.seek(0)


def _digest(file: IO[bytes]) -> tuple[bytes, int]:
    """SHA-256 of a file, and its length, at whose end it then stands."""
    digest, length = hashlib.sha256(), 0
    file.seek(0)
    while block := file.read(_BLOCK):
        digest.update(block)
        length += len(block)
    return digest.digest(), length


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy so many bytes, or as many as there are."""
    while size and (block := source.read(min(size, _BLOCK))):
        target.write(block)
        size -= len(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("cut")
    cutting.add_argument("name")
    cutting.add_argument("into", type=Path)
    cutting.add_argument("paths", type=Path, nargs="+")
    commands.add_parser("join").add_argument("source", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "cut":
            print(*cut(options.name, options.into, options.paths), sep="\n")
            return
        for name, lacks in join(options.source).items():
            state = f"still lacks {', '.join(map(str, lacks))}" if lacks else "is unpacked"
            print(f"{name} {state}", file=sys.stderr)
    except PiecesError as error:
        sys.exit(f"pieces: {error}")


if __name__ == "__main__":
    main()
