"""Pictures that are given as arrays: of NumPy, or tensors of PyTorch.

:func:`image_of` takes bytes from 0 to 255 or fractions from 0 to 1, of one (grey), three (RGB) or four channels (RGBA),
which are the last axis or the first, and hands on a Pillow image. What could be meant in two ways is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from weft.errors import PictureError

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
ROUNDING = 1e-3
"""By how much resizing may move fractions beyond 0 and 1."""


def is_array(given: Any) -> bool:
    """Whether something is an array or a tensor."""
    return isinstance(given, (np.ndarray, torch.Tensor))


def image_of(array: Any) -> Image.Image:
    """A picture.

    Args:
        array: ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]``; bytes, or fractions from 0 to 1.

    Raises:
        PictureError: it has another shape or type, or other values.
    """
    tensor = not isinstance(array, np.ndarray)
    if tensor:
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    shape = ", ".join(map(str, array.shape))
    if array.ndim == 3:
        last, first = array.shape[-1] in CHANNELS, array.shape[0] in CHANNELS
        if first and (tensor or not last):
            array = np.moveaxis(array, 0, -1)
        elif not last:
            raise PictureError(f"An array of [{shape}] is no picture; give [H, W, C] or [C, H, W], C 1, 3 or 4.")
        array = array[..., 0] if array.shape[-1] == 1 else array
    elif array.ndim != 2:
        raise PictureError(f"An array of [{shape}] is no picture; give [H, W, C] or [C, H, W], and several in a list.")
    if not array.size:
        raise PictureError(f"An array of [{shape}] holds no pixels; give a picture.")
    mode = "L" if array.ndim == 2 else CHANNELS[array.shape[-1]]
    return Image.fromarray(np.ascontiguousarray(_bytes(array)), mode)


def _bytes(array: np.ndarray) -> np.ndarray:
    """Values as bytes."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise PictureError(f"An array of {array.dtype} is no picture; give uint8 from 0 to 255, or floats from 0 to 1.")
    if not np.isfinite(array).all():
        raise PictureError("The picture's array holds values that are no numbers; give floats from 0 to 1.")
    least, most = float(array.min()), float(array.max())
    if least < -ROUNDING or most > 1 + ROUNDING:
        raise PictureError(
            f"The picture's array holds floats from {least:.3g} to {most:.3g}; give floats from 0 to 1, or uint8."
        )
    return (np.asarray(array, np.float64) * 255).round().clip(0, 255).astype(np.uint8)
