"""The command that teaches a trained reader from where on it had better not answer: ``weft calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from weft.cli_options import Json, Top, load
from weft.errors import PartError


def calibrate(
    model: Annotated[Path, typer.Argument(help="A folder that save_pretrained or training wrote.")],
    answerable: Annotated[list[Path], typer.Option(help="JSONL of questions with an answer; may be given again.")],
    unanswerable: Annotated[list[Path], typer.Option(help="JSONL of questions without; may be given again.")],
    refused: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the questions with an answer that may be refused.")
    ] = 0.05,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each file to look at.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="How many of them at once.")] = 16,
    top_memory: Top = None,
    as_json: Json = False,
) -> None:
    """Make a reader's probability that a question has no answer a true one, and write it to the model's config.json.

    **Example**

    `weft calibrate runs/reader/best --answerable data/fairytales/dev.jsonl
    --unanswerable data/fairytales/dev-unanswerable-story.jsonl`
    """
    from weft.conversations import write_text
    from weft.refusals import calibrate as run
    from weft.whole_files import check_writable, read_fields

    file = model / "config.json"
    if not file.is_file():
        raise PartError(f"{model} holds no woven model: config.json is missing.")
    check_writable(file)
    woven = load(str(model))
    look: dict[str, Any] = {"limit": limit, "batch_size": batch_size, "top_memory": top_memory}
    figures = run(woven, answerable, unanswerable, refused=refused, **look)
    name = woven.weave_that_reads("texts").name
    fields = read_fields(file, "copy the folder again.")
    settings = ("refusal_temperature", "refusal_bias", "refuses_at")
    fields["weaves"][name] |= {setting: figures[setting] for setting in settings}
    write_text(file, json.dumps(fields, indent=2, sort_keys=True) + "\n")
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        typer.echo(f"{name}\t{value:.4f}")
