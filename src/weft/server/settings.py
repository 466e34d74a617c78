"""What whoever runs the server decides."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from weft.errors import WeftError
from weft.memory_cache import MEGABYTE


@dataclass(frozen=True)
class Settings:
    """Whom the server serves, from what, and how much of it.

    Attributes:
        name: what the model is called in requests.
        keys: API keys, each of which opens it; none to let everyone in.
        knowledge: folder that holds knowledge bases, or is one; None for none.
        hosts: hosts from which pictures may be fetched by http(s); none to take data URLs alone.
        names: names of this server, one of which requests have to give as their host; none to take any.
        origins: origins whose pages may call it (CORS); none for its own page alone.
        rows: replies that are decoded side by side.
        waiting: requests that may wait; further ones are told to come again later.
        timeout: seconds that a request may take.
        body_bytes: bytes of a request.
        pixels: pixels of a picture.
        messages: messages of a conversation.
        pictures: pictures of a conversation.
        text_characters: characters of the messages' own words, together.
        document_characters: characters of the documents of a conversation, together.
        reply_tokens: tokens of a reply, at most.
        running_bytes: bytes of the memories that conversations read at once.
        cache_bytes: bytes of read memories that are kept.
        content_bytes: bytes of pictures and texts that are kept under the ids of ``/v1/memories``.
        answer_bytes: bytes of finished answers, with their pictures, that are kept to be explained.
    """

    name: str = "weft"
    keys: tuple[str, ...] = ()
    knowledge: Path | None = None
    hosts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    rows: int = 32
    waiting: int = 64
    timeout: float = 120.0
    body_bytes: int = 20 * MEGABYTE
    pixels: int = 50_000_000
    messages: int = 100
    pictures: int = 16
    text_characters: int = 100_000
    document_characters: int = 100_000
    reply_tokens: int = 1024
    running_bytes: int = 1024 * MEGABYTE
    cache_bytes: int = 256 * MEGABYTE
    content_bytes: int = 256 * MEGABYTE
    answer_bytes: int = 128 * MEGABYTE


def read_keys(given: list[str], file: Path | None) -> tuple[str, ...]:
    """API keys: those that were given, those of a file, and those in ``WEFT_API_KEYS`` (by commas).

    A file has one a line; lines that begin with # are comments.

    Raises:
        WeftError: the file can't be read, or holds none.
    """
    keys = [*given, *os.environ.get("WEFT_API_KEYS", "").split(",")]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise WeftError(f"{file} can't be read ({error}); give a text file with one key a line.") from None
        if not any(map(str.strip, lines)):
            raise WeftError(f"{file} holds no key; write one a line.")
        keys += [line for line in lines if not line.lstrip().startswith("#")]
    return tuple(dict.fromkeys(key.strip() for key in keys if key.strip()))
