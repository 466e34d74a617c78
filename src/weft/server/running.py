"""Running the application: uvicorn, with an end that lets replies finish."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from weft.errors import WeftError
from weft.server.service import Service

GRACE = 30.0
"""Seconds in which replies may finish when the server is told to stop."""


class _Server(uvicorn.Server):
    """Says where it listens; ends replies that take too long when it is told to stop.

    Args:
        config: as for uvicorn.
        service: what serves.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"Weft serves on http://{shown}:{port}", file=sys.stderr, flush=True)

    async def shutdown(self, sockets: Any = None) -> None:
        self.service.closing = True

        async def end() -> None:
            await asyncio.sleep(GRACE)
            await asyncio.to_thread(self.service.close)

        ending = asyncio.create_task(end())
        await super().shutdown(sockets)
        ending.cancel()


def serve(make: Callable[[], FastAPI], host: str, port: int) -> None:
    """Serve an application until the process is told to stop.

    Args:
        make: calls :func:`~weft.server.app.create_app`, which takes a while, once the address is ours.
        host: address to listen on.
        port: port; 0 for any that is free.

    Raises:
        WeftError: the address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise WeftError(f"{host}:{port} can't be listened on ({error.strerror or error}); choose another.") from None
    with listening:
        app, patience = make(), int(GRACE) + 5
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=patience)
        _Server(config, app.state.service).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
