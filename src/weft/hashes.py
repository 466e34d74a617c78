"""Names for what things hold."""

from __future__ import annotations

import hashlib


def content_hash(*parts: bytes | str) -> str:
    """A short stable name (32 hex digits of SHA-256) for bytes and strings, order and boundaries included."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part  # a name may be no UTF-8
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]
