"""Training data: conversations, turned into rows of tokens that know which of them are to be learned.

:func:`examples_of` reads and checks a data set; :func:`rows_of` tokenizes its conversations. Rows that share pictures
and prompt (the captions of one picture) become one :class:`Row`, in which each answer sees the prompt and itself, so
the prompt is computed once. :func:`plan_epoch` puts rows of like length together, :func:`collate` makes tensors of
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from weft.conversation_forms import as_list, as_messages
from weft.data_files import rows_of_file
from weft.errors import DataError
from weft.given_pictures import GivenPictures, MissingPicture
from weft.processing import WeftProcessor
from weft.rendering import Messages, Rendered, question_of, words
from weft.row_checks import check_characters
from weft.tally import Tally
from weft.text_encoders import TextEncoder
from weft.training_rows import Row, RowFile, RowPassage

_COUNTS = ("weight", "loss", "train")
"""What OpenAI and others call whether an answer is learned from: 0 or false for one that is not."""


@dataclass(frozen=True)
class Example:
    """One line of a data set.

    Attributes:
        messages: the conversation; pictures are absolute paths.
        references: further right answers, for evaluation.
        where: file and line, for messages to people.
        supporting: ids of the documents that hold the answer.
        source: pattern for files of a knowledge base that its documents are to be looked for in; None for all.
        objects: what is annotated in its pictures, for evaluation.
        template: what the chat template is given beside messages: ``tools``, ...
    """

    messages: tuple[Mapping[str, Any], ...]
    references: tuple[str, ...]
    where: str
    supporting: tuple[str, ...] = ()
    source: str | None = None
    objects: tuple[str, ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The files of its pictures, in order."""
        return tuple(part["image"] for part in _parts(self.messages) if part["type"] == "image")

    @property
    def exchanged(self) -> tuple[tuple[tuple[str, str | None], ...], ...]:
        """For each picture the names that are exchanged, and for what; None for one that is left out."""
        pictures = [part for part in _parts(self.messages) if part["type"] == "image"]
        return tuple(tuple(part.get("names", {}).items()) for part in pictures)

    @property
    def documents(self) -> tuple[Mapping[str, Any], ...]:
        """Its documents, in order: objects with ``text``, and perhaps ``id``."""
        return tuple(part for part in _parts(self.messages) if part["type"] == "document")

    @property
    def answer(self) -> str:
        """The last assistant message."""
        return words(self.messages[-1])

    @property
    def question(self) -> str:
        """The words of the last user message."""
        return question_of(self.messages)


def load_examples(
    source: str | Path | Iterable[Mapping[str, Any]],
    pictures: GivenPictures | None = None,
    *,
    tally: Tally | None = None,
) -> list[Example]:
    """Read a file of conversations, or take them as they are given; arguments and errors as for :func:`examples_of`."""
    return list(examples_of(source, pictures, tally=tally))


def examples_of(
    source: str | Path | Iterable[Mapping[str, Any]],
    pictures: GivenPictures | None = None,
    chosen: Container[int] | None = None,
    *,
    tally: Tally | None = None,
) -> Iterator[Example]:
    """The conversations of a data set, one after the other, in any of the forms of :mod:`weft.conversation_forms`.

    Args:
        source: a JSONL file, perhaps packed by gzip, a JSON file of one list, or the rows themselves: dicts in a list,
            a ``datasets.Dataset``.
        pictures: where its pictures are put that are no files.
        chosen: numbers of the conversations that are wanted, counted from zero; None for all.
        tally: counts rows, and columns that are not read.

    Raises:
        DataError: the file is missing or empty, a line is not what it should be, a picture is missing, or the
            assistant says nothing; file and line are named.
    """
    pictures, found = pictures or GivenPictures(), False
    missing: list[MissingPicture] = []
    for number, (fields, where, folder) in enumerate(_rows_in(source)):
        found = True
        if chosen is not None and number not in chosen:
            continue
        if tally is not None and isinstance(fields, Mapping):
            tally.read(fields)
        try:
            example = _example(fields, where, folder, pictures)
        except MissingPicture as error:
            missing.append(error)  # the others are looked for, to be told all at once
            continue
        if not missing:
            yield example
    if missing:
        others = f" So are those of {len(missing) - 1:,} other rows." if len(missing) > 1 else ""
        raise MissingPicture(f"{missing[0]}{others}")
    if not found:
        raise DataError(f"{_called(source)} holds no examples; it needs one JSON object with 'messages' a line.")


def _has_rows(source: Any) -> bool:
    return hasattr(type(source), "__iter__") or hasattr(type(source), "__getitem__")


def count_examples(source: str | Path | Iterable[Mapping[str, Any]]) -> int:
    """How many conversations a data set has; they are not looked at."""
    return sum(1 for _ in _rows_in(source, parse=False))


def _called(source: Any) -> str:
    return str(source) if isinstance(source, (str, Path)) else "the data"


def _rows_in(source: Any, parse: bool = True) -> Iterator[tuple[Any, str, Path]]:
    """Each row of a data set, what to call it, and the folder from which its paths lead."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        yield from ((fields, where, path.parent) for fields, where in rows_of_file(path, parse))
        return
    if isinstance(source, Mapping) or hasattr(source, "columns") or not _has_rows(source):
        raise DataError(
            f"The data is a {type(source).__name__}; give a file, a list of dicts or a datasets.Dataset (of a table of "
            "pandas: .to_dict('records'))."
        )
    rows = iter(source)
    for number in count():
        where = f"row {number} of the data"
        try:
            fields = next(rows)
        except StopIteration:
            return
        except OSError as error:  # as a data set says that it can't decode a picture
            raise DataError(f"{where}: it can't be read ({error}).") from None
        yield fields, where, Path()


def _example(fields: Any, where: str, folder: Path, pictures: GivenPictures) -> Example:
    if isinstance(fields, Example):
        return fields
    if not isinstance(fields, Mapping):
        kind = f"a row is {fields!r:.60}, which is no object"
        raise DataError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'; {kind}.")
    messages = as_messages(fields, where)
    for part in _parts(messages):
        if part["type"] == "image":
            part["image"] = pictures.file(part["image"], folder, where)
            exchanged = part.get("names", {})
            if not isinstance(exchanged, dict) or not all(
                isinstance(one, (str, type(None))) for one in exchanged.values()
            ):
                raise DataError(f"{where}: 'names' of a picture must be an object of names and what stands for each.")
    lists = {name: _strings(fields, name, where) for name in ("references", "supporting", "objects")}
    template, origin = _template(fields, where), fields.get("source")
    if origin is not None and not isinstance(origin, str):
        raise DataError(f"{where}: 'source' is {origin!r:.100}; it must be a string, or left out.")
    check_characters([_without_pictures(messages), template, lists, origin], where)
    example = Example(tuple(messages), where=where, source=origin, template=template, **lists)
    if not messages or messages[-1]["role"] != "assistant" or not _says(messages[-1]):
        raise DataError(f"{where}: the assistant says nothing; the last message must be its answer.")
    return example


def _says(message: Mapping[str, Any]) -> bool:
    """Whether a message of the assistant's holds anything."""
    return bool(words(message).strip() or message.get("tool_calls"))


def _template(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a line gives the chat template beside messages: ``tools`` (some data sets hold them as JSON in a string) and
    ``chat_template_kwargs``."""
    tools, others = fields.get("tools"), fields.get("chat_template_kwargs") or {}
    try:
        tools = json.loads(tools) if isinstance(tools, str) else tools
    except (ValueError, RecursionError):
        raise DataError(f"{where}: 'tools' is a string that is not JSON; give a list of objects.") from None
    if not isinstance(tools or [], list) or not isinstance(others, dict):
        raise DataError(f"{where}: 'tools' must be a list of objects, 'chat_template_kwargs' an object.")
    return {**others, **({"tools": tools} if tools else {})}


def _strings(fields: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    found = () if fields.get(name) is None else as_list(fields[name])
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise DataError(f"{where}: {name!r} must be a list of strings, or be left out.")
    return tuple(found)


def _without_pictures(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages without the files of their pictures, whose names are what they are."""
    return [
        {
            **message,
            "content": [{**part, "image": ""} if part["type"] == "image" else part for part in message["content"]],
        }
        if isinstance(message.get("content"), list)
        else dict(message)
        for message in messages
    ]


def _parts(messages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if not isinstance(message.get("content") or "", str):
            yield from message["content"]


def rows_of(
    examples: Iterable[Example],
    processor: WeftProcessor,
    *,
    share_prompts: bool = True,
    passages: int | None = None,
    careful: bool = False,
    arrange: Callable[[Messages], Messages] | None = None,
    folder: Path | None = None,
    positions: int | None = None,
    tally: Tally | None = None,
) -> RowFile:
    """Tokenize conversations; those with the same pictures, documents and prompt share one row.

    Args:
        examples: conversations, which are taken one after the other.
        processor: knows the chat template and the tokenizer.
        share_prompts: whether they do.
        passages: passages of a conversation's documents that are read, at most: the first ones; None for all.
        careful: whether passages are encoded in the sight of the conversation's question.
        arrange: puts pictures and documents where the weave that learns is to see them, as
            :func:`weft.responding.as_learned` does for a model; None for where they are.
        folder: where the rows are kept while they are used; by default the folder for temporary files.
        positions: tokens that the language model takes; conversations of more are left out. None for any number.
        tally: counts those, and what of documents is not read.

    Raises:
        DataError: the chat template does not take the messages, or rewrites earlier ones, so that an answer can't be
            found in the text.
    """
    rows, tally = RowFile(folder), Tally() if tally is None else tally
    for number, example in enumerate(examples):
        if arrange is not None:
            example = replace(example, messages=tuple(arrange(example.messages)))
        made = _tokenize(example, processor, example.question if careful else "")
        if positions is not None and len(made.tokens) - 1 > positions:
            tally.leave_out(f"with more than the {positions:,} tokens that the language model takes", [example.where])
            continue
        if made.passages and example.supporting and not any(one.supports for one in made.passages):
            tally.notice("name under 'supporting' no document that they hold", example.where)
        if passages is not None and len(made.passages) > passages:
            tally.notice(f"hold more than {passages} passages, of which the first are read", example.where)
        first = made.flags.index(True)
        answer = (tuple(made.tokens[first:]), tuple(made.flags[first:]))
        held = (tuple(made.tokens[:first]), (answer,), example.pictures, tuple(made.columns), example.where)
        row = Row(*held, made.passages[:passages], example.exchanged)
        rows.add(row, "" if share_prompts else str(number))
    return rows


@dataclass(frozen=True)
class _Tokenized:
    """A conversation as tokens, which of them the assistant says, and what it holds."""

    tokens: list[int]
    flags: list[bool]
    columns: list[int]
    passages: tuple[RowPassage, ...]


def _tokenize(example: Example, processor: WeftProcessor, question: str) -> _Tokenized:
    messages = example.messages
    try:
        rendered, spans = _answers(messages, processor, example.template)
    except DataError as error:
        raise DataError(f"{example.where}: {error}") from None
    (tokens, columns, document_columns), offsets = processor.tokenize_with_spans(rendered)
    flags = [any(start <= begin and end <= stop for start, stop in spans) for begin, end in offsets]
    if not any(flags):
        raise DataError(f"{example.where}: of what the assistant says, the chat template leaves nothing to learn.")
    last = max(index for index, flag in enumerate(flags) if flag)
    encoder = processor.text_encoder
    if rendered.documents and encoder is None:
        raise DataError(f"{example.where}: it holds a document, but the model has no weave that reads texts.")
    passages = tuple(
        RowPassage(text, column, str(document.get("id")) in example.supporting, question)
        for document, column in zip(rendered.documents, document_columns, strict=True)
        for text in _cut(document["text"], cast(TextEncoder, encoder), question)
    )
    return _Tokenized(tokens[: last + 1], flags[: last + 1], columns, passages)


def _answers(
    messages: Messages, processor: WeftProcessor, template: Mapping[str, Any]
) -> tuple[Rendered, list[tuple[int, int]]]:
    """A conversation as text, and the characters of what the assistant says in it."""
    rendered = processor.render(messages, **template)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before = processor.render(messages[:index], add_generation_prompt=True, **template).text
            until = processor.render(messages[: index + 1], **template).text.rstrip()
            if not rendered.text.startswith(before) or not rendered.text.startswith(until):
                raise DataError("the chat template rewrites earlier messages; give one answer a line.")
            if all(message.get(name) is None or message[name] for name in _COUNTS):
                spans.append((len(before), len(until)))
    return rendered, spans


@lru_cache(maxsize=4096)
def _cut(text: str, encoder: TextEncoder, question: str) -> tuple[str, ...]:
    """The passages of a document; data sets ask about the same one many times."""
    return tuple(piece.text for piece in encoder.cut(text, question=question))


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors.

    Attributes:
        input_ids: ``[B, T]``, padded on the right.
        position_ids: positions; those of each answer go on from the prompt, ``[B, T]``.
        attention_mask: True where a token may look at an earlier one, ``[B, 1, T, T]``; ``[B, T]`` when no row holds
            more than one answer, with True for tokens that are not padding.
        predicting: places in the flattened ``[B·T]`` from which a learned token is predicted.
        targets: those tokens.
        rows: the rows.
    """

    input_ids: Int[Tensor, "B T"]
    position_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "..."]
    predicting: Int[Tensor, " L"]
    targets: Int[Tensor, " L"]
    rows: tuple[Row, ...]

    @property
    def inputs(self) -> dict[str, Any]:
        """What a language model takes of it."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "use_cache": False,
        }

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        names = ("input_ids", "position_ids", "attention_mask", "predicting", "targets")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def collate(rows: Sequence[Row], pad: int, multiple: int = 8) -> Batch:
    """Lay rows side by side; an answer's tokens see the prompt and their own answer.

    Args:
        rows: the rows of a batch.
        pad: token that fills the rest of a row.
        multiple: round the length up to a multiple of this, which keeps the number of shapes small.
    """
    width = -(-max(map(len, rows)) // multiple) * multiple
    input_ids = torch.full((len(rows), width), pad)
    position_ids = torch.zeros_like(input_ids)
    segments = torch.full_like(input_ids, -1)
    predicting, targets = [], []
    for index, row in enumerate(rows):
        place = len(row.prompt)
        input_ids[index, :place] = torch.tensor(row.prompt)
        position_ids[index, :place] = torch.arange(place)
        segments[index, :place] = 0
        for number, (tokens, flags) in enumerate(row.answers, 1):
            span = slice(place, place + len(tokens) - 1)
            input_ids[index, span] = torch.tensor(tokens[:-1], dtype=torch.long)
            position_ids[index, span] = len(row.prompt) + torch.arange(len(tokens) - 1)
            segments[index, span] = number
            before = [len(row.prompt) - 1, *range(place, place + len(tokens) - 1)]
            learned = [
                (index * width + at, token) for at, token, flag in zip(before, tokens, flags, strict=True) if flag
            ]
            predicting += [at for at, _ in learned]
            targets += [token for _, token in learned]
            place = span.stop
    if all(len(row.answers) == 1 for row in rows):
        mask = segments >= 0
    else:
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        same = (segments[:, :, None] == segments[:, None, :]) | (segments[:, None, :] == 0)
        mask = (causal & same)[:, None]
    return Batch(input_ids, position_ids, mask, torch.tensor(predicting), torch.tensor(targets), tuple(rows))


def plan_epoch(lengths: Sequence[int], batch_size: int, seed: int, pool: int = 8) -> list[list[int]]:
    """The batches of an epoch: indices in random order, rows of like length together.

    Args:
        lengths: length of each row.
        batch_size: rows a batch.
        seed: decides the order; give each epoch its own.
        pool: batches whose rows are sorted together.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    span = batch_size * pool
    batches = []
    for start in range(0, len(order), span):
        chunk = sorted(order[start : start + span].tolist(), key=lambda index: lengths[index])
        batches += [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]
