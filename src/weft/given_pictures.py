"""Pictures of a data set as files: those that are given as bytes, Pillow images, data URLs or addresses are put into a
folder, once each, so that nothing of them is held in memory."""

from __future__ import annotations

import base64
import binascii
import io
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from weft.arrays import is_array
from weft.catalog import weft_home
from weft.errors import DataError, PictureError
from weft.hashes import content_hash
from weft.images import bytes_of_url, load_image
from weft.pixel_values import as_rgb
from weft.whole_files import write_bytes

LARGEST = 64 << 20
"""Bytes of a picture that is fetched, at most."""
PATIENCE = 30
"""Seconds to wait for it."""


class MissingPicture(DataError):
    """A picture can't be had: there is no such file, or nobody sends it."""


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
            picture: a path, a data URL or a web address, base64 alone, bytes, a Pillow image, an array, or ``{"bytes":
                ..., "path": ...}`` as :mod:`datasets` has it.
            beside: the folder from which a path leads.
            where: what to call its conversation, for messages to people.

        Raises:
            MissingPicture: there is no such file, or it can't be fetched.
            DataError: it is given in no known way, is no picture, or may not be fetched.
        """
        if isinstance(picture, Mapping):
            picture = next((picture[key] for key in ("bytes", "path", "url") if picture.get(key) is not None), None)
        if isinstance(picture, Image.Image) or is_array(picture):
            return self._kept(_png(picture, where))
        if isinstance(picture, (bytes, bytearray)):
            return self._kept(bytes(picture))
        if not isinstance(picture, (str, Path)):
            raise DataError(f"{where}: a picture is a {type(picture).__name__}; give a path, bytes or a Pillow image.")
        scheme = str(picture).partition(":")[0].lower()
        if scheme == "data":
            return self._kept(_data(str(picture), where))
        if scheme in ("http", "https"):
            return self._fetched(str(picture), where)
        path = beside / (unquote(str(picture).removeprefix("file://")) if scheme == "file" else picture)
        try:
            if path.is_file():
                return str(path)
            folder = path.is_dir()
        except (OSError, ValueError):  # a name that no file can have
            folder = False
        if folder:
            raise DataError(f"{where}: the picture {path} is a folder; give a file.")
        if (content := _base64(str(picture))) is not None:
            return self._kept(content)
        raise MissingPicture(f"{where}: the picture {path!s:.200} doesn't exist; paths are relative to the data file.")

    def _kept(self, content: bytes, name: str = "") -> str:
        """Bytes as a file that is there in full or not at all, named by what it holds or where it came from."""
        target = self.folder / (name or content_hash(content))
        if not target.is_file():
            write_bytes(target, content)
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
            raise MissingPicture(f"{where}: the picture {address} can't be fetched ({error}).") from None
        if len(content) > LARGEST:
            raise MissingPicture(
                f"{where}: the picture {address} has more than {LARGEST >> 20} MB, which is the limit."
            )
        if not _is_picture(content):
            raise MissingPicture(f"{where}: what {address} sends is no picture.")
        return self._kept(content, name)


def _png(image: Any, where: str) -> bytes:
    """An image or an array as a file that loses nothing; what the camera said of its orientation is kept."""
    buffer = io.BytesIO()
    try:
        if isinstance(image, Image.Image):
            kept = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else as_rgb(image)
            kept.save(buffer, "PNG", exif=_exif(image))
        else:
            load_image(image).save(buffer, "PNG")
    except (PictureError, OSError, SyntaxError, ValueError) as error:  # as Pillow says that a file is damaged
        raise DataError(f"{where}: a picture can't be read ({error}).") from None
    return buffer.getvalue()


def _exif(image: Image.Image) -> bytes:
    """What the camera said, as far as it can be read."""
    try:
        return image.getexif().tobytes() if image.getexif() else b""
    except Exception:  # Pillow raises many kinds where metadata is damaged
        return b""


def _is_picture(content: bytes) -> bool:
    """Whether Pillow knows what begins so."""
    try:
        with Image.open(io.BytesIO(content)):
            return True
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _base64(text: str) -> bytes | None:
    """The picture that stands in a string of base64, as some data sets have it; None where it is no such string."""
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        return None
    return content if _is_picture(content) else None


def _data(address: str, where: str) -> bytes:
    try:
        return bytes_of_url(address)
    except ValueError:
        raise DataError(f"{where}: a data URL of a picture must be data:image/...;base64,... with base64.") from None
