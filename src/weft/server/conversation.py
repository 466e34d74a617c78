"""Requests as the engine takes them: pictures found, memories resolved, and passages of a knowledge base looked up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.errors import WeftError
from weft.memory import content_hash
from weft.server.errors import ApiError
from weft.server.kept import Kept
from weft.server.knowledge import KnowledgeFolder
from weft.server.pictures import Pictures
from weft.server.schemas import ChatRequest, DocumentPart, ImagePart, MemoryPart, Message, TextPart
from weft.server.settings import Settings
from weft.weaving import ReadingMode

log = logging.getLogger("weft.server")

OVERHEAD = 2048
"""Bytes that keeping a thing takes beside what it holds: objects of Python are large."""
Part = dict[str, Any]
"""A part of a message as :mod:`weft.rendering` takes it; a document also says where its text came from."""


@dataclass(frozen=True)
class Content:
    """A picture or a text that was sent, to be named by its id."""

    part: Part

    @property
    def bytes(self) -> int:
        """Bytes of it."""
        return OVERHEAD + size_of(self.part)


def size_of(part: Mapping[str, Any]) -> int:
    """Bytes of what a part holds."""
    held = part["image"] if part["type"] == "image" else part["text"]
    return len(held) if isinstance(held, bytes) else len(held.encode())


def memory_id(owner: str, part: Part) -> str:
    """The id of a picture or a text: nobody finds it who has not its content, and it opens to its owner alone.

    The same content of the same owner has the same id on every machine, so that a request can be sent to the one that
    has read it.
    """
    held = part["image"] if part["type"] == "image" else f"{part['name']}\0{part['text']}".encode()
    return f"mem_{content_hash(owner, part['type'], held)[:40]}"


@dataclass
class Conversation:
    """A request's conversation.

    Attributes:
        messages: as the engine takes them.
        grounded: whether it holds documents, in which an answer has to be.
        reading: how they are read; None for what measured best.
        template: what the chat template is given beside messages.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    grounded: bool = False
    reading: ReadingMode | None = None
    template: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        """The parts of all its messages, in order."""
        return [part for message in self.messages for part in message["content"]]

    def of_kind(self, kind: str) -> list[Part]:
        """Its pictures (``"image"``), documents (``"document"``) or words (``"text"``), in order."""
        return [part for part in self.parts if part["type"] == kind]

    @property
    def bytes(self) -> int:
        """Bytes of all that it holds."""
        return sum(OVERHEAD // 4 + size_of(part) for part in self.parts)


class Conversations:
    """Makes conversations of requests.

    Args:
        settings: the limits.
        pictures: finds pictures.
        knowledge: the knowledge bases.
    """

    def __init__(self, settings: Settings, pictures: Pictures, knowledge: KnowledgeFolder) -> None:
        self.settings, self.pictures, self.knowledge = settings, pictures, knowledge
        self.contents: Kept[Content] = Kept(settings.content_bytes, lambda content: content.bytes)

    def keep(self, owner: str, part: Part) -> str:
        """Keep a picture or a text of somebody's; its id."""
        id = memory_id(owner, part)
        self.contents.put(id, Content(part))
        return id

    async def of(self, request: ChatRequest, owner: str) -> Conversation:
        """The conversation of a request.

        Raises:
            ApiError: it holds too much, or names something that is not there.
            PictureError: a picture is none.
        """
        if len(request.messages) > self.settings.messages:
            raise _too_much(f"{len(request.messages)} messages", self.settings.messages)
        sent = [
            part for message in request.messages if not isinstance(message.content, str) for part in message.content
        ]
        self._check_pictures(sum(isinstance(part, ImagePart) for part in sent))  # before any is fetched or looked at
        conversation = Conversation(reading=request.reading, template=request.chat_template_kwargs or {})
        for message in request.messages:
            conversation.messages.append(
                {
                    "role": "system" if message.role == "developer" else message.role,
                    "content": await self._parts(message, owner),
                    **message.more,
                }
            )
        if request.knowledge is not None:
            await self._look_up(request, request.knowledge, conversation)
        documents = conversation.of_kind("document")
        self._check_pictures(len(conversation.of_kind("image")))
        beside = sum(len(repr(message.more)) for message in request.messages) + len(repr(conversation.template))
        if beside + sum(len(part["text"]) for part in conversation.of_kind("text")) > self.settings.text_characters:
            raise _too_much("too many characters of text", self.settings.text_characters)
        if sum(len(part["text"]) for part in documents) > self.settings.document_characters:
            raise _too_much("too many characters of documents", self.settings.document_characters)
        conversation.grounded = bool(documents) or request.knowledge is not None
        return conversation

    def _check_pictures(self, count: int) -> None:
        if count > self.settings.pictures:
            raise _too_much(f"{count} pictures", self.settings.pictures)

    async def _parts(self, message: Message, owner: str) -> list[Part]:
        if isinstance(message.content, str):
            return [{"type": "text", "text": message.content}]
        return [await self._part(part, owner) for part in message.content]

    async def _part(self, part: TextPart | ImagePart | DocumentPart | MemoryPart, owner: str) -> Part:
        if isinstance(part, ImagePart):
            return {"type": "image", "image": await self.pictures.get(part.image_url.url)}
        if isinstance(part, MemoryPart):
            return self._kept(part.id, owner)
        return part.model_dump()

    def _kept(self, id: str, owner: str) -> Part:
        content = self.contents.get(id)
        if content is None or memory_id(owner, content.part) != id:
            message = f"There is no memory {id!r}, or it has been forgotten; post its content to /v1/memories again."
            raise ApiError(404, message, "memory_not_found", "messages")
        return content.part

    async def _look_up(self, request: ChatRequest, name: str, conversation: Conversation) -> None:
        """Put the passages that answer the last message in front of its words."""
        content = conversation.messages[-1]["content"]
        question = " ".join(part["text"] for part in content if part["type"] == "text")
        base = self.knowledge.base(name)
        try:
            found = await asyncio.to_thread(base.search, question, limit=request.passages)
        except WeftError as error:  # which names folders of the server
            log.error("the knowledge base %s can't be searched: %s", name, error)
            message = f"The knowledge base {name!r} can't be searched now; the server's log says why."
            raise ApiError(503, message, "knowledge_unavailable", "knowledge") from None
        passages: list[Part] = [
            {
                "type": "document",
                "text": one.text,
                "name": one.source,
                "part": one.part,
                "start": one.span[0],
                "knowledge": name,
            }
            for one in found
        ]
        conversation.messages[-1]["content"] = [*passages, *content]


def _too_much(what: str, limit: int) -> ApiError:
    return ApiError(400, f"The conversation holds {what}; {limit:,} is the limit.", "too_much", "messages")
