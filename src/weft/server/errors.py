"""Errors in OpenAI's form, each with the right status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from weft.engine import EngineClosed, EngineFull, TooLong
from weft.errors import DataError, PictureError, WeftError
from weft.server.schemas import Error, ErrorFields

log = logging.getLogger("weft.server")

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        400: "The request is not what it should be.",
        401: "The API key is missing or wrong.",
        404: "There is no such thing.",
        413: "The request is too large.",
        429: "Too many requests wait.",
        503: "The server is shutting down.",
        504: "The request took too long.",
    }.items()
}
"""What a route may answer beside its result, for the OpenAPI document."""


class ApiError(WeftError):
    """An error with the status and the code under which it reaches the client.

    Args:
        status: of HTTP.
        message: one sentence that names the input and says what to do.
        code: for programs.
        param: the field of the request.
        retry: seconds after which to try again.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry = status, code, param, retry

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI puts it."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        fields = ErrorFields(message=str(self), type=kind, param=self.param, code=self.code)
        return Error(error=fields).model_dump()

    def response(self) -> JSONResponse:
        """The same as a response."""
        headers = {} if self.retry is None else {"Retry-After": str(self.retry)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def api_error(error: BaseException) -> ApiError:
    """What a client is told of an error; of one that is Weft's own fault nothing but that."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineFull):
        return ApiError(429, str(error), "queue_full", retry=2)
    if isinstance(error, EngineClosed):
        return ApiError(503, "The server is shutting down; try again in a moment.", "shutting_down", retry=5)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):  # one and the same from Python 3.11 on
        return ApiError(504, "The request took longer than the server allows; ask for a shorter reply.", "timeout")
    if isinstance(error, TooLong):
        return ApiError(400, str(error), "context_length_exceeded", "messages")
    if isinstance(error, PictureError):
        return ApiError(400, str(error), "invalid_image", "messages")
    if isinstance(error, DataError):
        return ApiError(400, str(error), "invalid_content", "messages")
    if isinstance(error, WeftError):
        return ApiError(400, str(error), "invalid_request")
    log.error("a request failed", exc_info=error)
    return ApiError(500, "Something went wrong on the server; its log says what.", "internal_error")


def install(app: FastAPI) -> None:
    """Let every error of an application reach its client in this form."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Of what a field might have been, what came nearest is what was meant: its error is the deepest one.
        nearest = max(error.errors(), key=lambda one: len(one["loc"]))
        message = str(nearest["msg"]).removeprefix("Value error, ")
        if nearest["type"] in ("model_type", "model_attributes_type"):
            message = "this should be a JSON object" + (
                " (Content-Type: application/json)" if len(nearest["loc"]) < 2 else ""
            )
        if nearest["type"] == "json_invalid":
            return ApiError(400, f"The request is not JSON: {nearest['ctx']['error']}.", "invalid_json").response()
        place = _place(nearest["loc"])
        return ApiError(400, f"{place or 'The request'}: {message}.", "invalid_value", place or None).response()

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        messages = {404: f"There is no {request.url.path}.", 405: f"{request.url.path} takes no {request.method}."}
        response = ApiError(error.status_code, messages.get(error.status_code, str(error.detail))).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(WeftError)
    async def ours(_: Request, error: WeftError) -> JSONResponse:
        return api_error(error).response()


_KINDS = ("text", "image_url", "document", "memory")
"""What may be said of a part before its own fields: which kind of part it is."""


def _place(location: Sequence[str | int]) -> str:
    """A field of the body, as in ``messages[0].content``, kinds left out; empty for the whole of it."""
    place = ""
    for step, before in zip(location[1:], location, strict=False):
        if isinstance(step, int):
            place += f"[{step}]"
        elif step != "str" and "[" not in step and not (isinstance(before, int) and step in _KINDS):
            place += f".{step}" if place else step
    return place
