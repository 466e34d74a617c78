"""Pictures of a data set as files: those that are given as bytes, Pillow images, data URLs or addresses are put into a
folder, once each, so that nothing of them is held in memory."""

from __future__ import annotations

import base64
import binascii
import io
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from weft.catalog import weft_home
from weft.errors import DataError
from weft.hashes import content_hash
from weft.pixel_values import as_rgb

LARGEST = 64 << 20
"""Bytes of a picture that is fetched, at most."""
PATIENCE = 30
"""Seconds to wait for it."""


class GivenPictures:
    """Where the pictures of a data set are.

    Args:
        folder: where those that are no files are put; by default a folder in Weft's cache.
        fetch: whether those at web addresses may be fetched.
    """

    def __init__(self, folder: Path | None = None, *, fetch: bool = False) -> None:
        self.folder = folder or weft_home() / "pictures"
        self.fetch = fetch

    def file(self, picture: Any, beside: Path, where: str) -> str:
        """The file of a picture.

        Args:
            picture: a path, a data URL or a web address, bytes, a Pillow image, or ``{"bytes": ..., "path": ...}`` as
                :mod:`datasets` has it.
            beside: the folder from which a path leads.
            where: what to call its conversation, for messages to people.

        Raises:
            DataError: there is no such file, or it is given in no known way, or may not be or can't be fetched.
        """
        if isinstance(picture, Mapping):
            picture = picture.get("bytes") if picture.get("bytes") is not None else picture.get("path")
        if isinstance(picture, Image.Image):
            return self._kept(_png(picture))
        if isinstance(picture, (bytes, bytearray)):
            return self._kept(bytes(picture))
        if not isinstance(picture, (str, Path)):
            raise DataError(f"{where}: a picture is a {type(picture).__name__}; give a path, bytes or a Pillow image.")
        scheme = str(picture).partition(":")[0].lower()
        if scheme == "data":
            return self._kept(_data(str(picture), where))
        if scheme in ("http", "https"):
            return self._fetched(str(picture), where)
        path = beside / (str(picture).removeprefix("file://") if scheme == "file" else picture)
        if not path.is_file():
            raise DataError(f"{where}: the picture {path} doesn't exist; paths are relative to the data file.")
        return str(path)

    def _kept(self, content: bytes, name: str = "") -> str:
        """Bytes as a file that is there in full or not at all, named by what it holds or where it came from."""
        target = self.folder / (name or content_hash(content))
        if not target.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
            partial.write_bytes(content)
            partial.replace(target)
        return str(target)

    def _fetched(self, address: str, where: str) -> str:
        if not self.fetch:
            raise DataError(
                f"{where}: the picture {address} is on the web; say fetch_pictures: true to have it fetched, or save "
                "it to a file."
            )
        name = content_hash("address", address)
        if (self.folder / name).is_file():
            return str(self.folder / name)
        asked = urllib.request.Request(address, headers={"User-Agent": "weft"})
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                content = answer.read(LARGEST + 1)
        except (OSError, ValueError) as error:
            raise DataError(f"{where}: the picture {address} can't be fetched ({error}).") from None
        if len(content) > LARGEST:
            raise DataError(f"{where}: the picture {address} has more than {LARGEST >> 20} MB, which is the limit.")
        return self._kept(content, name)


def _png(image: Image.Image) -> bytes:
    """An image as a file that loses nothing; what the camera said of its orientation is kept."""
    buffer = io.BytesIO()
    kept = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else as_rgb(image)
    kept.save(buffer, "PNG", exif=_exif(image))
    return buffer.getvalue()


def _exif(image: Image.Image) -> bytes:
    """What the camera said, as far as it can be read."""
    try:
        return image.getexif().tobytes() if image.getexif() else b""
    except Exception:  # Pillow raises many kinds where metadata is damaged
        return b""


def _data(address: str, where: str) -> bytes:
    head, comma, body = address.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        raise DataError(f"{where}: a data URL of a picture must be data:image/...;base64,... with base64.") from None
