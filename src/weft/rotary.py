"""How fast rotary positions turn: the frequencies of a language model, stretched for long texts as it was trained.

:func:`rotary_frequencies` is given the rotary settings of a configuration and hands on what transformers computes of
them, for the kinds that turn alike whatever the length of a text: Su et al. 2021 as it is, with all positions divided
(linear), with low frequencies divided (Llama 3.1), and YaRN (Peng et al. 2023). Transformers itself need not be
imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Rope = Mapping[str, Any]
"""Rotary settings by the names that transformers gives them (``rope_parameters``)."""


def rotary_frequencies(rope: Rope, head_dim: int) -> tuple[Float[Tensor, " half"], float]:
    """Radians by which each pair of a head's dimensions turns from one token to the next, and by how much queries and
    keys are scaled as they are turned.

    Args:
        rope: the rotary settings, of a kind in :data:`KINDS`.
        head_dim: width of a head, all of which turns.
    """
    frequencies = 1 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    return KINDS[rope["rope_type"]](frequencies, rope)


def _as_they_are(frequencies: Tensor, rope: Rope) -> tuple[Tensor, float]:
    return frequencies, 1.0


def _linear(frequencies: Tensor, rope: Rope) -> tuple[Tensor, float]:
    return frequencies / rope["factor"], 1.0


def _llama3(frequencies: Tensor, rope: Rope) -> tuple[Tensor, float]:
    """High frequencies stay, low ones are divided, those between are mixed by how often they turn in a short text."""
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    stays = ((turns - low) / (high - low)).clamp(0, 1)
    return stays * frequencies + (1 - stays) * frequencies / rope["factor"], 1.0


def _yarn(frequencies: Tensor, rope: Rope) -> tuple[Tensor, float]:
    """The same by place among the dimensions, and sharper attention the longer texts may be."""
    theta, short, factor = rope["rope_theta"], rope["original_max_position_embeddings"], rope["factor"]
    half = len(frequencies)

    def place(turns: float) -> float:
        """The pair of dimensions that turns so often in a short text."""
        return half * math.log(short / (turns * 2 * math.pi)) / math.log(theta)

    low, high = place(rope.get("beta_fast") or 32), place(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    divided = ((torch.arange(half) - low) / (max(high - low, 1e-3))).clamp(0, 1)
    scale = rope.get("attention_factor")
    if scale is None:
        scale, whole = rope.get("mscale"), rope.get("mscale_all_dim")
        scale = _sharper(factor, scale) / _sharper(factor, whole) if scale and whole else _sharper(factor, 1)
    return divided * frequencies / factor + (1 - divided) * frequencies, float(scale)


def _sharper(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


KINDS: dict[str, Callable[[Tensor, Rope], tuple[Tensor, float]]] = {
    "default": _as_they_are,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
"""Kinds of rotary positions, by the names that transformers gives them."""
