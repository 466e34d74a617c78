"""A small model behind the server, in this process and over real sockets."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import uvicorn
from families import language_model
from fastapi import FastAPI
from PIL import Image
from woven import open_weave, tokenizer, woven

from weft.making import weave
from weft.model import WeftModel
from weft.processing import WeftProcessor
from weft.working import Worker


def small_model(**options: Any) -> WeftModel:
    """Eyes and a reader with a copy gate on one small language model, float32."""
    base = language_model("llama", **{"max_position_embeddings": 1024, **options})
    model = woven(base)
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="You help.")
    weave(model, text="language-model", layers=[1, 2], copy_width=8)
    model = open_weave(model, "reader").eval()
    model.weave("reader").config.refuses_at = 2.0  # it knows nothing, and would say so or not by chance
    return model


def slow_down(seconds: float = 0.002) -> None:
    """Let every step of a worker take a while longer, so that long replies last on every machine."""
    step = Worker._step

    def slowly(self: Worker) -> None:
        time.sleep(seconds)
        step(self)

    Worker._step = slowly  # type: ignore[method-assign]


def picture(seed: int, size: int = 24, format: str = "PNG") -> bytes:
    """A picture of noise."""
    torch.manual_seed(seed)
    pixels = torch.randint(0, 255, (size, size, 3), dtype=torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def data_url(data: bytes) -> str:
    """Bytes as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shown(seed: int) -> dict[str, Any]:
    """A picture as a part of a message, as OpenAI has it."""
    return {"type": "image_url", "image_url": {"url": data_url(picture(seed))}}


def asked(text: str, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request of one message."""
    content = [*parts, {"type": "text", "text": text}] if parts else text
    return {"model": "weft", "messages": [{"role": "user", "content": content}], "max_tokens": 12, **more}


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application on a free port of this machine; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
