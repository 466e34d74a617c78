"""Vision encoders: frozen models that turn pictures into patch features, and know where each patch came from.

:func:`load_vision_encoder` is given a part, a folder or a Hub id and hands on a :class:`VisionEncoder`, whose
``encode`` makes a :class:`~weft.memory.Memory` of pictures. Models of transformers are taken by structure: whatever
gives a feature map or a sequence of patches will do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from weft.errors import PartError
from weft.images import load_image, picture_name
from weft.memory import Memory, Picture, content_hash
from weft.parts import ResolvedPart, resolve

EFFICIENTNET = "efficientnet-lite2"
RAMP = 512
"""Longer side of the picture with which an image processor is asked what it does to the geometry."""


class VisionEncoder(nn.Module):
    """A frozen vision encoder.

    Attributes:
        id: name by which it can be found again; empty for one that was made in memory.
        sha256: hash of its weights' file.
        width: features a token has, ``D``.
        grid: rows and columns of patches.
    """

    def __init__(self, model: nn.Module, *, id: str, sha256: str, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.model: Any = model
        self.id, self.sha256, self.width, self.grid = id, sha256, width, grid
        self.requires_grad_(False).eval()

    @property
    def tokens(self) -> int:
        """Patches of a picture, ``N``."""
        return self.grid[0] * self.grid[1]

    def train(self, mode: bool = True) -> VisionEncoder:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    @property
    def classifier(self) -> tuple[nn.Linear, list[str]] | None:
        """The linear classifier over the mean feature that it was trained with, and a noun for each class, if any."""
        return None

    def encode(self, pictures: Sequence[Any]) -> Memory:
        """Features of pictures.

        Args:
            pictures: paths, bytes, file objects or Pillow images.

        Raises:
            PictureError: one of them can't be read.
        """
        return self.encode_images([load_image(one) for one in pictures], [picture_name(one) for one in pictures])

    def encode_images(self, images: Sequence[Image.Image], names: Sequence[str] | None = None) -> Memory:
        """Features of pictures that have been loaded; arguments as for :meth:`preprocess`."""
        pixel_values, sources = self.preprocess(images, names)
        parameter = next(self.parameters())
        with torch.no_grad():
            features = self(pixel_values.to(parameter.device, parameter.dtype))
        key = content_hash(self.id, self.sha256, str(parameter.dtype), pixel_values.numpy().tobytes())
        return Memory(features, sources, key=key)

    def preprocess(
        self, images: Sequence[Image.Image], names: Sequence[str] | None = None
    ) -> tuple[Float[Tensor, "M 3 height width"], tuple[Picture, ...]]:
        """Pictures as the encoder takes them, and where in each its patches are.

        Args:
            images: upright RGB pictures.
            names: what to call them.
        """
        names = names or [picture_name(image) for image in images]
        sources = tuple(
            Picture(image.size, self.rectangles(image.size), name) for image, name in zip(images, names, strict=True)
        )
        return torch.stack([self.pixels(image) for image in images]), sources

    def pixels(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """One picture as the encoder takes it."""
        raise NotImplementedError

    def rectangles(self, size: tuple[int, int]) -> Float[np.ndarray, "N 4"]:
        """For each patch its ``(left, top, right, bottom)`` in a picture of this width and height."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder from which :func:`load_vision_encoder` gets it back."""
        raise NotImplementedError

    def _cut(self, across: tuple[float, float], down: tuple[float, float]) -> Float[np.ndarray, "N 4"]:
        """Patches of a grid over a part of a picture, row by row."""
        rows, columns = self.grid
        x = np.linspace(*across, columns + 1)
        y = np.linspace(*down, rows + 1)
        left, top = np.meshgrid(x[:-1], y[:-1])
        right, bottom = np.meshgrid(x[1:], y[1:])
        return np.stack([left, top, right, bottom], -1).reshape(-1, 4)


class EfficientNetLite2(VisionEncoder):
    """EfficientNet-Lite2 trained on ImageNet (Tan and Le 2019; Liu 2020): 9 by 9 patches of 1,280 features.

    The whole picture is squeezed to 260 by 260 pixels, so that nothing of it is cut off.
    """

    SIZE = 260

    def __init__(self, model: nn.Module, *, id: str, sha256: str, folder: Path) -> None:
        super().__init__(model, id=id, sha256=sha256, width=1280, grid=(9, 9))
        self.folder = folder

    @classmethod
    def load(cls, folder: Path, *, id: str, sha256: str) -> EfficientNetLite2:
        """Load the converted weights."""
        from efficientnet_lite_pytorch import EfficientNet  # only this encoder needs it
        from safetensors.torch import load_file

        with torch.device("meta"):
            model = EfficientNet.from_name(EFFICIENTNET)
        model.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        return cls(model.to(memory_format=torch.channels_last), id=id, sha256=sha256, folder=folder)

    @property
    def classifier(self) -> tuple[nn.Linear, list[str]]:
        """ImageNet's classes; of 118 breeds the noun is "dog"."""
        return self.model._fc, _imagenet_nouns()

    def forward(self, pixel_values: Float[Tensor, "M 3 260 260"]) -> Float[Tensor, "M 81 1280"]:
        """Features of prepared pictures."""
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        return self.model.extract_features(pixel_values).flatten(2).transpose(1, 2)

    def pixels(self, image: Image.Image) -> Float[Tensor, "3 260 260"]:
        squeezed = image.resize((self.SIZE, self.SIZE), Image.Resampling.BICUBIC)
        return torch.from_numpy((np.asarray(squeezed, np.float32) - 127) / 128).permute(2, 0, 1)

    def rectangles(self, size: tuple[int, int]) -> Float[np.ndarray, "81 4"]:
        return self._cut((0, size[0]), (0, size[1]))

    def save_pretrained(self, folder: str | Path) -> None:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


@lru_cache(maxsize=1)
def _imagenet_nouns() -> list[str]:
    """A plain noun for each of ImageNet's 1,000 classes, in their usual order."""
    return Path(__file__).with_name("imagenet_nouns.txt").read_text(encoding="utf-8").splitlines()


class TransformersEncoder(VisionEncoder):
    """A vision model of transformers with its Pillow-backed image processor.

    What the processor does to the geometry (resize, crop, padding) is found by giving it a picture whose colours say
    where each pixel is. Processors that keep a picture's proportions without cropping it would give each picture a
    shape of its own; such pictures are squeezed to a square first.

    Args:
        model: the model; of a model with two towers its vision tower.
        processor: its image processor.
        id: name by which it can be found again.
        sha256: hash of its weights' file.
    """

    def __init__(self, model: nn.Module, processor: Any, *, id: str = "", sha256: str = "") -> None:
        super().__init__(model, id=id, sha256=sha256, width=0, grid=(0, 0))
        self.processor = processor
        self.square: int | None = None
        shapes = {self._process(Image.new("RGB", size)).shape for size in ((64, 64), (64, 96), (96, 64))}
        self.patches = len(next(iter(shapes))) == 2  # patches cut already, as SigLIP 2 with flexible resolution takes
        if self.patches:
            self.square = processor.patch_size * int(processor.max_num_patches**0.5)
        elif len(shapes) > 1:
            edge = processor.size.get("shortest_edge") or processor.size.get("longest_edge")
            self.square = int(edge)
        self.geometry = lru_cache(maxsize=1024)(self._geometry)
        probe = self.pixels(Image.new("RGB", (64, 64)))[None].to(self.model.device, self.model.dtype)
        try:
            with torch.no_grad():
                output = self._hidden(probe)
        except (TypeError, ValueError, AttributeError) as error:
            raise PartError(f"{type(model).__name__} does not take pictures ({error}); give a vision model.") from None
        self.width = output.shape[1] if output.ndim == 4 else output.shape[2]
        self.grid, self.prefix = self._layout(output, probe)

    def _layout(self, output: Tensor, pixel_values: Tensor) -> tuple[tuple[int, int], int]:
        """Rows and columns of patches, and the tokens before them (class, registers).

        Raises:
            PartError: the model gives no patches.
        """
        if output.ndim == 4:
            return (output.shape[2], output.shape[3]), 0
        length = output.shape[1]
        if self.patches:
            side = int(self.processor.max_num_patches**0.5)
            return (side, side), length - side * side
        patch = getattr(self.model.config, "patch_size", None)
        if isinstance(patch, int):
            rows, columns = pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch
            for merged in (1, 2, 4, 8, 16):  # hierarchical models merge patches from stage to stage
                tokens = (rows // merged) * (columns // merged)
                if tokens and 0 <= length - tokens <= (32 if merged == 1 else 0):
                    return (rows // merged, columns // merged), length - tokens
        raise PartError(f"{type(self.model).__name__} gives {tuple(output.shape)}, in which no patches can be found.")

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: without what it remembers of geometry, which the copy finds out anew."""
        return {name: value for name, value in vars(self).items() if name != "geometry"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.geometry = lru_cache(maxsize=1024)(self._geometry)

    def forward(self, pixel_values: Float[Tensor, "M ..."]) -> Float[Tensor, "M N D"]:
        """Features of prepared pictures."""
        output = self._hidden(pixel_values)
        if output.ndim == 4:
            return output.flatten(2).transpose(1, 2)
        return output[:, self.prefix :]

    def _hidden(self, pixel_values: Tensor) -> Tensor:
        if not self.patches:
            return self.model(pixel_values=pixel_values).last_hidden_state
        side = int(self.processor.max_num_patches**0.5)
        shapes = torch.full((len(pixel_values), 2), side, device=pixel_values.device)
        mask = torch.ones(pixel_values.shape[:2], dtype=torch.long, device=pixel_values.device)
        return self.model(pixel_values, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state

    def pixels(self, image: Image.Image) -> Float[Tensor, "..."]:
        if self.square is not None:
            image = image.resize((self.square, self.square), Image.Resampling.BICUBIC)
        return self._process(image)

    def _process(self, image: Image.Image, **options: Any) -> Tensor:
        return self.processor(images=image, return_tensors="pt", **options)["pixel_values"][0]

    def rectangles(self, size: tuple[int, int]) -> Float[np.ndarray, "N 4"]:
        if self.square is not None:
            return self._cut((0, size[0]), (0, size[1]))
        return self._cut(*self.geometry(size))

    def _geometry(self, size: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
        """The part of a picture, from left to right and from top to bottom, that the processor makes its output of."""
        scale = min(1.0, RAMP / max(size))
        width, height = (max(2, round(side * scale)) for side in size)
        ramp = np.full((height, width, 3), 255, np.uint8)  # blue tells the picture from padding
        ramp[..., 0] = np.linspace(0, 255, width)[None].round()
        ramp[..., 1] = np.linspace(0, 255, height)[:, None].round()
        seen = self._process(Image.fromarray(ramp), do_rescale=False, do_normalize=False).float().numpy()
        real = seen[2] > 254
        edges = []
        for channel, side, original in ((0, width, size[0]), (1, height, size[1])):
            profile = np.where(real, seen[channel], np.nan)
            values = np.nanmean(profile, axis=0 if channel == 0 else 1)
            places = np.arange(len(values)) + 0.5
            inside = np.isfinite(values) & (values > 8) & (values < 247)  # resampling bends the ramp at its ends
            slope, start = np.polyfit(places[inside], values[inside] * (side - 1) / 255 + 0.5, 1)
            edges.append((start * original / side, (start + slope * len(values)) * original / side))
        return edges[0], edges[1]

    def save_pretrained(self, folder: str | Path) -> None:
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def encoder_from_model(model: nn.Module, processor: Any, *, id: str = "", sha256: str = "") -> VisionEncoder:
    """An encoder of a vision model of transformers that is loaded already.

    Args:
        model: the model, or one with two towers (CLIP, SigLIP), of which the vision tower is taken.
        processor: its Pillow-backed image processor.
        id: name by which it can be found again.
        sha256: hash of its weights' file.
    """
    return TransformersEncoder(getattr(model, "vision_model", model), processor, id=id, sha256=sha256)


def load_vision_encoder(
    part: str | Path | ResolvedPart | nn.Module, *, dtype: torch.dtype = torch.float32
) -> VisionEncoder:
    """Load a vision encoder.

    Args:
        part: a part that Weft knows (``"efficientnet-lite2"``), a folder, a Hub id, a part that has been found, or a
            loaded model of transformers, whose image processor is looked for where it was loaded from.
        dtype: floating-point type.

    Raises:
        PartError: there is no encoder, or it gives no patches.
    """
    if isinstance(part, nn.Module):
        from transformers import AutoImageProcessor

        where = resolve(str(part.name_or_path))
        processor = AutoImageProcessor.from_pretrained(where.path, backend="pil")
        return encoder_from_model(part.eval(), processor, id=where.id, sha256=where.sha256).to(dtype=dtype)
    found = part if isinstance(part, ResolvedPart) else resolve(part)
    config = found.path / "config.json"
    if not config.is_file():
        raise PartError(
            f"{part} holds no encoder: config.json is missing; give the folder or Hub id of a vision model."
        )
    if json.loads(config.read_text(encoding="utf-8")).get("model_type") == EFFICIENTNET:
        return EfficientNetLite2.load(found.path, id=found.id, sha256=found.sha256).to(dtype=dtype)
    from transformers import AutoImageProcessor, AutoModel  # seconds, which the encoder above need not wait for

    model = AutoModel.from_pretrained(found.path, dtype=dtype)
    processor = AutoImageProcessor.from_pretrained(found.path, backend="pil")
    return encoder_from_model(model.eval(), processor, id=found.id, sha256=found.sha256)
