"""Rows of a run whose prompts hold what the rows hold: the same rows, in the same steps, that a weave learns from.

:class:`PicturesInPrompt` and :class:`TextsInPrompt` are given a :class:`~weft.feeding.Feed`, as a run of Weft has it,
and hand on rows for :func:`weft.data.collate`, so that answers to one prompt share it here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from jaxtyping import Float
from prompted import with_places
from torch import Tensor

from weft.data import Row, load_examples
from weft.feeding import Feed
from weft.quoting import bare_prompt
from weft.recipe import listed


class InPrompt(Protocol):
    """What puts into prompts what rows hold."""

    def __call__(self, rows: Sequence[Row], epoch: int | None) -> tuple[list[Row], Float[Tensor, "M N D"] | None]:
        """Rows with places for what they hold, and features of their pictures in order.

        Args:
            rows: as the feed has them.
            epoch: decides which view of a picture is shown; None for the plain one.
        """
        ...


class PicturesInPrompt:
    """A picture stands in the prompt where the message has it.

    Args:
        feed: the rows.
        words: words of the vocabulary.
    """

    def __init__(self, feed: Feed, words: int) -> None:
        self.feed, self.words = feed, words

    def __call__(self, rows: Sequence[Row], epoch: int | None) -> tuple[list[Row], Float[Tensor, "M N D"] | None]:
        memory, _ = self.feed.memory(rows, epoch)
        tokens, first, found = memory.features.shape[1], self.words, []
        for row in rows:
            found.append(replace(row, prompt=tuple(with_places(row.prompt, row.columns, first, tokens))))
            first += len(row.columns) * tokens
        return found, memory.features if len(memory) else None


class TextsInPrompt:
    """Passages stand in the prompt in front of the question, as the bare language model is given them.

    Args:
        feed: the rows.
    """

    def __init__(self, feed: Feed) -> None:
        files = [*listed(feed.recipe.data), *listed(feed.recipe.dev or [])]
        asked = {one.where: one.question for file in files for one in load_examples(file)}
        self.rows = {
            (row.where, row.answers): replace(
                row, prompt=tuple(bare_prompt(feed.processor, [p.text for p in row.passages], asked[row.where]))
            )
            for row in (*feed.rows, *feed.dev_rows)
        }

    def __call__(self, rows: Sequence[Row], epoch: int | None) -> tuple[list[Row], None]:
        return [self.rows[row.where, row.answers] for row in rows], None
