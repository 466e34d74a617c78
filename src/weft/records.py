"""Records, rows of a table or objects of JSON, as texts with what is known about them.

What reads tables and JSON gives :func:`record` the fields of one, and gets a :class:`Record`: what a search looks in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

LONGEST_VALUE = 1000
"""Characters of a value, at most, for it to be metadata: it is kept with every passage of its record."""
LISTED = 5
"""Places that a note names; of more it tells how many there are."""


@dataclass(frozen=True)
class Record:
    """A record of a file.

    Attributes:
        text: what it says.
        part: what to call it within its file.
        metadata: what is known about it.
    """

    text: str
    part: str
    metadata: dict[str, str] = field(default_factory=dict)


def record(fields: Sequence[tuple[str, str]], part: str) -> Record:
    """A record of named values: a question with its answer, or else all values with their names, one a line.

    Args:
        fields: names and values, in order; a name may come more than once.
        part: what to call it.
    """
    first = {name.casefold(): place for place, (name, _) in reversed(list(enumerate(fields)))}
    asks = "question" in first and "answer" in first
    said = [first["question"], first["answer"]] if asks else []
    others = [one for place, one in enumerate(fields) if place not in said]
    lines = [fields[place][1] for place in said]
    lines += [f"{name}: {value}" for name, value in others if value and (not asks or len(value) > LONGEST_VALUE)]
    return Record("\n".join(lines), part, metadata(others)[0])


def metadata(fields: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """Values by name, the second of a name as ``name (2)``; and the names of those that are too long to be metadata."""
    found: dict[str, str] = {}
    long, names = [], Names()
    for name, value in fields:
        if len(value) > LONGEST_VALUE:
            long.append(name)
        else:
            found[names.free(name)] = value
    return found, long


class Names:
    """Names that are each given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._times: Counter[str] = Counter()

    def free(self, name: str) -> str:
        """A name of one's own: this one, or with the first number behind it that makes it so."""
        found = name
        while found in self._given:
            self._times[name] += 1
            found = f"{name} ({self._times[name] + 1})"
        self._given.add(found)
        return found


def places(numbers: Sequence[int], one: str, many: str) -> str:
    """Numbered places as words: ``row 3``, ``rows 3, 5 and 8``, ``rows 3, 5, ... and 7 others``."""
    if len(numbers) == 1:
        return f"{one} {numbers[0]}"
    shown, left = [str(number) for number in numbers[:LISTED]], len(numbers) - LISTED
    last = shown.pop() if left <= 0 else f"{left:,} others"
    return f"{many} {', '.join(shown)} and {last}"
