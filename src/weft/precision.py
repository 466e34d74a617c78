"""In which floating-point type a run computes: ``precision`` of its recipe, settled for the machine that it runs on."""

from __future__ import annotations

import platform
from dataclasses import replace

import torch

from weft.packing import multiplies_bfloat16
from weft.recipe import Recipe


def settled(recipe: Recipe, device: torch.device, before: str | None = None) -> Recipe:
    """A recipe that names a precision.

    Args:
        recipe: the recipe.
        device: where it is computed.
        before: the precision that the run has had so far; None for a new one.
    """
    if recipe.precision != "auto":
        return recipe
    narrow = before == "bf16" if before else has_bfloat16(device)
    return replace(recipe, precision="bf16" if narrow else "fp32")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16: a GPU since Ampere, a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not multiplies_bfloat16(device):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
