"""Chat messages as text, with the places where their pictures stand.

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
    """

    text: str
    pictures: tuple[Any, ...]
    offsets: tuple[int, ...]

    def columns(self, begins: Sequence[int]) -> list[int]:
        """For each picture the column from which on it may be seen.

        Args:
            begins: the character at which each token of ``text`` begins.
        """
        return [sum(begin < offset for begin in begins) for offset in self.offsets]


def render(
    messages: Messages, apply_template: Callable[[list[dict[str, str]]], str], system_prompt: str | None = None
) -> Rendered:
    """Messages as text.

    Args:
        messages: ``{"role": ..., "content": ...}``; content is a string or a list of parts, of type ``"text"`` or
            ``"image"`` (with the picture under ``"image"``, ``"path"`` or ``"url"``).
        apply_template: makes a text of messages whose contents are strings.
        system_prompt: system message of conversations that have none; None leaves that to the template.

    Raises:
        DataError: a part is of another type, or an image part holds no picture.
    """
    mark = f"<{uuid.uuid4().hex}>"
    pictures: list[Any] = []
    plain = []
    if system_prompt is not None and (not messages or messages[0]["role"] != "system"):
        plain.append({"role": "system", "content": system_prompt})
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        plain.append({"role": message["role"], "content": "".join(_flat(part, pictures, mark) for part in parts)})
    pieces = apply_template(plain).split(mark)
    offsets = [sum(map(len, pieces[: index + 1])) for index in range(len(pieces) - 1)]
    return Rendered("".join(pieces), tuple(pictures), tuple(offsets))


def about_a_picture(instruction: str) -> Messages:
    """The message that asks something about one picture."""
    content = [{"type": "image", "image": ""}, {"type": "text", "text": instruction}]
    return [{"role": "user", "content": content}]


def _flat(part: Mapping[str, Any], pictures: list[Any], mark: str) -> str:
    """The text of one part; a picture is collected, and marked in the text."""
    if part.get("type") == "text":
        return part["text"]
    if part.get("type") == "image":
        picture = next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)
        if picture is None:
            raise DataError(f"An image part holds no picture: {dict(part)}; put a path or a PIL image under 'image'.")
        pictures.append(picture)
        return mark
    raise DataError(f"A message has a part of type {part.get('type')!r}; a part is 'text' or 'image'.")
