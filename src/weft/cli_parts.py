"""The commands about what is on this machine: ``pull``, ``info``. :mod:`weft.cli` makes commands of these functions."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING, Annotated, Any

import typer

import weft
from weft.cli_options import Json
from weft.errors import WeftError

if TYPE_CHECKING:
    from weft.parts import Part


def pull(
    parts: Annotated[list[str] | None, typer.Argument(metavar="[PART]...", help="Parts to fetch.")] = None,
) -> None:
    """Fetch the frozen parts that Weft's own weaves stand on, so that everything works offline afterwards.

    **Examples**

    `weft pull`

    `WEFT_HOME=/mnt/models weft pull smollm2-135m-instruct`
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from weft.parts import PARTS, resolve

    wanted = parts or [part.id for part in PARTS.values() if not part.optional]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        for id in wanted:
            if id not in PARTS:
                raise WeftError(f"{id} is no part that Weft knows; there are: {', '.join(PARTS)}.")
            task = bar.add_task(id, total=PARTS[id].bytes)

            def tell(part: Part, stage: str, done: int, task: Any = task) -> None:
                bar.update(task, description=f"{part.id}: {stage}", completed=done)

            found = resolve(id, progress=tell)
            bar.remove_task(task)
            bar.console.print(f"{found.id}\t{found.path}", highlight=False, soft_wrap=True)


def info(as_json: Json = False) -> None:
    """Tell versions, where the frozen parts lie, what computes, and under which terms all of it may be used.

    **Example**

    `weft info --json`
    """
    from importlib.metadata import version as installed

    import torch

    from weft.parts import PARTS, locate, weft_home
    from weft.shipped import SHIPPED, shipped
    from weft.terms import CODE, terms_of

    facts: dict[str, Any] = {"weft": weft.__version__, "python": platform.python_version()}
    facts |= {name: installed(name) for name in ("torch", "transformers")}
    facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    facts["home"] = str(weft_home())
    facts["parts"] = {id: str(locate(id)) if locate(id) else None for id in PARTS}
    facts["models"] = list(SHIPPED)
    terms = {name: terms_of(shipped(name)) for name in SHIPPED}
    of_parts = {id: part.licence for id, part in PARTS.items()}
    if as_json:
        told = {name: {"license": one.licence, "data": one.data} for name, one in terms.items()}
        typer.echo(json.dumps(facts | {"terms": {"code": CODE, "parts": of_parts, "models": told}}))
        return
    for name, value in facts.items():
        if name == "parts":
            for id, path in value.items():
                typer.echo(f"part {id}: {path or f'not here; weft pull {id}'}")
        else:
            typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    for name, one in {"the code": CODE, **of_parts, **terms}.items():
        typer.echo(f"terms of {name}: {one}")
