"""The 20 bAbI tasks as conversations about documents: small logic puzzles, of which each fact is a document.

:func:`babi` is given a folder with the set's own files and writes JSONL; nothing is chosen at random.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from weft.conversations import document_line, read_text, write_lines
from weft.errors import DataError


def babi(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write the 20 bAbI tasks (Weston et al., arXiv 1502.05698): small stories to draw conclusions from.

    Each fact of the story so far is a document, with the number of its line as id. ``train.jsonl`` and ``valid.jsonl``
    hold all tasks, ``valid-N.jsonl`` each by itself. Answers are as they are in the set.

    Args:
        folder: holds ``qaN_train.txt`` and ``qaN_valid.txt`` for N from 1 to 20. A line is a number, 1 where a story
            begins, and a fact, or a question, its answer and the numbers of the facts that it follows from, with tabs
            between them.
        out: folder to write to.

    Returns:
        Lines of each file, by its name without ``.jsonl``.

    Raises:
        DataError: a file is missing, or a line is not what it should be; it is named.
    """
    train, valid = (
        {task: _puzzles(Path(folder) / f"qa{task}_{split}.txt") for task in range(1, 21)}
        for split in ("train", "valid")
    )
    files = {f"valid-{task}": lines for task, lines in valid.items()}
    files |= {"train": list(chain(*train.values())), "valid": list(chain(*valid.values()))}
    return write_lines(out, files)


def _puzzles(file: Path) -> list[str]:
    """The questions of one bAbI file."""
    lines = []
    facts: dict[str, str] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        place, _, said = line.strip().partition(" ")
        facts = {} if place == "1" else facts
        question, *rest = (field.strip() for field in said.split("\t"))
        supporting = rest[-1].split() if rest else []
        shaped = place.isdigit() and all((question, *rest)) and len(rest) in (0, 2)
        if not shaped or not set(supporting) <= facts.keys():
            raise DataError(
                f"{file}:{number}: a line is a number and a fact, or a number, a question, its answer and the numbers "
                "of earlier facts, with tabs between them."
            )
        if rest:
            lines.append(document_line(list(facts.items()), question, rest[0], supporting=supporting))
        else:
            facts[place] = question
    return lines
