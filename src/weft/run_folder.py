"""The folder of a run: that it holds no other run, and that a run which goes on is the one that was begun there."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from weft.adapters import adapter_config, adapter_names
from weft.errors import DataError
from weft.model import WeftModel
from weft.recipe import Recipe
from weft.training_rows import RowFile

CHECKPOINT, RECIPE, LOG, BEST = "checkpoint.safetensors", "recipe.yaml", "log.jsonl", "best"
_FREE = {"dropout", "encoder", "refuses_at", "refusal_temperature", "refusal_bias", "reading_by_task", "citing_heads"}
"""Fields of a weave's configuration that a run which goes on may have otherwise; of its encoder the hash counts."""
_PLACES = {"data", "dev", "output", "features", "language_model", "vision", "text", "initial_weights"}
"""Fields of a recipe that say where something is."""


def state_of_run(folder: Path) -> dict[str, Any]:
    """What the checkpoint in a folder says of its run; nothing where there is none."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return {}
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["state"])


def free_folder(folder: Path) -> Path:
    """A folder for a new run: the one that was asked for, or, where that holds a run, one with a number behind it."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(one for one in chain([folder], numbered) if not _holds_run(one))


def _holds_run(folder: Path) -> bool:
    return (folder / CHECKPOINT).is_file() or (folder / BEST).is_dir()


def begin(folder: Path, recipe: Recipe, *, goes_on: bool) -> None:
    """Make the folder of a run, and note in it what the run does; a new one has a new log."""
    folder.mkdir(parents=True, exist_ok=True)
    if not goes_on:
        (folder / LOG).unlink(missing_ok=True)
    (folder / RECIPE).write_text(yaml.safe_dump(asdict(recipe), sort_keys=False), encoding="utf-8")


def changes(folder: Path, recipe: Recipe) -> list[str]:
    """What a recipe says otherwise than that of the run in a folder, as ``name: before -> now``."""
    file = folder / RECIPE
    before = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    now = asdict(recipe)
    names = [name for name in now if name not in _PLACES and name in before and before[name] != now[name]]
    return [f"{name}: {before[name]} -> {now[name]}" for name in names]


def identity(model: WeftModel, recipe: Recipe, rows: RowFile) -> dict[str, Any]:
    """What a run is of: what must be the same when it goes on."""
    weave = model.weave(recipe.name).config
    fields = {name: value for name, value in weave.to_dict().items() if name not in _FREE}
    adapters = {
        name: {key: adapter_config(model.language_model, name).to_dict().get(key) for key in ("peft_type", "r")}
        for name in adapter_names(model.language_model)
    }
    found = {
        "language model": model.config.language_model.get("sha256", ""),
        "encoder": weave.encoder.get("sha256", ""),
        "weave": {"name": recipe.name, **fields},
        "adapters": adapters,
        "data": rows.content(),
        "precision": recipe.precision,
    }
    return json.loads(json.dumps(found, default=str))


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run of something else.

    Args:
        folder: the run's folder.
        before: the identity in its checkpoint; empty for one that has none.
        now: the identity of what is to go on.

    Raises:
        DataError: they differ; the message names in what.
    """
    unlike = [name for name in before if before[name] != now.get(name)]
    if not unlike:
        return
    what = unlike[0]
    if what == "weave":
        fields = [name for name in now[what] if before[what].get(name) != now[what][name]]
        what = f"weave ({', '.join(f'{name}: {before[what].get(name)} -> {now[what][name]}' for name in fields)})"
    elif what == "precision":
        what = f"precision ({before[what]} -> {now[what]})"
    raise DataError(
        f"{folder / CHECKPOINT} is of another recipe, with another {what}; give the run's own, or another "
        "output folder."
    )
