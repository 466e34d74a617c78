"""The command line: a thin layer on what ``import weft`` offers.

Each command is a few lines of Python; what takes time to import is imported by the command that needs it. Errors that
are meant for people come as one sentence on standard error: exit code 1 for work that failed, 2 for wrong use.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import weft
from weft.errors import PictureError, WeftError

if TYPE_CHECKING:
    from weft.parts import Part
    from weft.tasks import Caption, Task

PICTURES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Files of a folder that are taken for pictures."""

app = typer.Typer(
    name="weft",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Give a language model eyes: captions and titles of pictures, and weaves of your own.",
)
data_app = typer.Typer(no_args_is_help=True, help="Turn known data sets into conversations to train on.")
app.add_typer(data_app, name="data")

Sources = Annotated[
    list[str],
    typer.Argument(metavar="PICTURE...", help="Picture files, folders of them, or - for a picture on standard input."),
]
Beams = Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy, and fastest.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Model = Annotated[str | None, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.  [default: photos]")]
Explain = Annotated[
    Path | None, typer.Option(help="Write a sheet that shows where each word looked; for several, a folder.")
]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Weft's own options."""
    if show:
        typer.echo(weft.__version__)
        raise typer.Exit


@app.command()
def caption(
    pictures: Sources,
    beams: Beams = 3,
    explain: Explain = None,
    as_json: Json = False,
    model: Model = None,
) -> None:
    """Say in a sentence what is on a picture.

    **Examples**

    `weft caption dog.jpg`

    `weft caption holiday/ --json > captions.jsonl`

    `weft caption dog.jpg --explain dog.png`

    `curl -s https://example.org/dog.jpg | weft caption -`
    """
    _say("caption", pictures, beams, explain, as_json, model)


@app.command()
def title(
    pictures: Sources,
    beams: Beams = 3,
    explain: Explain = None,
    as_json: Json = False,
    model: Model = None,
) -> None:
    """Give a picture a title of a few words.

    **Example**

    `weft title dog.jpg`
    """
    _say("title", pictures, beams, explain, as_json, model)


def _say(task: Task, sources: list[str], beams: int, explain: Path | None, as_json: bool, model: str | None) -> None:
    """Caption or title each picture; one that can't be read is reported, and the rest goes on."""
    found = list(_files(sources))
    if explain is not None and len(found) > 1:
        explain.mkdir(parents=True, exist_ok=True)
    say = _answerer(task, model, beams, explain is not None)
    failed = False
    for name, source in found:
        try:
            said = say(source)
        except PictureError as error:
            typer.echo(f"weft: {error}", err=True)
            failed = True
            continue
        if as_json:
            line = {"picture": name, task: said.text, "log_probability": round(said.log_probability, 4)}
            if explain is not None:
                line["words"] = list(said.words)
            typer.echo(json.dumps(line, ensure_ascii=False))
        else:
            typer.echo(said.text if len(found) == 1 else f"{name}\t{said.text}")
        if explain is not None:
            target = explain if len(found) == 1 else explain / f"{Path(name).stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            said.sheet().save(target)
    if failed:
        raise typer.Exit(1)


def _answerer(task: Task, model: str | None, beams: int, explain: bool) -> Callable[[Any], Caption]:
    """What answers about a picture: the short way where there is one, which spares importing transformers."""
    from weft.quick import quick
    from weft.shipped import woven_folder
    from weft.tasks import INSTRUCTIONS

    fast = None if explain else quick(Path(woven_folder(model)))
    if fast is not None:
        return lambda picture: fast.say(picture, INSTRUCTIONS[task], beams=beams)
    woven = _load(model)
    return lambda picture: getattr(woven, task)(picture, beams=beams, explain=explain)


def _load(model: str | None) -> weft.WeftModel:
    """Load a model; transformers' own progress bars would only flicker."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return weft.load(model)


def _files(sources: list[str]) -> Iterator[tuple[str, Any]]:
    """Each picture with its name; folders are read in order of names, ``-`` is the picture on standard input."""
    for source in sources:
        path = Path(source)
        if source == "-":
            yield "-", sys.stdin.buffer.read()
        elif path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
            if not inside:
                typer.echo(f"weft: {path} holds no pictures", err=True)
            yield from ((str(file), file) for file in inside)
        else:
            yield source, path


@app.command()
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


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of documents.")],
    semantic: Annotated[bool, typer.Option("--semantic", help="Give passages vectors, for search by meaning.")] = False,
    as_json: Json = False,
) -> None:
    """Make a folder of documents a knowledge base that can be searched, or bring its index up to date.

    **Examples**

    `weft index handbook/`

    `weft index handbook/ --semantic`
    """
    from dataclasses import asdict

    from weft.knowledge import KnowledgeBase
    from weft.progress import Reporter

    with Reporter() as reporter:
        reporter.start("indexing", 1)
        result = KnowledgeBase(folder, semantic=semantic).update(reporter.count)
    if as_json:
        typer.echo(json.dumps(asdict(result), ensure_ascii=False))
    else:
        changes = [(name, getattr(result, name)) for name in ("added", "changed", "removed", "unchanged")]
        typer.echo(f"{folder}: {', '.join(f'{count} {name}' for name, count in changes)}; {result.passages} passages")
    for failed in result.failed:
        typer.echo(f"weft: {failed}", err=True)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
) -> None:
    """Train a weave from a recipe; for several processes, `torchrun --nproc_per_node 2 -m weft train recipe.yaml`.

    **Examples**

    `weft train recipes/photos.yaml`

    `weft train recipes/photos.yaml --resume`
    """
    from weft.training import train as run

    chosen = weft.load_recipe(recipe)
    run(chosen, resume=resume)
    typer.echo(str(Path(chosen.output) / "best"))


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="JSONL of conversations with right answers.")],
    task: Annotated[Literal["caption", "title"], typer.Option(help="What is asked about each picture.")] = "caption",
    model: Model = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures to look at.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 16,
    beams: Beams = 3,
    output: Annotated[Path | None, typer.Option(help="File for the answers, one JSON object a line.")] = None,
    as_json: Json = False,
) -> None:
    """Compare what a model says with what people said: BLEU, ROUGE-L, CIDEr-D, perplexity.

    **Example**

    `weft evaluate data/flickr8k/dev.jsonl --task caption --limit 100 --output said.jsonl`
    """
    from rich.console import Console
    from rich.table import Table

    woven = _load(model)
    figures = weft.evaluate(woven, data, task=task, limit=limit, batch_size=batch_size, beams=beams, output=output)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    table = Table("figure", "value", title=f"{task}s of {data}")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)


@app.command()
def info(as_json: Json = False) -> None:
    """Tell versions, where the frozen parts lie, and what computes.

    **Example**

    `weft info --json`
    """
    from importlib.metadata import version as installed

    import torch

    from weft.parts import PARTS, locate, weft_home
    from weft.shipped import SHIPPED

    facts: dict[str, Any] = {"weft": weft.__version__, "python": platform.python_version()}
    facts |= {name: installed(name) for name in ("torch", "transformers")}
    facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    facts["home"] = str(weft_home())
    facts["parts"] = {id: str(locate(id)) if locate(id) else None for id in PARTS}
    facts["models"] = list(SHIPPED)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if name == "parts":
            for id, path in value.items():
                typer.echo(f"part {id}: {path or f'not here; weft pull {id}'}")
        else:
            typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


@data_app.command("flickr8k")
def data_flickr8k(
    folder: Annotated[Path, typer.Argument(help="Folder of Parquet files with 'image' and 'captions'.")],
    out: Annotated[Path, typer.Argument(help="Folder to write pictures and JSONL files to.")],
) -> None:
    """Make conversations of Flickr8k: captions, and titles made from them.

    **Example**

    `weft data flickr8k downloads/flickr8k data/flickr8k`
    """
    from weft.flickr8k import flickr8k

    for split, count in flickr8k(folder, out).items():
        typer.echo(f"{out / split}.jsonl\t{count} pictures")


def main() -> None:
    """Run the command line; what is wrong is said in one sentence."""
    try:
        app(standalone_mode=True)
    except WeftError as error:
        typer.echo(f"weft: {error}", err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
