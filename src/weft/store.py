"""A feature store: what encoders made of pictures, kept on disk so that each picture is encoded once.

Each entry is a safetensors file of its own, named by a hash of content and encoder and written in one move, so an
interrupted run leaves nothing half-written and a later one goes on where it stopped. Entries are memory-mapped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


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
        return self.path(key).is_file()

    def put(self, key: str, features: Float[Tensor, "..."]) -> None:
        """Keep an entry; readers see it whole or not at all."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"features": features.detach().to("cpu", self.dtype).contiguous()}, partial)
        partial.replace(path)

    def get(self, key: str) -> Float[Tensor, "..."]:
        """An entry, memory-mapped.

        Raises:
            KeyError: it isn't there; a corrupt one is dropped, and counts as absent.
        """
        try:
            with safe_open(self.path(key), framework="pt") as file:
                return file.get_tensor("features")
        except FileNotFoundError:
            raise KeyError(key) from None
        except SafetensorError:
            self.path(key).unlink(missing_ok=True)
            raise KeyError(key) from None

    def batch(self, keys: Sequence[str]) -> Float[Tensor, "M ..."]:
        """Entries of one shape, stacked."""
        entries = [self.get(key) for key in keys]
        batch = entries[0].new_empty(len(entries), *entries[0].shape)
        for place, entry in zip(batch, entries, strict=True):  # torch.stack refuses float16 under autocast on a CPU
            place.copy_(entry)
        return batch
