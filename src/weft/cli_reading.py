"""The commands about documents and knowledge: ``answer``, ``summarize``, ``index``.

:mod:`weft.cli` makes commands of these functions. As there, what takes time to import is imported where it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from weft.cli_options import MARKED, Beams, Bound, Json, Reading, Top, load, result_files
from weft.cli_streams import echo_json, input_bytes, text_of
from weft.errors import DataError, WeftError
from weft.passages import BOUND, PASSAGES

if TYPE_CHECKING:
    from weft.knowledge import KnowledgeBase, Update

Reader = Annotated[
    str | None, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.  [default: reader]")
]


KINDS = ".txt, .md, .html, .pdf, .docx, .pptx, .xlsx, .odt, .epub, .eml, .rtf, .csv, .tsv, .json, .jsonl and their kin"
"""What documents are, for messages."""
NOTES = 20
"""Notes on files that are shown, at most."""
NAMED = 3
"""Files that are named for each reason, at most."""


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
    top_memory: Top = None,
    reading: Reading = None,
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
    if not base.indexed and not _index(base, quiet=as_json).passages:
        raise WeftError(f"{knowledge} holds no documents that can be read; give a folder with some ({KINDS}).")
    conditions = dict(one.split("=", 1) for one in where or ())
    options: dict[str, Any] = {"passages": passages, "mode": mode, "source": source, "where": conditions}
    options |= {"beams": beams, "keep": keep, "top_memory": top_memory, "reading": reading}
    said = load(model or "reader").answer(question, base, **options)
    if as_json:
        echo_json(asdict(said))
        return
    typer.echo(said.text)
    for number, one in enumerate(said.citations, 1):
        place = f"{one.source}{' ' + one.part if one.part else ''}:{one.quote_span[0]}-{one.quote_span[1]}"
        typer.echo(f"  [{number}] {one.weight:4.0%}  {place}  {_shortened(one.quote)}")


def summarize(
    documents: Annotated[list[str], typer.Argument(metavar="DOCUMENT...", help="Documents, or - for standard input.")],
    length: Annotated[Literal["short", "medium", "long"], typer.Option(help="How long it is to be.")] = "medium",
    beams: Beams = 1,
    explain: Annotated[
        Path | None, typer.Option(help="Write the text as HTML with the sentences marked that it leaned on.")
    ] = None,
    bound: Bound = BOUND,
    top_memory: Top = None,
    reading: Reading = None,
    as_json: Json = False,
    model: Reader = None,
) -> None:
    """Summarize a document of any length.

    **Examples**

    `weft summarize article.txt`

    `weft summarize report.pdf --length long --explain report.html`
    """
    options = {"beams": beams, "bound": bound, "top_memory": top_memory, "reading": reading, "length": length}
    write_about(model or "reader", "summarize", documents, options, explain, as_json)


def write_about(
    model: str,
    task: Literal["title", "summarize"],
    documents: list[str],
    options: dict[str, Any],
    explain: Path | None,
    as_json: bool,
    piped: bytes = b"",
) -> None:
    """Title or summarize each document; one that can't be read is reported, and the rest goes on.

    Args:
        model: what reads them, as :func:`weft.load` takes it.
        task: what is written about each.
        documents: files, or ``-`` for the text on standard input.
        options: for the task.
        explain: where to write the text with the sentences marked that it leaned on; for several, a folder.
        as_json: whether to write one JSON object a line.
        piped: what standard input holds, where that has been read.
    """
    targets = result_files(explain, documents, MARKED)
    woven = load(model)
    write = woven.title_text if task == "title" else woven.summarize
    failed = False
    for name, target in zip(documents, targets, strict=True):
        try:
            source = text_of(piped or input_bytes()) if name == "-" else Path(name)
            said = write(source, explain=explain is not None, **options)
        except DataError as error:
            typer.echo(f"weft: {error}", err=True)
            failed = True
            continue
        if as_json:
            line = {"document": name, task: said.text, "log_probability": round(said.log_probability, 4)}
            echo_json({**line, "passages_read": said.read[0], "passages": said.read[1]}, name)
        else:
            typer.echo(said.text if len(documents) == 1 else f"{name}\t{said.text}")
        if said.read[0] < said.read[1]:
            typer.echo(f"weft: {name}: {said.read[0]} of {said.read[1]} passages were read; see --bound", err=True)
        if target is not None:
            from weft.marking import marked

            target.write_text(marked(said), encoding="utf-8", errors="replace")
    if failed:
        raise typer.Exit(1)


def _shortened(text: str, longest: int = 100) -> str:
    """A text on one line."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


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
        echo_json(asdict(result))
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
    for note in result.notes[:NOTES]:
        typer.echo(f"weft: {note}", err=True)
    if len(result.notes) > NOTES:
        typer.echo(f"weft: and {len(result.notes) - NOTES:,} more of the kind; --json lists all.", err=True)
    for reason, names in result.left_out.items():
        shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
        typer.echo(f"weft: left out {len(names):,}, {reason}: {shown}", err=True)
    return result
