"""Regions of a picture that can be taken away: windows of several sizes over its patches.

Given where a picture's patches are, :func:`windows` hands on regions that together cover it, size by size, and
:func:`tokens_of_region` the tokens of its memory that go with one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from weft.memory import Picture

SIZES = ((1 / 3, 4), (5 / 9, 3))
"""Shares of a picture's sides that a window takes, each with how many windows stand along a side."""


def windows(source: Picture) -> list[Bool[np.ndarray, "W N"]]:
    """Windows over a picture's patches, for each size those that together cover the picture.

    Args:
        source: where the patches are.

    Returns:
        For each size its windows; True where a patch lies in one.
    """
    row, column = _grid(source)
    return [
        np.array(
            [
                (top <= row) & (row < top + height) & (left <= column) & (column < left + width)
                for height, top in _intervals(row.max() + 1, share, count)
                for width, left in _intervals(column.max() + 1, share, count)
            ]
        )
        for share, count in SIZES
    ]


def random_window(source: Picture, patches: int, random: np.random.Generator) -> Int[np.ndarray, " P"]:
    """So many patches that lie together, as nearly in a square as the picture allows, somewhere in it.

    Args:
        source: where the patches are.
        patches: how many.
        random: decides where.
    """
    row, column = _grid(source)
    rows, columns = row.max() + 1, column.max() + 1
    width = min(columns, max(round(patches**0.5), -(-patches // rows)))
    height = min(rows, -(-patches // width))
    top, left = random.integers(rows - height + 1), random.integers(columns - width + 1)
    inside = (top <= row) & (row < top + height) & (left <= column) & (column < left + width)
    return np.flatnonzero(inside)[:patches]


def tokens_of_region(source: Picture, region: Bool[np.ndarray, " N"], tokens: int) -> Bool[np.ndarray, " S"]:
    """The tokens of a picture's memory that go with a region: its patches, and names of what lies mostly in it.

    Args:
        source: where the patches, which are the memory's first tokens, are.
        region: True for a patch of the region.
        tokens: tokens of the memory.
    """
    gone = np.zeros(tokens, bool)
    gone[: len(region)] = region
    for name in getattr(source, "names", ()):
        if name.place[region].sum() > 0.5:
            gone[list(name.tokens)] = True
    return gone


def covered(values: Float[np.ndarray, "W T"], regions: Bool[np.ndarray, "W N"]) -> Float[np.ndarray, "T N"]:
    """Values of windows of one size as values of patches: each window's is spread over its patches, and a patch has the
    mean of what it gets from the windows that cover it."""
    weights = regions / regions.sum(1, keepdims=True)
    return values.T @ (weights / np.maximum(regions.sum(0), 1))


def _grid(source: Picture) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Row and column of each patch."""
    x, y = source.rectangles.reshape(-1, 2, 2).mean(1).round(3).T
    return np.unique(y, return_inverse=True)[1], np.unique(x, return_inverse=True)[1]


def _intervals(length: int, share: float, count: int) -> Sequence[tuple[int, int]]:
    """Intervals of a share of a length, evenly over it: length and beginning of each."""
    size = max(1, round(length * share))
    return [(size, int(start)) for start in np.unique(np.linspace(0, length - size, count).round())]
