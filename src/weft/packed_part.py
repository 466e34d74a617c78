"""A language model's packed weights on disk, so that a process neither packs them nor holds the others.

:func:`packed_decoder` is given the weights of a language model and hands on its decoder. Packed weights are kept in
Weft's cache folder; how PyTorch lays them out depends on its version and on the processor, and so does the file's name.
All is mapped: the packed weights, of which every token reads all, and the others, which are let go of after use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.catalog import weft_home
from weft.decoder import Decoder
from weft.memory import content_hash
from weft.packing import Packed, fits_exactly, packs_for
from weft.tensor_file import TensorFile


def packed_decoder(weights: Path, identity: str, config: Mapping[str, Any], *, whole: bool = False) -> Decoder | None:
    """The decoder of a language model, in four bits; None where those would lose something.

    Args:
        weights: its safetensors file.
        identity: what tells its content from that of others; see :func:`weft.tensor_file.file_identity`.
        config: its configuration.
        whole: let long prompts and many rows have the weights as they are, where that is faster, at the cost of reading
            them; else everything goes over packed weights.
    """
    stored = TensorFile(weights)
    sample = next((name for name in stored if name.endswith("o_proj.weight")), None)
    if sample is None or stored[sample].dtype != torch.bfloat16:
        return None
    file = weft_home() / "packed" / f"{content_hash(identity, *packs_for())}.safetensors"
    packed = _read(file)
    if packed is None:
        if not fits_exactly(stored[sample]):
            return None
        packed = Decoder(config, stored, "int4").packed_matrices
        with suppress(OSError):  # where nothing can be written, they are packed anew next time
            _write(file, packed)
            packed = _read(file) or packed
    if whole:
        return Decoder(config, stored, "int4", packed)
    rest = {name: tensor for name, tensor in stored.items() if not name.endswith("_proj.weight")}
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
