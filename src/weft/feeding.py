"""What a run is fed: conversations as rows in a plan of steps, rows as tensors, their pictures as features.

:class:`Feed` is given a recipe, a processor and an encoder. The encoder runs before the first step, once for each
picture and view that the store lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from weft.data import Batch, Row, collate, load_examples, plan_epoch, rows_of
from weft.encoders import VisionEncoder
from weft.pictures import PictureFeatures, View
from weft.processing import WeftProcessor
from weft.progress import Reporter
from weft.recipe import Recipe
from weft.store import FeatureStore

PROBED = 4
"""Rows on which a run tries its way through the language model before the first step."""


def store_folder(recipe: Recipe) -> Path:
    """Where features are kept: runs of another precision have a folder of their own."""
    return Path(recipe.features) if recipe.precision == "bf16" else Path(recipe.features) / recipe.precision


class Feed:
    """The training set and the dev set of a run.

    Args:
        recipe: says which they are, and how rows become steps.
        processor: knows the chat template and the tokenizer.
        encoder: the frozen encoder.
        device: where batches go.

    Attributes:
        rows: the training set.
        dev_examples: conversations of the dev set.
        dev_rows: the same as rows.
        pictures: features of pictures, from the store.

    Raises:
        DataError: a data file can't be used as it is.
    """

    def __init__(self, recipe: Recipe, processor: WeftProcessor, encoder: VisionEncoder, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.padding = processor.tokenizer.pad_token_id or 0
        self.rows = rows_of(load_examples(recipe.data), processor, share_prompts=recipe.share_prompts)
        self.order = {row: index for index, row in enumerate(self.rows)}
        self.dev_examples = load_examples(recipe.dev)[: recipe.evaluate_limit] if recipe.dev else []
        self.dev_rows = rows_of(self.dev_examples, processor, share_prompts=recipe.share_prompts)
        self.pictures = PictureFeatures(encoder, FeatureStore(store_folder(recipe)))

    def plan(self, epoch: int) -> list[list[list[Row]]]:
        """The steps of an epoch, each in parts of rows of like length; a step mixes parts of different lengths."""
        size, parts = max(1, self.recipe.batch_size // self.recipe.accumulate), self.recipe.accumulate
        plan = plan_epoch([len(row) for row in self.rows], size, self.recipe.seed * 1000 + epoch)
        batches = [[self.rows[index] for index in indices] for indices in plan]
        return [batches[start : start + parts] for start in range(0, len(batches), parts)]

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Rows as tensors."""
        return collate(rows, self.padding).to(self.device)

    def features(self, rows: Sequence[Row], epoch: int | None) -> Float[Tensor, "M N D"]:
        """Features of rows' pictures, in order.

        Args:
            rows: the rows of a batch.
            epoch: decides, with the row, which view is shown; None for the plain one.
        """
        views = self.recipe.views
        chosen: list[tuple[str, View]] = []
        for row in rows:
            view: View = "plain" if epoch is None else views[(self.order[row] + epoch) % len(views)]
            chosen += [(picture, view) for picture in row.pictures]
        return self.pictures.batch(chosen).to(self.device, torch.float32)

    def encode(self, reporter: Reporter) -> None:
        """Encode the pictures that the store lacks, in every view that the run shows.

        Raises:
            PictureError: a file can't be read.
        """
        wanted = [(picture, view) for row in self.rows for picture in row.pictures for view in self.recipe.views]
        wanted += [(picture, "plain") for row in (*self.rows[:PROBED], *self.dev_rows) for picture in row.pictures]
        self.pictures.fill(wanted, reporter)
