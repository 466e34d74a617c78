"""What several commands of the command line share: options, and how they load a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

import weft
from weft.errors import WeftError

Beams = Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy, and fastest.")]
Bound = Annotated[int, typer.Option(min=1, help="Passages of a document that are read, at most.")]
Top = Annotated[
    int | None, typer.Option(min=1, help="Passages that a layer looks at, at each word the most promising; else all.")
]
Reading = Annotated[
    Literal["once", "careful", "prompt"] | None,
    typer.Option(
        help="How texts are read: once for all questions, with the question before each passage, or as words of the "
        "prompt, by the language model alone.  [default: what measured best]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


DRAWN = (".png", ".jpg", ".jpeg", ".webp")
"""What the name of a picture that is written may end in."""
MARKED = (".html", ".htm")
"""What the name of a page that is written may end in."""


def result_files(given: Path | None, sources: Sequence[str], endings: tuple[str, ...]) -> list[Path | None]:
    """The files for what is written about some sources, all different; found before anything is computed for them, and
    their folder made.

    Args:
        given: a file, or for several sources a folder; None where nothing is to be written.
        sources: names of what is looked at.
        endings: what the name of a file may end in, the first for files in a folder.

    Raises:
        BadParameter: it ends in nothing that is known.
        WeftError: a file is there that Weft has not written.
    """
    if given is None or not sources:
        return [None] * len(sources)
    if len(sources) == 1 and given.suffix.lower() not in endings:
        raise typer.BadParameter(f"{given}: give a name that ends in {', '.join(endings)}.")
    from weft.output_files import check_free, file_names

    alone = len(sources) == 1
    targets = [given] if alone else [given / name for name in file_names(sources, endings[0])]
    if not alone and given.exists() and not given.is_dir():
        raise WeftError(f"{given} is a file; for several sources give a folder.")
    for target in targets:
        check_free(target, sources)
    (given.parent if alone else given).mkdir(parents=True, exist_ok=True)
    return list(targets)


def load(model: str | None) -> weft.WeftModel:
    """Load a model; transformers' own progress bars would only flicker."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return weft.load(model)
