"""A feature store: what encoders made of pictures, kept on disk so that each picture is encoded once.

Each entry is a safetensors file of its own, named by a hash of content and encoder and written in one move, so an
interrupted run leaves nothing half-written and a later one goes on where it stopped. Entries are memory-mapped. One
that is damaged, or of another type or shape than is wanted, counts as absent, and is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from weft.errors import WeftError
from weft.whole_files import whole


class MissingEntry(WeftError, KeyError):
    """An entry is not there, or damaged."""

    __str__ = Exception.__str__


class FeatureStore:
    """Tensors in a folder, by key.

    Args:
        folder: where the entries are; made when the first is written.
        dtype: floating-point type in which they are kept.
    """

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        self.folder = Path(folder)
        self.dtype = dtype

    def path(self, key: str) -> Path:
        """The file of an entry."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.holds(key)

    def holds(self, key: str, shape: Sequence[int | None] | None = None) -> bool:
        """Whether a sound entry is there, of the store's type.

        Args:
            key: which.
            shape: the shape that it must have, None for a dimension of any size; None for any shape.
        """
        try:
            entry = self.get(key)
        except MissingEntry:
            return False
        wanted = entry.shape if shape is None else shape
        alike = len(entry.shape) == len(wanted) and all(
            size in (None, found) for size, found in zip(wanted, entry.shape, strict=True)
        )
        return alike and entry.dtype == self.dtype

    def put(self, key: str, features: Float[Tensor, "..."]) -> None:
        """Keep an entry; readers see it whole or not at all.

        Raises:
            WeftError: it can't be written.
        """
        with whole(self.path(key)) as partial:
            save_file({"features": features.detach().to("cpu", self.dtype).contiguous()}, partial)

    def get(self, key: str) -> Float[Tensor, "..."]:
        """An entry, memory-mapped.

        Raises:
            MissingEntry: it isn't there, which is a KeyError; a damaged one is dropped, and counts as absent.
        """
        path = self.path(key)
        missing = MissingEntry(
            f"{path} has been removed, or is damaged; start again, or resume the run, to make it anew."
        )
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor("features")
        except (SafetensorError, ValueError):  # an empty file can't be mapped
            path.unlink(missing_ok=True)
            raise missing from None
        except OSError:
            raise missing from None

    def batch(self, keys: Sequence[str]) -> Float[Tensor, "M ..."]:
        """Entries of one shape, stacked."""
        entries = [self.get(key) for key in keys]
        batch = entries[0].new_empty(len(entries), *entries[0].shape)
        for place, entry in zip(batch, entries, strict=True):  # torch.stack refuses float16 under autocast on a CPU
            place.copy_(entry)
        return batch
