"""Many conversations at once: they join one batch when they come, decode side by side, and leave as they finish.

:class:`Engine` is given conversations, each with pictures and documents of its own, several, or none, and hands on
their replies piece by piece. A memory is read once, whoever asks about it, and looked at where it is; prompts that
begin alike, as with a system message, compute their beginning once. Rows without a memory are the language model's own,
bit for bit.

One thread decodes. It admits a waiting conversation in front of each step while there is room, in the order in which
they came, so that running ones never wait for more than one prompt.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from weft.batching import texts_of
from weft.choosing import check_top
from weft.errors import WeftError
from weft.model import WeftModel
from weft.pieces import Pieces
from weft.rendering import Messages
from weft.responding import ends_of, prompt_of
from weft.search import Prompt


class EngineFull(WeftError):
    """More conversations wait than the engine takes; try again later."""


@dataclass(frozen=True)
class Sampling:
    """How words are chosen.

    Attributes:
        max_tokens: tokens after which a reply is cut off.
        temperature: 0 for the likeliest word each time; above, words are drawn, the higher the freer.
        top_p: draw among the likeliest words that together have this probability.
        seed: of the drawing; None for another each time.
        stop: texts at which a reply ends, in front of them.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise WeftError(
                f"max_tokens={self.max_tokens}, temperature={self.temperature}, top_p={self.top_p}: give at least one "
                "token, a temperature of 0 or more, and a top_p above 0 and up to 1."
            )


@dataclass(frozen=True)
class Limits:
    """What an engine takes on at once.

    Attributes:
        rows: conversations that decode side by side.
        tokens: tokens of their texts together, those that may still come counted.
        memory_bytes: bytes of the memories that they read, together.
        waiting: conversations that may wait.
    """

    rows: int = 16
    tokens: int = 32_768
    memory_bytes: int = 2 * 2**30
    waiting: int = 256


@dataclass(eq=False)
class _Job:
    """One conversation on its way."""

    prompt: Prompt
    sampling: Sampling
    deliver: Callable[[int | BaseException | None], object]
    warpers: LogitsProcessorList | None = None
    generator: torch.Generator | None = None
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False

    @property
    def size(self) -> int:
        """Tokens that its text may take."""
        return len(self.prompt.tokens) + self.sampling.max_tokens

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memories that it reads."""
        return sum(memory.bytes for memory in self.prompt.memories)

    def hand_on(self, item: int | BaseException | None) -> None:
        """Deliver a token, the end (None) or an error; whoever has gone away gets nothing more."""
        try:
            self.deliver(item)
        except RuntimeError:  # the event loop that waited for it is closed
            self.cancelled = True


class Engine:
    """Serves conversations over one woven model.

    Args:
        model: the woven model. Conversations decode side by side where its language model is one that
            :mod:`weft.decoder` knows; all others have their words computed in turn.
        limits: what is taken on at once.
        top_memory: how many pictures, and how many passages of documents, of a conversation each fusion layer looks at,
            at each word the most promising ones; None for all.

    Raises:
        WeftError: ``top_memory`` is below one.

    Example:
        >>> with Engine(weft.load()) as engine:
        ...     engine.generate_batch([messages, others])
        >>> async for piece in engine.generate(messages):
        ...     print(piece, end="")
    """

    def __init__(self, model: WeftModel, limits: Limits | None = None, *, top_memory: int | None = None) -> None:
        check_top(top_memory)
        self.model, self.limits, self.top_memory = model, limits or Limits(), top_memory
        # An encoder of texts looks into the language model, one text at a time.
        self._reading = threading.Lock()
        self._texts = texts_of(model.eval(), self._reading)
        self._ends = ends_of(model)
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="weft-engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; conversations on their way end with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def load(self) -> dict[str, int]:
        """Conversations that run and wait, and the bytes of text and memories that the running ones hold."""
        with self._changed:
            running = list(self._running)
            return {
                "running": len(running),
                "waiting": len(self._waiting),
                "memory_bytes": sum(job.memory_bytes for job in running),
            }

    # Asking

    async def generate(self, messages: Messages, **options: Any) -> AsyncIterator[str]:
        """The reply to a conversation, piece by piece. Leaving the loop cancels it.

        Args:
            messages: as for ``model.chat``.
            **options: see :class:`Sampling`.

        Raises:
            DataError, PictureError: a message is not what it should be, or a picture can't be read.
            EngineFull: too many conversations wait.
        """
        sampling = Sampling(**options)
        prompt = await asyncio.to_thread(self._prepare, messages, sampling)
        loop, came = asyncio.get_running_loop(), asyncio.Queue[Any]()
        job = self._submit(prompt, sampling, lambda item: loop.call_soon_threadsafe(came.put_nowait, item))
        pieces = Pieces(self.model, sampling.stop)
        try:
            while not pieces.done:
                text = pieces.take(await came.get())
                if text:
                    yield text
        finally:
            self._cancel(job)

    def stream(self, messages: Messages, **options: Any) -> Iterator[str]:
        """As :meth:`generate`, for code that is not asynchronous."""
        sampling, came = Sampling(**options), queue.SimpleQueue[Any]()
        job = self._submit(self._prepare(messages, sampling), sampling, came.put)
        pieces = Pieces(self.model, sampling.stop)
        try:
            while not pieces.done:
                text = pieces.take(came.get())
                if text:
                    yield text
        finally:
            self._cancel(job)

    def generate_batch(self, conversations: Sequence[Messages], **options: Any) -> list[str]:
        """The replies to several conversations, decoded side by side; arguments as for :meth:`generate`."""
        sampling = Sampling(**options)
        jobs = []
        for messages in conversations:
            came: queue.SimpleQueue[Any] = queue.SimpleQueue()
            job = self._submit(self._prepare(messages, sampling), sampling, came.put, patient=True)
            jobs.append((job, came, Pieces(self.model, sampling.stop)))
        replies = []
        try:
            for _, came, pieces in jobs:
                text = ""
                while not pieces.done:
                    text += pieces.take(came.get())
                replies.append(text)
        finally:
            for job, _, _ in jobs:
                self._cancel(job)
        return replies

    def _prepare(self, messages: Messages, sampling: Sampling) -> Prompt:
        with self._reading:
            prompt = prompt_of(self.model, messages, self.top_memory)
        room = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        most = min(room or self.limits.tokens, self.limits.tokens)
        if len(prompt.tokens) + sampling.max_tokens > most:
            raise WeftError(
                f"The conversation has {len(prompt.tokens)} tokens and may take {sampling.max_tokens} more; {most} is "
                "the limit. Leave out earlier messages, or ask for a shorter reply."
            )
        return prompt

    def _submit(
        self,
        prompt: Prompt,
        sampling: Sampling,
        deliver: Callable[[int | BaseException | None], object],
        *,
        patient: bool = False,
    ) -> _Job:
        job = _Job(prompt, sampling, deliver)
        if sampling.temperature:
            warpers: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
            if sampling.top_p < 1:
                warpers.append(TopPLogitsWarper(sampling.top_p))
            job.warpers, job.generator = LogitsProcessorList(warpers), torch.Generator()
            if sampling.seed is None:
                job.generator.seed()
            else:
                job.generator.manual_seed(sampling.seed)
        with self._changed:
            if self._closed:
                raise WeftError("The engine is closed.")
            if not patient and len(self._waiting) >= self.limits.waiting:
                raise EngineFull(f"{len(self._waiting)} conversations wait already; try again later.")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def _cancel(self, job: _Job) -> None:
        with self._changed:
            job.cancelled = True
            self._changed.notify()

    # Decoding, all of it in the engine's own thread

    @torch.inference_mode()
    def _run(self) -> None:
        texts = self._texts
        while True:
            with self._changed:
                while not (self._closed or self._waiting or self._running):
                    self._changed.wait()
                if self._closed:
                    break
                job = self._next()
            self._keep([row for row, running in enumerate(self._running) if not running.cancelled])
            if job is not None:
                try:
                    self._admit(job)
                except Exception as error:  # one conversation's failure is its own
                    job.hand_on(error)
            if self._running:
                try:
                    logits = texts.step([running.tokens[-1] for running in self._running])
                    chosen = self._choose(self._running, logits)
                except Exception as error:  # which is theirs who decoded; those that come next begin anew
                    for running in self._running:
                        running.hand_on(error)
                    self._keep([])
                    continue
                ended = [self._say(one, token) for one, token in zip(self._running, chosen, strict=True)]
                self._keep([row for row, end in enumerate(ended) if not end])
        for job in [*self._running, *self._waiting]:
            job.hand_on(WeftError("The engine was closed before the reply was finished."))

    def _next(self) -> _Job | None:
        """The first that waits, if there is room for it."""
        while self._waiting and self._waiting[0].cancelled:
            self._waiting.popleft()
        if not self._waiting:
            return None
        job, running = self._waiting[0], self._running
        fits = (
            len(running) < self.limits.rows
            and job.size + sum(one.size for one in running) <= self.limits.tokens
            and job.memory_bytes + sum(one.memory_bytes for one in running) <= self.limits.memory_bytes
        )
        return self._waiting.popleft() if fits or not running else None

    def _admit(self, job: _Job) -> None:
        """Compute a prompt and say its first word; the conversation then decodes with the others."""
        read, logits = self._texts.read(job.prompt)
        (token,) = self._choose([job], logits)
        if not self._say(job, token):
            self._texts.join(read)
            self._running = [*self._running, job]

    def _keep(self, kept: list[int]) -> None:
        """Go on with some of the running conversations."""
        if len(kept) < len(self._running):
            self._running = [self._running[row] for row in kept]
            self._texts.keep(kept)

    def _choose(self, jobs: Sequence[_Job], logits: Float[Tensor, "B V"]) -> list[int]:
        """The next word of each conversation."""
        likeliest = logits.argmax(-1).tolist()
        for row, job in enumerate(jobs):
            if job.warpers is not None:
                given = torch.tensor([[*job.prompt.tokens, *job.tokens]])
                chances = job.warpers(given, logits[row : row + 1].float()).softmax(-1)
                likeliest[row] = int(torch.multinomial(chances, 1, generator=job.generator))
        return likeliest

    def _say(self, job: _Job, token: int) -> bool:
        """Hand on a word; returns whether it was the last."""
        if token not in self._ends:
            job.tokens.append(token)
            job.hand_on(token)
        ended = token in self._ends or len(job.tokens) == job.sampling.max_tokens
        if ended:
            job.hand_on(None)
        return ended
