"""Training: a weave learns from conversations while everything it stands on stays as it is.

:func:`train` is given a recipe, or a woven model and data, and hands on the model with the best weights, which are in
the run's output folder as well. The run itself is :class:`~weft.trainer.Trainer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from weft.checkpoint import name_parts
from weft.errors import RecipeError
from weft.model import WeftModel
from weft.recipe import WEAVE, Recipe, changed, load_recipe
from weft.trainer import Trainer

GIVEN = "(conversations given in Python)"
"""What a recipe says of data that is in no file."""
Data = str | Path | Sequence[str | Path] | Iterable[Mapping[str, Any]]
"""Conversations: a file, several files, or the rows themselves."""


def train(
    what: Recipe | str | Path | WeftModel,
    data: Data | None = None,
    *,
    dev: Data | None = None,
    model: WeftModel | None = None,
    resume: bool = False,
    minutes: float | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **changes: Any,
) -> WeftModel:
    """Train a weave, and with it an adapter that is in the language model, if that wants gradients.

    Args:
        what: a recipe, the file of one, or a woven model, which is then trained on ``data``.
        data: JSONL of conversations, a list of such files, or the conversations themselves, in any of the forms of
            :mod:`weft.conversation_forms`: dicts in a list, a ``datasets.Dataset``, with pictures as files, bytes or
            Pillow images; by default what the recipe says.
        dev: conversations to watch, likewise.
        model: a woven model to train; by default the one that the recipe describes.
        resume: go on from the run's checkpoint. Without it a folder that holds a run is left alone: the new one goes
            to ``OUTPUT-2``, and says so.
        minutes: stop after so many, with a checkpoint to resume from; None for no limit.
        callbacks: callbacks of transformers, which are told how it goes and may ask to stop, evaluate or save.
        **changes: fields of the recipe to be changed. Of a woven model the weave ``name`` is trained, the first if
            nothing is said, into the folder ``weft-run``.

    Returns:
        The model with the weights that were best on the dev set; they are in ``OUTPUT/best`` as well.

    Raises:
        RecipeError: the recipe can't be used, or a model was given without data.
        DataError: the data can't be used; or the run that is to go on is one of another model or other data.
        PartError: a part of the model has changed since it was loaded, so that it could not be saved.
        WeftError: the loss is not a number, or the model has weights that want gradients and would not be learned.

    Example:
        >>> train("recipe.yaml", resume=True)
        >>> train(weave("HuggingFaceTB/SmolLM2-360M-Instruct", every=4), "photos.jsonl", epochs=3)
    """
    files, rows = _apart(data)
    watched, dev_rows = _apart(dev)
    changes |= {name: value for name, value in (("data", files), ("dev", watched)) if value is not None}
    if isinstance(what, WeftModel):
        if data is None and "data" not in changes:
            raise RecipeError("A model alone can't be trained; give data, a JSONL file of chat messages.")
        recipe, model = _recipe_for(what, changes.get("name")), what
    else:
        recipe = what if isinstance(what, Recipe) else load_recipe(what)
    given: dict[str, Any] = {"data": rows, "dev": dev_rows, "callbacks": callbacks, "resume": resume}
    return Trainer(changed(recipe, **changes), model, **given).run(minutes=minutes)


def _apart(data: Any) -> tuple[Any, Any]:
    """What a recipe says of data, and the rows themselves where they are in no file."""
    if data is None or isinstance(data, (str, Path)):
        return data, None
    if isinstance(data, (list, tuple)) and data and all(isinstance(one, (str, Path)) for one in data):
        return [str(one) for one in data], None
    if isinstance(data, Mapping):  # as load_dataset gives it, one data set a split
        what = (
            "one row, or a table by its columns," if {"messages", "conversations"} & set(data) else "several data sets"
        )
        names = ", ".join(list(map(str, data))[:8])
        raise RecipeError(f"data: {what} were given ({names}); give a list of rows, or one of several data sets.")
    return GIVEN, data


def _recipe_for(model: WeftModel, name: str | None) -> Recipe:
    """What a weave of a model, the first by default, would be trained with, the model as it is."""
    name_parts(model)
    weave = model.weave(name)
    fields = {name: value for name, value in weave.config.to_dict().items() if name in WEAVE}
    fields["labels"] = weave.config.labels.get("id")
    made = Recipe(
        data=GIVEN,
        output="weft-run",
        features="weft-run/features",
        name=weave.name,
        language_model=model.config.language_model["id"],
        weave=fields,
        system_prompt=None if model.processor is None else model.processor.system_prompt,
    )
    return changed(made, **{"text" if weave.config.reads == "texts" else "vision": weave.config.encoder["id"]})
