"""What is looked at of sides that have been trained: their words, and what a process of theirs does.

Every side decodes by Weft's own decoder, over the weights that it can use: four bits where the language model is as it
was distributed, plain ones where LoRA has changed it.
"""

from __future__ import annotations

from typing import Any

import torch
from photos import AFTER, CAT
from prompted_words import Speaker
from sides import WOVEN, Setup, for_use, fresh, learned

from weft.data import Example, load_examples
from weft.evaluation import answers, evaluate
from weft.metrics import bleu, cider_d, rouge_l
from weft.model import WeftModel
from weft.passages import BOUND
from weft.quoting import bare_prompt
from weft.reading import LONGEST, evenly
from weft.reading_evaluation import bare_readings, belongs, judge
from weft.recipe import Recipe, changed, listed
from weft.responding import reply
from weft.search import Prompt
from weft.tasks import CAPTION
from weft.text_encoders import Piece

BEAMS = 3


def words(setup: Setup, side: str, limit: int | None, task: str) -> dict[str, Any]:
    """Figures of what a side says of the dev set, with beams.

    Args:
        setup: what it was trained on.
        side: its name.
        limit: pictures, or conversations, to look at; None for all.
        task: what is asked of documents.
    """
    recipe = setup.recipe_of(side)
    examples = dev_examples(recipe)
    if recipe.text is None:
        said = answers(speaker_of(recipe, side), examples, "caption", limit=limit, beams=BEAMS)
        predictions, right = [one.prediction for one in said], [one.references for one in said]
        figures = {"bleu_4": bleu(predictions, right)[3], "rouge_l": rouge_l(predictions, right)}
        return {"pictures": len(said), **figures, "cider": cider_d(predictions, right)}
    if side in WOVEN:
        options: dict[str, Any] = {"task": task, "limit": limit, "beams": BEAMS}
        told = evaluate(speaker_of(recipe, side), examples, controls=True, **options)
        return {name: value for name, value in told.items() if not name.startswith("bare_")}
    chosen = [one for one in examples if belongs(one, task)][:limit]
    model = reader_of(recipe, side)
    longest = LONGEST["long" if task == "summary" else "title" if task == "title" else "answer"]
    held = [pieces(model, one) for one in chosen]
    said_of = bare_readings(model, chosen, held, batch_size=8, beams=BEAMS, longest=longest)
    return {"conversations": len(chosen), **judge(said_of)}


def ask_once(setup: Setup, side: str) -> None:
    """What a process does whose memory is measured: it loads a side, and is asked once."""
    recipe = setup.recipe_of(side)
    if recipe.text is None:
        speaker_of(recipe, side).say([CAT], CAPTION, beams=BEAMS)
    elif side in WOVEN:
        speaker_of(recipe, side).chat(list(typical(recipe).messages[:-1]), max_new_tokens=AFTER)
    else:
        model = reader_of(recipe, side)
        reply(model, Prompt(in_prompt(model, typical(recipe))), beams=1, longest=AFTER)


def speaker_of(recipe: Recipe, side: str) -> Any:
    """What says words about pictures, or a weave that reads documents: as a weave is loaded, or a :class:`Speaker`."""
    if side not in WOVEN:
        return Speaker(*learned(recipe, side))
    model = for_use(WeftModel.from_pretrained(f"{recipe.output}/best", dtype=torch.bfloat16))
    assert model.processor is not None
    model.processor.system_prompt = recipe.system_prompt
    return model


def reader_of(recipe: Recipe, side: str) -> WeftModel:
    """A model that is given documents in its prompt."""
    return for_use(fresh(changed(recipe, precision="bf16"))) if side == "bare" else learned(recipe, side)[1]


def dev_examples(recipe: Recipe) -> list[Example]:
    """All conversations of the dev set."""
    return [one for file in listed(recipe.dev or []) for one in load_examples(file)]


def typical(recipe: Recipe) -> Example:
    """The conversation of the dev set whose documents are of middling length."""
    held = [one for one in dev_examples(recipe) if one.documents]
    held.sort(key=lambda one: sum(len(document["text"]) for document in one.documents))
    return held[len(held) // 2]


def pieces(model: WeftModel, example: Example) -> list[Piece]:
    """The passages of a conversation that are read, as evaluation cuts them."""
    encoder = model.encoder(model.weave_that_reads("texts").name)
    cut = [piece for one in example.documents for piece in encoder.cut(one["text"])]
    return evenly(cut, max(BOUND, len(example.documents)))


def in_prompt(model: WeftModel, example: Example, question: str | None = None, number: int = 0) -> list[int]:
    """The tokens of a conversation's question, or another, behind its passages; the last one ends with a number."""
    assert model.processor is not None
    texts = [piece.text for piece in pieces(model, example)]
    return bare_prompt(model.processor, [*texts[:-1], f"{texts[-1]} {number}."], question or example.question)
