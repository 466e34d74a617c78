"""Pictures as people have them, made into RGB: any file Pillow reads, upright, without surprises.

:func:`load_image` is given a path, bytes, a file object, a Pillow image or an array and hands on a Pillow image in RGB;
:func:`decode` the same for a vision encoder, large ones reduced. What can't be read is refused with a sentence that
names it, and says what it is where that can be told (:mod:`weft.picture_kinds`). Nothing is fetched from a network.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from weft.arrays import image_of, is_array
from weft.errors import PictureError
from weft.memory import content_hash
from weft.picture_kinds import HEAD, RAW, is_heif, is_raw, known_formats, read_heif, shows_something, unread_kind
from weft.pixel_values import FAINT, as_rgb

log = logging.getLogger("weft")

MAX_PIXELS = 178_956_970
"""Pictures of more pixels are refused: a small file can claim any size (Pillow's own limit, twice 89 megapixels)."""
LARGE = 2**24
"""Pixels beyond which a vision encoder is shown a picture reduced: none looks at nearly as many."""
SIDE = 2048
"""Pixels that the shorter side of a reduced picture has, at least."""
USUAL = ("JPEG", "PNG", "GIF", "BMP", "PPM")
"""Formats that Pillow knows without looking for more, which takes as long as a picture."""
LONGEST_NAME = 200
"""Characters of a name that messages tell."""
ORIENTATION = 0x0112
"""EXIF's tag of how to turn a picture."""

URL = re.compile(r"(data:|[a-zA-Z][a-zA-Z0-9+.-]*://)")
"""How URLs begin."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each orientation of EXIF asks for; from 5 on width and height change places."""
_TELLS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Where a picture says how it lies."""


_REDUCED_FIRST = ("RGB", "RGBA", "L", "LA")
"""Modes of which a large picture is reduced before it is made RGB, which is quicker."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A picture that has been decoded for a vision encoder.

    Attributes:
        image: the picture in RGB, upright; one of more than :data:`LARGE` pixels is reduced.
        size: width and height of the picture itself.
        name: what it is called.
        hash: names what it holds, as :func:`picture_hash` does; empty where nobody asked.
    """

    image: Image.Image
    size: tuple[int, int]
    name: str
    hash: str = ""


def load_image(source: Any) -> Image.Image:
    """Read a picture.

    Of an animation or a file of several pages the first is taken, EXIF orientation is applied, transparency is laid on
    white, and greys of 16 or 32 bits and of floats are scaled to 8 bits (:mod:`weft.pixel_values`).

    Args:
        source: a file, its bytes (also as a data URL), a file object, an image that is loaded already, or an array or
            tensor of bytes or of floats from 0 to 1, ``[H, W, C]``, ``[C, H, W]`` or ``[H, W]``.

    Returns:
        The picture, mode RGB.

    Raises:
        PictureError: it is missing, no picture, truncated, or has more than :data:`MAX_PIXELS` pixels.
    """
    image = source.image if isinstance(source, Decoded) else _loaded(source, reduced=False).image
    return image.copy() if image is source or isinstance(image, ImageFile.ImageFile) else image  # which has a file


def decode(source: Any) -> Decoded:
    """Read a picture for a vision encoder; arguments and errors as for :func:`load_image`.

    A JPEG of more than :data:`LARGE` pixels is decoded at a fraction of its size, which takes a fraction of the time
    and memory.
    """
    return source if isinstance(source, Decoded) else _loaded(source, reduced=True)


def _loaded(source: Any, *, reduced: bool) -> Decoded:
    name = picture_name(source)
    told = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    if isinstance(source, str) and URL.match(source):
        source = _inline(source)
    if isinstance(source, (str, Path)):
        _check_file(source, told)
    try:
        with warnings.catch_warnings(), ExitStack() as held:
            warnings.simplefilter("ignore")  # of metadata that is not as it should be
            image = source if isinstance(source, Image.Image) else _opened(source, told, held)
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(f"{told} has {image.width} by {image.height} pixels; {MAX_PIXELS:,} is the limit.")
            if getattr(image, "is_animated", False) and image.format != "MPO":
                log.warning("%s holds several pictures (frames or pages); the first is looked at.", told)
            return _upright(image, name, reduced)
    except UnidentifiedImageError:
        raise PictureError(f"{told} is not a picture that Pillow can read; give a JPEG, PNG, WebP, GIF, ...") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{told} has more than {MAX_PIXELS:,} pixels, which is the limit; scale it down.") from None
    except PictureError:
        raise
    except MemoryError:
        raise PictureError(f"{told} does not fit into this machine's memory; scale it down.") from None
    except Exception as error:  # Pillow raises many kinds where a file is damaged
        if isinstance(error, OSError) and error.strerror:
            raise PictureError(f"{told} can't be read ({error.strerror}).") from None
        raise PictureError(f"{told} can't be read ({error}); the file seems truncated or damaged.") from None


def _check_file(path: str | Path, name: str) -> None:
    """See to it that there is a file.

    Raises:
        PictureError: there is none.
    """
    if os.path.isdir(path):
        raise PictureError(f"{name} is a folder; give the path of a picture.")
    if not os.path.exists(path):
        if os.path.islink(path):
            raise PictureError(f"{name} is a link to {os.readlink(path)}, which doesn't exist; mend or remove it.")
        raise PictureError(f"{name} doesn't exist; give the path of a picture.")


def _opened(source: Any, name: str, held: ExitStack) -> Image.Image:
    """A picture whose head has been read; ``held`` closes what was opened for it.

    Raises:
        PictureError: it is given in no known way, or is of a kind that is known and not read.
        UnidentifiedImageError: it is of no known kind.
    """
    if is_array(source):
        return image_of(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        file: Any = io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        file = held.enter_context(Path(source).open("rb"))  # noqa: SIM115
    elif hasattr(source, "read"):
        file = source
    else:
        raise PictureError(
            f"A picture is a path, bytes, a file object, a PIL image, or an array; not {type(source).__name__}."
        )
    try:
        file.seek(0)
    except (AttributeError, OSError):  # a pipe
        file = io.BytesIO(file.read())
    head = file.read(HEAD)
    if not head:
        raise PictureError(f"{name} is empty; give the file of a picture.")
    image = _identified(file, head)
    if image is None or is_raw(image, name):
        kind = unread_kind(head, name) if image is None else RAW
        raise PictureError(f"{name} is {kind}.") if kind else UnidentifiedImageError
    return image


def _identified(file: Any, head: bytes) -> Image.Image | None:
    """A picture of any format that is read; None where it is of none of them."""
    if is_heif(head):
        read_heif()
    for known in (lambda: USUAL, known_formats):
        file.seek(0)
        try:
            return Image.open(file, formats=known())
        except UnidentifiedImageError:
            continue
        except (KeyError, ValueError, OverflowError, MemoryError):
            if not head.startswith(b"\xff\xd8"):
                raise
            file.seek(0)
            return JpegImageFile(file)  # the list of further pictures behind it is none
    return None


def _upright(image: Image.Image, name: str, reduced: bool) -> Decoded:
    """A picture whose head has been read, decoded, turned and in RGB."""
    size = image.size
    times = max(1, min(size) // SIDE) if reduced and size[0] * size[1] > LARGE else 1
    if times > 1 and image.format == "JPEG":
        image.draft(image.mode, (size[0] // times, size[1] // times))
    deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    image.load()
    if deep and image.mode in ("RGB", "RGBA") and _brightest(image) < FAINT * 255:
        raise PictureError(
            f"{name} has 16 bits a channel, and is all but black in the upper ones, which Pillow reads; save it with 8."
        )
    turn, left = _orientation(image), times * image.width // size[0]
    if left > 1 and image.mode in _REDUCED_FIRST:
        image, left = image.reduce(left), 1
    image = as_rgb(image)
    image = image.reduce(left) if left > 1 else image
    if turn in _TURNS:
        image, size = image.transpose(_TURNS[turn]), size[::-1] if turn >= 5 else size
        for told in _TELLS:  # it lies as it should now
            image.info.pop(told, None)
    return Decoded(image, size, name)


def _brightest(image: Image.Image) -> int:
    """The greatest value of a picture's three colours."""
    return max(most for _, most in cast(tuple[tuple[int, int], ...], image.getextrema())[:3])


def _orientation(image: Image.Image) -> int:
    """How EXIF says that a picture lies; 1, upright, where that can't be read."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises many kinds where metadata is damaged
        return 1
    return orientation if isinstance(orientation, int) else 1


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as a picture does, be it one of a kind that is not read."""
    try:
        with ExitStack() as held:
            _opened(data, "", held)
    except Exception:  # Pillow raises many kinds where a file is damaged
        return shows_something(unread_kind(data[:HEAD]))
    return True


def pixels_of(source: Any) -> int:
    """Pixels of a picture, found without decoding it; 0 where decoding will say what is wrong with it."""
    try:
        with warnings.catch_warnings(), ExitStack() as held:
            warnings.simplefilter("ignore")
            image = _opened(_inline(source) if isinstance(source, str) and URL.match(source) else source, "", held)
            return image.width * image.height
    except Exception:  # Pillow raises many kinds where a file is damaged
        return 0


def picture_hash(source: str | Path | bytes | Image.Image | Decoded) -> str:
    """A name for what a picture holds, found without decoding it where it is a file or its bytes.

    Raises:
        OSError: the file can't be read.
    """
    if isinstance(source, Decoded):
        return source.hash or picture_hash(source.image)
    if isinstance(source, Image.Image):
        return content_hash(repr((source.mode, source.size)), source.tobytes())
    return content_hash(source if isinstance(source, bytes) else Path(source).read_bytes())


def picture_name(source: Any) -> str:
    """What to call a picture: its file, or a description."""
    if isinstance(source, Decoded):
        return source.name
    if isinstance(source, str) and URL.match(source):
        return "the picture" if source[:5].lower() == "data:" else source
    if isinstance(source, (str, Path)):
        return str(source)
    if is_array(source):
        return "the picture"
    return str(getattr(source, "filename", None) or getattr(source, "name", None) or "the picture")


def _inline(url: str) -> bytes:
    """What a data URL holds.

    Raises:
        PictureError: it holds no base64, or the URL is of another kind.
    """
    if not url[:5].lower() == "data:":
        raise PictureError(
            f"{url:.200} is a URL, and pictures are not fetched from a network; give the bytes of the picture, or "
            "those that weft.server.pictures.fetch(url, hosts=[...]) finds on hosts that you name."
        )
    try:
        return bytes_of_url(url)
    except ValueError:
        raise PictureError("The picture's data URL holds no valid base64: data:image/jpeg;base64,...") from None


def bytes_of_url(url: str) -> bytes:
    """What a data URL of base64 holds, which may be broken into lines.

    Raises:
        ValueError: it is none.
    """
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError("it is no data URL of base64")
    return base64.b64decode("".join(body.split()), validate=True)
