"""Read memories of passages on disk, so that no passage is read twice.

A :class:`MemoryKeeper` is given a folder. An entry is a safetensors file, named by a hash of the passage and of the
weave that read it, so a weave that has learned since finds nothing of its former self.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from weft.memory import CopyKeys, Excerpt, KeyValues, ReadMemory, content_hash

if TYPE_CHECKING:
    from weft.model import WeftModel
    from weft.text_encoders import Piece


class MemoryKeeper:
    """Passages as a weave has read them, one item each.

    Args:
        folder: where they are kept; made when the first is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def read(self, model: WeftModel, pieces: Sequence[Piece], weave: str | None = None) -> list[ReadMemory]:
        """Read passages; those that have been read before come from disk.

        Args:
            model: the woven model.
            pieces: the passages.
            weave: the weave that reads them; the first that reads texts by default.
        """
        name = weave or model.weave_that_reads("texts").name
        reader = content_hash(
            model.weave(name).fingerprint(), model.encoder(name).sha256, repr(model.encoder(name).reads)
        )
        keys = [content_hash(reader, piece.text) for piece in pieces]
        found = [self._get(key, name, piece) for key, piece in zip(keys, pieces, strict=True)]
        missing = [index for index, memory in enumerate(found) if memory is None]
        if missing:
            fresh = model.read_texts([pieces[index] for index in missing], name)
            for place, index in enumerate(missing):
                found[index] = fresh.item(place)
                self._put(keys[index], fresh.item(place))
        device = next(model.weave(name).parameters()).device
        return [memory.to(device) for memory in found if memory is not None]

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _put(self, key: str, memory: ReadMemory) -> None:
        source = memory.sources[0]
        assert isinstance(source, Excerpt)
        tensors = {"spans": torch.from_numpy(source.spans)}
        for index, layer in enumerate(memory.layers):
            tensors |= {f"keys.{index}": layer.keys, f"values.{index}": layer.values}
        if memory.copying is not None:
            tensors |= {"copy_keys": memory.copying.keys, "ids": memory.copying.ids}
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
        partial.replace(path)

    def _get(self, key: str, weave: str, piece: Piece) -> ReadMemory | None:
        """An entry; a corrupt one is dropped, and counts as absent."""
        try:
            tensors = load_file(self._path(key))
        except FileNotFoundError:
            return None
        except SafetensorError:
            self._path(key).unlink(missing_ok=True)
            return None
        count = sum(name.startswith("keys.") for name in tensors)
        layers = tuple(KeyValues(tensors[f"keys.{index}"], tensors[f"values.{index}"]) for index in range(count))
        copying = CopyKeys(tensors["copy_keys"], tensors["ids"]) if "ids" in tensors else None
        source = Excerpt(piece.text, tensors["spans"].numpy(), piece.name, piece.start)
        return ReadMemory(weave, layers, (source,), key, copying)
