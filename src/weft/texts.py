"""Features of passages, encoded once: a text encoder in front of a feature store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch.nn.utils.rnn import pad_sequence

from weft.memory import Memory, content_hash
from weft.passages import Piece
from weft.progress import Reporter
from weft.store import FeatureStore
from weft.text_encoders import TextEncoder, batches


class TextFeatures:
    """Reads features of passages from a store, and fills it.

    Passages that are encoded in the sight of a question have features for each question, which take many times the
    room; without a store they are computed whenever they are wanted.

    Args:
        encoder: the frozen encoder.
        store: where the features are kept, by hash of the passage and of all that its features depend on; None for
            nowhere.
    """

    def __init__(self, encoder: TextEncoder, store: FeatureStore | None) -> None:
        self.encoder = encoder
        self.store = store
        self.tokens = lru_cache(maxsize=2**14)(lambda piece: encoder.tokenize(piece.text, piece.question)[0])
        self.before = lru_cache(maxsize=2**14)(encoder.before)

    def key(self, piece: Piece) -> str:
        """Name of a passage's features."""
        return content_hash(piece.content, self.encoder.id, self.encoder.sha256, repr(self.encoder.reads))

    def fill(self, wanted: Iterable[Piece], reporter: Reporter) -> int:
        """Encode the passages that the store lacks; returns how many those were."""
        if self.store is None:
            return 0
        missing = [piece for piece in dict.fromkeys(wanted) if not self._holds(self.store, piece)]
        reporter.start("encoding passages", len(missing))
        done = 0
        for chosen in batches([len(self.before(piece.question)) + len(self.tokens(piece)) for piece in missing]):
            some = [missing[index] for index in chosen]
            tokens, before = [self.tokens(piece) for piece in some], [self.before(piece.question) for piece in some]
            for piece, features in zip(some, self.encoder.run(tokens, before), strict=True):
                self.store.put(self.key(piece), features)
            done += len(chosen)
            reporter.advance(done)
        return len(missing)

    def _holds(self, store: FeatureStore, piece: Piece) -> bool:
        return store.holds(self.key(piece), (len(self.tokens(piece)), self.encoder.width))

    def batch(self, passages: Sequence[Piece]) -> Memory:
        """Passages that :meth:`fill` has encoded, as a memory; what they cite is not in it."""
        if not passages:
            return Memory(torch.empty(0, 0, self.encoder.width), ())
        tokens = [self.tokens(piece) for piece in passages]
        if self.store is None:
            return self.encoder.encode_tokens(tokens, [self.before(piece.question) for piece in passages])
        features = pad_sequence([self.store.get(self.key(piece)) for piece in passages], batch_first=True)
        lengths = torch.tensor([len(ids) for ids in tokens])
        mask = torch.arange(features.shape[1]) < lengths[:, None]
        return Memory(features, (), mask, ids=self.encoder.ids(tokens))
