"""Training data: JSONL of chat messages, turned into rows of tokens that know which of them are to be learned.

:func:`load_examples` reads and checks a file; :func:`rows_of` tokenizes its conversations. Rows that share pictures and
prompt (the captions of one picture) become one :class:`Row`, in which each answer sees the prompt and itself, so the
prompt is computed once. :func:`plan_epoch` puts rows of like length together, :func:`collate` makes tensors of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from weft.errors import DataError
from weft.passages import Piece
from weft.processing import WeftProcessor
from weft.rendering import Messages, question_of, words
from weft.text_encoders import TextEncoder


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


def load_examples(path: str | Path) -> list[Example]:
    """Read a JSONL file of conversations.

    Raises:
        DataError: the file is missing or empty, a line is not what it should be, a picture is missing, or the
            assistant says nothing; file and line are named.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a JSONL file of chat messages.")
    with path.open(encoding="utf-8") as lines:
        examples = [
            _example(line, f"{path}:{number}", path.parent) for number, line in enumerate(lines, 1) if line.strip()
        ]
    if not examples:
        raise DataError(f"{path} holds no examples; it needs one JSON object with 'messages' a line.")
    return examples


def _example(line: str, where: str, folder: Path) -> Example:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); each line is one object with 'messages'.") from None
    messages = fields.get("messages") if isinstance(fields, dict) else None
    if not isinstance(messages, list) or not all(isinstance(m, dict) and _is_message(m) for m in messages):
        raise DataError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'.")
    for part in _parts(messages):
        if not isinstance(part, dict):
            raise DataError(f"{where}: the part {part!r:.100} is no object; use 'text', 'image' or 'document' parts.")
        if part.get("type") not in ("text", "image", "document"):
            raise DataError(f"{where}: a part is of type {part.get('type')!r}; use 'text', 'image' or 'document'.")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise DataError(f"{where}: a text part holds no text; put a string under 'text'.")
        if part["type"] == "document" and not str(part.get("text") or "").strip():
            raise DataError(f"{where}: a document is empty; put its words under 'text'.")
        if part["type"] == "image":
            picture = folder / str(part.get("image", ""))
            if not picture.is_file():
                raise DataError(f"{where}: the picture {picture} doesn't exist; paths are relative to the data file.")
            part["image"] = str(picture)
            exchanged = part.get("names", {})
            if not isinstance(exchanged, dict) or not all(
                isinstance(one, (str, type(None))) for one in exchanged.values()
            ):
                raise DataError(f"{where}: 'names' of a picture must be an object of names and what stands for each.")
    lists = {name: _strings(fields, name, where) for name in ("references", "supporting", "objects")}
    template = _template(fields, where)
    example = Example(tuple(messages), where=where, source=fields.get("source"), template=template, **lists)
    if not messages or messages[-1]["role"] != "assistant" or not _says(messages[-1]):
        raise DataError(f"{where}: the assistant says nothing; the last message must be its answer.")
    return example


def _is_message(message: Mapping[str, Any]) -> bool:
    """Whether it has a role, and a content; one that calls tools needs no words."""
    content = message.get("content")
    if not isinstance(message.get("role"), str) or not isinstance(content, (str, list, type(None))):
        return False
    return "content" in message or bool(message.get("tool_calls"))


def _says(message: Mapping[str, Any]) -> bool:
    """Whether a message of the assistant's holds anything."""
    return bool(words(message).strip() or message.get("tool_calls"))


def _template(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a line gives the chat template beside messages: ``tools`` (some data sets hold them as JSON in a string) and
    ``chat_template_kwargs``."""
    tools, others = fields.get("tools"), fields.get("chat_template_kwargs") or {}
    try:
        tools = json.loads(tools) if isinstance(tools, str) else tools
    except json.JSONDecodeError:
        raise DataError(f"{where}: 'tools' is a string that is not JSON; give a list of objects.") from None
    if not isinstance(tools or [], list) or not isinstance(others, dict):
        raise DataError(f"{where}: 'tools' must be a list of objects, 'chat_template_kwargs' an object.")
    return {**others, **({"tools": tools} if tools else {})}


def _strings(fields: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    found = fields.get(name) or ()
    if isinstance(found, str) or not all(isinstance(one, str) for one in found):
        raise DataError(f"{where}: {name!r} must be a list of strings.")
    return tuple(found)


def _parts(messages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if not isinstance(message.get("content") or "", str):
            yield from message["content"]


@dataclass(frozen=True)
class RowPassage:
    """A passage that a row reads.

    Attributes:
        text: the passage.
        column: the column from which on it may be seen.
        supports: whether it is of a document that holds the answer.
        question: the question in whose sight it is encoded; empty for one that serves all questions.
    """

    text: str
    column: int
    supports: bool
    question: str = ""

    @property
    def piece(self) -> Piece:
        """The passage as it is encoded."""
        return Piece(self.text, question=self.question)


@dataclass(frozen=True, eq=False)
class Row:
    """A prompt and the answers to it, as tokens.

    Attributes:
        prompt: tokens up to the first one to be learned.
        answers: for each answer its tokens, and which of them are to be learned.
        pictures: files of the pictures.
        columns: the column from which on each picture may be seen.
        where: file and line of the first example in it.
        passages: those of its documents.
        exchanged: for each picture the names that are exchanged, and for what; None for one that is left out.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[tuple[int, ...], tuple[bool, ...]], ...]
    pictures: tuple[str, ...]
    columns: tuple[int, ...]
    where: str
    passages: tuple[RowPassage, ...] = ()
    exchanged: tuple[tuple[tuple[str, str | None], ...], ...] = ()

    def __len__(self) -> int:
        """Tokens that are computed: of an answer's last token nothing is asked."""
        return len(self.prompt) + sum(len(tokens) - 1 for tokens, _ in self.answers)

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return sum(sum(flags) for _, flags in self.answers)


def rows_of(
    examples: Sequence[Example],
    processor: WeftProcessor,
    *,
    share_prompts: bool = True,
    passages: int | None = None,
    careful: bool = False,
    arrange: Callable[[Messages], Messages] | None = None,
) -> list[Row]:
    """Tokenize conversations; those with the same pictures, documents and prompt share one row.

    Args:
        examples: conversations.
        processor: knows the chat template and the tokenizer.
        share_prompts: whether they do.
        passages: passages of a conversation's documents that are read, at most: the first ones; None for all.
        careful: whether passages are encoded in the sight of the conversation's question.
        arrange: puts pictures and documents where the weave that learns is to see them, as
            :func:`weft.responding.as_learned` does for a model; None for where they are.

    Raises:
        DataError: the chat template rewrites earlier messages, so that an answer can't be found in the text.
    """
    found: dict[Any, list[Any]] = {}
    for number, example in enumerate(examples):
        if arrange is not None:
            example = replace(example, messages=tuple(arrange(example.messages)))
        made = _tokenize(example, processor, example.question if careful else "")
        first = made.flags.index(True)
        unshared = None if share_prompts else number
        held = example.pictures, tuple(made.columns), made.passages[:passages], example.exchanged
        key = (tuple(made.tokens[:first]), *held, unshared)
        answers = found.setdefault(key, [example.where])
        answers.append((tuple(made.tokens[first:]), tuple(made.flags[first:])))
    return [
        Row(prompt, tuple(answers), pictures, columns, where, read, exchanged)
        for (prompt, pictures, columns, read, exchanged, _), (where, *answers) in found.items()
    ]


@dataclass(frozen=True)
class _Tokenized:
    """A conversation as tokens, which of them the assistant says, and what it holds."""

    tokens: list[int]
    flags: list[bool]
    columns: list[int]
    passages: tuple[RowPassage, ...]


def _tokenize(example: Example, processor: WeftProcessor, question: str) -> _Tokenized:
    messages = example.messages
    rendered = processor.render(messages, **example.template)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before = processor.render(messages[:index], add_generation_prompt=True, **example.template).text
            until = processor.render(messages[: index + 1], **example.template).text.rstrip()
            if not rendered.text.startswith(before) or not rendered.text.startswith(until):
                raise DataError(
                    f"{example.where}: the chat template rewrites earlier messages; give one answer a line."
                )
            spans.append((len(before), len(until)))
    (tokens, columns, document_columns), offsets = processor.tokenize_with_spans(rendered)
    flags = [any(start <= begin and end <= stop for start, stop in spans) for begin, end in offsets]
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
