"""The conversations that a model can be evaluated on: their pictures can be read, and their prompts have room.

What can't be used is left out before the first response, and said: no evaluation ends for one row after an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weft.data import Example
from weft.errors import DataError, PictureError
from weft.images import load_image
from weft.model import WeftModel
from weft.progress import Reporter
from weft.rendering import Messages
from weft.responding import as_learned
from weft.tally import Tally
from weft.tasks import INSTRUCTIONS


def asks(example: Example, instruction: str) -> bool:
    """Whether a conversation asks this about a picture."""
    return example.question == instruction and bool(example.pictures)


def with_sound_pictures(examples: Sequence[Example], task: str, limit: int | None, tally: Tally) -> list[Example]:
    """The conversations without those whose pictures can't be read; no more pictures are looked at than are evaluated.

    Args:
        examples: all conversations.
        task: what is asked.
        limit: how many pictures, or questions, are evaluated; None for all.
        tally: counts those that are left out.
    """
    sound: dict[str, bool] = {}
    shown: set[str] = set()
    kept = []
    for example in examples:
        asked = task == "vqa" or (task in INSTRUCTIONS and asks(example, INSTRUCTIONS[task]))
        if asked and example.pictures and (limit is None or len(shown) < limit or example.pictures[0] in shown):
            for picture in example.pictures:
                if picture not in sound:
                    sound[picture] = _is_sound(picture)
            if not all(sound[picture] for picture in example.pictures):
                tally.leave_out("whose picture can't be read", [example.where])
                continue
            shown.add(example.pictures[0])
        kept.append(example)
    return kept


def _is_sound(picture: str) -> bool:
    try:
        return bool(load_image(picture))
    except PictureError:
        return False


def with_room(
    model: WeftModel, examples: Sequence[Example], asked: Callable[[Example], Messages], longest: int
) -> list[Example]:
    """The conversations whose prompts leave the language model room for a reply; the others are told of.

    Args:
        model: the woven model.
        examples: the conversations.
        asked: the messages of a conversation that the model is to reply to.
        longest: tokens of the reply, at most.

    Raises:
        DataError: the chat template does not take one, or none has room.
    """
    assert model.processor is not None
    positions = model.positions
    tally, kept = Tally(rows=len(examples)), []
    for example in examples:
        if not (messages := asked(example)):
            raise DataError(f"{example.where}: nothing is asked; the user's message must stand before the answer.")
        try:
            messages = as_learned(model, messages)
            rendered = model.processor.render(messages, add_generation_prompt=True, **example.template)
        except DataError as error:
            raise DataError(f"{example.where}: {error}") from None
        if positions is not None and len(model.processor.tokenize(rendered).ids) + longest > positions:
            tally.leave_out(f"with more than the {positions - longest:,} tokens that may be asked", [example.where])
        else:
            kept.append(example)
    if not kept:
        raise DataError(f"No conversation is left to evaluate: {tally.reasons}.")
    Reporter().say(*tally.sentences)
    return kept
