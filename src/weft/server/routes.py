"""Everything beside completions: memories, explanations, what can be asked, and how the server is."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from weft.engine import EngineClosed
from weft.memory import ReadMemory
from weft.model import WeftModel
from weft.passages import Piece
from weft.picture_thread import portions, read_in_portions
from weft.search import Prompt
from weft.server.conversation import Part
from weft.server.errors import RESPONSES, ApiError
from weft.server.explaining import Finished, drawing, explaining, opened
from weft.server.guarding import owner
from weft.server.presence import while_there
from weft.server.schemas import (
    Document,
    Explanation,
    Knowledge,
    KnowledgeBases,
    Memory,
    MemoryRequest,
    Model,
    Models,
)
from weft.server.service import Service, service_of

router = APIRouter(responses=RESPONSES)
STARTED = int(time.time())


@router.get("/v1/models", summary="The models that can be asked")
async def models(request: Request, owner: str = Depends(owner)) -> Models:
    """As OpenAI documents it."""
    return Models(data=[Model(id=service_of(request).settings.name, created=STARTED)])


@router.get("/v1/models/{name}", summary="One of them")
async def model(name: str, request: Request, owner: str = Depends(owner)) -> Model:
    """As OpenAI documents it."""
    if name != service_of(request).settings.name:
        raise ApiError(404, f"There is no model {name!r}.", "model_not_found", "model")
    return Model(id=name, created=STARTED)


@router.get("/v1/knowledge", summary="The knowledge bases that can be asked")
async def knowledge(request: Request, owner: str = Depends(owner)) -> KnowledgeBases:
    """By name, as requests give it in ``knowledge``."""
    names = await asyncio.to_thread(service_of(request).knowledge.names)
    return KnowledgeBases(data=[Knowledge(id=name) for name in names])


@router.post("/v1/memories", summary="Read a picture or a text once, to be named by its id later")
async def memories(body: MemoryRequest, request: Request, owner: str = Depends(owner)) -> Memory:
    """The id follows from the content: nobody who has not that can guess it, and it opens to the same key only."""
    service = service_of(request)
    part: Part = {"type": "document", "text": body.text, "name": body.name}
    if body.image_url is not None:
        part = {"type": "image", "image": await service.conversations.pictures.get(body.image_url.url)}
    elif len(part["text"]) > service.settings.document_characters:
        limit = service.settings.document_characters
        raise ApiError(400, f"The text has more than {limit:,} characters, which is the limit.", "too_much", "text")
    reads = await while_there(request, _read(service, part))
    id = service.conversations.keep(owner, part)
    kind: Literal["picture", "text"] = "picture" if part["type"] == "image" else "text"
    tokens, size = sum(len(read) * read.tokens for read in reads), sum(read.bytes for read in reads)
    return Memory(id=id, kind=kind, items=sum(map(len, reads)), tokens=tokens, bytes=size)


async def _read(service: Service, part: Part) -> list[ReadMemory]:
    """Read a picture or a text, so that the model's cache holds it; a long one so that others get on meanwhile."""
    if part["type"] == "image":
        return await service.by_portions(read_in_portions(service.model, [part["image"]]))
    pieces = await service.beside(_cut, part["text"])
    if not pieces:
        raise ApiError(400, "The text holds no words; send one with words in it.", "invalid_value", "text")
    return [await service.beside(WeftModel.read_texts, portion) for portion in portions(pieces)]


def _cut(model: WeftModel, text: str) -> list[Piece]:
    return model.encoder(model.weave_that_reads("texts").name).cut(text)


@router.get(
    "/v1/explanations/{id}",
    response_model=Explanation,
    responses={200: {"content": {"image/png": {}}}},
    summary="What a finished reply needed of pictures and leaned on in documents",
)
async def explanations(
    id: str,
    request: Request,
    format: Literal["json", "png"] = "json",
    picture: int = Query(default=0, ge=0, le=1000, description="Which picture of the conversation (PNG only)."),
    word: int = Query(default=0, ge=0, le=100_000, description="Which word of the reply (PNG only)."),
    owner: str = Depends(owner),
) -> Any:
    """As JSON, or for a word as a PNG of the picture, lit where it matters to the word.

    The id is that of the completion; of several replies to one request, the later ones have ``-1``, ``-2``, ... behind.
    """
    service = service_of(request)
    finished, prompt = await _finished(request, id, owner)
    if format == "json":
        return await service.by_portions(explaining(service.model, prompt, id, finished))
    image = await service.by_portions(drawing(service.model, prompt, finished, picture, word))
    if image is None:
        raise ApiError(404, f"The reply {id!r} has no picture {picture} or no word {word}.", "not_found")
    png = io.BytesIO()
    await asyncio.to_thread(image.save, png, "PNG")
    return Response(png.getvalue(), media_type="image/png")


@router.get("/v1/explanations/{id}/documents/{passage}", summary="The document that a passage belongs to")
async def document(id: str, passage: int, request: Request, owner: str = Depends(owner)) -> Document:
    """The whole text, and where in it the sentence stands that the reply leans on most."""
    service = service_of(request)
    found = None
    if 0 <= passage < 2**31:
        finished, prompt = await _finished(request, id, owner)
        found = await service.beside(opened, prompt, finished, passage, service.knowledge)
    if found is None:
        raise ApiError(404, f"The reply {id!r} has read no passage {passage}.", "not_found")
    return found


async def _finished(request: Request, id: str, owner: str) -> tuple[Finished, Prompt]:
    """A finished reply, and what it replies to, read again."""
    service = service_of(request)
    finished = service.answers.get(id)
    if finished is None or finished.owner != owner:
        raise ApiError(404, f"There is no reply {id!r}, or it is kept no longer; ask again.", "explanation_not_found")
    return finished, await while_there(request, service.read(finished.conversation))


@router.get("/health", summary="Whether the process is alive")
async def health(request: Request) -> dict[str, str]:
    """503 once it can't go on and should be started again. Open to everyone."""
    service = service_of(request)
    if not service.closing and not service.engine.alive:
        raise ApiError(503, "The engine has failed; the log says why. Start the server again.", "failed")
    return {"status": "ok"}


@router.get("/ready", summary="Whether it takes requests")
async def ready(request: Request) -> dict[str, str]:
    """503 while it shuts down, or as many requests wait as may. Open to everyone."""
    service = service_of(request)
    if service.closing or not service.engine.alive:
        raise EngineClosed
    if service.engine.load["waiting"] >= service.settings.waiting:
        raise ApiError(503, "As many requests wait as may; try again later.", "queue_full", retry=2)
    return {"status": "ready"}


@router.get("/metrics", summary="How it does, for Prometheus", response_class=Response)
async def metrics(request: Request, owner: str = Depends(owner)) -> Response:
    """In Prometheus's text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
