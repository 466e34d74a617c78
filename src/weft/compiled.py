"""A plain decoder's steps, compiled ahead of time: what a few rows compute for one token, without Python.

:class:`CompiledSteps` is given a decoder with packed weights, and its weaves. It compiles a step with PyTorch's
AOTInductor for rows that read nothing, or one memory that they share, as the beams of a question about a photo do; all
others are computed as before. What was compiled holds no weights and is kept in Weft's cache folder, where the next
process finds it.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from inspect import getsource
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim

from weft import decoder as decoder_module
from weft import packed_weave
from weft.catalog import weft_home
from weft.decoder import Decoder, Norm, Reader, TextCache
from weft.memory import KeyValues, content_hash
from weft.packed_weave import MANY_KEYS, PackedFusion, PackedWeave, find
from weft.packing import NATIVE, Packed, packs_for
from weft.rows import Rows, Weaves

MOST_ROWS = 8
"""Rows up to which a step is compiled."""
_Parts = tuple[Decoder, Mapping[int, PackedFusion]]
"""What a step is computed by: the decoder, and a fusion layer for each of its layers that looks."""


class _Shared:
    """One memory that all rows look at; a :class:`weft.decoder.Reader`."""

    def __init__(self, fusions: Mapping[int, PackedFusion], memory: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.fusions, self.layers = fusions, frozenset(fusions)
        self.memory = dict(zip(fusions, memory, strict=True))

    def look(self, layer: int, hidden: Tensor) -> Tensor:
        """See :class:`weft.decoder.Reader`."""
        memory = KeyValues(*self.memory[layer])
        return self.fusions[layer].step(hidden, lambda queries: find(queries, memory))


class _Step(nn.Module):
    """A step of one token, to be exported; weights are inputs like all others, so that none are in what is compiled."""

    def __init__(self, decoder: Decoder, fusions: Mapping[int, PackedFusion]) -> None:
        super().__init__()
        self.parts = decoder, fusions

    def forward(
        self,
        ids: Int[Tensor, " B"],
        places: Int[Tensor, " B"],
        blocks: Sequence[tuple[Tensor, Tensor]],
        memory: Sequence[tuple[Tensor, Tensor]],
        weights: Sequence[Tensor],
    ) -> Float[Tensor, "B H"]:
        decoder, fusions = _refilled(self.parts, iter(weights))
        step = decoder.one_token(places, blocks[0][0].shape[2])
        return decoder.through(ids[:, None], step, blocks, _Shared(fusions, memory))


class CompiledSteps:
    """Compiled steps of a decoder; a :class:`weft.decoder.Compiled`.

    Args:
        decoder: the language model, packed.
        weaves: the model's weaves by name.
    """

    def __init__(self, decoder: Decoder, weaves: Weaves) -> None:
        self.decoder, self.weaves = decoder, dict(weaves)  # as they are now: one that learns later is another
        self._steps: dict[tuple[str, bool], Any] = {}

    def __call__(self, ids: Int[Tensor, "B 1"], cache: TextCache, reader: Reader | None) -> Tensor | None:
        rows, weave, memory = len(ids), "", list[tuple[Tensor, Tensor]]()
        if reader is not None and reader.layers:
            shared = cast(Rows, reader).shared()
            if shared is None or shared.tokens >= MANY_KEYS or shared.weave is not self.weaves.get(shared.weave.name):
                return None
            weave, memory = shared.weave.name, [(layer.keys, layer.values) for layer in shared.memory.layers]
        found = self._steps.get((weave, rows > 1))
        if found is None or rows > MOST_ROWS:
            return None
        run, weights, dtype = found
        if memory and memory[0][0].dtype != dtype:
            return None
        cache.reserve(max(cache.lengths) + 1)
        flat = [one for pair in (*cache.blocks, *memory) for one in pair]
        # What calls it by its signature reads that anew each time; the order of a flat list is all that matters.
        return run([ids[:, 0].contiguous(), torch.tensor(cache.lengths), *flat, *weights])[0]

    def prepare(self, rows: int, weave: str = "") -> None:
        """Compile a step, or load what was compiled before.

        Args:
            rows: 1, or any other number for steps of up to :data:`MOST_ROWS` rows.
            weave: the weave whose memory they share; empty for rows that read nothing.

        Raises:
            RuntimeError: it can't be compiled here.
        """
        key = weave, rows > 1
        if key in self._steps:
            return
        parts = self.decoder, self._fusions(weave)
        weights, dtype = list(_tensors(parts)), _memory_type(parts[1])
        file = weft_home() / "compiled" / f"{self._name(key)}.pt2"
        if file.is_file():
            with suppress(Exception):  # a damaged file, of which loading may say anything; it is made anew
                self._steps[key] = _loaded(file), weights, dtype
                return
        self._compile(file, parts, weights, several=rows > 1)
        self._steps[key] = _loaded(file), weights, dtype

    def _fusions(self, weave: str) -> dict[int, PackedFusion]:
        if not weave:
            return {}
        packed = cast(PackedWeave, self.weaves[weave])
        return {layer: packed.fusion(index) for index, layer in enumerate(packed.config.layers)}

    def _name(self, key: tuple[str, bool]) -> str:
        """A hash of all that decides what is compiled; weights do not."""
        sources = [getsource(module) for module in (decoder_module, packed_weave, sys.modules[__name__])]
        parts = self.decoder, self._fusions(key[0])
        shapes = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in _tensors(parts)]
        machine = (*packs_for(), NATIVE)
        places = (
            *parts[1],
            str(_memory_type(parts[1])),
            self.decoder.heads,
            self.decoder.kv_heads,
            self.decoder.norm.eps,
        )
        return content_hash(*sources, repr((key[1], shapes, machine, places)))

    def _compile(self, file: Path, parts: _Parts, weights: list[Tensor], *, several: bool) -> None:
        """Export a step, compile it, and write it to a file that is there in full or not at all."""
        (decoder, fusions), rows = parts, 2 if several else 1
        block = decoder.embeddings.new_zeros(rows, decoder.kv_heads, 128, decoder.head_dim)
        blocks = [(block.clone(), block.clone()) for _ in decoder.layers]  # one given twice would be taken for the same
        memory = []
        for fusion in fusions.values():
            layer = fusion.layer
            shape = (1, layer.k_proj.out_features // layer.head_dim, 81, layer.head_dim)
            held = block.new_zeros(shape, dtype=_memory_type(fusions))
            memory.append((held, held.clone()))
        room, tokens = Dim("room", min=2), Dim("tokens", min=2, max=MANY_KEYS - 1)
        each_row = {0: Dim("rows", min=2, max=MOST_ROWS)} if several else {}
        shapes: tuple[Any, ...] = (
            each_row,
            each_row,
            [({**each_row, 2: room},) * 2 for _ in blocks],
            [({2: tokens},) * 2 for _ in memory],
            [{} for _ in weights],
        )
        inputs = (torch.zeros(rows, dtype=torch.long), torch.full((rows,), 5), blocks, memory, weights)
        with torch.no_grad():
            exported = torch.export.export(_Step(decoder, fusions), inputs, dynamic_shapes=shapes, strict=False)
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=file.parent) as folder:
                partial = str(Path(folder) / "step.pt2")
                torch._inductor.aoti_compile_and_package(exported, package_path=partial)
                os.replace(partial, file)


def _memory_type(fusions: Mapping[int, PackedFusion]) -> torch.dtype | None:
    """The type of keys and values that fusion layers have read; None where there are none."""
    return next((fusion.layer.k_proj.weight.dtype for fusion in fusions.values()), None)


def _loaded(file: Path) -> Any:
    return torch._inductor.aoti_load_package(str(file)).loader.boxed_run


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors that objects of this package hold, in an order that their structure decides."""
    if isinstance(value, Tensor):
        yield value
    else:
        for one in _held(value).values():
            yield from _tensors(one)


def _refilled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same objects with other tensors, taken in that order."""
    if isinstance(value, Tensor):
        return next(tensors)
    held = {key: _refilled(one, tensors) for key, one in _held(value).items()}
    if isinstance(value, (list, tuple)):
        return type(value)(held.values())
    if isinstance(value, Mapping):
        return held
    if not held:
        return value
    made = copy.copy(value)
    for key, one in held.items():
        object.__setattr__(made, key, one)  # frozen dataclasses among them
    return made


def _held(value: Any) -> dict[Any, Any]:
    """What an object holds that may hold tensors."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, (Decoder, PackedFusion, Norm, Packed)) or is_dataclass(value):
        return {key: one for key, one in vars(value).items() if key not in ("compiled", "layer", "packed_matrices")}
    return {}
