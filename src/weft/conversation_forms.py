"""Conversations in the forms that people have them, as the one form that Weft reads: ``messages`` with parts.

:func:`as_messages` takes chat messages with parts of transformers', OpenAI's, Anthropic's or Qwen's kind, ShareGPT's
and LLaVA's ``conversations``, and rows of either whose pictures stand in a column of their own, with ``<image>`` in
the text where each belongs. Nothing is opened or fetched here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from weft.errors import DataError
from weft.options import mistyped

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant"} | {
    "chatgpt": "assistant",
    "bing": "assistant",
    "system": "system",
}
"""Who speaks, by the names of ShareGPT, LLaVA and their kin."""
READ = (
    "messages",
    "conversations",
    "image",
    "images",
    "references",
    "supporting",
    "source",
    "objects",
    "tools",
    "chat_template_kwargs",
)
"""The columns of a data set that are read."""
_ELSEWHERE = re.compile(r"(image_(path|file|url)|img|img_path|picture|photo)s?")
"""What other programs call the column of pictures."""
_UNSEEN = ("video", "videos", "audio", "audios", "documents")
"""Columns that belong to a conversation, and can't be read beside it."""
_MARK = re.compile(r"\s*<image>\s*")
_TEXTS, _PICTURES = ("text", "input_text", "output_text"), ("image", "image_url", "input_image")
_HOLDS = ("image", "image_url", "path", "url", "base64", "source")
"""Where a part may hold its picture."""
_FORM = "'messages' must be a list of objects with 'role' and 'content'"


class _Column:
    """The pictures that stand beside a conversation, each taken once or by its number."""

    def __init__(self, pictures: Sequence[Any]) -> None:
        self.pictures = list(pictures)
        self.left = list(range(len(self.pictures)))

    def take(self, number: Any = None) -> Any:
        """The picture of this number, or the next one; None where there is none."""
        if isinstance(number, int) and 0 <= number < len(self.pictures):
            self.left = [one for one in self.left if one != number]
            return self.pictures[number]
        return self.pictures[self.left.pop(0)] if self.left else None


def as_list(value: Any) -> Any:
    """A list that a table of pandas holds as an array of objects; all else as it is."""
    return list(value) if isinstance(value, np.ndarray) and value.dtype == object else value


def as_messages(fields: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The messages of a row of data: each a ``role`` and a ``content``, of words or of parts whose pictures are under
    ``image``.

    A picture of a column goes where an ``<image>`` in the user's words, or a part without a picture, stands; where
    there is neither, before the user's first words.

    Args:
        fields: the row.
        where: what to call it, for messages to people.

    Raises:
        DataError: it holds no conversation, a part is of no known kind, or pictures and their places do not match.
    """
    turns = [_turn(turn, where) for turn in _conversation(fields, where)]
    column = _Column(list(_beside(fields)))
    parts = [part for turn in turns if isinstance(turn["content"], list) for part in turn["content"]]
    pictured = any(part["type"] == "image" for part in parts)
    if not pictured and not column.pictures:
        _check_elsewhere(fields, where)
    marked = bool(column.pictures) or not pictured
    marks = sum(len(_MARK.findall(text)) for turn in turns for text in _asked(turn)) if marked else 0
    if not marked and any(text.lstrip().startswith("<image>") for turn in turns for text in _asked(turn)):
        raise DataError(f"{where}: it has <image> in its text, and a part for the picture as well; leave the mark out.")
    unmarked = 0 if pictured or marks else len(column.pictures)
    found = [_placed(turn, column, marks > 0, where) for turn in turns]
    if unmarked:
        _put_first(found, column, where)
    if column.left:
        raise DataError(
            f"{where}: {len(column.left)} of its pictures have no place in the text; put <image>, or a part, for each."
        )
    return found


def _conversation(fields: Mapping[str, Any], where: str) -> Sequence[Mapping[str, Any]]:
    """The turns of a conversation, whatever they are called."""
    given = [name for name in ("messages", "conversations") if fields.get(name) is not None]
    if len(given) == 2:
        raise DataError(f"{where}: it holds 'messages' and 'conversations'; leave one of them out.")
    if not given:
        held = ", ".join(map(repr, list(fields)[:8])) or "nothing"
        meant = next((key for key in fields if mistyped(key, ("messages", "conversations"))), None)
        hint = "." if meant is None else f"; did you mean 'messages' by {meant!r}?"
        raise DataError(f"{where}: {_FORM}; it holds {held}{hint}")
    turns = as_list(fields[given[0]])
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in turns):
        form = _FORM if given == ["messages"] else "'conversations' must be a list of objects with 'from' and 'value'"
        raise DataError(f"{where}: {form}, and is {turns!r:.100}.")
    return turns


def _turn(turn: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A turn as a message, its parts in one form, without the pictures of a column."""
    shared = "from" in turn and "role" not in turn
    role = _role(turn["from"] if shared else turn.get("role"), where, strict=shared)
    words = "value" if "value" in turn and "content" not in turn else "content"
    content = as_list(turn.get(words))
    if isinstance(content, (list, tuple)):
        content = [_part(part, where) for part in content]
    elif not isinstance(content, str) and not (content is None and turn.get("tool_calls")):
        if words == "value" or shared:
            raise DataError(f"{where}: a turn says {content!r:.100}; put its words under 'value'.")
        if words not in turn:
            raise DataError(f"{where}: {_FORM}, and one is {dict(turn)!r:.100}.")
        raise DataError(f"{where}: the content of a message is {content!r:.100}; give a string or a list of parts.")
    others = {key: value for key, value in turn.items() if key not in ("from", "role", "value", "content")}
    return {"role": role, "content": content, **others}


def _role(who: Any, where: str, strict: bool) -> str:
    """Who speaks. Chat templates know roles of their own (``tool``, ``developer``, ...), which are handed on."""
    if isinstance(who, str) and who.strip().lower() in ROLES:
        return ROLES[who.strip().lower()]
    if strict:
        raise DataError(f"{where}: a turn is from {who!r:.100}; use 'human', 'gpt' or 'system'.")
    if not isinstance(who, str) or not who:
        raise DataError(f"{where}: {_FORM}, and one has the role {who!r:.100}.")
    meant = mistyped(who.strip().lower(), [*ROLES, "tool", "developer"])
    if meant and meant != who:
        raise DataError(f"{where}: a message has the role {who!r}; did you mean {meant!r}?")
    return who


def _part(part: Any, where: str) -> dict[str, Any]:
    """A part of a message: words, a picture (None for one of a column, with its number), or a document."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise DataError(f"{where}: the part {part!r:.100} is no object; use 'text', 'image' or 'document' parts.")
    # Columns of a table have all keys of all kinds of parts; those that a part does not use are empty.
    held = {key: value for key, value in part.items() if value is not None}
    kind = held.get("type") or next((key for key in ("image", "text") if key in held), None)
    if kind in _TEXTS:
        if not isinstance(held.get("text"), str):
            raise DataError(f"{where}: a text part holds no text; put a string under 'text'.")
        return {**held, "type": "text"}
    if kind == "document":
        if not isinstance(held.get("text"), str) or not held["text"].strip():
            raise DataError(f"{where}: a document is empty; put its words under 'text'.")
        return held
    if kind not in _PICTURES:
        raise DataError(f"{where}: a part is of type {kind!r:.100}; use 'text', 'image' or 'document'.")
    names = {"names": held["names"]} if "names" in held else {}
    return {"type": "image", "image": _picture(held), "index": held.get("index"), **names}


def _picture(held: Mapping[str, Any]) -> Any:
    """The picture of a part, whichever way it holds one."""
    key = next((key for key in _HOLDS if key in held), None)
    if key is None:
        return None
    picture = held[key]
    if key == "base64" and isinstance(picture, str) and not picture.startswith("data:"):
        return f"data:image;base64,{picture}"
    if key == "source" and isinstance(picture, Mapping) and "data" in picture:
        return f"data:{picture.get('media_type', 'image')};base64,{picture['data']}"
    return picture.get("url") if key in ("image_url", "source") and isinstance(picture, Mapping) else picture


def _asked(turn: Mapping[str, Any]) -> Iterator[str]:
    """The texts in which <image> stands for a picture: the user's."""
    if turn["role"] != "user":
        return
    content = turn["content"] or ()
    if isinstance(content, str):
        yield content
    else:
        yield from (part["text"] for part in content if part["type"] == "text")


def _placed(turn: Mapping[str, Any], column: _Column, marked: bool, where: str) -> dict[str, Any]:
    """A message with the pictures of the column in their places."""
    content = turn["content"]
    marked = marked and any(_MARK.search(text) for text in _asked(turn))
    if content is None or (isinstance(content, str) and not marked):
        return dict(turn)
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    found: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "image":
            picture = part["image"] if part["image"] is not None else column.take(part["index"])
            if picture is None:
                raise DataError(f"{where}: a part of type 'image' holds no picture; put one under 'image' or 'images'.")
            found.append({key: value for key, value in part.items() if key != "index"} | {"image": picture})
        elif part["type"] == "text" and marked:
            found += _split(part, column, where)
        else:
            found.append(part)
    return {**turn, "content": found}


def _split(part: dict[str, Any], column: _Column, where: str) -> Iterator[dict[str, Any]]:
    """A text with a picture of the column in place of each mark."""
    for number, piece in enumerate(_MARK.split(part["text"])):
        if number:
            picture = column.take()
            if picture is None:
                raise DataError(f"{where}: it has more <image> marks than pictures; give a picture for each.")
            yield {"type": "image", "image": picture}
        if piece:
            yield {**part, "text": piece}


def _put_first(messages: list[dict[str, Any]], column: _Column, where: str) -> None:
    """Put the pictures of the column before the user's first words."""
    place = next((index for index, message in enumerate(messages) if message["role"] == "user"), None)
    if place is None:
        return
    content = messages[place]["content"] or []
    words = [{"type": "text", "text": content}] if isinstance(content, str) else content
    pictures = [{"type": "image", "image": column.take()} for _ in range(len(column.left))]
    messages[place] = {**messages[place], "content": [*pictures, *words]}


def _beside(fields: Mapping[str, Any]) -> Iterator[Any]:
    """The pictures that stand beside the conversation; rows of words alone have an empty column."""
    for name in ("image", "images"):
        held = as_list(fields.get(name))
        for picture in held if isinstance(held, (list, tuple)) else [held]:
            if picture is not None and not (isinstance(picture, str) and not picture.strip()):
                yield picture


def _check_elsewhere(fields: Mapping[str, Any], where: str) -> None:
    """Refuse pictures, and what is none, under names that are not read.

    Raises:
        DataError: there are some.
    """
    for name, held in fields.items():
        elsewhere = _ELSEWHERE.fullmatch(str(name))
        empty = held is None or (isinstance(held, (str, list, tuple, dict)) and not held)
        if empty or not (elsewhere or name in _UNSEEN):
            continue
        if elsewhere:
            raise DataError(f"{where}: pictures under {name!r} are not read; call them 'image' or 'images'.")
        if name == "documents":
            raise DataError(f"{where}: 'documents' is not read; make each a part of a message: type 'document'.")
        raise DataError(f"{where}: {name!r} can't be read, only pictures and texts; leave the row out.")
