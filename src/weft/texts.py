"""Features of passages, encoded once: a text encoder in front of a feature store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch.nn.utils.rnn import pad_sequence

from weft.memory import Memory, content_hash
from weft.progress import Reporter
from weft.store import FeatureStore
from weft.text_encoders import TextEncoder, batches


class TextFeatures:
    """Reads features of passages from a store, and fills it.

    Args:
        encoder: the frozen encoder.
        store: where the features are kept, by hash of the passage and of all that its features depend on.
    """

    def __init__(self, encoder: TextEncoder, store: FeatureStore) -> None:
        self.encoder = encoder
        self.store = store
        self.tokens = lru_cache(maxsize=None)(lambda text: encoder.tokenize(text)[0])

    def key(self, text: str) -> str:
        """Name of a passage's features."""
        return content_hash(text, self.encoder.id, self.encoder.sha256, repr(self.encoder.reads))

    def fill(self, wanted: Iterable[str], reporter: Reporter) -> int:
        """Encode the passages that the store lacks; returns how many those were."""
        missing = [text for text in dict.fromkeys(wanted) if self.key(text) not in self.store]
        reporter.start("encoding passages", len(missing))
        done = 0
        for chosen in batches([len(self.tokens(text)) for text in missing]):
            some = [missing[index] for index in chosen]
            for text, features in zip(some, self.encoder.run([self.tokens(text) for text in some]), strict=True):
                self.store.put(self.key(text), features)
            done += len(chosen)
            reporter.advance(done)
        return len(missing)

    def batch(self, passages: Sequence[str]) -> Memory:
        """Passages that :meth:`fill` has encoded, as a memory; what they cite is not in it."""
        if not passages:
            return Memory(torch.empty(0, 0, self.encoder.width), ())
        tokens = [self.tokens(text) for text in passages]
        features = pad_sequence([self.store.get(self.key(text)) for text in passages], batch_first=True)
        lengths = torch.tensor([len(ids) for ids in tokens])
        mask = torch.arange(features.shape[1]) < lengths[:, None]
        return Memory(features, (), mask, ids=self.encoder.ids(tokens))
