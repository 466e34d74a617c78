"""Many conversations at once: they join one batch when they come, decode side by side, and leave as they finish.

:class:`Engine` is given conversations, each with pictures and documents of its own, several, or none, and hands on
their replies piece by piece. A memory is read once, whoever asks about it, and looked at where it is; prompts that
begin alike, as with a system message, compute their beginning once. Rows without a memory are the language model's own,
bit for bit. :mod:`weft.working` does the work.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields
from typing import Any, TypeVar

from weft.choosing import check_top
from weft.drawing import Sampling
from weft.model import WeftModel
from weft.options import check_names
from weft.pieces import Piece, Pieces, Said
from weft.rendering import Messages
from weft.search import Prompt
from weft.weaving import ReadingMode
from weft.working import EngineClosed, EngineFull, Job, Limits, TooLong, Worker

__all__ = ["Engine", "EngineClosed", "EngineFull", "Limits", "Reply", "Sampling", "TooLong"]

Result = TypeVar("Result")


class Reply:
    """A reply on its way: iterate over it for its pieces. Leaving it, or :meth:`cancel`, stops it.

    Attributes:
        pieces: what has come of it.
    """

    def __init__(self, worker: Worker, job: Job, came: asyncio.Queue[Any]) -> None:
        self._worker, self._job, self._came = worker, job, came
        self.pieces: list[Piece] = []

    @property
    def prompt(self) -> Prompt:
        """The conversation as it was read; there when the first piece is."""
        return self._job.prompt

    @property
    def confidence(self) -> float | None:
        """The probability that the documents hold an answer; None where the reply was not to be grounded in them, and
        where they stand in the prompt, of which no weave has learned to judge."""
        return self._job.confidence

    @property
    def grounded(self) -> bool:
        """Whether it was to be grounded in documents."""
        return self._job.grounded

    @property
    def refused(self) -> bool:
        """Whether the documents do not hold an answer, and the reply says so."""
        return self._job.refused

    @property
    def text(self) -> str:
        """The words that have come."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def said(self) -> list[Said]:
        """The tokens that have come."""
        return [said for piece in self.pieces for said in piece.said]

    async def __aiter__(self) -> AsyncIterator[Piece]:
        unfolded = Pieces(self._worker.model, self._job.sampling.stop)
        try:
            while not unfolded.done:
                self.pieces.append(unfolded.take(await self._came.get()))
                yield self.pieces[-1]
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Stop, if it has not ended."""
        self._worker.cancel(self._job)


class Engine:
    """Serves conversations over one woven model.

    Args:
        model: the woven model; or what loads one, as ``weft.load``: then it is loaded in the engine's own thread, and
            decodes up to twice as fast on a CPU than one on which another thread of the process has computed.
            Conversations decode side by side where its language model is one that :mod:`weft.decoder` knows; all
            others have their words computed in turn.
        limits: what is taken on at once.
        top_memory: how many pictures, and how many passages of documents, of a conversation each fusion layer looks at,
            at each word the most promising ones; None for all.

    Attributes:
        model: the woven model.

    Raises:
        WeftError: ``top_memory`` is below one, or the model can't be loaded.

    Example:
        >>> with Engine(weft.load) as engine:
        ...     engine.generate_batch([messages, others])
        >>> async for text in engine.generate(messages):
        ...     print(text, end="")
    """

    def __init__(
        self,
        model: WeftModel | Callable[[], WeftModel],
        limits: Limits | None = None,
        *,
        top_memory: int | None = None,
    ) -> None:
        check_top(top_memory)
        self.limits = limits or Limits()
        self._worker = Worker(model, self.limits, top_memory)
        self.model = self._worker.model

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; conversations on their way end with an error."""
        self._worker.close()

    @property
    def alive(self) -> bool:
        """Whether it goes on working: not when it was closed, nor when it has failed."""
        return self._worker.alive

    @property
    def load(self) -> dict[str, int]:
        """Conversations that run and wait, and the bytes of memories that the running ones hold."""
        return self._worker.load

    def run(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """Do something else with the model, between the words of those that run.

        Args:
            work: is given the model, and what follows.
            *given: for it.

        Raises:
            EngineFull: as much of this waits as conversations may.
            EngineClosed: the engine has been closed.
        """
        return self._worker.run(work, *given)

    # Asking

    def ask(
        self,
        messages: Messages,
        sampling: Sampling | None = None,
        *,
        client: str = "",
        grounded: bool = False,
        reading: ReadingMode | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Ask for the reply to a conversation, to be iterated over in the running event loop.

        Args:
            messages: as for ``model.chat``.
            sampling: how words are chosen.
            client: who asks; those who wait take turns.
            grounded: whether documents have to hold the answer: where they do not, the reply says so, unless they stand
                in the prompt.
            reading: how documents are read, as for ``model.answer``.
            template: what the chat template takes beside messages (``tools``, ``enable_thinking``, ...).

        Raises:
            EngineFull: too many conversations wait.
            EngineClosed: the engine has been closed.

        Iterating raises:
            DataError, PictureError: a message is not what it should be, or a picture can't be read.
            TooLong: the conversation is longer than the language model takes.
        """
        loop, came = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def deliver(item: Any) -> None:
            loop.call_soon_threadsafe(came.put_nowait, item)

        job = Job(messages, sampling or Sampling(), grounded, deliver, reading, template)
        return Reply(self._worker, self._worker.submit(job, client), came)

    async def generate(
        self, messages: Messages, *, template: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[str]:
        """The text of the reply to a conversation, piece by piece. Leaving the loop cancels it.

        Args:
            messages: as for ``model.chat``.
            template: what the chat template takes beside messages (``tools``, ``enable_thinking``, ...).
            **options: see :class:`~weft.drawing.Sampling`.

        Raises:
            WeftError: there is no such option.
            DataError, PictureError, TooLong, EngineFull, EngineClosed: as for :meth:`ask`.
        """
        pieces = aiter(self.ask(messages, _sampling(options), template=template))
        try:
            async for piece in pieces:
                if piece.text:
                    yield piece.text
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    def stream(self, messages: Messages, *, template: Mapping[str, Any] | None = None, **options: Any) -> Iterator[str]:
        """As :meth:`generate`, for code that is not asynchronous."""
        sampling, came = _sampling(options), queue.SimpleQueue[Any]()
        job = self._worker.submit(Job(messages, sampling, False, came.put, template=template))
        pieces = Pieces(self.model, sampling.stop)
        try:
            while not pieces.done:
                text = pieces.take(came.get()).text
                if text:
                    yield text
        finally:
            self._worker.cancel(job)

    def generate_batch(
        self, conversations: Sequence[Messages], *, template: Mapping[str, Any] | None = None, **options: Any
    ) -> list[str]:
        """The replies to several conversations, decoded side by side; arguments as for :meth:`generate`."""
        sampling = _sampling(options)
        jobs = []
        for messages in conversations:
            came: queue.SimpleQueue[Any] = queue.SimpleQueue()
            job = self._worker.submit(Job(messages, sampling, False, came.put, template=template), patient=True)
            jobs.append((job, came, Pieces(self.model, sampling.stop)))
        replies = []
        try:
            for _, came, pieces in jobs:
                text = ""
                while not pieces.done:
                    text += pieces.take(came.get()).text
                replies.append(text)
        finally:
            for job, _, _ in jobs:
                self._worker.cancel(job)
        return replies


def _sampling(options: dict[str, Any]) -> Sampling:
    """How words are chosen; an option that is not known is refused."""
    check_names(options, [field.name for field in fields(Sampling)], "The engine")
    return Sampling(**options)
