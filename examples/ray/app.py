"""Weft as a Ray Serve application: replicas of the server behind an ingress that routes by content.

``serve run app:app`` starts it. A picture, a document or a memory that a request shows goes to the replica that has
read it before; the ingress works out nothing but which one that is, and passes requests and responses on as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import anyio
import ray
import torch
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import weft
from weft.errors import WeftError
from weft.model import WeftModel
from weft.server import Settings, create_app
from weft.server.conversation import memory_id
from weft.server.errors import ApiError
from weft.server.guarding import Keys, LimitBody
from weft.server.pictures import Pictures
from weft.server.schemas import ChatRequest, DocumentPart, ImagePart, MemoryPart, MemoryRequest, TextPart
from weft.server.settings import read_keys

PASSED_ON = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "headers",
    "client",
)
"""What a replica is told of a request beside its body; the rest belongs to the process that received it."""

ROUTED_BY_CONTENT = RequestRouterConfig(
    request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
    # A busy replica is waited for, since no other one has read the content.
    request_router_kwargs={"num_fallback_replicas": 0},
)


@serve.deployment(
    ray_actor_options={"num_cpus": 1},
    autoscaling_config=AutoscalingConfig(
        min_replicas=2,
        max_replicas=8,
        target_ongoing_requests=8,
        downscale_delay_s=600,  # with a replica goes all that it has read
    ),
    # More than Weft lets in (settings.rows and settings.waiting), so that it is Weft that says when it is full.
    max_ongoing_requests=256,
    graceful_shutdown_timeout_s=120,  # settings.timeout: replies may finish
    request_router_config=ROUTED_BY_CONTENT,
)
class Replica:
    """The application with a model of its own.

    Args:
        load: makes the model.
        settings: as ``weft serve`` has them.
    """

    def __init__(self, load: Callable[[], WeftModel], settings: Settings) -> None:
        torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources()["CPU"])))
        self.app = create_app(load, settings)
        self.name = serve.get_replica_context().replica_id.unique_id

    async def respond(self, scope: Scope, body: bytes) -> AsyncIterator[Message]:
        """The messages of the application's response as they come; where nobody waits for them, it is told to stop."""
        unread = [body]

        async def receive() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop()}
            return await asyncio.Future()  # a client that goes away cancels the task instead

        async def run() -> None:
            with sending:
                await self.app(scope, receive, sending.send)

        sending, sent = anyio.create_memory_object_stream[Message]()
        task = asyncio.create_task(run())
        try:
            with sent:
                async for message in sent:
                    if message["type"] == "http.response.start":
                        message["headers"] = [*message["headers"], (b"x-weft-replica", self.name.encode())]
                    yield message
            await task
        finally:
            task.cancel()

    async def answer(self, scope: Scope, body: bytes) -> list[Message]:
        """The whole response."""
        return [message async for message in self.respond(scope, body)]


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Ingress:
    """Sends each request to the replica that has read what it shows.

    Nothing is remembered here, so that there can be several of these, and one that restarts forgets nothing.

    Args:
        replicas: the application's.
        settings: theirs.
    """

    def __init__(self, replicas: DeploymentHandle, settings: Settings) -> None:
        self.replicas, self.settings, self.keys = replicas, settings, Keys(settings.keys)
        # Only pictures that came with their request are looked at: replicas fetch the others.
        self.pictures = Pictures((), settings.body_bytes, settings.pixels)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        limited = Middleware(LimitBody, limit=self.settings.body_bytes)
        return Starlette(routes=[Mount("/", self.forward)], middleware=[limited])

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        request, begun = Request(scope, receive), False
        body = await request.body()
        passed_on = {name: scope[name] for name in PASSED_ON if name in scope}
        try:
            if scope["path"].startswith("/v1/explanations/"):
                for message in await self._explanation(passed_on, body):
                    await send(message)
                return
            replica = self.replicas.options(stream=True, session_id=await self._routing_key(request))
            messages = replica.respond.remote(passed_on, body)
            try:
                async for message in messages:
                    begun = True
                    await send(message)
            finally:
                messages.cancel()  # if the client has gone away; does nothing to what has ended
        except RayActorError:
            if begun:
                raise
            error = ApiError(
                503, "The replica that was asked has gone; try again in a moment.", "replica_gone", retry=2
            )
            await error.response()(scope, receive, send)

    async def _routing_key(self, request: Request) -> str:
        """The id under which Weft knows what a request shows first; empty, which leads anywhere, if that is nothing."""
        try:
            owner = self.keys.owner(request.headers.get("authorization"))
            part = first_shown(request.url.path, await request.body())
            if isinstance(part, ImagePart):
                return memory_id(owner, {"type": "image", "image": await self.pictures.get(part.image_url.url)})
            if isinstance(part, DocumentPart):
                return memory_id(owner, part.model_dump())
            return "" if part is None else part.id
        except (ValidationError, WeftError):
            return ""  # whatever is wrong with it, any replica says so

    async def _explanation(self, passed_on: Scope, body: bytes) -> list[Message]:
        """The response of the replica that gave the reply. Its id tells nobody which that is, so all are asked."""
        responses = self.replicas.broadcast("answer", passed_on, body)
        answers = await responses.results_async(return_exceptions=True)
        given = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not given:
            raise RayActorError
        return min(given, key=lambda messages: messages[0]["status"] == 404)


def first_shown(path: str, body: bytes) -> ImagePart | DocumentPart | MemoryPart | None:
    """What a request shows first; None if it shows nothing.

    Raises:
        ValidationError: the request is none that Weft takes.
    """
    if path == "/v1/memories":
        sent = MemoryRequest.model_validate_json(body)
        if sent.image_url is not None:
            return ImagePart(type="image_url", image_url=sent.image_url)
        return DocumentPart(type="document", text=sent.text or "", name=sent.name)
    if path == "/v1/chat/completions":
        messages = ChatRequest.model_validate_json(body).messages
        parts = (part for message in messages if not isinstance(message.content, str) for part in message.content)
        return next((part for part in parts if not isinstance(part, TextPart)), None)
    return None


settings = Settings(keys=read_keys([], None))
app = Ingress.bind(Replica.bind(weft.load, settings), settings)
