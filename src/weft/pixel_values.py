"""Pictures of any mode of Pillow as RGB of 8 bits, strip by strip, so that a large one is held little more than once.

Greys of 16 or 32 bits and of floats come from scanners, microscopes, X-rays, depth cameras and maps, and what is black
and what is white in them is not written down. :func:`grey_scale` finds it as people do: whole numbers fill as many bits
as the greatest needs, 8 at least, and fractions go from 0 to 1, or from -1 to 1; everything else, and what would be all
but black or all of one grey then, is stretched between its darkest and its brightest thousandth.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

STRIP = 2**20
"""Pixels that are converted at once."""
SAMPLE = 2**20
"""Pixels by which the scale of a picture is found, at most."""
DEPTHS = (*range(8, 17), 24, 31, 32)
"""Bits of the greys that instruments make."""
FAINT = 1 / 16
"""Share of a scale, white or the span from the darkest to the brightest, below which a picture is stretched."""
EXTREMES = (0.1, 99.9)
"""Percentiles between which it is stretched: a hot pixel makes nothing else black."""
ROUNDING = 1e-3
"""By how much resizing may move fractions beyond their ends."""
_MIN_IS_WHITE, _PHOTOMETRIC, _SAMPLE_FORMAT = 0, 262, 339
_IDLE_ALPHA = ("BMP", "DIB", "TGA")
"""Formats in whose fourth channel many programs leave zeros, meaning nothing by it."""
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture in RGB: transparency is laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _of_greys(image)
    if image.mode == "LAB":
        return _of_lab(image)
    if image.mode in _ALPHA or "transparency" in image.info:
        try:
            return _on_white(image)
        except (ValueError, TypeError, SystemError):  # transparency that is written as no picture of this mode has it
            image = image.copy()
            image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def grey_scale(values: Num[np.ndarray, " N"]) -> tuple[float, float]:
    """The values of black and of white.

    Args:
        values: of pixels, one at least, all of them numbers.
    """
    least, most = float(values.min()), float(values.max())
    black, white = _usual(least, most, bool((values == np.round(values)).all()))
    enough = FAINT * (white - black)
    if white > black and (least == most or min(most - black, most - least) >= enough):
        return black, white
    black, white = (float(one) for one in np.percentile(values, EXTREMES))
    if black == white:
        black, white = least, most
    return (black, white) if black < white else (least - 1, least + 1)


def _usual(least: float, most: float, whole: bool) -> tuple[float, float]:
    """Black and white as instruments and programs have them; the same value where that can't be told."""
    if least >= -ROUNDING and most <= 1 + ROUNDING:
        return 0.0, 1.0
    if whole and least >= 0:
        return 0.0, next((2.0**bits - 1 for bits in DEPTHS if most < 2**bits), 0.0)
    if least >= -1 - ROUNDING and most <= 1 + ROUNDING:
        return -1.0, 1.0
    return 0.0, 0.0


def _of_greys(image: Image.Image) -> Image.Image:
    """A picture of greys of more than 8 bits; what is no number in it is black."""
    strips = _strips(image)
    step = -(-image.width * image.height // SAMPLE)
    sample = np.concatenate([_values(image, box).ravel()[::step] for box in strips])
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        raise ValueError("no pixel of it is a number")
    black, white = grey_scale(sample)
    if _tag(image, _PHOTOMETRIC) == _MIN_IS_WHITE:
        black, white = white, black
    clear = image.info.get("transparency")

    def shades(values: Num[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        shown = (values.astype(np.float64) - black) / (white - black)
        made = (np.nan_to_num(shown, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1) * 255).round().astype(np.uint8)
        if isinstance(clear, int):
            made[values == clear] = 255
        return made

    every = shades(np.arange(2**16, dtype=np.uint16)) if image.mode.startswith("I;16") else None
    grey = Image.new("L", image.size)
    for box in strips:
        values = _values(image, box)
        grey.paste(Image.fromarray(shades(values) if every is None else every[values]), box)
    return grey.convert("RGB")


def _values(image: Image.Image, box: tuple[int, int, int, int]) -> Num[np.ndarray, "rows columns"]:
    """The values of some rows of greys."""
    values = np.asarray(image.crop(box))
    if values.dtype == np.int32 and _tag(image, _SAMPLE_FORMAT, 1) == 1 and getattr(image, "format", "") == "TIFF":
        return values.view(np.uint32)  # which Pillow has no mode for
    return values


def _tag(image: Image.Image, number: int, otherwise: Any = None) -> Any:
    """A tag of a TIFF; of several values the first."""
    value = getattr(image, "tag_v2", {}).get(number, otherwise)
    return value[0] if isinstance(value, tuple) and value else value


def _on_white(image: Image.Image) -> Image.Image:
    """A picture with transparency, laid on white."""
    shown, opacity = Image.new("RGB", image.size), 0
    for box in _strips(image):
        strip = image.crop(box)
        layered = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
        opacity = max(opacity, cast(tuple[int, int], layered.getchannel("A").getextrema())[1])
        shown.paste(Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB"), box)
    if not opacity and image.format in _IDLE_ALPHA:
        return image.convert("RGBA").convert("RGB")
    return shown


def _of_lab(image: Image.Image) -> Image.Image:
    """A picture in CIE L*a*b*, for which Pillow asks a colour management."""
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    made = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert made is not None
    return made


def _strips(image: Image.Image) -> list[tuple[int, int, int, int]]:
    """Where the pieces of a picture are that are converted at once, each of whole rows."""
    rows = max(1, STRIP // max(1, image.width))
    return [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
