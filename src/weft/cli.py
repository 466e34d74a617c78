"""The command line: a thin layer on what ``import weft`` offers.

Commands about pictures and training are here, the others in modules beside this one. Each is a few lines of Python;
what takes time to import is imported by the command that needs it. Errors that are meant for people come as one
sentence on standard error: exit code 1 for work that failed, 2 for wrong use.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import weft
from weft.cli_calibrate import calibrate
from weft.cli_data import data_app
from weft.cli_options import DRAWN, Beams, Bound, Json, Reading, Top, check_target
from weft.cli_options import load as _load
from weft.cli_parts import info, pull
from weft.cli_reading import answer, index, summarize, write_about
from weft.cli_serve import serve
from weft.errors import PictureError, WeftError
from weft.passages import BOUND, PASSAGES

if TYPE_CHECKING:
    from weft.tasks import Caption, Task

app = typer.Typer(
    name="weft",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Give a language model eyes and texts to read: captions, answers with citations, summaries, and weaves of "
    "your own.",
)

Sources = Annotated[
    list[str],
    typer.Argument(metavar="PICTURE...", help="Picture files, folders of them, or - for a picture on standard input."),
]
Model = Annotated[str | None, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.  [default: photos]")]
Explain = Annotated[
    Path | None,
    typer.Option(help="Write a sheet that shows what in the picture each word needs; for several, a folder."),
]
Sketch = Annotated[
    bool, typer.Option("--sketch", help="Explain by attention instead: where each word looked, which is quicker.")
]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Weft's own options."""
    if show:
        typer.echo(weft.__version__)
        raise typer.Exit


def caption(
    pictures: Sources,
    beams: Beams = 3,
    explain: Explain = None,
    sketch: Sketch = False,
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
    _say("caption", pictures, beams, explain, sketch, as_json, model)


def title(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Pictures, folders of them, documents, or - for a picture."),
    ],
    beams: Beams = 3,
    explain: Explain = None,
    sketch: Sketch = False,
    bound: Bound = BOUND,
    reading: Reading = None,
    as_json: Json = False,
    model: Model = None,
) -> None:
    """Give a picture or a document a title of a few words.

    **Examples**

    `weft title dog.jpg`

    `weft title article.txt`
    """
    from weft.documents import READERS

    documents = [source for source in sources if Path(source).suffix.lower() in READERS]
    if documents and len(documents) < len(sources):
        raise typer.BadParameter("give pictures or documents, not both at once.")
    if documents:
        options = {"beams": beams, "bound": bound, "reading": reading}
        write_about(model or "reader", "title", documents, options, explain, as_json)
    else:
        _say("title", sources, beams, explain, sketch, as_json, model)


def ask(
    picture: Annotated[str, typer.Argument(help="A picture file, or - for a picture on standard input.")],
    question: Annotated[str, typer.Argument(help="What you want to know about it.")],
    beams: Beams = 3,
    explain: Explain = None,
    sketch: Sketch = False,
    as_json: Json = False,
    model: Model = None,
) -> None:
    """Answer a question about a picture.

    **Example**

    `weft ask dog.jpg "What colour is the dog?"`
    """
    check_target(explain, DRAWN)
    ((name, source),) = _files([picture])
    said = _load(model or "photos").ask(source, question, beams=beams, explain=_way(explain, sketch))
    line = {"picture": name, "question": question, "answer": said.text}
    typer.echo(json.dumps(line, ensure_ascii=False) if as_json else said.text)
    if explain is not None:
        explain.parent.mkdir(parents=True, exist_ok=True)
        said.sheet().save(explain)


def _way(explain: Path | None, sketch: bool) -> bool | Literal["sketch"]:
    """How to explain, if that is asked for."""
    return "sketch" if sketch and explain is not None else explain is not None


def _say(
    task: Task,
    sources: list[str],
    beams: int,
    explain: Path | None,
    sketch: bool,
    as_json: bool,
    model: str | None,
) -> None:
    """Caption or title each picture; one that can't be read is reported, and the rest goes on."""
    found = list(_files(sources))
    if explain is not None and len(found) > 1:
        explain.mkdir(parents=True, exist_ok=True)
    else:
        check_target(explain, DRAWN)
    say = _answerer(task, model, beams, _way(explain, sketch))
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
                line["matters"] = list(said.matters)
            typer.echo(json.dumps(line, ensure_ascii=False))
        else:
            typer.echo(said.text if len(found) == 1 else f"{name}\t{said.text}")
        if explain is not None:
            target = explain if len(found) == 1 else explain / f"{Path(name).stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            said.sheet().save(target)
    if failed:
        raise typer.Exit(1)


def _answerer(task: Task, model: str | None, beams: int, explain: bool | Literal["sketch"]) -> Callable[[Any], Caption]:
    """What answers about a picture: the short way where there is one, which spares importing transformers."""
    from weft.quick import quick
    from weft.shipped import woven_folder
    from weft.tasks import INSTRUCTIONS

    fast = None if explain else quick(Path(woven_folder(model)))
    if fast is not None:
        return lambda picture: fast.say(picture, INSTRUCTIONS[task], beams=beams)
    woven = _load(model)
    return lambda picture: getattr(woven, task)(picture, beams=beams, explain=explain)


def _files(sources: list[str]) -> Iterator[tuple[str, Any]]:
    """Each picture with its name; folders are read in order of names, ``-`` is the picture on standard input."""
    from weft.images import PICTURES

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


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many, with a checkpoint to resume from.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the recipe; again for more."),
    ] = None,
) -> None:
    """Train a weave from a recipe; for several processes, `torchrun --nproc_per_node 2 -m weft train recipe.yaml`.

    **Examples**

    `weft train recipes/photos.yaml`

    `weft train recipes/photos.yaml --resume --minutes 30`

    `weft train recipes/photos.yaml --set epochs=1 --set weave.dropout=0.2 --set output=runs/short`
    """
    from weft.run_folder import free_folder
    from weft.training import train as run

    chosen = weft.load_recipe(recipe, settings or ())
    if not resume:
        chosen = replace(chosen, output=str(free_folder(Path(chosen.output))))
    run(chosen, resume=resume, minutes=minutes)
    best = Path(chosen.output) / "best"
    typer.echo(str(best if best.is_dir() else chosen.output))


def evaluate(
    data: Annotated[Path, typer.Argument(help="JSONL of conversations with right answers.")],
    task: Annotated[
        Literal["caption", "title", "summary", "answer", "read", "vqa"],
        typer.Option(help="What is asked about each picture, or about documents."),
    ] = "caption",
    model: Annotated[
        str | None, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.  [default: all that ship]")
    ] = None,
    knowledge: Annotated[Path | None, typer.Option(help="Look for documents in this indexed folder.")] = None,
    passages: Annotated[int, typer.Option(min=1, help="Passages to look up there.")] = PASSAGES,
    controls: Annotated[
        bool, typer.Option("--controls", help="Measure a wrong memory, the bare language model, ... as well.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures or conversations to look at.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="How many of them at once.")] = 16,
    beams: Beams = 3,
    length_penalty: Annotated[
        float, typer.Option(help="Power of its length that a beam is judged by; above one for longer texts.")
    ] = 1.0,
    top_memory: Top = None,
    reading: Reading = None,
    output: Annotated[Path | None, typer.Option(help="File for the answers, one JSON object a line.")] = None,
    unanswerable: Annotated[
        list[Path] | None,
        typer.Option(help="JSONL of questions without an answer, for the task answer; again for more."),
    ] = None,
    reliability: Annotated[
        Path | None, typer.Option(help="File for a table (Markdown) of how true the probability of no answer is.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare what a model says with what people said: BLEU, ROUGE, CIDEr-D, exact match, citations, perplexity.

    Where the data gives the objects in pictures, chair_i is the share of mentioned objects that are not there, and
    named the share of pictures of which one is named.

    **Examples**

    `weft evaluate data/flickr8k/dev.jsonl --task caption --limit 100 --output said.jsonl`

    `weft evaluate data/fairytales/dev.jsonl --task answer --controls`

    `weft evaluate data/fairytales/dev.jsonl --task answer --unanswerable data/fairytales/dev-unanswerable-story.jsonl`
    """
    from rich.console import Console
    from rich.table import Table

    woven = _load(model)
    say: dict[str, Any] = {
        "limit": limit,
        "batch_size": batch_size,
        "beams": beams,
        "length_penalty": length_penalty,
        "output": output,
    }
    look: dict[str, Any] = {
        "knowledge": knowledge,
        "passages": passages,
        "controls": controls,
        "top_memory": top_memory,
        "unanswerable": unanswerable or (),
        "reliability": reliability,
        "reading": reading,
    }
    figures = weft.evaluate(woven, data, task=task, **look, **say)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    table = Table("figure", "value", title=f"{task}s of {data}")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)


for command in (
    caption,
    title,
    ask,
    answer,
    summarize,
    serve,
    pull,
    index,
    train,
    evaluate,
    calibrate,
    info,
):  # as in --help
    app.command()(command)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; what is wrong is said in one sentence."""
    try:
        app(standalone_mode=True)
    except WeftError as error:
        typer.echo(f"weft: {error}", err=True)
        raise SystemExit(1) from None
    except OSError as error:  # a disk that is full, a folder that may not be written, ...
        said = f"{error.filename}: {error.strerror}." if error.filename and error.strerror else str(error)
        typer.echo(f"weft: {said}", err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
