"""Where patches are: which of a vision model's outputs belongs to which place of its input, and where in a picture that
input came from.

Neither is read off a table of models: both are asked. :func:`find_layout` lets a model see noise with a dot in one
place and in another, and takes the layout whose patches answer; :func:`seen_part` gives an image processor pictures
whose brightness says where each pixel is, and fits a line to what comes out.

Notation: ``M`` pictures, ``N`` patches, ``D`` features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from weft.errors import PartError

MERGED = (1, 2, 4, 8, 16, 32)
"""How many patches side by side become one, at most, in models that merge them from stage to stage."""
OTHERS = 128
"""Tokens for something else (class, registers, detections) that stand beside the patches, at most."""
RAMP = 512
"""Longer side of the pictures with which an image processor is asked what it does to the geometry ..."""
LEAST = 64
"""... whose shorter side has so many pixels, if the picture has."""
Span = tuple[float, float]
"""From one edge to the other, in pixels of a picture."""


@dataclass(frozen=True)
class Layout:
    """Which of a model's outputs are patches, row by row.

    Attributes:
        rows: rows of patches.
        columns: patches in a row.
        kind: a feature map with channels in front or behind, or tokens.
        first: tokens in front of the patches.
    """

    rows: int
    columns: int
    kind: Literal["map", "map with channels last", "tokens"] = "tokens"
    first: int = 0

    def patches(self, output: Tensor, pictures: int) -> Float[Tensor, "M N D"]:
        """The features of patches.

        Args:
            output: what the model gives.
            pictures: of how many pictures; some models lay all their patches one behind the other.
        """
        if self.kind == "map":
            return output.flatten(2).transpose(1, 2)
        if self.kind == "map with channels last":
            return output.flatten(1, 2)
        tokens = output.reshape(pictures, -1, output.shape[-1])
        return tokens[:, self.first : self.first + self.rows * self.columns]


@torch.no_grad()
def find_layout(
    model: nn.Module, hidden: Callable[[Tensor], Tensor], like: Float[Tensor, "1 ..."], grid: tuple[int, int] | None
) -> tuple[Layout, int]:
    """The layout of a model's patches, and how many features each has.

    Args:
        model: the model.
        hidden: its output for prepared pictures.
        like: one such picture; or one that is cut into patches already.
        grid: rows and columns of patches that are cut already; None for pictures as such.

    Raises:
        PartError: it gives no patches, or not the same ones each time, or those do not answer to what lies in their
            places.
    """
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 * torch.randn(like.shape, generator=generator)
    first: list[tuple[int, int]] = [] if grid is None else [grid]
    handles = []

    def note(module: nn.Module, args: tuple, output: Tensor) -> None:
        if grid is None and isinstance(output, Tensor) and not first:
            first.append((output.shape[-2], output.shape[-1]))

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.in_channels <= 4:
            handles.append(module.register_forward_hook(note))
    try:
        plain = hidden(noise.to(like))
    finally:
        for handle in handles:
            handle.remove()
    if not torch.allclose(plain, hidden(noise.to(like)), atol=1e-3, equal_nan=True):
        raise PartError(
            f"{type(model).__name__} gives other patches of a picture each time, as one that hides some does; "
            "give an encoder that shows all of them."
        )
    found = list(_layouts(plain, first or _patch_grid(model, like)))
    if not found:
        raise PartError(f"{type(model).__name__} gives {tuple(plain.shape)}, in which no patches can be found.")
    coarse = min(found, key=lambda one: one.rows * one.columns)
    places = [
        (coarse.rows // 4, coarse.columns - 1 - coarse.columns // 4),
        (coarse.rows - 1 - coarse.rows // 4, coarse.columns // 4),
    ]
    dotted = noise.repeat(2, *[1] * (noise.ndim - 1))
    for picture, (row, column) in zip(dotted, places, strict=True):
        _dot(picture, row / coarse.rows, column / coarse.columns, coarse, grid)
    answer = hidden(dotted.to(like))
    centres = [((row + 0.5) / coarse.rows, (column + 0.5) / coarse.columns) for row, column in places]
    scored = [(*_answers(one, plain, answer, centres), -at, one) for at, one in enumerate(found)]
    clear, _, _, layout = max(scored, key=lambda one: one[:3])
    if not clear:
        raise PartError(
            f"{type(model).__name__} gives {tuple(plain.shape)}, in which patches do not answer to what lies in their "
            "places; give an encoder that keeps them in order."
        )
    return layout, layout.patches(plain, 1).shape[-1]


def _layouts(output: Tensor, grids: Sequence[tuple[int, int]]) -> Iterator[Layout]:
    """The layouts that an output of this shape may have, the likelier first."""
    if output.ndim == 4:
        yield Layout(output.shape[2], output.shape[3], "map")
        yield Layout(output.shape[1], output.shape[2], "map with channels last")
    elif output.ndim == 3:
        length, seen = output.shape[1], set()
        for rows, columns in grids:
            for merged in MERGED:
                for up in (0, merged - 1):
                    one = ((rows + up) // merged, (columns + up) // merged)
                    others = length - one[0] * one[1]
                    if one in seen or not one[0] * one[1] or not 0 <= others <= (OTHERS if merged == 1 else 1):
                        continue
                    seen.add(one)
                    for before in dict.fromkeys((others, *range(min(others, 2)))):  # all before, none, a class token
                        yield Layout(*one, first=before)


def _patch_grid(model: nn.Module, like: Tensor) -> list[tuple[int, int]]:
    """Rows and columns of patches of the size that a configuration names."""
    size = getattr(getattr(model, "config", None), "patch_size", None)
    pair = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(pair) != 2 or like.ndim != 4:
        return []
    return [(like.shape[-2] // pair[0], like.shape[-1] // pair[1])]


def _dot(picture: Tensor, top: float, left: float, layout: Layout, grid: tuple[int, int] | None) -> None:
    """Brighten the place of one patch."""
    if grid is not None:  # patches that are cut already, row by row
        picture[round(top * grid[0]) * grid[1] + round(left * grid[1])] += 3
        return
    height, width = picture.shape[-2:]
    rows = slice(int(top * height), max(int((top + 1 / layout.rows) * height), int(top * height) + 1))
    columns = slice(int(left * width), max(int((left + 1 / layout.columns) * width), int(left * width) + 1))
    picture[..., rows, columns] += 3


def _answers(
    layout: Layout, plain: Tensor, answer: Tensor, centres: Sequence[tuple[float, float]]
) -> tuple[bool, float]:
    """Whether the patches where the dots are answer to them, each more to its own; and how much more.

    Where there is one patch, or nothing answers at all, as in deep networks that have not learned, there is nothing to
    tell layouts apart by, and the likeliest is taken.
    """
    without = layout.patches(plain, 1)[0]
    moved = torch.stack([(with_dot.double() - without.double()).norm(dim=-1) for with_dot in layout.patches(answer, 2)])
    if layout.rows * layout.columns == 1 or not moved.any():
        return True, 0.0
    moved = moved + 1e-3 * moved.max()
    favour = (moved[0] / moved[1]).log()
    places = [int(y * layout.rows) * layout.columns + int(x * layout.columns) for y, x in centres]
    ours, theirs = favour[places[0]], favour[places[1]]
    clear = ours > theirs
    if layout.kind != "map":  # which hardly any model gives in another order, while convolutions may favour neighbours
        least = 0.75 * (len(favour) - 1)
        clear &= (favour < ours).sum() >= least and (favour > theirs).sum() >= least
    return bool(clear), float(ours - theirs)


def seen_part(
    size: tuple[int, int], prepare: Callable[[Image.Image], Float[np.ndarray, "channels rows columns"]]
) -> tuple[Span, Span]:
    """The part of a picture, from left to right and from top to bottom, that an image processor makes its output of.

    Black and white pictures tell what it does to brightness, whatever mean it subtracts, and what is padding.

    Args:
        size: width and height of the picture.
        prepare: what the processor makes of a picture.

    Raises:
        PartError: it turns pictures, bends them, or lets nothing of them through.
    """
    scale = min(1.0, max(RAMP / max(size), LEAST / min(size)))
    width, height = (max(2, round(side * scale)) for side in size)
    black, white = (prepare(Image.new("RGB", (width, height), colour)) for colour in ("black", "white"))
    real = is_real(black, white)
    places = []
    for axis, side, original in ((2, width, size[0]), (1, height, size[1])):
        line = np.linspace(0, 255, side).round().astype(np.uint8)
        ramp = np.broadcast_to(line[None] if axis == 2 else line[:, None], (height, width))
        seen = prepare(Image.fromarray(ramp).convert("RGB"))
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(real, 255 * (seen - black) / (white - black), np.nan)
        places.append(_line(values, axis, side) * original / side)
    return (float(places[0][0]), float(places[0][1])), (float(places[1][0]), float(places[1][1]))


def is_real(
    black: Float[np.ndarray, "channels rows columns"], white: Float[np.ndarray, "channels rows columns"]
) -> np.ndarray:
    """What of a processor's output comes from the picture, and not from padding.

    Raises:
        PartError: nothing does.
    """
    if black.shape != white.shape:
        raise PartError("The image processor gives pictures of the same size different shapes; give another one.")
    span = np.abs(white - black)
    if not span.max() > 0:
        raise PartError("The image processor makes the same of a white picture as of a black one; give another one.")
    return span > 1e-3 * span.max()


def _line(values: Float[np.ndarray, "channels rows columns"], axis: int, side: int) -> Float[np.ndarray, "2"]:
    """From where to where an output reaches along one of its axes, in pixels of the ramp that it was made of."""
    profiles = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    known = np.isfinite(profiles).any(1)
    profile = np.nanmean(profiles[known], 1)
    places = np.flatnonzero(known) + 0.5
    inside = (profile > 8) & (profile < 247)  # resampling bends a ramp at its ends
    if inside.sum() < 2:
        inside = np.ones_like(inside)
    if len(profile) < 2:  # a single row or column of patches, which sees what lies around its middle
        return np.array([0.0, side])
    slope, start = np.polyfit(places[inside], profile[inside] * (side - 1) / 255 + 0.5, 1)
    bent = np.abs(np.polyval((slope, start), places[inside]) - (profile[inside] * (side - 1) / 255 + 0.5)).max()
    turned = np.nanmax(np.nanmax(profiles[known][inside], 1) - np.nanmin(profiles[known][inside], 1))
    if slope <= 0 or bent > 0.05 * side or turned > 25:
        raise PartError("The image processor turns or bends pictures, or cuts them into several; give another one.")
    ends = np.array([start, start + slope * values.shape[axis]])
    near = 0.005 * side  # what lies so near to an edge of the picture is there
    return np.where(np.abs(ends) < near, 0, np.where(np.abs(ends - side) < near, side, ends))


def pair_of_processor(processor: Any) -> int | None:
    """The side of the squares to which a processor's settings lead; None where they name none."""
    size = getattr(processor, "size", None) or {}
    names = ("shortest_edge", "longest_edge", "height", "max_height", "width")
    found = (getattr(size, name, None) or (size.get(name) if hasattr(size, "get") else None) for name in names)
    return next((int(one) for one in found if one), None)
