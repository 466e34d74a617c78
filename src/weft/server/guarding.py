"""What stands in front of every route: who may come in, how much a request may hold, and what pages may do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.server.errors import ApiError, api_error

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The page loads nothing but what this server serves."""
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Keys:
    """API keys.

    Args:
        keys: each of them opens; none to let everyone in.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def owner(self, authorization: str | None) -> str:
        """Whose request it is: a name for the key, which does not tell it.

        Args:
            authorization: the header ``Authorization``.

        Raises:
            ApiError: the key is missing or wrong.
        """
        if not self._digests:
            return ""
        kind, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip().encode("latin-1"))  # as headers are decoded
        # Every key is compared, and each in constant time, so that the time taken tells nothing.
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        if kind.lower() != "bearer" or not any(found):
            raise ApiError(401, "The API key is missing or wrong; send it as 'Authorization: Bearer KEY'.", "bad_key")
        return digest.hex()[:16]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


async def owner(request: Request) -> str:
    """Whose request it is, as :class:`NeedKey` has found; a dependency of routes that are not open to everyone."""
    return request.state.owner


class NeedKey:
    """Lets only those in who have a key, before anything of their request is read.

    Args:
        app: what comes behind it.
        keys: the keys.
        open: paths that are open to everyone; all under ``/page/`` are.
    """

    def __init__(self, app: ASGIApp, keys: Keys, open: Iterable[str]) -> None:
        self.app, self.keys, self.open = app, keys, frozenset(open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http" and scope["path"] not in self.open and not scope["path"].startswith("/page/"):
            sent = dict(scope["headers"]).get(b"authorization", b"")
            try:
                scope.setdefault("state", {})["owner"] = self.keys.owner(sent.decode("latin-1"))
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


class LimitBody:
    """Refuses requests that hold too many bytes, without reading on.

    Args:
        app: what comes behind it.
        limit: bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limit:
            await self._refuse(scope, receive, send)
            return
        received, started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not started:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = (
            f"The request holds more than {self.limit:,} bytes, which is the limit; send a smaller picture or text."
        )
        response = ApiError(413, message, "request_too_large").response()
        response.headers["connection"] = "close"
        await response(scope, receive, send)


class _TooLarge(BaseException):
    """A body went on beyond the limit; no handler of errors on the way is to catch it."""


class OnlyNames:
    """Refuses requests for other hosts: those of a page whose host's name was made to lead here, above all.

    Args:
        app: what comes behind it.
        names: the hosts, without ports.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self.app, self.names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if _name(host) not in self.names:
                known = " and ".join(sorted(self.names))
                message = f"This server answers to {known} only; with --api-key it answers to every name."
                await ApiError(400, message, "wrong_host").response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _name(host: str) -> str:
    """A host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class SecureHeaders:
    """Adds the headers that every response has.

    Args:
        app: what comes behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        fixed = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *fixed]
            await send(message)

        await self.app(scope, receive, with_headers)


class Observe:
    """Tells of every response how it ended; a fault of the server's own ends in a response as well.

    Args:
        app: what comes behind it.
        note: is told the route and the status.
    """

    def __init__(self, app: ASGIApp, note: Callable[[str, int], None]) -> None:
        self.app, self.note = app, note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 499  # the client went away before there was a response

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if status != 499:  # the response has begun, and can only break off
                raise
            await api_error(error).response()(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.note(route, status)
