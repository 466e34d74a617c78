"""The folder of a run: that it holds no other run, and that a run which goes on is the one that was begun there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from weft.adapters import adapter_config, adapter_names
from weft.conversations import write_text
from weft.errors import DataError, PartError, WeftError
from weft.model import WeftModel
from weft.parts import WEIGHTS
from weft.recipe import Recipe
from weft.runstate import RunState, newest_state
from weft.training_rows import RowFile
from weft.whole_files import read_tensors, writing

CHECKPOINT, RECIPE, LOG, BEST = "checkpoint.safetensors", "recipe.yaml", "log.jsonl", "best"
_FREE = {"dropout", "encoder", "refuses_at", "refusal_temperature", "refusal_bias", "reading_by_task", "citing_heads"}
"""Fields of a weave's configuration that a run which goes on may have otherwise; of its encoder the hash counts."""
_PLACES = {"data", "dev", "output", "features", "language_model", "vision", "text", "initial_weights"}
"""Fields of a recipe that say where something is."""


def state_of_run(folder: Path) -> RunState:
    """The last sound checkpoint in a folder.

    Raises:
        DataError: there are checkpoints, and none is sound.
    """
    return newest_state(folder / CHECKPOINT)


def free_folder(folder: Path) -> Path:
    """A folder for a new run: the one that was asked for, or, where that holds a run, one with a number behind it."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(one for one in chain([folder], numbered) if not _holds_run(one))


def _holds_run(folder: Path) -> bool:
    return (folder / CHECKPOINT).is_file() or (folder / BEST).is_dir()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within it, a folder that is made belongs to one run.

    Raises:
        WeftError: another run writes there, or it can't be written.
    """
    lock = FileLock(folder / ".lock")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise WeftError(f"Another run writes to {folder}; wait until it ends, or give another output.") from None
        except NotImplementedError:  # a file system without locks
            pass
    try:
        yield
    finally:
        lock.release()


def begin(folder: Path, recipe: Recipe, *, goes_on: bool) -> None:
    """Note in the folder of a run what it does; a new one has a new log. What a run that died had half written goes.

    Raises:
        WeftError: the folder can't be written.
    """
    for unfinished in chain(folder.glob("*.partial"), (folder / BEST).glob("*.partial")):
        unfinished.unlink(missing_ok=True)
    if not goes_on:
        with writing(folder / LOG):
            (folder / LOG).unlink(missing_ok=True)
    write_text(folder / RECIPE, yaml.safe_dump(asdict(recipe), sort_keys=False))


def look_back(folder: Path, recipe: Recipe, state: RunState, same: dict[str, Any]) -> list[str]:
    """What people may not expect of a run that is to go on in a folder, as sentences.

    Args:
        folder: the run's folder.
        recipe: what it is to do from now on.
        state: where it stood.
        same: its identity now.

    Raises:
        DataError: it is a run of something else.
    """
    if state.file is None:
        return [f"{folder} holds no checkpoint to go on from; the run begins anew."]
    check_same(folder, state.fields.get("identity", {}), same)
    said = [
        f"{file} is damaged; the run goes on from {state.file}, step {state.fields['step']:,}."
        for file in state.damaged
    ]
    if not state.damaged and state.file.name != CHECKPOINT:
        said.append(f"{folder / CHECKPOINT} is gone; the run goes on from {state.file.name}.")
    try:
        changed = changes(folder, recipe)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return [*said, f"{folder / RECIPE} can't be read, so nobody can tell whether the recipe has changed."]
    return [*said, f"The run goes on with a changed recipe ({'; '.join(changed)})."] if changed else said


def best_is_sound(folder: Path) -> bool:
    """Whether the best weights of a run can be read."""
    try:
        return bool(read_tensors(folder / BEST / WEIGHTS, ""))
    except PartError:
        return False


def changes(folder: Path, recipe: Recipe) -> list[str]:
    """What a recipe says otherwise than that of the run in a folder, as ``name: before -> now``."""
    file = folder / RECIPE
    before = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not isinstance(before, dict):
        raise yaml.YAMLError("no mapping")
    now = asdict(recipe)
    names = [name for name in now if name not in _PLACES and name in before and before[name] != now[name]]
    return [f"{name}: {before[name]} -> {now[name]}" for name in names]


def identity(model: WeftModel, recipe: Recipe, rows: RowFile, pictures: str) -> dict[str, Any]:
    """What a run is of: what must be the same when it goes on.

    Args:
        model: the woven model.
        recipe: what the run does.
        rows: the training set.
        pictures: a name for what its pictures hold.
    """
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
        "conversations": rows.added,
        "pictures": pictures,
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
    elif what == "data" and "conversations" in before:
        what = f"data ({before['conversations']:,} conversations then, {now['conversations']:,} now)"
    elif what == "pictures":
        what = "content of its pictures"
    raise DataError(
        f"{folder / CHECKPOINT} is of another recipe, with another {what}; give the run's own, or another "
        "output folder."
    )
