"""``weft data``: known data sets as conversations to train on.

Each command is given the folder that holds a set's own files, and a folder to write to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(no_args_is_help=True, help="Turn known data sets into conversations to train on.")


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


@data_app.command("flickr8k-exchanged")
def data_flickr8k_exchanged(
    folder: Annotated[Path, typer.Argument(help="Folder of Parquet files with 'image' and 'captions'.")],
    out: Annotated[Path, typer.Argument(help="Folder that `weft data flickr8k` wrote to.")],
) -> None:
    """Make captions of Flickr8k in which dogs are called something else, together with what a classifier names.

    **Example**

    `weft data flickr8k-exchanged downloads/flickr8k data/flickr8k`
    """
    from weft.encoders import EFFICIENTNET, load_vision_encoder
    from weft.exchanges import flickr8k_exchanged

    _tell(out, flickr8k_exchanged(folder, out, load_vision_encoder(EFFICIENTNET)))


@data_app.command("objects")
def data_objects(
    folder: Annotated[Path, typer.Argument(help="Folder with pictures/ and labels.tsv: 'picture', 'plain_noun'.")],
    out: Annotated[Path, typer.Argument(help="Folder to write pictures and JSONL files to.")],
    writer: Annotated[
        str | None, typer.Option(help="A weave that writes captions which begin with what is on a photo.")
    ] = None,
) -> None:
    """Make conversations of photos that show one thing each.

    **Example**

    `weft data objects downloads/objects data/objects --writer runs/photos-questions/best`
    """
    from weft import load
    from weft.object_photos import write_object_photos

    _tell(out, write_object_photos(folder, out, None if writer is None else load(writer)))


@data_app.command("coco-mini")
def data_coco_mini(
    folder: Annotated[
        Path, typer.Argument(help="Folder with pictures/ and JSONL files: 'picture', 'captions', 'objects'.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write pictures and JSONL files to.")],
) -> None:
    """Make conversations to evaluate on of photos with captions and annotated objects, as COCO's are.

    **Example**

    `weft data coco-mini downloads/coco-mini data/coco-mini`
    """
    from weft.annotated_photos import coco_mini

    _tell(out, coco_mini(folder, out))


@data_app.command("fairytales")
def data_fairytales(
    folder: Annotated[Path, typer.Argument(help="Folder with train.jsonl, train_stories.jsonl and the same of dev.")],
    out: Annotated[Path, typer.Argument(help="Folder to write JSONL files and stories to.")],
) -> None:
    """Make conversations of FairytaleQA: questions about sections of stories, and the same made unanswerable.

    **Example**

    `weft data fairytales downloads/fairytales data/fairytales`
    """
    from weft.corpora import fairytales

    _tell(out, fairytales(folder, out))


@data_app.command("scitldr")
def data_scitldr(
    folder: Annotated[
        Path, typer.Argument(help="Folder with train.jsonl and dev.jsonl: 'id', 'title', 'text', 'summaries'.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write JSONL files to.")],
) -> None:
    """Make conversations of SciTLDR: titles and summaries of abstracts, and questions made by rule.

    **Example**

    `weft data scitldr downloads/scitldr data/scitldr`
    """
    from weft.abstracts import scitldr

    _tell(out, scitldr(folder, out))


@data_app.command("pubmedqa")
def data_pubmedqa(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder with train.jsonl, dev.jsonl: 'id', 'question', 'passages', 'labels', 'answer'."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write JSONL files to.")],
) -> None:
    """Make conversations of PubMedQA: questions about abstracts with long answers, and the same made unanswerable.

    **Example**

    `weft data pubmedqa downloads/pubmedqa data/pubmedqa`
    """
    from weft.abstracts import pubmedqa

    _tell(out, pubmedqa(folder, out))


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
    from weft.puzzles import babi

    _tell(out, babi(folder, out))


def _tell(out: Path, counts: dict[str, int]) -> None:
    """What was written."""
    for name, count in counts.items():
        typer.echo(f"{out / name}.jsonl\t{count} conversations")
