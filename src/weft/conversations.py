"""Conversations in JSONL files: reading the files that they are made from, and writing what is made.

:func:`read_objects` is given a file of a data set and hands on its objects, checked. :func:`document_line`,
:func:`picture_line` and :func:`evaluation_line` make a line of a question and its answer, as :mod:`weft.data` reads it;
:func:`write_lines` writes such lines to files, which are there in full or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.data_files import rows_of_file, text_of_file
from weft.errors import DataError
from weft.instructions import CAPTION
from weft.whole_files import whole

Documents = Sequence[tuple[str, str]]
"""Id and text of each document."""


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        DataError: the file is missing, or no text.
    """
    _check_there(file)
    return text_of_file(file)


def read_objects(file: Path, spec: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with where it stood: file and line, for messages to people.

    Args:
        file: one object a line; empty lines are passed over.
        spec: the type of each field that an object must have, in a list if it is a list of them.

    Raises:
        DataError: the file is missing or empty, or a line is no object with these fields.
    """
    found = []
    _check_there(file)
    for fields, where in rows_of_file(file):
        for name, kind in spec.items():
            if not isinstance(fields, dict) or name not in fields or not _fits(fields[name], kind):
                wanted = f"a list of {kind[0].__name__}" if isinstance(kind, list) else kind.__name__
                raise DataError(f"{where}: each line is an object whose {name!r} is {wanted}.")
        found.append((where, fields))
    if not found:
        raise DataError(f"{file} is empty; it needs one object a line.")
    return found


def _check_there(file: Path) -> None:
    if not file.is_file():
        raise DataError(f"{file} is missing; give the folder that holds it.")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, or a list of such."""
    if isinstance(kind, list):
        return isinstance(value, list) and all(isinstance(one, kind[0]) for one in value)
    return isinstance(value, kind)


def document_line(
    documents: Documents,
    question: str,
    answer: str,
    references: Sequence[str] = (),
    supporting: Sequence[str] = (),
    **more: str,
) -> str:
    """A question about documents, with its answer.

    Args:
        documents: what the question is asked of.
        question: in words.
        answer: what is right.
        references: further right answers.
        supporting: ids of the documents that hold the answer.
        more: further fields of the line.
    """
    parts = [{"type": "document", "text": text, "id": id} for id, text in documents]
    lists = {"references": list(references), "supporting": list(supporting)}
    return _line(parts, question, answer, {name: values for name, values in lists.items() if values} | more)


def picture_line(
    picture: str, question: str, answer: str, names: Mapping[str, str | None] | None = None, **more: Any
) -> str:
    """A question about a picture, with its answer.

    Args:
        picture: its file, relative to the file that the line is written to.
        question: in words.
        answer: what is right.
        names: names of what is seen that stand for others here; None for one that is left out.
        more: further fields of the line.
    """
    part = {"type": "image", "image": picture} | ({"names": dict(names)} if names else {})
    return _line([part], question, answer, more)


def evaluation_line(picture: str, captions: Sequence[str], objects: Sequence[str]) -> str:
    """A picture to caption, with all that is right about it, to evaluate a model on.

    Args:
        picture: its file, relative to the file that the line is written to.
        captions: right captions: the first is the answer, the others are its references.
        objects: what is annotated in the picture.
    """
    answer, *references = captions
    lists = {"references": references, "objects": list(objects)}
    more = {name: values for name, values in lists.items() if values}
    return _line([{"type": "image", "image": picture}], CAPTION, answer, more)


def _line(parts: Sequence[Mapping[str, Any]], question: str, answer: str, more: Mapping[str, Any]) -> str:
    content = [*parts, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages, **more}, ensure_ascii=False)


def write_lines(out: str | Path, files: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Write ``NAME.jsonl`` of each name's lines, and count them."""
    counts = {}
    for name, lines in files.items():
        ended = [f"{line}\n" for line in lines]
        write_text(Path(out) / f"{name}.jsonl", "".join(ended))
        counts[name] = len(ended)
    return counts


def write_objects(file: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Write objects, one a line, as JSON."""
    write_text(file, "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in objects))


def write_text(file: Path, text: str) -> None:
    """Write a text file that is there in full or not at all."""
    with whole(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
