"""Weights in few bits, for decoding on a CPU: a row that decodes a token reads all of them, and little else takes time.

A :class:`Packed` matrix is kept as PyTorch's own kernels take it: four bits a weight with a scale and a least value for
every :data:`GROUP` weights of a row, or eight bits with a scale for every row. Four bits in such groups are what GGUF's
``Q4_1`` holds, so a language model that was distributed in that type comes through unchanged; :func:`pack` measures it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Quantize = Literal["int8", "int4"]
"""Bits in which a matrix is kept for decoding."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16; emulated they take many times as long."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


NATIVE = multiplies_bfloat16(torch.device("cpu"))
"""Whether this processor does."""
FEW = 32 if NATIVE else sys.maxsize
"""Tokens up to which packed weights are faster than the weights as they are: from there on computing takes longer."""
GROUP = 32
"""Weights of a row that share a scale and a least value, of 4 bits each."""
ROUNDING = 2**-7
"""What packing may change without a loss, as a share of the largest weight: bfloat16 rounds the weight, its group's
step and its group's middle by 2⁻⁹ each, and the step follows from ends that were rounded."""
_BLOCK = 64
"""Rows in whole numbers of which PyTorch's kernel for 4 bits is fast, and lays them out."""
_AT_ONCE = 1 << 18
"""Weights that are packed at once: packing takes a multiple of their memory."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix of ``rows`` outputs by ``columns`` inputs, in few bits.

    Attributes:
        bits: 4 or 8.
        weights: as PyTorch's kernel takes them.
        scales: of 8 bits one a row; of 4 bits a scale and a middle for each group, ``[groups, rows, 2]``.
        error: largest difference to the matrix that was packed, as a share of that matrix's largest weight.
    """

    bits: Literal[4, 8]
    weights: Tensor
    scales: Tensor
    error: float

    def __call__(self, x: Float[Tensor, "N columns"]) -> Float[Tensor, "N rows"]:
        """The product, in the type of ``x``, which is that of the scales."""
        if self.bits == 8:
            return torch._weight_int8pack_mm(x, self.weights, self.scales)
        return torch._weight_int4pack_mm_for_cpu(x, self.weights, GROUP, self.scales)


def fits(weight: Tensor, quantize: Quantize) -> bool:
    """Whether a matrix has a shape that can be packed so."""
    return quantize == "int8" or (weight.shape[0] % _BLOCK == 0 and weight.shape[1] % GROUP == 0)


@torch.no_grad()
def pack(weight: Float[Tensor, "rows columns"], quantize: Quantize, dtype: torch.dtype) -> Packed:
    """A matrix in few bits: each value goes to the nearest of evenly spaced levels.

    Args:
        weight: the matrix, on a CPU.
        quantize: ``"int8"``: 255 levels symmetric around zero for each row; ``"int4"``: 16 levels from the least to the
            greatest of each group.
        dtype: floating-point type of what it will be multiplied by.
    """
    kind = _eight_bits if quantize == "int8" else _four_bits
    at_once = max(_BLOCK, _AT_ONCE // weight.shape[1] // _BLOCK * _BLOCK)
    weights, scales, lost = zip(*(kind(rows.float(), dtype) for rows in weight.split(at_once)), strict=True)
    largest, along = max(map(abs, map(float, weight.aminmax()))), 0 if quantize == "int8" else -2
    error = max(lost) / max(largest, 1e-12)
    return Packed(8 if quantize == "int8" else 4, torch.cat(weights), torch.cat(scales, along), error)


def fits_exactly(matrix: torch.Tensor) -> bool:
    """Whether packing a matrix into four bits changes it by no more than bfloat16 rounds."""
    return pack(matrix, "int4", matrix.dtype).error <= ROUNDING


def packs_for() -> tuple[str, str]:
    """What decides how packed weights lie, beside their values: PyTorch's version, and what the processor can do."""
    return torch.__version__, torch.backends.cpu.get_cpu_capability()


def _eight_bits(wide: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """Some rows in eight bits: levels, scales, and how far they are from what they stand for at most."""
    scales = (wide.abs().amax(1) / 127).clamp(min=1e-12).to(dtype)
    levels = (wide / scales[:, None].float()).round().clamp(-127, 127)
    return levels.to(torch.int8), scales, _distance(wide, levels * scales[:, None].float())


def _four_bits(wide: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """The same in four bits."""
    groups = wide.unflatten(1, (-1, GROUP))
    least, greatest = groups.aminmax(dim=2)
    steps = ((greatest - least) / 15).clamp(min=1e-12)
    middles = (least + 8 * steps).to(dtype)
    levels = ((groups - least[..., None]) / steps[..., None]).round().clamp(0, 15)
    restored = (levels - 8) * steps.to(dtype).float()[..., None] + middles.float()[..., None]
    packed = torch._convert_weight_to_int4pack_for_cpu(levels.flatten(1).int(), 1)
    scales = torch.stack((steps.to(dtype), middles), -1).transpose(0, 1).contiguous()
    return packed, scales, _distance(wide, restored.flatten(1))


def _distance(wide: Tensor, restored: Tensor) -> float:
    return float((wide - restored).abs().max())
