"""Figures of a run for TensorBoard, Weights & Biases and their like, by way of Accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from weft.errors import RecipeError
from weft.recipe import Recipe


def check_trackers(names: list[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        RecipeError: one is not.
    """
    there = {str(getattr(one, "value", one)) for one in get_available_trackers()}
    for name in names:
        if name not in there:
            raise RecipeError(f"trackers: {name} is not installed; run `pip install {name.replace('_', '-')}`.")


def begin_tracking(accelerator: Accelerator, recipe: Recipe) -> None:
    """Begin a run of each tracker, named after the weave, with what the recipe says."""
    if recipe.trackers:
        plain = {
            name: value if isinstance(value, (int, float)) else str(value) for name, value in asdict(recipe).items()
        }
        accelerator.init_trackers(f"weft-{recipe.name}", config=plain)


def track(accelerator: Accelerator, step: int, figures: Mapping[str, Any]) -> None:
    """Hand on the figures of a step."""
    if accelerator.log_with:
        accelerator.log({name: value for name, value in figures.items() if isinstance(value, (int, float))}, step=step)


def end_tracking(accelerator: Accelerator) -> None:
    """Close all trackers, so that what they hold is written."""
    for tracker in accelerator.trackers:
        tracker.finish()
