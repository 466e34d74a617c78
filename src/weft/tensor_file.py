"""Tensors used where they lie in a safetensors file, so that those which nobody touches take no memory.

A :class:`TensorFile` is a file mapped into memory, whose pages can be let go of after use. :func:`widened` keeps a copy
of such a file in float32 in Weft's cache folder, for processors that have to emulate bfloat16.
"""

from __future__ import annotations

import json
import math
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from weft.catalog import weft_home
from weft.memory import content_hash

_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""Types of tensors by the names that the format gives them."""
_AT_ONCE = 1 << 20
"""Numbers that are widened at once."""


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file by their names, to be read and not written.

    Args:
        file: the file.

    Raises:
        ValueError: it is no safetensors file.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            self._header: dict[str, dict] = json.loads(stream.read(size))
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        self._header.pop("__metadata__", None)
        self._start = 8 + size

    def __getitem__(self, name: str) -> Tensor:
        about = self._header[name]
        dtype, shape = _TYPES[about["dtype"]], about["shape"]
        begin = self._start + about["data_offsets"][0]
        return torch.frombuffer(self._map, dtype=dtype, count=math.prod(shape), offset=begin).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor."""
        return self._header[name]["shape"]

    def release(self) -> None:
        """Let go of the memory of all tensors, where the system can; whoever goes on using one reads it again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def widened(file: Path, identity: str) -> dict[str, Tensor] | None:
    """The tensors of a file in float32, mapped from a copy that is made once; None where it can't be written.

    Args:
        file: a safetensors file.
        identity: what tells its content from that of others.
    """
    wide = weft_home() / "float32" / f"{content_hash(identity)}.safetensors"
    for _ in range(2):
        with suppress(OSError, SafetensorError):
            return load_file(wide)
        try:
            _write_wide(TensorFile(file), wide)
        except OSError:
            return None
    return None


def _write_wide(tensors: TensorFile, file: Path) -> None:
    """Write tensors in float32, a little at a time, to a file that is there in full or not at all."""
    header, end = {}, 0
    for name in tensors:
        shape = tensors.shape(name)
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        partial = Path(folder) / file.name
        with partial.open("wb") as stream:
            stream.write(len(written).to_bytes(8, "little") + written)
            for name in header:
                for some in tensors[name].flatten().split(_AT_ONCE):
                    stream.write(memoryview(some.float().numpy()))
                tensors.release()
        partial.replace(file)


def file_identity(file: Path, identity: str) -> str:
    """An identity of a file's content: what is known of it, and that it has not been written anew since."""
    about = file.stat()
    return content_hash(identity, str(about.st_size), str(int(about.st_mtime)))
