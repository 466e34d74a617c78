"""Pictures as people have them, made into RGB: any file Pillow reads, upright, without surprises.

:func:`load_image` is given a path, bytes, a file object, a Pillow image or an array and hands on a Pillow image in RGB.
What can't be read is refused with a sentence that names it. Nothing is fetched from a network.
"""

from __future__ import annotations

import base64
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from weft.arrays import image_of, is_array
from weft.errors import PictureError
from weft.memory import content_hash

MAX_PIXELS = 178_956_970
"""Pictures of more pixels are refused: a small file can claim any size (Pillow's own limit, twice 89 megapixels)."""

_SCHEME = re.compile(r"(data:|[a-zA-Z][a-zA-Z0-9+.-]*://)")
"""How URLs begin."""
PICTURES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What the names of pictures end in."""


def load_image(source: Any) -> Image.Image:
    """Read a picture.

    The first frame of an animation is taken, EXIF orientation is applied, transparency is laid on white, and 16-bit
    greys are scaled to 8 bits.

    Args:
        source: a file, its bytes (also as a data URL), a file object, an image that is loaded already, or an array or
            tensor of bytes or of floats from 0 to 1, ``[H, W, C]``, ``[C, H, W]`` or ``[H, W]``.

    Returns:
        The picture, mode RGB.

    Raises:
        PictureError: it is missing, no picture, truncated, or has more than :data:`MAX_PIXELS` pixels.
    """
    name = picture_name(source)
    if isinstance(source, str) and _SCHEME.match(source):
        source = _inline(source)
    if isinstance(source, (str, Path)):
        if not os.path.exists(source):
            raise PictureError(f"{name} doesn't exist; give the path of a picture.")
        if os.path.isdir(source):
            raise PictureError(f"{name} is a folder; give the path of a picture.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _open(source)
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(f"{name} has {image.width} by {image.height} pixels; {MAX_PIXELS:,} is the limit.")
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise PictureError(f"{name} is not a picture that Pillow can read; give a JPEG, PNG, WebP, GIF, ...") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} has more than {MAX_PIXELS:,} pixels, which is the limit; scale it down.") from None
    except PictureError:
        raise
    except Exception as error:  # Pillow raises many kinds where a file is damaged
        raise PictureError(f"{name} can't be read ({error}); the file seems truncated or damaged.") from None


def picture_hash(source: str | Path | bytes | Image.Image) -> str:
    """A name for what a picture holds, found without decoding it where it is a file or its bytes.

    Raises:
        OSError: the file can't be read.
    """
    if isinstance(source, Image.Image):
        return content_hash(repr((source.mode, source.size)), source.tobytes())
    return content_hash(source if isinstance(source, bytes) else Path(source).read_bytes())


def picture_name(source: Any) -> str:
    """What to call a picture: its file, or a description."""
    if isinstance(source, str) and _SCHEME.match(source):
        return "the picture" if source[:5].lower() == "data:" else source
    if isinstance(source, (str, Path)):
        return str(source)
    if is_array(source):
        return "the picture"
    return str(getattr(source, "filename", None) or getattr(source, "name", None) or "the picture")


def _open(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if is_array(source):
        return image_of(source)
    if not isinstance(source, (str, Path, bytes, bytearray, memoryview)) and not hasattr(source, "read"):
        raise PictureError(
            f"A picture is a path, bytes, a file object, a PIL image, or an array; not {type(source).__name__}."
        )
    return Image.open(io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source)


def _inline(url: str) -> bytes:
    """What a data URL holds.

    Raises:
        PictureError: it holds no base64, or the URL is of another kind.
    """
    head, comma, body = url.partition(",")
    if not url[:5].lower() == "data:":
        raise PictureError(
            f"{url:.200} is a URL, and pictures are not fetched from a network; give the bytes of the picture, or "
            "those that weft.server.pictures.fetch(url, hosts=[...]) finds on hosts that you name."
        )
    try:
        if not (comma and head.lower().endswith(";base64")):
            raise ValueError
        return base64.b64decode("".join(body.split()), validate=True)
    except ValueError:
        raise PictureError("The picture's data URL holds no valid base64: data:image/jpeg;base64,...") from None


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
