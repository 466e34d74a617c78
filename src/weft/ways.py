"""How a run computes its losses: from stored hidden states and on shared prompts where that changes nothing.

:class:`Ways` is the part of a :class:`~weft.trainer.Trainer` that comes before its first step: what is encoded once is
encoded, and each quicker way is held against the plain one on the run's longest rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from weft.adapters import adapters_hash
from weft.data import Row
from weft.errors import WeftError
from weft.fastpath import HiddenStore, UpperStack, Vocabulary, losses_agree
from weft.feeding import Feed, store_folder
from weft.learned import frozen_layers
from weft.losses import StepLoss
from weft.model import WeftModel
from weft.narrow_head import may_be_narrowed
from weft.progress import Reporter
from weft.recipe import Recipe
from weft.reward import SelfCritical
from weft.store import FeatureStore

TOLD = 10
"""Damaged pictures that are told of one by one."""


class Ways:
    """What a run makes ready before its first step, and how it computes losses from then on."""

    recipe: Recipe
    model: WeftModel
    feed: Feed
    accelerator: Accelerator
    device: torch.device
    step_module: StepLoss
    critic: SelfCritical | None
    plain_losses: Tensor | None

    def _plan(self) -> None:
        """Plan the steps anew."""
        raise NotImplementedError

    def _autocast(self) -> torch.autocast:
        """Mixed precision, if the recipe asks for it; Accelerate's own would be fixed for the whole process."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _prepare(self, reporter: Reporter) -> None:
        """Encode each picture once, and find the fastest way through the language model that gives the same loss."""
        if self.accelerator.is_main_process:
            with self._autocast():
                self.feed.encode(reporter)
        self.accelerator.wait_for_everyone()
        self._leave_out_damaged(reporter)
        self.plain_losses: Tensor | None = None
        first = frozen_layers(self.model)
        streams = any(self.model.weave(name).config.stream_axis is not None for name in self.model.weaves)
        stores = self.recipe.store_hidden and not streams
        hidden = self._hidden_store(first) if stores and first is not None else None
        if hidden is not None and self._fast_way_holds(hidden):
            self._take_fast_way(hidden, reporter)
            return
        if self._shares_prompts() and not self._shared_rows_hold():
            if self.critic is not None:
                raise WeftError("reward: answers to one prompt share a row, which this language model does not take.")
            reporter.say("This language model does not take rows that share a prompt; each answer has its own.")
            for rows in (self.feed.rows, self.feed.dev_rows):
                rows.separate()
            self._plan()
            if hidden is not None and self._fast_way_holds(hidden):
                self._take_fast_way(hidden, reporter)
                return
        if self.recipe.store_hidden:
            reporter.say("This language model does not run from stored hidden states; training runs all of it.")

    def _leave_out_damaged(self, reporter: Reporter) -> None:
        """Go on without the pictures that can't be read, in every process, and say so."""
        found = [getattr(self.feed.held, "damaged", {})]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(found)
        if said := self.feed.drop_damaged(found[0]):
            reporter.say(*said[:TOLD])
            if len(said) > TOLD:
                reporter.say(f"{len(said) - TOLD:,} more rows are left out for such pictures; the log names them.")
            reporter.log(left_out=said)
            self._plan()

    def _hidden_store(self, first: int) -> HiddenStore:
        """Where hidden states in front of a decoder layer are kept."""
        frozen = adapters_hash(self.model.language_model)
        store = FeatureStore(store_folder(self.recipe) / "hidden" / frozen, dtype=self.model.language_model.dtype)
        identity = self.model.config.language_model.get("sha256", "")
        return HiddenStore(store, UpperStack(self.model.language_model, first), identity)

    def _take_fast_way(self, hidden: HiddenStore, reporter: Reporter) -> None:
        """Compute from stored hidden states, and among the words that the recipe wants, from now on."""
        if self.accelerator.is_main_process:
            self._fill_hidden(hidden, reporter)
        self.accelerator.wait_for_everyone()
        self.step_module.hidden = hidden
        if self.recipe.sampled_vocabulary is not None and may_be_narrowed(self.step_module.head):
            size = self.step_module.head.weight.shape[0]
            self.step_module.vocabulary = Vocabulary.of(self.feed.rows, size, self.recipe.sampled_vocabulary)
            if self.critic is not None:
                self.critic.vocabulary = self.step_module.vocabulary

    def _shares_prompts(self) -> bool:
        return self.feed.rows.shares or self.feed.dev_rows.shares

    @torch.no_grad()
    def _shared_rows_hold(self) -> bool:
        """Whether answers that share a row have the losses that each has in a row of its own."""
        return self._holds(lambda: self._losses(self.feed.probed))

    @torch.no_grad()
    def _fast_way_holds(self, hidden: HiddenStore) -> bool:
        """Whether the longest rows have the same losses computed fast, and row by row through the whole model; with
        the words that are chosen among picked one by one as well, where that can be done."""

        def fast() -> Tensor:
            rows = self.feed.probed
            hidden.fill(self.feed.batch(rows))
            self.step_module.hidden = hidden
            return self._losses(rows)

        def apart() -> Tensor:
            every = torch.arange(self.step_module.head.weight.shape[0])
            self.step_module.hidden, self.step_module.vocabulary = hidden, Vocabulary(every, every[:0], 0)
            return self._losses(self.feed.probed, full=False)

        narrow = self.recipe.sampled_vocabulary is not None and may_be_narrowed(self.step_module.head)
        return self._holds(fast) and (not narrow or self._holds(apart))

    def _holds(self, way: Callable[[], Tensor]) -> bool:
        """Whether a way to the losses of the longest rows gives what the plain one gives but for rounding."""
        self.model.eval()
        if self.plain_losses is None:
            apart = [replace(row, answers=(answer,)) for row in self.feed.probed for answer in row.answers]
            self.plain_losses = torch.cat([self._losses([row]) for row in apart])
        smoothing, citing = self.step_module.label_smoothing, self.step_module.citing
        self.step_module.label_smoothing = self.step_module.citing = 0.0
        dtype = torch.bfloat16 if self.recipe.precision == "bf16" else self.model.language_model.dtype
        try:
            return losses_agree(way(), self.plain_losses, dtype)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            return False  # whatever a model makes of inputs it does not take
        finally:
            self.step_module.hidden = self.step_module.vocabulary = None
            self.step_module.label_smoothing, self.step_module.citing = smoothing, citing

    def _losses(self, rows: Sequence[Row], full: bool = True) -> Tensor:
        """The loss of each learned token of rows."""
        with self._autocast():
            return self.step_module.each(self.feed.batch(rows), *self.feed.memory(rows, None), full=full)

    def _summed(self, rows: Sequence[Row]) -> tuple[float, int]:
        """The loss of rows as evaluation sees it, summed over their learned tokens, and how many those are."""
        losses = self._losses(rows)
        return float(losses.sum()), len(losses)

    def _fill_hidden(self, hidden: HiddenStore, reporter: Reporter) -> None:
        held = [(rows.length(at), rows, at) for rows in (self.feed.rows, self.feed.dev_rows) for at in range(len(rows))]
        missing: dict[str, Row] = {}
        reporter.start("hidden states", len(held))
        for done, (_, rows, at) in enumerate(sorted(held, key=lambda one: one[0]), 1):
            row = rows[at]
            if not hidden.store.holds(key := hidden.key(row), (len(row), None)):
                missing[key] = row
            if len(missing) == 32 or (missing and done == len(held)):
                hidden.fill(self.feed.batch(list(missing.values())))
                missing.clear()
            reporter.advance(done)
