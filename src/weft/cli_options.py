"""What several commands of the command line share: options, and how they load a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import weft

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


def check_target(file: Path | None, endings: tuple[str, ...]) -> None:
    """Whether a file can be written under a name, before anything is computed for it.

    Raises:
        BadParameter: it ends in nothing that is known.
    """
    if file is not None and file.suffix.lower() not in endings:
        raise typer.BadParameter(f"{file}: give a name that ends in {', '.join(endings)}.")


def load(model: str | None) -> weft.WeftModel:
    """Load a model; transformers' own progress bars would only flicker."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return weft.load(model)
