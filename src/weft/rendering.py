"""Chat messages as text, with the places where their pictures and documents stand.

:func:`render` is given messages and whatever applies the chat template, and hands on a :class:`Rendered`. A message
reaches the template whole, whatever it holds beside role and content (``tool_calls``, ``name``, ``reasoning_content``,
...); of its content the text parts do, as one text. It knows no tokenizer and no tensors.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from weft.errors import DataError

if TYPE_CHECKING:
    from weft.weaving import Placed

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
)
"""For tokenizers that bring no chat template: one message a line."""

_UNIQUE = uuid.uuid4().hex
_MARK, _WALL = f"{_UNIQUE}m", f"{_UNIQUE}w"
"""What stands for a picture or a document, and for a wall, while the template is applied; nobody can write them."""
_MARKS = re.compile(f"({_MARK}|{_WALL})")
_EDGES = re.compile(rf"((?:{_MARK}|\s)*)(.*?)((?:{_MARK}|\s)*)", re.DOTALL)

Messages = Sequence[Mapping[str, Any]]


class Fence(Protocol):
    """What :meth:`weft.control_tokens.ControlTokens.fenced` does."""

    def __call__(self, written: Any, mark: str, *, special_only: bool = False) -> Any: ...


@dataclass(frozen=True)
class Rendered:
    """Messages as text.

    Attributes:
        text: what the language model reads.
        pictures: the pictures in it, in order, as they were given.
        offsets: for each picture the character of ``text`` from which on it may be seen.
        documents: the documents in it, in order: objects with ``text``, and perhaps ``id``.
        document_offsets: for each document the character of ``text`` from which on it may be seen.
        walls: characters of ``text`` across which no control token stands, ascending: people wrote what is there.
        begins: whether what the tokenizer puts before any text goes before this one: no chat template has.
    """

    text: str
    pictures: tuple[Any, ...]
    offsets: tuple[int, ...]
    documents: tuple[Mapping[str, Any], ...] = ()
    document_offsets: tuple[int, ...] = ()
    walls: tuple[int, ...] = ()
    begins: bool = False

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
    messages: Messages,
    apply_template: Callable[..., str],
    system_prompt: str | None = None,
    *,
    fence: Fence | None = None,
    template: Mapping[str, Any] | None = None,
) -> Rendered:
    """Messages as text.

    Args:
        messages: ``{"role": ..., "content": ...}`` and what else the template takes; content is a string or a list of
            parts, of type ``"text"``, ``"image"`` (with the picture under ``"image"``, ``"path"`` or ``"url"``) or
            ``"document"`` (with the document under ``"text"``).
        apply_template: makes a text of messages whose contents are strings, and of what the template takes beside them.
        system_prompt: system message of conversations that have none; None leaves that to the template.
        fence: keeps what people wrote from becoming control tokens; None where nobody wrote any of it.
        template: what the template takes beside messages.

    Raises:
        DataError: a part is of another type, or holds nothing; or the template leaves out a message with a picture or a
            document.
    """
    held: list[Mapping[str, Any]] = []
    plain: list[dict[str, Any]] = []
    given = [as_object(message) for message in messages]
    if system_prompt is not None and (not given or given[0]["role"] != "system"):
        given.insert(0, {"role": "system", "content": system_prompt})
    for message in given:
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            content = "".join(_flat(part, held) for part in content)
        plain.append(dict(message) if content is None else {**message, "content": content})
    values = dict(template or {})
    if fence is not None:
        plain = [fence(message, _WALL, special_only=message["role"] == "assistant") for message in plain]
        values = {name: fence(value, _WALL) for name, value in values.items()}
    text, places, walls = _taken_out(apply_template(plain, **values))
    inward = [_inward(message) for message in plain]
    if inward != plain:  # a template that strips what is around a message is kept from it by what stands at its edge
        bare = [_without(message) for message in plain]
        if _taken_out(apply_template(bare, **values))[0] != text:
            text, places, walls = _taken_out(apply_template(inward, **values))
    if len(places) != len(held):
        raise DataError("The chat template leaves out, or repeats, a message that holds a picture or a document.")
    pictures = [(_picture(part), place) for part, place in zip(held, places, strict=True) if not _is(part, "document")]
    documents = [(part, place) for part, place in zip(held, places, strict=True) if _is(part, "document")]
    return Rendered(
        text,
        tuple(picture for picture, _ in pictures),
        tuple(place for _, place in pictures),
        tuple(document for document, _ in documents),
        tuple(place for _, place in documents),
        walls if fence is not None else (),
    )


def as_object(message: Any) -> Mapping[str, Any]:
    """A message as an object: those of other libraries have classes of their own.

    Raises:
        DataError: it is none, or has no role.
    """
    if dataclasses.is_dataclass(message) and not isinstance(message, type):
        message = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    elif callable(getattr(message, "model_dump", None)):
        message = message.model_dump(exclude_none=True)
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise DataError(f"A message is {message!r:.100}; give an object with 'role' and 'content'.")
    content = message.get("content")
    if not isinstance(content, (str, list, tuple, type(None))):
        raise DataError(f"The content of a message is {content!r:.100}; give a string, or a list of parts.")
    for part in content if isinstance(content, (list, tuple)) else ():
        _check_part(part)
    return message


def _taken_out(marked: str) -> tuple[str, list[int], tuple[int, ...]]:
    """A text without marks and walls, and the characters where each of either stood; a mark is a wall as well."""
    kept, marks, walls, length = [], [], [], 0
    for piece in _MARKS.split(marked):
        if piece not in (_MARK, _WALL):
            kept.append(piece)
            length += len(piece)
            continue
        walls.append(length)
        if piece == _MARK:
            marks.append(length)
    return "".join(kept), marks, tuple(walls)


def _inward(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose marks stand no further outside than its words."""
    content = message.get("content")
    if not isinstance(content, str) or _MARK not in content:
        return dict(message)
    lead, words, tail = _EDGES.fullmatch(content).groups()  # type: ignore[union-attr]
    lead_marks, tail_marks = (_MARK * edge.count(_MARK) for edge in (lead, tail))
    lead, tail = lead.replace(_MARK, ""), tail.replace(_MARK, "")
    return {**message, "content": lead + lead_marks + words + tail_marks + tail}


def _without(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": content.replace(_MARK, "")} if isinstance(content, str) else dict(message)


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
    content = message.get("content") or ""
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
        {**message, "content": [one for part in message["content"] for one in _with_words(part)]}
        if isinstance(message.get("content"), (list, tuple))
        else message
        for message in messages
    ]


def arranged(messages: Messages, pictures: Placed = "first", documents: Placed = "first") -> Messages:
    """The same conversation with the pictures and documents of each message before its words, or behind them, whichever
    a weave has learned; each kind keeps its order."""
    places = {"image": pictures, "image_url": pictures, "document": documents}
    return [
        {**message, "content": _arranged(message["content"], places)}
        if isinstance(message.get("content"), (list, tuple))
        else message
        for message in messages
    ]


def _arranged(parts: Sequence[Any], places: Mapping[str, Placed]) -> list[Any]:
    where = {"first": 0, "as given": 1, "last": 2}

    def place(part: Any) -> int:
        kind = part.get("type") if isinstance(part, Mapping) else None
        return where[places.get(str(kind), "as given")]

    return sorted(parts, key=place)


def _with_words(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A part of a message; a document with its words behind it."""
    held = _is(part, "document") and isinstance(part.get("text"), str)
    return [part, {"type": "text", "text": f"{part['text']}\n\n"}] if held else [part]


def _is(part: Mapping[str, Any], kind: str) -> bool:
    return part.get("type") == kind


def _flat(part: Any, held: list[Mapping[str, Any]]) -> str:
    """The text of one part; a picture or a document is collected, and marked in the text."""
    if _is(part, "text"):
        return part["text"]
    held.append(part)
    return _MARK


def _check_part(part: Any) -> None:
    """See to it that a part of a message is of a known type, and holds what it should.

    Raises:
        DataError: it is not, or does not.
    """
    if not isinstance(part, Mapping):
        raise DataError(f"A message has the part {part!r:.100}; a part is an object with 'type' and what it holds.")
    kind = part.get("type")
    if kind in ("image", "image_url"):
        _picture(part)
    elif kind not in ("text", "document"):
        raise DataError(f"A message has a part of type {kind!r:.100}; a part is 'text', 'image' or 'document'.")
    elif not isinstance(part.get("text"), str):
        raise DataError(f"A {kind} part holds no text: {dict(part)!r:.200}; put a string under 'text'.")


def _picture(part: Mapping[str, Any]) -> Any:
    """The picture of an image part; also as OpenAI has it, ``{"type": "image_url", "image_url": {"url": ...}}``."""
    picture = next((part[key] for key in ("image", "path", "url", "image_url") if part.get(key) is not None), None)
    if isinstance(picture, Mapping):
        picture = picture.get("url")
    if picture is None:
        raise DataError(f"An image part holds no picture: {dict(part)}; put a path or a PIL image under 'image'.")
    return picture
