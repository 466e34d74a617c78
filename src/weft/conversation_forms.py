"""Conversations in the forms that people have them, as the one form that Weft reads: ``messages`` with parts.

:func:`as_messages` takes chat messages with parts of transformers' or OpenAI's kind, ShareGPT's and LLaVA's
``conversations``, and rows whose pictures stand in a column of their own. Nothing is opened or fetched here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weft.errors import DataError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant"} | {
    "chatgpt": "assistant",
    "bing": "assistant",
    "system": "system",
}
"""Who speaks, by the names of ShareGPT, LLaVA and their kin."""
_MARK = re.compile(r"\s*<image>\s*")
_TEXTS, _PICTURES = ("text", "input_text", "output_text"), ("image", "image_url", "input_image")


def as_messages(fields: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The messages of a row of data: each a ``role`` and a ``content``, of words or of parts whose pictures are under
    ``image``.

    Args:
        fields: the row.
        where: what to call it, for messages to people.

    Raises:
        DataError: it holds no conversation, a part is of no known kind, or pictures and their places do not match.
    """
    column = list(_column(fields))
    pictures = iter(column)
    if fields.get("messages") is not None:
        found = _messages(fields["messages"], pictures, where)
    elif fields.get("conversations") is not None:
        found = _turns(fields["conversations"], pictures, len(column), where)
    else:
        raise DataError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'.")
    if (left := len(list(pictures))) > 0:
        raise DataError(f"{where}: {left} of its pictures have no place in the text; put <image>, or a part, for each.")
    return found


def _column(fields: Mapping[str, Any]) -> Iterator[Any]:
    """The pictures that stand beside the conversation."""
    for name in ("image", "images"):
        held = fields.get(name)
        if held is not None:
            yield from held if isinstance(held, (list, tuple)) else [held]


def _messages(messages: Any, pictures: Iterator[Any], where: str) -> list[dict[str, Any]]:
    """Chat messages, with parts of any kind."""
    if not isinstance(messages, (list, tuple)) or not all(map(_is_message, messages)):
        raise DataError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'.")
    found = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, (list, tuple)):
            content = [_part(part, pictures, where) for part in content]
        elif not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise DataError(f"{where}: the content of a message is {content!r}; give a string or a list of parts.")
        found.append({**message, "content": content})
    return found


def _is_message(message: Any) -> bool:
    """Whether it has a role, and a content; one that calls tools needs no words."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return False
    return "content" in message or bool(message.get("tool_calls"))


def _part(part: Any, pictures: Iterator[Any], where: str) -> dict[str, Any]:
    """A part of a message: words, a picture, or a document."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise DataError(f"{where}: the part {part!r:.100} is no object; use 'text', 'image' or 'document' parts.")
    # Columns of a table have all keys of all kinds of parts; those that a part does not use are empty.
    held = {key: value for key, value in part.items() if value is not None}
    kind = held.get("type")
    if kind in _TEXTS:
        return {**held, "type": "text"}
    if kind == "document":
        return held
    if kind not in _PICTURES:
        raise DataError(f"{where}: a part is of type {kind!r}; use 'text', 'image' or 'document'.")
    picture = next((held[key] for key in ("image", "image_url", "path", "url", "base64") if key in held), None)
    if kind != "image" and isinstance(picture, Mapping):
        picture = picture.get("url")
    if picture is None:
        picture = next(pictures, None)
    if picture is None:
        raise DataError(f"{where}: a part of type {kind!r} holds no picture; put one under 'image', or in 'images'.")
    return {"type": "image", "image": picture} | ({"names": held["names"]} if "names" in held else {})


def _turns(turns: Any, pictures: Iterator[Any], count: int, where: str) -> list[dict[str, Any]]:
    """The turns of ShareGPT and LLaVA; a picture without a mark goes before the first words of the user's."""
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(f"{where}: 'conversations' must be a list of objects with 'from' and 'value'.")
    said = [(_role(turn, where), _words(turn, where)) for turn in turns]
    marks = sum(len(_MARK.findall(words)) for role, words in said if role == "user")
    unmarked = count if not marks else 0
    found: list[dict[str, Any]] = []
    for role, words in said:
        content: list[dict[str, Any]] = []
        if role == "user":
            content += [{"type": "image", "image": next(pictures)} for _ in range(unmarked)]
            unmarked = 0
        pieces: Sequence[str] = _MARK.split(words) if role == "user" else [words]
        for number, piece in enumerate(pieces):
            if number:
                picture = next(pictures, None)
                if picture is None:
                    raise DataError(f"{where}: it has more <image> marks than pictures; give a picture for each.")
                content.append({"type": "image", "image": picture})
            if piece:
                content.append({"type": "text", "text": piece})
        words_only = all(part["type"] == "text" for part in content)
        found.append({"role": role, "content": words if words_only else content})
    return found


def _role(turn: Mapping[str, Any], where: str) -> str:
    who = turn.get("from", turn.get("role"))
    if who not in ROLES:
        raise DataError(f"{where}: a turn is from {who!r}; use 'human', 'gpt' or 'system'.")
    return ROLES[who]


def _words(turn: Mapping[str, Any], where: str) -> str:
    words = turn.get("value", turn.get("content"))
    if not isinstance(words, str):
        raise DataError(f"{where}: a turn says {words!r}; put its words under 'value'.")
    return words
