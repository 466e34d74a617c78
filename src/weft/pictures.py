"""Features of picture files, encoded once: a vision encoder in front of a feature store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from weft.encoders import VisionEncoder
from weft.errors import PictureError
from weft.images import decode
from weft.memory import content_hash
from weft.progress import Reporter
from weft.store import FeatureStore

View = Literal["plain", "mirror"]
"""How a picture is shown to the encoder: as it is, or mirrored left to right."""


class PictureFeatures:
    """Reads features of pictures from a store, and fills it.

    Args:
        encoder: the frozen encoder.
        store: where the features are kept, by hash of the file's bytes, the view and the encoder.

    Attributes:
        damaged: of each picture that could not be read, a sentence that says why.
    """

    def __init__(self, encoder: VisionEncoder, store: FeatureStore) -> None:
        self.encoder = encoder
        self.store = store
        self.damaged: dict[str, str] = {}
        self.key = lru_cache(maxsize=None)(self._key)

    def _key(self, picture: str, view: View) -> str:
        try:
            content = Path(picture).read_bytes()
        except OSError as error:
            raise PictureError(f"{picture} can't be read ({error.strerror}).") from None
        return content_hash(content, view, self.encoder.id, self.encoder.sha256)

    def fill(self, wanted: Iterable[tuple[str, View]], reporter: Reporter, batch_size: int = 16) -> int:
        """Encode the pictures that the store lacks; returns how many those were. One that can't be read stops nobody:
        it is among the :attr:`damaged` from then on."""
        missing = [one for one in dict.fromkeys(wanted) if self._lacks(*one)]
        reporter.start("encoding pictures", len(missing))
        for start in range(0, len(missing), batch_size):
            some = missing[start : start + batch_size]
            try:
                self._keep(some)
            except PictureError:
                for one in some:
                    try:
                        self._keep([one])
                    except PictureError as error:
                        self.damaged[one[0]] = str(error)
            reporter.advance(start + len(some))
        return len(missing)

    def _lacks(self, picture: str, view: View) -> bool:
        try:
            return not self.store.holds(self.key(picture, view), (self.encoder.tokens, self.encoder.width))
        except PictureError as error:
            self.damaged[picture] = str(error)
            return False

    def _keep(self, some: Sequence[tuple[str, View]]) -> None:
        for one, features in zip(some, self.encode(some), strict=True):
            self.store.put(self.key(*one), features)

    @torch.inference_mode()
    def encode(self, pictures: Sequence[tuple[str, View]]) -> Float[Tensor, "M N D"]:
        """Run the encoder, without the store."""
        return self.encoder.encode([show(picture, view) for picture, view in pictures]).features

    def batch(self, pictures: Sequence[tuple[str, View]]) -> Float[Tensor, "M N D"]:
        """Features of pictures that :meth:`fill` has encoded."""
        if not pictures:
            return torch.empty(0, 0, self.encoder.width)
        return self.store.batch([self.key(*one) for one in pictures])


def show(picture: str, view: View) -> Image.Image:
    """A picture as it is shown in a view."""
    image = decode(picture).image
    return ImageOps.mirror(image) if view == "mirror" else image
