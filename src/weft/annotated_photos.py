"""Photos whose objects are annotated, as conversations to evaluate captions on.

:func:`coco_mini` is given the folder of a set such as COCO, with captions and objects of each photo;
:func:`objects_evaluation` that of a set with the main thing of each photo. Both copy the photos.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from weft.conversations import evaluation_line, read_objects, read_text, write_lines
from weft.errors import DataError
from weft.flickr8k import clean
from weft.whole_files import whole

_LABELS = ("picture", "class", "plain_noun")
"""The columns of the table of a set of object photos."""


def coco_mini(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write ``pictures/`` and, for each ``SPLIT.jsonl`` of a folder, ``SPLIT.jsonl`` with one conversation a picture.

    Args:
        folder: holds ``pictures/`` and JSONL files of objects with ``picture``, ``captions`` and ``objects``.
        out: folder to write to.

    Returns:
        Conversations of each split.

    Raises:
        DataError: the folder holds no JSONL file, a line lacks a field or has no caption, or a picture is missing.
    """
    folder, out = Path(folder), Path(out)
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise DataError(f"{folder} holds no JSONL files; give the folder with dev.jsonl and pictures/.")
    splits = {}
    for file in files:
        lines = []
        for where, fields in read_objects(file, {"picture": str, "captions": [str], "objects": [str]}):
            captions = [text for text in map(clean, fields["captions"]) if text]
            if not captions:
                raise DataError(f"{where}: the picture has no caption; give at least one under 'captions'.")
            lines.append(evaluation_line(_copy(folder, out, fields["picture"], where), captions, fields["objects"]))
        splits[file.stem] = lines
    return write_lines(out, splits)


def objects_evaluation(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write ``pictures/`` and ``objects.jsonl``, in which the right caption of a photo is its object: ``"A teapot."``

    Args:
        folder: holds ``pictures/`` and ``labels.tsv`` with the columns ``picture``, ``class`` and ``plain_noun``.
        out: folder to write to.

    Returns:
        Conversations written, under ``"objects"``.

    Raises:
        DataError: the table is missing or empty, has other columns, or a picture is missing.
    """
    folder, out = Path(folder), Path(out)
    table = folder / "labels.tsv"
    rows = csv.DictReader(read_text(table).splitlines(), delimiter="\t", restval="", quoting=csv.QUOTE_NONE)
    if not {*_LABELS} <= {*(rows.fieldnames or ())}:
        raise DataError(f"{table} has the columns {rows.fieldnames}; it needs {', '.join(map(repr, _LABELS))}.")
    lines = []
    for number, row in enumerate(rows, 2):
        where, noun = f"{table}:{number}", row["plain_noun"].strip()
        if not noun:
            raise DataError(f"{where}: the picture has no noun; say under 'plain_noun' what is on it.")
        article = "An" if noun[0].lower() in "aeiou" else "A"
        lines.append(evaluation_line(_copy(folder, out, row["picture"], where), [f"{article} {noun}."], [noun]))
    if not lines:
        raise DataError(f"{table} is empty; it needs one picture a line.")
    return write_lines(out, {"objects": lines})


def _copy(folder: Path, out: Path, name: str, where: str) -> str:
    """Copy a picture of a set, and tell where it is from the file of conversations."""
    source = folder / "pictures" / name
    if name != source.name or not source.is_file():
        raise DataError(f"{where}: {source} is no file in {folder / 'pictures'}; name one that is there.")
    target = out / "pictures" / name
    with whole(target) as partial:
        shutil.copyfile(source, partial)
    return f"pictures/{name}"
