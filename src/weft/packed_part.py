"""A language model's packed weights on disk, so that a cold process neither packs them nor reads the others.

:func:`packed_decoder` is given the folder of a language model and hands on its decoder. Packed weights are kept in
Weft's cache folder; how PyTorch lays them out depends on its version and on the processor, and so does the file's name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.catalog import weft_home
from weft.decoder import Decoder
from weft.memory import content_hash
from weft.packing import Packed, fits_exactly, packs_for


def packed_decoder(weights: Path, identity: str, config: Mapping[str, Any]) -> Decoder | None:
    """The decoder of a language model, in four bits; None where those would lose something.

    Args:
        weights: its safetensors file.
        identity: what tells these weights from others.
        config: its configuration.
    """
    file = weft_home() / "packed" / f"{content_hash(identity, *packs_for())}.safetensors"
    packed = _read(file)
    with safe_open(weights, "pt") as stored:
        names = list(stored.keys())
        if packed is None:
            sample = stored.get_tensor(next(name for name in names if name.endswith("o_proj.weight")))
            if sample.dtype != torch.bfloat16 or not fits_exactly(sample):
                return None
            decoder = Decoder(config, {name: stored.get_tensor(name) for name in names}, "int4")
            with suppress(OSError):  # where nothing can be written, they are packed anew next time
                _write(file, decoder.packed_matrices)
            packed = decoder.packed_matrices
        rest = {name: stored.get_tensor(name) for name in names if not name.endswith("_proj.weight")}
    return Decoder(config, rest, "int4", packed)


def _read(file: Path) -> dict[str, Packed] | None:
    """What was written; None where it is not there, or damaged."""
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError):
        return None
    places = [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]
    return {
        place: Packed(8 if weights.dtype == torch.int8 else 4, weights, tensors[f"{place}.scales"], 0.0)
        for place in places
        for weights in (tensors[f"{place}.weights"],)
    }


def _write(file: Path, packed: Mapping[str, Packed]) -> None:
    """Write a file that is there in full or not at all."""
    tensors: dict[str, Tensor] = {}
    for place, one in packed.items():
        tensors |= {f"{place}.weights": one.weights, f"{place}.scales": one.scales}
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        partial = Path(folder) / file.name
        save_file(tensors, partial)
        partial.replace(file)
