"""Read memories on disk, so that nothing is read twice, by this process or the next.

An entry is a safetensors file that is mapped into memory when it is needed, named by a hash of what was read and of the
weave that read it, so a weave that has learned since finds nothing of its former self. A damaged entry is dropped, and
counts as absent. :class:`MemoryKeeper` keeps the passages of a knowledge base so.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from weft.memory import CopyKeys, Excerpt, KeyValues, Name, Picture, ReadMemory, Source, content_hash

if TYPE_CHECKING:
    from weft.model import WeftModel
    from weft.passages import Piece


def entry(folder: Path, key: str) -> Path:
    """The file in which a memory is kept."""
    return folder / key[:2] / f"{key}.safetensors"


def save_read(memory: ReadMemory, path: Path) -> None:
    """Write a read memory; the file appears whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    for index, layer in enumerate(memory.layers):
        tensors |= {f"keys.{index}": layer.keys, f"values.{index}": layer.values}
        if layer.mask is not None:
            tensors[f"mask.{index}"] = layer.mask
    if memory.copying is not None:
        tensors |= dict(zip(("copy_keys", "ids", "after"), memory.copying.tensors, strict=False))
    told: list[dict[str, Any]] = []
    for index, source in enumerate(memory.sources):
        if isinstance(source, Excerpt):
            tensors[f"places.{index}"] = torch.from_numpy(source.spans)
            told.append({"text": source.text, "name": source.name, "start": source.start})
        else:
            tensors[f"places.{index}"] = torch.from_numpy(source.rectangles)
            names = [[name.text, name.confidence, name.tokens.start, name.tokens.stop] for name in source.names]
            told.append({"size": source.size, "name": source.name, "names": names})
            if names:
                tensors[f"named.{index}"] = torch.stack([torch.from_numpy(name.place) for name in source.names])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
    about = {"weave": memory.weave, "sources": json.dumps(told)}
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial, about)
    partial.replace(path)


def load_read(path: Path, key: str = "") -> ReadMemory | None:
    """Map a read memory from its file; None where there is none, or a damaged one, which is removed."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            about = file.metadata() or {}
        sources = tuple(
            _source(fields, tensors[f"places.{index}"], tensors.get(f"named.{index}"))
            for index, fields in enumerate(json.loads(about["sources"]))
        )
        layers = tuple(
            KeyValues(tensors[f"keys.{index}"], tensors[f"values.{index}"], tensors.get(f"mask.{index}"))
            for index in range(sum(name.startswith("keys.") for name in tensors))
        )
        copying = CopyKeys(tensors["copy_keys"], tensors["ids"], tensors.get("after")) if "ids" in tensors else None
        return ReadMemory(about["weave"], layers, sources, key, copying)
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, ValueError, TypeError):
        path.unlink(missing_ok=True)
        return None


def _source(fields: dict[str, Any], places: torch.Tensor, named: torch.Tensor | None) -> Source:
    if "text" in fields:
        return Excerpt(fields["text"], places.numpy(), fields["name"], fields["start"])
    names = tuple(
        Name(text, confidence, place.numpy(), range(start, stop))
        for (text, confidence, start, stop), place in zip(fields["names"], [] if named is None else named, strict=True)
    )
    return Picture(tuple(fields["size"]), places.numpy(), fields["name"], names)


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
        reader = model.reader_key(name)
        paths = [entry(self.folder, content_hash(reader, piece.content)) for piece in pieces]
        found = [load_read(path, path.stem) for path in paths]
        missing = [index for index, memory in enumerate(found) if memory is None]
        if missing:
            fresh = model.read_texts([pieces[index] for index in missing], name)
            for place, index in enumerate(missing):
                found[index] = fresh.item(place)
                save_read(fresh.item(place), paths[index])
        both, placed = zip(found, pieces, strict=True), model.weave(name).on_its_devices
        return [placed(renamed(memory, piece)) for memory, piece in both if memory is not None]


def renamed(memory: ReadMemory, piece: Piece) -> ReadMemory:
    """The read memory of a passage whose text may stand in another document now."""
    (source,) = memory.sources
    assert isinstance(source, Excerpt)
    return replace(memory, sources=(replace(source, name=piece.name, start=piece.start),))
