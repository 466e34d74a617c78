"""Large pictures are decoded in a thread of their own, one after another: whoever computes words does not wait for it,
and no more than one at a time is held at its full size.

:func:`read_in_portions` reads pictures as ``model.read_pictures`` does, with a stop after each portion; where it stops
with a future, there is nothing to be done before that is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from weft.images import Decoded, decode, pixels_of

if TYPE_CHECKING:
    from weft.memory import ReadMemory
    from weft.model import WeftModel

PORTION = 4
"""Pictures or passages of a conversation that are read at once."""
SMALL = 2**21
"""Pixels up to which a picture is decoded on the spot."""

Waits = Future[Any] | None
"""What work that stops now and then waits for; None where it would go on at once."""
Thing = TypeVar("Thing")
Result = TypeVar("Result")
_thread = ThreadPoolExecutor(1, "weft-pictures")


def portions(things: Sequence[Thing]) -> list[Sequence[Thing]]:
    """Pictures or passages in portions that are read at once, between which others may be served."""
    return [things[start : start + PORTION] for start in range(0, len(things), PORTION)]


def in_picture_thread(work: Callable[..., Result], *given: Any) -> Generator[Waits, None, Result]:
    """Have something done in the pictures' thread, and stop until it is."""
    future = _thread.submit(work, *given)
    yield future
    return future.result()


def read_in_portions(model: WeftModel, pictures: Sequence[Any]) -> Generator[Waits, None, list[ReadMemory]]:
    """Pictures as read memories of one item each, with a stop after each portion.

    Args:
        model: the woven model.
        pictures: as for :meth:`~weft.model.WeftModel.read_pictures`.

    Raises:
        PictureError: a picture can't be read.
    """
    reads: list[ReadMemory] = []
    for portion in portions(pictures):
        ready = []
        for picture in portion:
            ready.append((yield from _decoded(model, picture)))
        reads += model.read_pictures(ready)
        yield None
    return reads


def _decoded(model: WeftModel, picture: Any) -> Generator[Waits, None, Any]:
    """A picture; one that is large, and has not been read before, decoded."""
    if not isinstance(picture, (str, Path, bytes)) or pixels_of(picture) <= SMALL:
        return picture
    hash = model.unread(picture)
    if hash is None:
        return picture
    decoded: Decoded = yield from in_picture_thread(decode, picture)
    return replace(decoded, hash=hash)
