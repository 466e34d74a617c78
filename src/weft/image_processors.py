"""The image processor of a vision model: what turns a picture into the tensor that the model takes.

It is loaded from the model's folder, in the version that computes with Pillow. One that transformers has for
torchvision alone (DINOv3's) is made anew from its settings where these say all that it does, and a model that comes
without one gets what its configuration and its family suggest.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from weft.errors import PartError

SETTINGS = "preprocessor_config.json"
PLAIN = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_convert_rgb"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
"""Settings of a processor that does no more than resize, crop and normalize."""


def load_image_processor(folder: Path) -> Any:
    """The image processor that a folder holds; None where it holds none.

    Raises:
        PartError: it can't be loaded.
    """
    from transformers import AutoImageProcessor

    if not any((folder / name).is_file() for name in (SETTINGS, "processor_config.json")):
        return None
    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil")
    except (ImportError, ValueError, OSError, KeyError, TypeError) as error:
        return _from_settings(folder, error)


def _from_settings(folder: Path, error: Exception) -> Any:
    """A processor that does what the settings of another say, which can't be loaded."""
    from transformers import BitImageProcessorPil

    file = folder / SETTINGS
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    more = [name for name, value in settings.items() if name.startswith("do_") and value and name not in PLAIN]
    if "size" not in settings or more:
        what = settings.get("image_processor_type", "its class")
        why = " ".join(str(error).split())
        hint = "pip install torchvision, or " if "torchvision" in why.lower() else ""
        raise PartError(f"The image processor in {folder} ({what}) can't be loaded; {hint}give another encoder: {why}")
    known = {name: settings[name] for name in PLAIN if settings.get(name) is not None}
    return BitImageProcessorPil(**{"do_center_crop": False, "do_convert_rgb": True, **known})


def made_for(model: nn.Module) -> Any:
    """An image processor for a vision model that comes without one: whole pictures, squeezed to the size in its
    configuration, normalized as is usual in its family. A warning says so.

    Raises:
        PartError: its configuration names no size.
    """
    from transformers import BitImageProcessorPil

    config: Any = getattr(model, "config", None)
    usual = _of_family(str(getattr(config, "model_type", "")))
    if hasattr(usual, "max_num_patches") and getattr(config, "num_patches", None):
        return usual(patch_size=config.patch_size, max_num_patches=config.num_patches)
    size = getattr(config, "image_size", None)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if not isinstance(height, int) or not isinstance(width, int):
        raise PartError(
            f"{type(model).__name__} comes without an image processor, and its configuration names no size of "
            "pictures; save both into one folder, and give that."
        )
    mean = list(getattr(usual, "image_mean", None) or (0.5, 0.5, 0.5))
    std = list(getattr(usual, "image_std", None) or (0.5, 0.5, 0.5))
    warnings.warn(
        f"{type(model).__name__} comes without an image processor: pictures are squeezed to {width} by {height} pixels "
        f"and normalized by mean {mean} and standard deviation {std}; if it learned otherwise, save its own beside it.",
        stacklevel=2,
    )
    return BitImageProcessorPil(
        size={"height": height, "width": width}, do_center_crop=False, image_mean=mean, image_std=std
    )


def _of_family(model_type: str) -> Any:
    """The class of the image processors of a family; that of a vision tower is its family's."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES as NAMES

    for ending in ("", "_vision_model", "_vision"):
        if model_type.endswith(ending) and (found := NAMES.get(model_type.removesuffix(ending))):
            return getattr(transformers, found.get("pil") or "", None)
    return None
