"""Training of a prompted model by a plain loop, in the steps and with the habits of :class:`weft.trainer.Trainer`.

:class:`PromptRun` is given the recipe of a weave, and a :class:`~prompted.Prompted`. Optimizer, schedule, running
average, sampled vocabulary, mixed precision and what decides which weights are kept are the recipe's; the folder of the
run has a log, a checkpoint (safetensors) from which it goes on to the same result, and the best weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from prompted import Prompted
from prompted_rows import InPrompt

from weft.data import Row
from weft.errors import WeftError
from weft.fastpath import Vocabulary
from weft.feeding import Feed
from weft.optimizers import cosine, make_optimizer
from weft.progress import Reporter
from weft.recipe import Recipe
from weft.runstate import load_run, save_run, swapped
from weft.trainer import CHECKPOINT

AT_ONCE = 4096
"""Tokens, padding included, that are computed at once; a part of a step that has more is computed in several goes."""
BEST = "best.safetensors"


class PromptRun:
    """One run.

    Args:
        recipe: what to do.
        model: what learns.
        feed: the rows, as a weave is fed with them.
        held: puts into prompts what they hold.
        judge: how good the model's words are, by the recipe's metric; None where that is the loss.
        total: steps of the run; None for the recipe's epochs.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Prompted,
        feed: Feed,
        held: InPrompt,
        judge: Callable[[], float] | None = None,
        total: int | None = None,
    ) -> None:
        self.recipe, self.model, self.feed, self.held, self.judge = recipe, model, feed, held, judge
        self.folder = Path(recipe.output)
        self.parameters = list(model.learned.parameters())
        self.averages = [one.detach().clone() for one in self.parameters] if recipe.average else []
        self.optimizer = make_optimizer(
            model.learned, recipe.optimizer, rate=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.vocabulary = None
        if recipe.sampled_vocabulary is not None:
            self.vocabulary = Vocabulary.of(feed.rows, model.head.weight.shape[0], recipe.sampled_vocabulary)
        self.step, self.best = 0, math.inf
        self.steps_an_epoch = len(feed.plan(0))
        self.total = total or max(1, round(recipe.epochs * self.steps_an_epoch))

    def run(self, *, resume: bool = False, minutes: float = math.inf) -> None:
        """Train to the end, or until the time is over; the checkpoint then says how far.

        Args:
            resume: go on from the run's checkpoint, if it has one.
            minutes: time after which to stop.

        Raises:
            WeftError: the loss is not a number.
        """
        until = time.monotonic() + 60 * minutes
        self.folder.mkdir(parents=True, exist_ok=True)
        with Reporter(self.folder / "log.jsonl") as reporter:
            started = time.perf_counter()
            with self._autocast():
                self.feed.encode(reporter)
            reporter.log(prepared=time.perf_counter() - started)
            if resume and (self.folder / CHECKPOINT).is_file():
                fields = load_run(self.folder / CHECKPOINT, self.model.learned, self.optimizer, self.averages)
                self.step, self.best = fields["step"], math.inf if fields["best"] is None else fields["best"]
            reporter.start("training", self.total, done=self.step)
            while self.step < self.total and time.monotonic() < until:
                epoch, at = divmod(self.step, self.steps_an_epoch)
                for parts in self.feed.plan(epoch)[at : at + self.total - self.step]:
                    self.model.train()
                    figures = self._update(parts, epoch)
                    reporter.advance(self.step, **figures)
                    if self.step % self.recipe.evaluate_every == 0 or self.step == self.total:
                        self._evaluate(reporter)
                        self._save()
                    if time.monotonic() >= until:
                        self._save()
                        break
        if self.step == self.total:
            self.model.load(self.folder / BEST)
            self.model.train(False)

    def _autocast(self) -> torch.autocast:
        device = self.model.language_model.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _loss(self, rows: Sequence[Row], epoch: int | None, **options: Any) -> torch.Tensor:
        prompted, features = self.held(rows, epoch)
        with self._autocast():
            return self.model.loss(self.feed.batch(prompted), features, **options)

    def _update(self, parts: Sequence[Sequence[Row]], epoch: int) -> dict[str, float]:
        """One step of the optimizer."""
        recipe, started = self.recipe, time.perf_counter()
        learned, total = sum(row.learned for part in parts for row in part), 0.0
        rate = recipe.learning_rate * cosine(self.step, self.total, recipe.warmup, recipe.final_learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for rows in (some for part in parts for some in self._at_once(part)):
            options = {"vocabulary": self.vocabulary, "label_smoothing": recipe.label_smoothing}
            loss = self._loss(rows, epoch, **options) / learned
            if not torch.isfinite(loss):
                raise WeftError(
                    f"The loss of step {self.step + 1} is {loss.item()}; its rows begin with {rows[0].where}."
                )
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.averages:
            decay = min(recipe.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, [one.detach() for one in self.parameters], 1 - decay)
        seconds = time.perf_counter() - started
        return {"loss": total, "norm": float(norm), "rate": rate, "tokens": learned, "seconds": seconds}

    def _at_once(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Rows in goes of a bounded number of tokens, those of like length together."""
        order = sorted(zip(rows, map(len, self.held(rows, None)[0]), strict=True), key=lambda one: one[1])
        some: list[Row] = []
        for row, length in order:
            if some and (len(some) + 1) * length > AT_ONCE:
                yield some
                some = []
            some.append(row)
        yield some

    def _evaluate(self, reporter: Reporter) -> None:
        """Measure on the dev set with the averaged weights; keep them if they are the best."""
        self.model.train(False)
        with swapped(self.parameters, self.averages) if self.averages else nullcontext():
            figures = {"dev_loss": self.dev_loss()} if self.feed.dev_rows else {}
            score = figures.get("dev_loss", -self.step)
            if self.judge is not None:
                figures[f"dev_{self.recipe.metric}"] = self.judge()
                score = -figures[f"dev_{self.recipe.metric}"]
            if score < self.best:
                self.best = score
                self.model.save(self.folder / BEST)
        reporter.log(step=self.step, best=abs(self.best), **figures)

    @torch.no_grad()
    def dev_loss(self) -> float:
        """The loss a token of the dev set, over the whole vocabulary."""
        rows, size = self.feed.dev_rows, self.recipe.batch_size
        order = sorted(rows, key=len)
        parts = [some for at in range(0, len(order), size) for some in self._at_once(order[at : at + size])]
        return sum(float(self._loss(some, None)) for some in parts) / sum(row.learned for row in rows)

    def _save(self) -> None:
        best = self.best if math.isfinite(self.best) else None
        fields = {"step": self.step, "best": best}
        save_run(self.folder / CHECKPOINT, self.model.learned, self.optimizer, self.averages, fields)
