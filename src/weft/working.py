"""The thread behind an engine: it reads what conversations hold, and decodes their replies side by side.

:class:`Worker` is given jobs and hands on their tokens. PyTorch keeps a pool of threads for every thread that computes,
and two such pools slow each other down to half; so one thread does all of it, loads the model, and runs whatever else
is to be done with the model. In front of each step it reads a little of what waiting conversations hold, each client's
in turn, and admits those that have been read, as far as there is room and no more than run already: those that come
together soon decode together. What nobody waits for is the reading of somebody else's long document; a long prompt is
computed in a few large pieces, for each of which all wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from weft.answering import confidence, refusal, refuses, without_refusing
from weft.batching import texts_of
from weft.drawing import Chooser, Sampling
from weft.errors import WeftError
from weft.fairness import FairQueue
from weft.model import WeftModel
from weft.picture_thread import Waits
from weft.pieces import End, Said
from weft.plain import why_not_plain
from weft.rendering import Messages
from weft.responding import ends_of, reading
from weft.search import Prompt
from weft.weaving import ReadingMode

log = logging.getLogger("weft.engine")

AHEAD = 8
"""Conversations that are read before there is room for them."""
PATIENCE = 0.02
"""Seconds of reading, or else one portion, for which those that run wait in front of a step."""

Result = TypeVar("Result")


class EngineFull(WeftError):
    """More conversations wait than the engine takes; try again later."""


class EngineClosed(WeftError):
    """The engine has been closed, and takes no more conversations."""


class TooLong(WeftError):
    """A conversation has more tokens than the language model, or the engine, takes."""


@dataclass(frozen=True)
class Limits:
    """What an engine takes on at once.

    Attributes:
        rows: conversations that decode side by side.
        tokens: tokens of their texts together, those that may still come counted.
        memory_bytes: bytes of the memories that they read, and those read ahead, together; one conversation that has
            more by itself is taken on alone.
        waiting: conversations that may wait.
    """

    rows: int = 32
    tokens: int = 32_768
    memory_bytes: int = 2 * 2**30
    waiting: int = 256


@dataclass(eq=False)
class Job:
    """One conversation on its way."""

    messages: Messages
    sampling: Sampling
    grounded: bool
    deliver: Callable[[Said | End | BaseException], object]
    reading: ReadingMode | None = None
    template: Mapping[str, Any] | None = None
    prompt: Prompt = field(default_factory=lambda: Prompt(()))
    confidence: float | None = None
    refused: bool = False
    chooser: Chooser = field(init=False)
    said: list[int] = field(default_factory=list)
    cancelled: bool = False

    @property
    def size(self) -> int:
        """Tokens that its text may take."""
        return len(self.prompt.tokens) + self.sampling.max_tokens

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes of the memories that it reads; asked for once it has read them, and then in front of every step."""
        return sum(memory.bytes for memory in self.prompt.memories)

    def hand_on(self, item: Said | End | BaseException) -> None:
        """Deliver a token, the end or an error; whoever has gone away gets nothing more."""
        try:
            self.deliver(item)
        except RuntimeError:  # the event loop that waited for it is closed
            self.cancelled = True


@dataclass(eq=False)
class _Reading:
    """A job whose pictures and documents are being read, portion by portion, and what it waits for meanwhile."""

    job: Job
    portions: Iterator[Waits]
    waits: Waits = None

    @property
    def ready(self) -> bool:
        """Whether it can go on."""
        return self.waits is None or self.waits.done() or self.job.cancelled


class Worker:
    """Reads and decodes, in a thread of its own.

    Args:
        model: the model, or what loads it.
        limits: what is taken on at once.
        top_memory: how many items of a conversation each fusion layer looks at; None for all.

    Attributes:
        model: the model.

    Raises:
        WeftError: the model can't be loaded.
    """

    def __init__(self, model: WeftModel | Callable[[], WeftModel], limits: Limits, top_memory: int | None) -> None:
        self.limits, self.top_memory = limits, top_memory
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: FairQueue[Job] = FairQueue()
        self._reading: list[_Reading] = []
        self._read: deque[Job] = deque()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        loaded: Future[WeftModel] = Future()
        self._thread = threading.Thread(target=self._work, args=(model, loaded), name="weft-engine", daemon=True)
        self._thread.start()
        self.model = loaded.result()

    @property
    def alive(self) -> bool:
        """Whether it goes on working."""
        return self._thread.is_alive()

    @property
    def load(self) -> dict[str, int]:
        """Conversations that run and wait, and the bytes of memories that the running ones hold."""
        with self._changed:
            running = list(self._running)
            return {
                "running": len(running),
                "waiting": self._behind(),
                "memory_bytes": sum(job.memory_bytes for job in running),
            }

    def submit(self, job: Job, client: str = "", *, patient: bool = False) -> Job:
        """Take on a job of a client's; one that is patient may wait behind any number of others.

        Raises:
            EngineFull: too many wait.
            EngineClosed: the worker has stopped.
        """
        with self._changed:
            self._check(0 if patient else self._behind())
            self._waiting.push(client, job)
            self._changed.notify()
        return job

    def run(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """See :meth:`weft.engine.Engine.run`."""
        future: Future[Result] = Future()
        with self._changed:
            self._check(len(self._errands))
            self._errands.append((lambda: work(self.model, *given), future))
            self._changed.notify()
        return future

    def cancel(self, job: Job) -> None:
        """Stop working on a job."""
        with self._changed:
            job.cancelled = True
            self._waiting.discard(job)
            self._changed.notify()

    def close(self) -> None:
        """Stop; jobs on their way end with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _behind(self) -> int:
        return len(self._waiting) + len(self._read) + len(self._reading)

    def _check(self, waiting: int) -> None:
        """Whether one more is taken on."""
        if self._closed:
            raise EngineClosed("The engine is closed.")
        if waiting >= self.limits.waiting:
            raise EngineFull("As many conversations wait as may; try again later.")

    # From here on all is the thread's own

    def _work(self, model: WeftModel | Callable[[], WeftModel], loaded: Future[WeftModel]) -> None:
        try:
            self.model = (model if isinstance(model, WeftModel) else model()).eval()
            self._texts, self._ends = texts_of(self.model), ends_of(self.model)
            if reason := why_not_plain(self.model):
                log.warning("conversations are continued in turn, by transformers, since %s", reason)
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result(self.model)
        try:
            self._go_on()
        except BaseException:
            log.exception("the engine has failed")
        finally:
            self._leave()

    @torch.inference_mode()
    def _go_on(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._errands or self._running or self._read or self._readable()):
                    self._changed.wait()
                if self._closed:
                    return
            self._run_errand()
            self._read_on()
            self._keep([row for row, running in enumerate(self._running) if not running.cancelled])
            for _ in range(max(1, len(self._running))):
                job = self._next()
                if job is None:
                    break
                try:
                    self._admit(job)
                except Exception as error:  # one conversation's failure is its own
                    job.hand_on(error)
            if self._running:
                self._step()

    def _leave(self) -> None:
        """Tell everyone who still waits that nothing more comes."""
        over = EngineClosed("The engine was closed before the reply was finished.")
        with self._changed:
            self._closed = True
            being_read = [reading.job for reading in self._reading]
            for job in [*self._running, *self._read, *being_read, *self._waiting.clear()]:
                job.hand_on(over)
            while self._errands:
                _, future = self._errands.popleft()
                if future.set_running_or_notify_cancel():
                    future.set_exception(over)

    def _run_errand(self) -> None:
        if self._errands:
            work, future = self._errands.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except StopIteration as error:  # which no future takes
                    future.set_exception(RuntimeError(repr(error)))
                except BaseException as error:
                    future.set_exception(error)

    def _read_on(self) -> None:
        """Read some of what waiting conversations hold."""
        until = time.monotonic() + PATIENCE
        while len(self._read) < AHEAD and self._held() < self.limits.memory_bytes:
            with self._changed:
                reading = next((one for one in self._reading if one.ready), None)
                if reading is None and self._waiting and len(self._reading) < AHEAD:
                    job = self._waiting.pop()
                    reading = _Reading(job, self._prepare(job))
                    self._reading.append(reading)
            if reading is None:
                return
            job = reading.job
            try:
                if not job.cancelled:
                    reading.waits = next(reading.portions)
                    if reading.waits is not None:
                        reading.waits.add_done_callback(self._wake)
            except StopIteration:
                self._read.append(job)
                self._reading.remove(reading)
            except Exception as error:  # one conversation's failure is its own
                job.hand_on(error)
                job.cancelled = True
            if job.cancelled and reading in self._reading:
                self._reading.remove(reading)
            if time.monotonic() > until:
                return

    def _readable(self) -> bool:
        """Whether something of what waits can be read now: nothing, while it waits for pictures to be decoded."""
        return any(one.ready for one in self._reading) or (bool(self._waiting) and len(self._reading) < AHEAD)

    def _wake(self, _: Future[Any]) -> None:
        with self._changed:
            self._changed.notify()

    def _prepare(self, job: Job) -> Iterator[Waits]:
        """Read what a conversation holds, portion by portion."""
        banned: Sequence[Sequence[int]] = ()
        longest = job.sampling.max_tokens
        prompt = yield from reading(self.model, job.messages, self.top_memory, job.reading, longest, job.template)
        room = self.model.positions
        most = min(room or self.limits.tokens, self.limits.tokens)
        if len(prompt.tokens) + job.sampling.max_tokens > most:
            raise TooLong(
                f"The conversation has {len(prompt.tokens)} tokens and may take {job.sampling.max_tokens} more; "
                f"{most} is the limit. Leave out earlier messages, or ask for a shorter reply."
            )
        job.prompt = prompt
        if job.grounded and not prompt.quoted:  # the bare language model has not learned to tell
            job.confidence = confidence(self.model, job.prompt)
            job.refused = refuses(self.model, job.prompt, job.confidence)
            banned = without_refusing(self.model)["bad_words_ids"]
        job.chooser = Chooser(job.sampling, banned)
        if job.refused:
            said = refusal(self.model)[: job.sampling.max_tokens]
            for token in said:
                job.hand_on(Said(token, 0.0 if job.sampling.logprobs is not None else None))
            job.hand_on("stop" if len(said) < job.sampling.max_tokens else "length")
            job.cancelled = True

    def _step(self) -> None:
        """One more word of all that run."""
        try:
            logits = self._texts.step([running.said[-1] for running in self._running])
            chosen = self._choose(self._running, logits)
        except Exception as error:  # which is theirs who decoded; those that come next begin anew
            for running in self._running:
                running.hand_on(error)
            self._keep([])
            return
        ended = [self._say(one, said) for one, said in zip(self._running, chosen, strict=True)]
        self._keep([row for row, end in enumerate(ended) if not end])

    def _held(self) -> int:
        """Bytes of the memories of conversations that run, or have been read."""
        return sum(job.memory_bytes for job in (*self._running, *self._read))

    def _next(self) -> Job | None:
        """The first that has been read, if there is room for it."""
        running = self._running
        while self._read and self._read[0].cancelled:
            self._read.popleft()
        if not self._read:
            return None
        job = self._read[0]
        fits = (
            len(running) < self.limits.rows
            and job.size + sum(one.size for one in running) <= self.limits.tokens
            and job.memory_bytes + sum(one.memory_bytes for one in running) <= self.limits.memory_bytes
        )
        return self._read.popleft() if fits or not running else None

    def _admit(self, job: Job) -> None:
        """Compute a prompt and say its first word; the conversation then decodes with the others."""
        read, logits = self._texts.read(job.prompt)
        (said,) = self._choose([job], logits)
        if not self._say(job, said):
            self._texts.join(read)
            self._running = [*self._running, job]

    def _keep(self, kept: list[int]) -> None:
        """Go on with some of the running conversations."""
        if len(kept) < len(self._running):
            self._running = [self._running[row] for row in kept]
            self._texts.keep(kept)

    def _choose(self, jobs: Sequence[Job], logits: Float[Tensor, "B V"]) -> list[Said]:
        """The next word of each conversation; one that fails is cancelled, and its likeliest word taken."""
        said = []
        for job, row, best in zip(jobs, logits, logits.argmax(-1).tolist(), strict=True):
            try:
                said.append(job.chooser.choose(job.prompt.tokens, job.said, row, best))
            except Exception as error:  # one conversation's failure is its own
                job.hand_on(error)
                job.cancelled = True
                said.append(Said(best))
        return said

    def _say(self, job: Job, said: Said) -> bool:
        """Hand on a word; returns whether it was the last."""
        if job.cancelled:
            return True
        if said.token in self._ends:
            job.hand_on("stop")
            return True
        job.said.append(said.token)
        job.hand_on(said)
        if len(job.said) < job.sampling.max_tokens:
            return False
        job.hand_on("length")
        return True
