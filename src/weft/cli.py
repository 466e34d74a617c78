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
from weft.errors import DataError, PictureError, WeftError
from weft.passages import BOUND, PASSAGES

if TYPE_CHECKING:
    from weft.knowledge import KnowledgeBase, Update
    from weft.parts import Part
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
data_app = typer.Typer(no_args_is_help=True, help="Turn known data sets into conversations to train on.")
app.add_typer(data_app, name="data")

Sources = Annotated[
    list[str],
    typer.Argument(metavar="PICTURE...", help="Picture files, folders of them, or - for a picture on standard input."),
]
Beams = Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy, and fastest.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Model = Annotated[str | None, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.  [default: photos]")]
Reader = Annotated[
    str | None, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.  [default: reader]")
]
Bound = Annotated[int, typer.Option(min=1, help="Passages of a document that are read, at most.")]
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
    sources: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Pictures, folders of them, documents, or - for a picture."),
    ],
    beams: Beams = 3,
    explain: Explain = None,
    bound: Bound = BOUND,
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
        _write_about("title", documents, {"beams": beams, "bound": bound}, explain, as_json, model)
    else:
        _say("title", sources, beams, explain, as_json, model)


@app.command()
def ask(
    picture: Annotated[str, typer.Argument(help="A picture file, or - for a picture on standard input.")],
    question: Annotated[str, typer.Argument(help="What you want to know about it.")],
    beams: Beams = 3,
    explain: Explain = None,
    as_json: Json = False,
    model: Model = None,
) -> None:
    """Answer a question about a picture.

    **Example**

    `weft ask dog.jpg "What colour is the dog?"`
    """
    ((name, source),) = _files([picture])
    said = _load(model or "photos").ask(source, question, beams=beams, explain=explain is not None)
    line = {"picture": name, "question": question, "answer": said.text}
    typer.echo(json.dumps(line, ensure_ascii=False) if as_json else said.text)
    if explain is not None:
        said.sheet().save(explain)


@app.command()
def answer(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    knowledge: Annotated[Path, typer.Option(help="Folder of documents; it is indexed if it has not been.")],
    passages: Annotated[int, typer.Option(min=1, help="Passages to look up and read.")] = PASSAGES,
    mode: Annotated[
        Literal["text", "semantic", "hybrid"], typer.Option(help="Look up by words, by meaning, or by both.")
    ] = "text",
    source: Annotated[str | None, typer.Option(help="Look in these files only, as in 'guide/*.md'.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Only documents with this metadata, as in year=2020.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what was read, so that no passage is read twice.")] = False,
    beams: Beams = 3,
    as_json: Json = False,
    model: Reader = None,
) -> None:
    """Answer a question from a folder of documents, and say where the answer stands.

    **Examples**

    `weft answer "Who approves travel?" --knowledge handbook/`

    `weft answer "Who approves travel?" --knowledge handbook/ --json | jq .citations`
    """
    from dataclasses import asdict

    from weft.knowledge import KnowledgeBase

    wrong = [one for one in where or () if "=" not in one]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE.", param_hint="--where")
    base = KnowledgeBase(knowledge)
    if not base.indexed:
        _index(base, quiet=as_json)
    conditions = dict(one.split("=", 1) for one in where or ())
    options: dict[str, Any] = {"passages": passages, "mode": mode, "source": source, "where": conditions}
    said = _load(model or "reader").answer(question, base, beams=beams, keep=keep, **options)
    if as_json:
        typer.echo(json.dumps(asdict(said), ensure_ascii=False))
        return
    typer.echo(said.text)
    for number, one in enumerate(said.citations, 1):
        place = f"{one.source}{' ' + one.part if one.part else ''}:{one.quote_span[0]}-{one.quote_span[1]}"
        typer.echo(f"  [{number}] {one.weight:4.0%}  {place}  {_shortened(one.quote)}")


@app.command()
def summarize(
    documents: Annotated[list[str], typer.Argument(metavar="DOCUMENT...", help="Documents, or - for standard input.")],
    length: Annotated[Literal["short", "medium", "long"], typer.Option(help="How long it is to be.")] = "medium",
    beams: Beams = 1,
    explain: Annotated[
        Path | None, typer.Option(help="Write the text as HTML with the sentences marked that it leaned on.")
    ] = None,
    bound: Bound = BOUND,
    as_json: Json = False,
    model: Reader = None,
) -> None:
    """Summarize a document of any length.

    **Examples**

    `weft summarize article.txt`

    `weft summarize report.pdf --length long --explain report.html`
    """
    _write_about("summarize", documents, {"beams": beams, "bound": bound, "length": length}, explain, as_json, model)


def _write_about(
    task: Literal["title", "summarize"],
    documents: list[str],
    options: dict[str, Any],
    explain: Path | None,
    as_json: bool,
    model: str | None,
) -> None:
    """Title or summarize each document; one that can't be read is reported, and the rest goes on."""
    if explain is not None and len(documents) > 1:
        explain.mkdir(parents=True, exist_ok=True)
    woven = _load(model or "reader")
    write = woven.title_text if task == "title" else woven.summarize
    failed = False
    for name in documents:
        try:
            said = write(sys.stdin.read() if name == "-" else Path(name), explain=explain is not None, **options)
        except DataError as error:
            typer.echo(f"weft: {error}", err=True)
            failed = True
            continue
        if as_json:
            line = {"document": name, task: said.text, "log_probability": round(said.log_probability, 4)}
            typer.echo(
                json.dumps({**line, "passages_read": said.read[0], "passages": said.read[1]}, ensure_ascii=False)
            )
        else:
            typer.echo(said.text if len(documents) == 1 else f"{name}\t{said.text}")
        if said.read[0] < said.read[1]:
            typer.echo(f"weft: {name}: {said.read[0]} of {said.read[1]} passages were read; see --bound", err=True)
        if explain is not None:
            from weft.marking import marked

            target = explain if len(documents) == 1 else explain / f"{Path(name).stem}.html"
            target.write_text(marked(said), encoding="utf-8")
    if failed:
        raise typer.Exit(1)


def _shortened(text: str, longest: int = 100) -> str:
    """A text on one line."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


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

    result = _index(KnowledgeBase(folder, semantic=semantic), quiet=True)
    if as_json:
        typer.echo(json.dumps(asdict(result), ensure_ascii=False))
    else:
        changes = [(name, getattr(result, name)) for name in ("added", "changed", "removed", "unchanged")]
        typer.echo(f"{folder}: {', '.join(f'{count} {name}' for name, count in changes)}; {result.passages} passages")
    if result.failed:
        raise typer.Exit(1)


def _index(base: KnowledgeBase, *, quiet: bool) -> Update:
    """Bring a knowledge base up to date; files that can't be read are reported."""
    from weft.progress import Reporter

    if not quiet:
        typer.echo(f"weft: indexing {base.folder}", err=True)
    with Reporter() as reporter:
        reporter.start("indexing", 1)
        result = base.update(reporter.count)
    for failed in result.failed:
        typer.echo(f"weft: {failed}", err=True)
    return result


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
        bool, typer.Option("--controls", help="Measure a wrong memory, and the bare language model, as well.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures or conversations to look at.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="How many of them at once.")] = 16,
    beams: Beams = 3,
    output: Annotated[Path | None, typer.Option(help="File for the answers, one JSON object a line.")] = None,
    as_json: Json = False,
) -> None:
    """Compare what a model says with what people said: BLEU, ROUGE, CIDEr-D, exact match, citations, perplexity.

    **Examples**

    `weft evaluate data/flickr8k/dev.jsonl --task caption --limit 100 --output said.jsonl`

    `weft evaluate data/fairytales/dev.jsonl --task answer --controls`
    """
    from rich.console import Console
    from rich.table import Table

    woven = _load(model)
    say: dict[str, Any] = {"limit": limit, "batch_size": batch_size, "beams": beams, "output": output}
    look: dict[str, Any] = {"knowledge": knowledge, "passages": passages, "controls": controls}
    figures = weft.evaluate(woven, data, task=task, **look, **say)
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


@data_app.command("flickr8k-questions")
def data_flickr8k_questions(
    folder: Annotated[Path, typer.Argument(help="Folder of Parquet files with 'image' and 'captions'.")],
    out: Annotated[Path, typer.Argument(help="Folder that `weft data flickr8k` wrote to.")],
) -> None:
    """Make questions about the pictures of Flickr8k, with answers, from their captions.

    **Example**

    `weft data flickr8k-questions downloads/flickr8k data/flickr8k`
    """
    from weft.picture_questions import flickr8k_questions

    counts = flickr8k_questions(folder, out)
    _tell(out, {f"questions-{split}": sum(kinds.values()) for split, kinds in counts.items()})


@data_app.command("fairytales")
def data_fairytales(
    folder: Annotated[Path, typer.Argument(help="Folder with train.jsonl, train_stories.jsonl and the same of dev.")],
    out: Annotated[Path, typer.Argument(help="Folder to write JSONL files and stories to.")],
) -> None:
    """Make conversations of FairytaleQA: questions about sections of stories, some of which don't hold the answer.

    **Example**

    `weft data fairytales downloads/fairytales data/fairytales`
    """
    from weft.corpora import fairytales

    _tell(out, fairytales(folder, out))


@data_app.command("aeslc")
def data_aeslc(
    folder: Annotated[Path, typer.Argument(help="Folder with train.jsonl and dev.jsonl: 'id', 'text', 'titles'.")],
    out: Annotated[Path, typer.Argument(help="Folder to write JSONL files to.")],
) -> None:
    """Make conversations of AESLC: e-mails and their subject lines.

    **Example**

    `weft data aeslc downloads/aeslc data/aeslc`
    """
    from weft.corpora import aeslc

    _tell(out, aeslc(folder, out))


@data_app.command("bbc")
def data_bbc(
    folder: Annotated[
        Path, typer.Argument(help="Folder with train.jsonl and dev.jsonl: 'id', 'title', 'text', 'summary'.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write JSONL files to.")],
) -> None:
    """Make conversations of BBC news: titles, summaries of three lengths, and questions made by rule.

    **Example**

    `weft data bbc downloads/bbc data/bbc`
    """
    from weft.corpora import bbc

    _tell(out, bbc(folder, out))


@data_app.command("babi")
def data_babi(
    folder: Annotated[Path, typer.Argument(help="Folder with qa1_train.txt and qa1_valid.txt to qa20_valid.txt.")],
    out: Annotated[Path, typer.Argument(help="Folder to write JSONL files to.")],
) -> None:
    """Make conversations of the 20 bAbI tasks: small stories to draw conclusions from.

    **Example**

    `weft data babi downloads/babi data/babi`
    """
    from weft.corpora import babi

    _tell(out, babi(folder, out))


def _tell(out: Path, counts: dict[str, int]) -> None:
    """What was written."""
    for name, count in counts.items():
        typer.echo(f"{out / name}.jsonl\t{count} conversations")


def main() -> None:
    """Run the command line; what is wrong is said in one sentence."""
    try:
        app(standalone_mode=True)
    except WeftError as error:
        typer.echo(f"weft: {error}", err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
