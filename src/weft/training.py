"""Training: a weave learns from conversations while everything it stands on stays as it is.

:func:`train` is given a recipe, or a woven model and data, and hands on the model with the best weights, which are in
the run's output folder as well. The run itself is :class:`~weft.trainer.Trainer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.checkpoint import name_parts
from weft.errors import RecipeError
from weft.model import WeftModel
from weft.recipe import Recipe, changed, load_recipe
from weft.trainer import Trainer


def train(
    what: Recipe | str | Path | WeftModel,
    data: str | Path | None = None,
    *,
    model: WeftModel | None = None,
    resume: bool = False,
    minutes: float | None = None,
    **changes: Any,
) -> WeftModel:
    """Train a weave.

    Args:
        what: a recipe, the file of one, or a woven model, which is then trained on ``data``.
        data: JSONL of conversations; by default what the recipe says.
        model: a woven model to train; by default the one that the recipe describes.
        resume: go on from the run's checkpoint.
        minutes: stop after so many, with a checkpoint to resume from; None for no limit.
        **changes: fields of the recipe to be changed. Of a woven model the weave ``name`` is trained, the first if
            nothing is said, into the folder ``weft-run``.

    Returns:
        The model with the weights that were best on the dev set; they are in ``OUTPUT/best`` as well.

    Raises:
        RecipeError: the recipe can't be used, or a model was given without data.
        DataError: the data can't be used.
        WeftError: the loss is not a number.

    Example:
        >>> train("recipe.yaml", resume=True)
        >>> train(weave("HuggingFaceTB/SmolLM2-360M-Instruct", every=4), "photos.jsonl", epochs=3)
    """
    if isinstance(what, WeftModel):
        if data is None:
            raise RecipeError("A model alone can't be trained; give data, a JSONL file of chat messages.")
        recipe, model = _recipe_for(what, str(data), changes.get("name")), what
    else:
        recipe = what if isinstance(what, Recipe) else load_recipe(what)
        changes = changes if data is None else {**changes, "data": data}
    return Trainer(changed(recipe, **changes), model).run(resume=resume, minutes=minutes)


def _recipe_for(model: WeftModel, data: str, name: str | None) -> Recipe:
    """What a weave of a model, the first by default, would be trained with, the model as it is."""
    name_parts(model)
    weave = model.weave(name)
    derived = ("encoder", "hidden_size", "memory_size", "memory_tokens", "reads", "layered")
    made = Recipe(
        data=data,
        output="weft-run",
        features="weft-run/features",
        name=weave.name,
        language_model=model.config.language_model["id"],
        weave={name: value for name, value in weave.config.to_dict().items() if name not in derived},
        system_prompt=None if model.processor is None else model.processor.system_prompt,
    )
    return changed(made, **{"text" if weave.config.reads == "texts" else "vision": weave.config.encoder["id"]})
