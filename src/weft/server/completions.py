"""``POST /v1/chat/completions``: replies to a conversation, whole or as they come."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from weft.drawing import Sampling
from weft.engine import Reply
from weft.pieces import End, Piece, Said, bytes_of
from weft.server.conversation import Conversation
from weft.server.errors import RESPONSES, ApiError, api_error
from weft.server.explaining import Finished, citations
from weft.server.guarding import owner
from weft.server.metrics import Watch
from weft.server.presence import while_there
from weft.server.schemas import (
    ChatRequest,
    Choice,
    Citation,
    Completion,
    Logprobs,
    ReplyMessage,
    SaidLogprob,
    TokenLogprob,
    Usage,
)
from weft.server.service import Service, service_of

router = APIRouter()


@dataclass
class _Asked:
    """A request on its way."""

    service: Service
    request: ChatRequest
    conversation: Conversation
    owner: str
    replies: list[Reply]
    watches: list[Watch]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def end(self) -> None:
        """Stop what has not ended, and count all of it."""
        for reply, watch in zip(self.replies, self.watches, strict=True):
            reply.cancel()
            watch.end(reply)

    async def finish(self, index: int) -> list[Citation] | None:
        """Keep a reply that has ended, to be explained; the passages that it leans on."""
        reply, service = self.replies[index], self.service
        tokens = tuple(said.token for said in reply.said)
        finished = Finished(self.owner, self.conversation, tokens, reply.text)
        service.answers.put(answer_id(self.id, index), finished)
        if not reply.grounded or reply.refused:
            return [] if reply.refused else None
        return await service.beside(citations, reply.prompt, self.conversation, tokens)

    def usage(self) -> Usage:
        """Tokens of the prompt, and of all replies."""
        prompt, said = len(self.replies[0].prompt.tokens), sum(len(reply.said) for reply in self.replies)
        return Usage(prompt_tokens=prompt, completion_tokens=said, total_tokens=prompt + said)


def answer_id(id: str, index: int) -> str:
    """The id under which a reply is explained: its completion's, with its place if it is not the first."""
    return f"{id}-{index}" if index else id


@router.post(
    "/v1/chat/completions",
    response_model=Completion,
    response_model_exclude_none=True,
    responses=RESPONSES,
    summary="Reply to a conversation about pictures, documents, or neither",
)
async def chat_completions(body: ChatRequest, request: Request, owner: str = Depends(owner)) -> Any:
    """As OpenAI documents it; beside it ``knowledge`` names a knowledge base to answer from."""
    service = service_of(request)
    if body.model != service.settings.name:
        message = f"There is no model {body.model!r}; there is: {service.settings.name}."
        raise ApiError(404, message, "model_not_found", "model")
    try:
        with anyio.fail_after(service.settings.timeout):
            conversation = await service.conversations.of(body, owner)
        return await _replied(_Asked(service, body, conversation, owner, [], []), request)
    except Exception as error:
        raise api_error(error) from error


async def _replied(asked: _Asked, request: Request) -> Completion | _Stream:
    """All replies, or a stream that has begun."""
    service, body, streams = asked.service, asked.request, False
    client = f"{asked.owner}/{body.user or (request.client.host if request.client else '')}"
    held = asked.conversation
    try:
        for index in range(body.n):
            sampling = _sampling(body, service.settings.reply_tokens, index)
            options: dict[str, Any] = {"client": client, "grounded": held.grounded, "reading": held.reading}
            options["template"] = held.template
            asked.replies.append(service.engine.ask(held.messages, sampling, **options))
            asked.watches.append(service.metrics.watch())
        if not body.stream:
            return await while_there(request, _whole(asked))
        events = _events(asked)
        # What is wrong with the request has a status of its own only until the stream begins.
        first = await while_there(request, anext(events))
        streams = True
        return _Stream(asked, first, events)
    finally:
        if not streams:
            asked.end()


def _sampling(body: ChatRequest, most: int, index: int) -> Sampling:
    """How the words of one of several replies are chosen."""
    longest = body.longest or min(256, most)
    if longest > most:
        raise ApiError(400, f"max_tokens: {longest:,} is too many; {most:,} is the limit.", "too_much", "max_tokens")
    return Sampling(
        max_tokens=longest,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=None if body.seed is None else (body.seed + index) % 2**63,
        stop=tuple(body.stop or ()),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        top_k=max(0, body.top_k),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        logit_bias={int(token): bias for token, bias in (body.logit_bias or {}).items()},
    )


async def _whole(asked: _Asked) -> Completion:
    """All replies when they have ended."""

    async def choice(index: int) -> Choice:
        end: End = "stop"
        async for piece in asked.replies[index]:
            asked.watches[index].token()
            end = piece.end or end
        found = await asked.finish(index)
        message = ReplyMessage(content=asked.replies[index].text, citations=found)
        return Choice(
            index=index, message=message, logprobs=_logprobs(asked, asked.replies[index].said), finish_reason=end
        )

    tasks = [asyncio.ensure_future(choice(index)) for index in range(len(asked.replies))]
    try:
        with anyio.fail_after(asked.service.settings.timeout):
            choices = await asyncio.gather(*tasks)
    finally:  # if one has failed, nobody waits for the others
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Completion(
        id=asked.id, created=asked.created, model=asked.request.model, choices=choices, usage=asked.usage()
    )


async def _events(asked: _Asked) -> AsyncIterator[str]:
    """The events of a stream: pieces of all replies as they come, and the usage."""
    came: asyncio.Queue[tuple[int, Piece | BaseException | None, Any]] = asyncio.Queue()

    async def follow(index: int) -> None:
        try:
            async for piece in asked.replies[index]:
                asked.watches[index].token()
                found = await asked.finish(index) if piece.end is not None else None
                await came.put((index, piece, found))
            await came.put((index, None, None))
        except Exception as error:
            await came.put((index, error, None))

    tasks = [asyncio.create_task(follow(index)) for index in range(len(asked.replies))]
    try:
        going, begun = len(tasks), set[int]()
        deadline = time.monotonic() + asked.service.settings.timeout
        while going:
            index, piece, found = await asyncio.wait_for(came.get(), max(0.0, deadline - time.monotonic()))
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                going -= 1
                continue
            delta: dict[str, Any] = {} if index in begun else {"role": "assistant"}
            begun.add(index)
            delta["content"] = piece.text
            if found is not None:
                delta["citations"] = [one.model_dump() for one in found]
            logprobs = _logprobs(asked, piece.said)
            told = None if logprobs is None else logprobs.model_dump()
            yield _event(asked, [{"index": index, "delta": delta, "logprobs": told, "finish_reason": piece.end}])
        if asked.request.stream_options is not None and asked.request.stream_options.include_usage:
            yield _event(asked, [], usage=asked.usage().model_dump())
        yield "data: [DONE]\n\n"
    finally:
        for task in tasks:
            task.cancel()


class _Stream(StreamingResponse):
    """A stream whose first event has come; it ends its replies however it ends itself."""

    def __init__(self, asked: _Asked, first: str, events: AsyncIterator[str]) -> None:
        self._asked, self._first, self._events = asked, first, events
        super().__init__(self._all(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()  # type: ignore[attr-defined]
            self._asked.end()

    async def _all(self) -> AsyncIterator[str]:
        try:
            yield self._first
            async for event in self._events:
                yield event
        except Exception as error:  # the status has been sent: an error on the way is the last event
            yield f"data: {json.dumps(api_error(error).body)}\n\n"


def _event(asked: _Asked, choices: list[dict[str, Any]], **more: Any) -> str:
    chunk = {
        "id": asked.id,
        "object": "chat.completion.chunk",
        "created": asked.created,
        "model": asked.request.model,
        "choices": choices,
        **more,
    }
    return f"data: {json.dumps(chunk)}\n\n"


def _logprobs(asked: _Asked, said: Sequence[Said]) -> Logprobs | None:
    """Log-probabilities of tokens, if they were asked for."""
    if not asked.request.logprobs:
        return None

    def told(token: int, log_probability: float) -> dict[str, Any]:
        processor = asked.service.model.processor
        assert processor is not None
        shown = {"token": processor.decode([token]), "logprob": max(log_probability, -9999.0)}
        return {**shown, "bytes": list(bytes_of(processor.tokenizer, token))}

    return Logprobs(
        content=[
            SaidLogprob(
                **told(one.token, one.log_probability if one.log_probability is not None else -9999.0),
                top_logprobs=[TokenLogprob(**told(*other)) for other in one.likeliest],
            )
            for one in said
        ]
    )
