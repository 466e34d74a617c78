"""What the routes share: the engine, and what is kept for the next request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import anyio
from fastapi import Request

from weft.engine import Engine, Limits
from weft.memory_cache import MemoryCache
from weft.model import WeftModel
from weft.picture_thread import Waits
from weft.responding import reading
from weft.search import Prompt
from weft.server.conversation import Conversation, Conversations
from weft.server.explaining import Finished
from weft.server.kept import Kept
from weft.server.knowledge import KnowledgeFolder
from weft.server.metrics import Metrics
from weft.server.pictures import Pictures
from weft.server.settings import Settings

Result = TypeVar("Result")


class Service:
    """One model, served.

    Args:
        model: the model, or what loads it.
        settings: the limits.

    Attributes:
        closing: whether the server is shutting down.
    """

    def __init__(self, model: WeftModel | Callable[[], WeftModel], settings: Settings) -> None:
        self.settings, self.knowledge = settings, KnowledgeFolder(settings.knowledge)
        pictures = Pictures(settings.hosts, settings.body_bytes, settings.pixels)
        self.conversations = Conversations(settings, pictures, self.knowledge)
        self.answers: Kept[Finished] = Kept(settings.answer_bytes, lambda finished: finished.bytes)
        limits = Limits(rows=settings.rows, waiting=settings.waiting, memory_bytes=settings.running_bytes)
        self.engine = Engine(model, limits)
        self.model = self.engine.model
        self.model.memory_cache = MemoryCache(settings.cache_bytes)
        self.metrics = Metrics(self)
        self.closing = False

    async def beside(self, work: Callable[..., Result], *given: Any) -> Result:
        """Do something with the model, beside the replies that are decoded.

        Raises:
            EngineFull: as much of this waits as conversations may.
            TimeoutError: it took too long.
        """
        with anyio.fail_after(self.settings.timeout):
            return await asyncio.wrap_future(self.engine.run(work, *given))

    async def read(self, conversation: Conversation) -> Prompt:
        """A conversation as it was read, again."""
        return await self.by_portions(reading(self.model, conversation.messages, mode=conversation.reading))

    async def by_portions(self, portions: Generator[Waits, None, Result]) -> Result:
        """Work with the model that stops after each of its portions, so that others get on meanwhile.

        Raises:
            EngineFull: as much of this waits as conversations may.
            TimeoutError: a portion took too long.
        """

        def one_more(_: WeftModel) -> tuple[Waits, tuple[Result] | None]:
            try:
                return next(portions), None
            except StopIteration as done:
                return None, (done.value,)

        while True:
            waits, done = await self.beside(one_more)
            if done is not None:
                return done[0]
            if waits is not None:
                with anyio.fail_after(self.settings.timeout):
                    await asyncio.wait([asyncio.wrap_future(waits)])

    def close(self) -> None:
        """Stop; replies on their way end with an error."""
        self.closing = True
        self.engine.close()


def service_of(request: Request) -> Service:
    """What the routes of an application share."""
    return request.app.state.service
