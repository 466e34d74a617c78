"""Callbacks of transformers in a run: they are told what happens, and may ask it to stop, to evaluate or to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.errors import WeftError
from weft.recipe import Recipe


class Callbacks:
    """The callbacks of one run.

    Args:
        callbacks: what is told.
        recipe: the run's recipe.

    Attributes:
        held: what each is given by name, as transformers' Trainer gives it (``model``, ``optimizer``, ...).

    Raises:
        WeftError: one of them is no callback of transformers.
    """

    def __init__(self, callbacks: Sequence[TrainerCallback], recipe: Recipe) -> None:
        for one in callbacks:
            if not isinstance(one, TrainerCallback):
                raise WeftError(f"callbacks: {one!r} is no transformers.TrainerCallback; give objects of such a class.")
        self.callbacks = list(callbacks)
        self.held: dict[str, Any] = {}
        self.control = TrainerControl()
        self.state = TrainerState(eval_steps=recipe.evaluate_every, save_steps=recipe.evaluate_every)
        self.arguments = _arguments(recipe) if self.callbacks else None  # which begins Accelerate's state anew

    def begin(self, total: int, **held: Any) -> None:
        """Tell that a run of so many steps begins."""
        self.held, self.state.max_steps = held, total
        if self.arguments is not None:
            self.arguments.max_steps = total
        self.tell("on_train_begin")

    def tell(self, event: str, **more: Any) -> TrainerControl:
        """Tell of an event by the name of its method (``on_step_end``, ...); returns what the callbacks ask for."""
        for one in self.callbacks:
            asked = getattr(one, event)(self.arguments, self.state, self.control, **self.held, **more)
            self.control = self.control if asked is None else asked
        return self.control

    def step(self, step: int, epoch: float, figures: Mapping[str, float]) -> TrainerControl:
        """Tell of a step and its figures."""
        self.state.global_step, self.state.epoch = step, epoch
        self.control.should_evaluate = self.control.should_save = False
        self.tell("on_step_end")
        logs = {"loss": figures["loss"], "grad_norm": figures["norm"], "learning_rate": figures["rate"], "epoch": epoch}
        self.state.log_history.append({**logs, "step": step})
        return self.tell("on_log", logs=logs)

    def evaluated(self, figures: Mapping[str, float], best: float) -> None:
        """Tell of an evaluation, and note the best one so far: ``dev_loss`` is transformers' ``eval_loss``."""
        metrics = {f"eval_{name.removeprefix('dev_')}": value for name, value in figures.items()}
        self.state.log_history.append({**metrics, "step": self.state.global_step})
        self.tell("on_evaluate", metrics=metrics)
        self.state.best_metric = best


def _arguments(recipe: Recipe) -> TrainingArguments:
    """What transformers' Trainer would have been told."""
    metric = recipe.metric
    return TrainingArguments(
        output_dir=str(Path(recipe.output)),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,
        seed=recipe.seed,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=recipe.evaluate_every,
        save_steps=recipe.evaluate_every,
        logging_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{metric}",
        greater_is_better=metric != "loss",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
    )
