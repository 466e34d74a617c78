"""Vision encoders: frozen models that turn pictures into patch features, and know where each patch came from.

:func:`load_vision_encoder` is given a part, a folder or a Hub id and hands on a :class:`VisionEncoder`, whose
``encode`` makes a :class:`~weft.memory.Memory` of pictures. Models of transformers are taken by structure: whatever
gives a feature map or a sequence of patches will do.
"""

from __future__ import annotations

import inspect
import math
import shutil
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from weft.errors import PartError
from weft.image_processors import load_image_processor, made_for
from weft.images import decode
from weft.memory import Memory, Picture, content_hash
from weft.parts import ResolvedPart, resolve
from weft.patches import Span, find_layout, is_real, pair_of_processor, seen_part
from weft.whole_files import read_fields, read_tensors

EFFICIENTNET = "efficientnet-lite2"
_AGAIN = "copy the encoder again, or fetch it with `weft pull`."
_CUT = ("do_image_splitting", "crop_to_patches", "do_pan_and_scan")
"""Settings with which image processors make several pictures of one."""
_TOWERS = ("vision_model", "vision_tower", "visual", "vision_encoder", "image_tower", "image_model")
"""What transformers calls the part of a model that sees."""


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
        pixel_values, sources = self.preprocess(pictures)
        parameter = next(self.parameters())
        with torch.no_grad():
            features = self(pixel_values.to(parameter.device, parameter.dtype))
        key = content_hash(self.id, self.sha256, str(parameter.dtype), pixel_values.numpy().tobytes())
        return Memory(features, sources, key=key)

    def preprocess(self, pictures: Sequence[Any]) -> tuple[Float[Tensor, "M 3 height width"], tuple[Picture, ...]]:
        """Pictures as the encoder takes them, and where in each its patches are; arguments and errors as for
        :meth:`encode`. They are decoded one after another: one takes a hundred times what is made of it."""
        pixels, sources = [], []
        for picture in pictures:
            decoded = decode(picture)
            pixels.append(self.pixels(decoded.image))
            sources.append(Picture(decoded.size, self.rectangles(decoded.size), decoded.name))
        return torch.stack(pixels), tuple(sources)

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

        with torch.device("meta"):
            model = EfficientNet.from_name(EFFICIENTNET)
        model.load_state_dict(read_tensors(folder / "model.safetensors", _AGAIN), assign=True)
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

    Where each patch is, is asked of the two (:mod:`weft.patches`). Processors that keep a picture's proportions without
    cropping it would give each picture a shape, or padding, of its own; such pictures are squeezed first.

    Args:
        model: the model; of a model with two towers its vision tower.
        processor: its image processor.
        id: name by which it can be found again.
        sha256: hash of its weights' file.

    Raises:
        PartError: the model takes no pictures or gives no patches, or the processor does more to pictures than resize,
            crop and normalize them.
    """

    def __init__(self, model: nn.Module, processor: Any, *, id: str = "", sha256: str = "") -> None:
        super().__init__(model, id=id, sha256=sha256, width=0, grid=(0, 0))
        self.processor = processor
        self._whole = {name: False for name in _CUT if getattr(processor, name, None)}
        self.patches: tuple[int, int] | None = None  # rows and columns of those that the processor cuts
        self.square: tuple[int, int] | None = None
        try:
            self.square = self._squeezed()
            self.geometry = lru_cache(maxsize=1024)(self._geometry)
            for size in ((96, 64), (64, 96)):
                self.geometry(size)
            probe = self.pixels(Image.new("RGB", (64, 64)))[None].to(self.model.device, self.model.dtype)
        except PartError:
            raise
        except Exception as error:  # whatever an image processor may say
            raise PartError(f"{type(processor).__name__} can't prepare pictures for Weft ({error!r}).") from error
        try:
            self.layout, self.width = find_layout(model, self._hidden, probe, self.patches)
        except PartError:
            raise
        except Exception as error:  # whatever a model may say that takes something else
            raise PartError(f"{type(model).__name__} does not take pictures ({error}); give a vision model.") from error
        self.grid = (self.layout.rows, self.layout.columns)

    @property
    def prefix(self) -> int:
        """Tokens before the patches (class, registers)."""
        return self.layout.first

    def _squeezed(self) -> tuple[int, int] | None:
        """Width and height to which pictures are squeezed, so that all come out alike and without padding; None where
        they do by themselves."""
        if self._process(Image.new("RGB", (64, 64))).ndim == 2:
            side = self.processor.patch_size * math.isqrt(self.processor.max_num_patches)
            self.square = (side, side)
            (rows, columns) = self._patch_grid(Image.new("RGB", self.square))
            self.patches = rows, columns
            return self.square
        sizes = ((64, 64), (64, 96), (96, 64))
        shapes = [self._process(Image.new("RGB", size)).shape for size in sizes]
        if len(set(shapes)) > 1:
            side = pair_of_processor(self.processor) or max(shapes[0][-2:])
            return side, side
        for size in sizes[1:]:
            black, white = (self._process(Image.new("RGB", size, name)).double().numpy() for name in ("black", "white"))
            if not is_real(black, white).all():
                return shapes[0][-1], shapes[0][-2]
        return None

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: without what it remembers of geometry, which the copy finds out anew."""
        return {name: value for name, value in vars(self).items() if name != "geometry"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.geometry = lru_cache(maxsize=1024)(self._geometry)

    def forward(self, pixel_values: Float[Tensor, "M ..."]) -> Float[Tensor, "M N D"]:
        """Features of prepared pictures."""
        return self.layout.patches(self._hidden(pixel_values), len(pixel_values))

    def _hidden(self, pixel_values: Tensor) -> Tensor:
        if self.patches is None:
            return self.model(pixel_values=pixel_values).last_hidden_state
        shapes = torch.tensor([self.patches] * len(pixel_values), device=pixel_values.device)
        mask = torch.ones(pixel_values.shape[:2], dtype=torch.long, device=pixel_values.device)
        return self.model(pixel_values, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state

    def pixels(self, image: Image.Image) -> Float[Tensor, "..."]:
        if self.square is not None:
            image = image.resize(self.square, Image.Resampling.BICUBIC)
        return self._process(image)

    def _process(self, image: Image.Image) -> Tensor:
        """What the processor makes of a picture: pixels, or patches of them without padding."""
        made = self.processor(images=image, return_tensors="pt", **self._whole)
        values = made["pixel_values"][0]
        while values.ndim > 3 and len(values) == 1:
            values = values[0]
        if values.ndim == 2 and "spatial_shapes" in made:
            return values[made["pixel_attention_mask"][0].bool()]
        if values.ndim != 3:
            raise PartError(
                f"{type(self.processor).__name__} makes {tuple(made['pixel_values'].shape)} of a picture, not one of "
                "channels, rows and columns; give an encoder that takes pictures whole."
            )
        return values

    def _patch_grid(self, image: Image.Image) -> tuple[int, int]:
        rows, columns = self.processor(images=image, return_tensors="pt")["spatial_shapes"][0].tolist()
        return rows, columns

    def _planes(self, image: Image.Image) -> Float[np.ndarray, "channels rows columns"]:
        """What it makes of a picture as planes; of patches that are cut already one value each."""
        values = self.pixels(image).double()
        return values.numpy() if self.patches is None else values.mean(-1).view(1, *self.patches).numpy()

    def rectangles(self, size: tuple[int, int]) -> Float[np.ndarray, "N 4"]:
        return self._cut(*self.geometry(size))

    def _geometry(self, size: tuple[int, int]) -> tuple[Span, Span]:
        """The part of a picture that the processor makes its output of."""
        if self.square is None or size == self.square:
            return seen_part(size, self._planes)
        (left, right), (top, bottom) = self.geometry(self.square)
        across, down = size[0] / self.square[0], size[1] / self.square[1]
        return (left * across, right * across), (top * down, bottom * down)

    def save_pretrained(self, folder: str | Path) -> None:
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def encoder_from_model(model: nn.Module, processor: Any = None, *, id: str = "", sha256: str = "") -> VisionEncoder:
    """An encoder of a vision model of transformers that is loaded already.

    Args:
        model: the model, or one with two towers (CLIP, SigLIP, LLaVA), of which the vision tower is taken.
        processor: its Pillow-backed image processor; by default one is made from its configuration.
        id: name by which it can be found again.
        sha256: hash of its weights' file.

    Raises:
        PartError: it can't be used; the message says why.
    """
    tower = _tower(model)
    _check_sees(type(tower))
    return TransformersEncoder(tower, processor or made_for(tower), id=id, sha256=sha256)


def _tower(model: Any) -> nn.Module:
    """The vision tower of a model that has another beside it."""
    if not hasattr(getattr(model, "config", None), "vision_config"):
        return getattr(model, "vision_model", model)
    for holder in (model, getattr(model, "base_model", model)):
        for name in _TOWERS:
            if isinstance(found := getattr(holder, name, None), nn.Module):
                return found
    return model


def load_vision_encoder(
    part: str | Path | ResolvedPart | nn.Module, *, dtype: torch.dtype = torch.float32
) -> VisionEncoder:
    """Load a vision encoder.

    Args:
        part: a part that Weft knows (``"efficientnet-lite2"``), a folder, a Hub id, a part that has been found, or a
            loaded model of transformers. Its image processor is looked for where it was loaded from; of a loaded model
            that comes without one it is made from its configuration.
        dtype: floating-point type.

    Raises:
        PartError: there is no encoder, or it gives no patches.
    """
    if isinstance(part, nn.Module):
        where = _where(part)
        processor = None if where is None else load_image_processor(where.path)
        found = where or ResolvedPart("", Path(), "")
        made = encoder_from_model(part.eval(), processor, id=found.id, sha256=found.sha256 if where else "")
        return made.to(dtype=dtype)
    found = part if isinstance(part, ResolvedPart) else resolve(part)
    file = found.path / "config.json"
    if not file.is_file():
        raise PartError(
            f"{part} holds no encoder: config.json is missing; give the folder or Hub id of a vision model."
        )
    if read_fields(file, _AGAIN).get("model_type") == EFFICIENTNET:
        return EfficientNetLite2.load(found.path, id=found.id, sha256=found.sha256).to(dtype=dtype)
    model = _loaded(found.path, dtype)
    processor = load_image_processor(found.path)
    return encoder_from_model(model, processor, id=found.id, sha256=found.sha256).to(dtype=dtype)


def _check_sees(kind: type[nn.Module]) -> None:
    """See to it that a kind of model takes pictures.

    Raises:
        PartError: it does not.
    """
    if "pixel_values" not in inspect.signature(kind.forward).parameters:
        raise PartError(
            f"{kind.__name__} does not take pictures (pixel_values); give a vision model as vision=..., or what reads "
            "texts as text=..."
        )


def _where(model: nn.Module) -> ResolvedPart | None:
    """Where a loaded model came from; None for one that was made in memory, or whose folder has gone."""
    name = str(getattr(model, "name_or_path", ""))
    if not name:
        return None
    try:
        return resolve(name)
    except PartError:
        return None


def _loaded(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The vision model, or the one with a vision tower, that a folder holds.

    Raises:
        PartError: it holds none that transformers knows.
    """
    from transformers import MODEL_MAPPING, AutoConfig, AutoModel  # seconds, for which EfficientNet need not wait

    try:
        config = AutoConfig.from_pretrained(folder)
        home = import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
        name = (config.architectures or [""])[0]
        # A tower that was saved by itself is none of those that transformers loads automatically.
        kind = getattr(home, name, None) if "For" not in name else None
        loads = kind or AutoModel
        kind = kind or MODEL_MAPPING[type(config)]
        _check_sees(kind)
        return loads.from_pretrained(folder, dtype=dtype).eval()
    except (OSError, ValueError, KeyError, AttributeError, ImportError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise PartError(f"{folder} can't be loaded as a vision encoder ({why}).") from error
