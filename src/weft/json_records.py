"""JSON as records: a file of one value, or one value a line.

An object with a ``text`` says that, and its other fields are known about it; of any other value all that is in it is
said, with its name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from weft.errors import DataError
from weft.records import Names, Record, metadata, places, record

LONGEST_ID = 200
"""Characters of an id, at most."""


def read_lines(text: str) -> tuple[list[Record], list[str]]:
    """The values of JSON lines, and notes on what was left out, each as the end of a sentence.

    Args:
        text: one value a line; empty lines are passed over.

    Raises:
        DataError: no line is JSON.
    """
    values, wrong, reason = [], [], ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                wrong.append(number)
                reason = reason or str(error)
    if wrong and not values:
        raise DataError(f"line {wrong[0]} is not JSON ({reason}), nor is any other")
    records, notes = _records(values)
    if wrong:
        are = "are" if len(wrong) > 1 else "is"
        notes.append(f"has {places(wrong, 'line', 'lines')} that {are} not JSON ({reason}), left out")
    return records, notes


def read_json(text: str) -> tuple[list[Record], list[str]]:
    """The values of a JSON file: those of a list each for itself; one value a line is read as such.

    Args:
        text: the file's text.

    Raises:
        DataError: it is not JSON.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        first, _, others = text.strip().partition("\n")
        if not others.strip() or not _is_json(first):
            raise DataError(f"it is not JSON ({error})") from None
        return read_lines(text)
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        return _records([(f"item {number}", one) for number, one in enumerate(value, 1)])
    return _records([("", value)])


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False


def _records(values: list[tuple[str, Any]]) -> tuple[list[Record], list[str]]:
    """Values as records, each with a name of its own: its id, or else its place."""
    records: list[Record] = []
    names = Names()
    twice: Counter[str] = Counter()
    long: Counter[str] = Counter()
    for place, value in values:
        known, fields = place, value
        if isinstance(value, dict) and place:
            known = _id(value.get("id")) or place
            fields = {name: one for name, one in value.items() if name != "id" or known == place}
        part = names.free(known)
        if part != known:
            twice[known] += 1
        one, left_out = _record(fields, part)
        records.append(one)
        long.update(left_out)
    notes = [f"has the id {name!r} {count + 1} times; further ones are called '{name} (2)' and so on"
             for name, count in twice.most_common(1)]  # fmt: skip
    if len(twice) > 1:
        notes.append(f"has {len(twice) - 1} other ids that come more than once")
    notes += [
        f"has {count:,} values of {name!r} that are too long to be metadata, left out" for name, count in long.items()
    ]
    return records, notes


def _id(value: Any) -> str:
    """What an object calls itself, if it does."""
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    name = str(value).strip() if plain else ""
    return name if len(name) <= LONGEST_ID else ""


def _record(value: Any, part: str) -> tuple[Record, list[str]]:
    """A value as a record, and the names of its fields that are too long to be metadata."""
    if isinstance(value, str):
        return Record(value, part), []
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        others = [(str(name), _written(one)) for name, one in value.items() if name != "text" and one is not None]
        known, long = metadata(others)
        return Record(value["text"], part, known), long
    return record(list(_flat("", value)), part), []


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """What is in a value, each with the names that lead to it."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), one)
    elif isinstance(value, list):
        for one in value:
            yield from _flat(name, one)
    elif value is not None:
        yield name or "value", _written(value)


def _written(value: Any) -> str:
    """A value as text: strings as they are, others as JSON writes them."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
