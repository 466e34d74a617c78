"""Chat messages as text, with the places where their pictures and documents stand.

:func:`render` is given messages and whatever applies the chat template, and hands on a :class:`Rendered`. It knows no
tokenizer and no tensors.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.errors import DataError

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
)
"""For tokenizers that bring no chat template: one message a line."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rendered:
    """Messages as text.

    Attributes:
        text: what the language model reads.
        pictures: the pictures in it, in order, as they were given.
        offsets: for each picture the character of ``text`` from which on it may be seen.
        documents: the documents in it, in order: objects with ``text``, and perhaps ``id``.
        document_offsets: for each document the character of ``text`` from which on it may be seen.
    """

    text: str
    pictures: tuple[Any, ...]
    offsets: tuple[int, ...]
    documents: tuple[Mapping[str, Any], ...] = ()
    document_offsets: tuple[int, ...] = ()

    def columns(self, begins: Sequence[int]) -> list[int]:
        """For each picture the column from which on it may be seen.

        Args:
            begins: the character at which each token of ``text`` begins.
        """
        return [sum(begin < offset for begin in begins) for offset in self.offsets]

    def document_columns(self, begins: Sequence[int]) -> list[int]:
        """For each document the column from which on it may be seen; ``begins`` as for :meth:`columns`."""
        return [sum(begin < offset for begin in begins) for offset in self.document_offsets]


def render(
    messages: Messages, apply_template: Callable[[list[dict[str, str]]], str], system_prompt: str | None = None
) -> Rendered:
    """Messages as text.

    Args:
        messages: ``{"role": ..., "content": ...}``; content is a string or a list of parts, of type ``"text"``,
            ``"image"`` (with the picture under ``"image"``, ``"path"`` or ``"url"``) or ``"document"`` (with the
            document under ``"text"``).
        apply_template: makes a text of messages whose contents are strings.
        system_prompt: system message of conversations that have none; None leaves that to the template.

    Raises:
        DataError: a part is of another type, or holds nothing.
    """
    mark = f"<{uuid.uuid4().hex}>"
    held: list[Mapping[str, Any]] = []
    plain = []
    if system_prompt is not None and (not messages or messages[0]["role"] != "system"):
        plain.append({"role": "system", "content": system_prompt})
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        plain.append({"role": message["role"], "content": "".join(_flat(part, held, mark) for part in parts)})
    pieces = apply_template(plain).split(mark)
    offsets = [sum(map(len, pieces[: index + 1])) for index in range(len(pieces) - 1)]
    pictures = [(_picture(part), offset) for part, offset in zip(held, offsets, strict=True) if _is(part, "image")]
    documents = [(part, offset) for part, offset in zip(held, offsets, strict=True) if _is(part, "document")]
    return Rendered(
        "".join(pieces),
        tuple(picture for picture, _ in pictures),
        tuple(offset for _, offset in pictures),
        tuple(document for document, _ in documents),
        tuple(offset for _, offset in documents),
    )


def about_a_picture(instruction: str) -> Messages:
    """The message that asks something about one picture."""
    content = [{"type": "image", "image": ""}, {"type": "text", "text": instruction}]
    return [{"role": "user", "content": content}]


def about_documents(documents: Sequence[str], instruction: str) -> Messages:
    """The message that asks something about documents, which stand before it."""
    content = [{"type": "document", "text": text} for text in documents]
    return [{"role": "user", "content": [*content, {"type": "text", "text": instruction}]}]


def words(message: Mapping[str, Any]) -> str:
    """The text parts of a message."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type", "text") == "text")


def question_of(messages: Messages) -> str:
    """The words of the last message of the user's."""
    asked = [message for message in messages if message["role"] == "user"]
    return words(asked[-1]).strip() if asked else ""


def quoted(messages: Messages) -> Messages:
    """The same conversation with the words of each document in its text, where the document stands, and an empty line
    behind them."""
    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [one for part in message["content"] for one in _with_words(part)]}
        for message in messages
    ]


def _with_words(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A part of a message; a document with its words behind it."""
    held = _is(part, "document") and isinstance(part.get("text"), str)
    return [part, {"type": "text", "text": f"{part['text']}\n\n"}] if held else [part]


def _is(part: Mapping[str, Any], kind: str) -> bool:
    return part.get("type") == kind


def _flat(part: Mapping[str, Any], held: list[Mapping[str, Any]], mark: str) -> str:
    """The text of one part; a picture or a document is collected, and marked in the text."""
    if _is(part, "text"):
        return part["text"]
    if _is(part, "image"):
        _picture(part)
    elif not _is(part, "document"):
        kind = part.get("type")
        raise DataError(f"A message has a part of type {kind!r}; a part is 'text', 'image' or 'document'.")
    elif not isinstance(part.get("text"), str):
        raise DataError(f"A document part holds no text: {dict(part)}; put a string under 'text'.")
    held.append(part)
    return mark


def _picture(part: Mapping[str, Any]) -> Any:
    """The picture of an image part."""
    picture = next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)
    if picture is None:
        raise DataError(f"An image part holds no picture: {dict(part)}; put a path or a PIL image under 'image'.")
    return picture
