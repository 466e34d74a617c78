"""The application: routes, what stands in front of them, and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from mimetypes import guess_type
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import weft
from weft.model import WeftModel
from weft.server import completions, errors, routes
from weft.server.guarding import Keys, LimitBody, NeedKey, Observe, OnlyNames, SecureHeaders
from weft.server.service import Service
from weft.server.settings import Settings


def create_app(model: WeftModel | Callable[[], WeftModel], settings: Settings | None = None) -> FastAPI:
    """An application that serves a model; any ASGI server runs it.

    Args:
        model: the model; or what loads it, as ``weft.load``, which makes it faster on a CPU (see :class:`weft.Engine`).
        settings: whom it serves, from what, and how much of it.

    Raises:
        WeftError: the folder of knowledge bases holds none, or the model can't be loaded.
    """
    settings = settings or Settings()
    service = Service(model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="Weft",
        version=weft.__version__,
        summary="A language model that sees pictures and reads documents, behind OpenAI's API",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    errors.install(app)
    app.include_router(completions.router)
    app.include_router(routes.router)
    _serve_page(app)
    app.add_middleware(NeedKey, keys=Keys(settings.keys), open=("/", "/health", "/ready", "/openapi.json"))
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # clients add headers of their own
            expose_headers=["retry-after"],
        )
    app.add_middleware(LimitBody, limit=settings.body_bytes)
    if settings.names:
        app.add_middleware(OnlyNames, names=settings.names)
    app.add_middleware(Observe, note=service.metrics.request)
    app.add_middleware(SecureHeaders)
    return app


def _serve_page(app: FastAPI) -> None:
    """Serve the page from memory: no path of a request opens a file."""
    folder = Path(str(files("weft.server") / "page"))
    page = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def response(name: str) -> Response:
        if name not in page:
            raise HTTPException(404)
        return Response(page[name], media_type=guess_type(name)[0], headers={"cache-control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return response("index.html")

    @app.get("/page/{name:path}", include_in_schema=False)
    async def file(name: str) -> Response:
        return response(name)
