"""Working for a client only as long as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from weft.server.errors import ApiError

LOOKS = 0.25
"""Seconds between two looks whether a client is still there."""
Result = TypeVar("Result")


async def while_there(request: Request, work: Awaitable[Result]) -> Result:
    """Do something as long as the client is there.

    Raises:
        ApiError: it has gone away; nobody will read this.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOKS)
            if not task.done() and await request.is_disconnected():
                raise ApiError(499, "The client has gone away.", "gone")
        return task.result()
    finally:
        task.cancel()
