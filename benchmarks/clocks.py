"""Times of trained sides, taken in turn: a first token, about something new or known, and one after it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from looks import in_prompt, reader_of, speaker_of, typical
from measuring import alternate, compare, seconds
from photos import AFTER, CAT, asking
from PIL import Image
from prompted_words import KeptPrompt, first_token
from sides import WOVEN, Setup

import weft
from weft.data import Example
from weft.images import picture_hash
from weft.recipe import Recipe
from weft.responding import prompt_of, reply
from weft.search import Prompt, search
from weft.tasks import CAPTION

Clock = Callable[[], float]
"""Something that runs and says how many milliseconds it took."""


@dataclass(frozen=True)
class Clocks:
    """What times are taken of.

    Attributes:
        first_new: the first token about something new.
        first_known: the same about something that was asked about before.
        after: a token after it.
        kept: bytes that are kept of what is known.
    """

    first_new: Clock
    first_known: Clock
    after: Clock
    kept: int


def times(setup: Setup, sides: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """By side the times in milliseconds, each as median and quartiles, and bytes kept of what is known."""
    clocks: dict[str, Clocks] = {}
    for side in sides:
        recipe = setup.recipe_of(side)
        of = woven if side in WOVEN else picture_in_prompt if recipe.text is None else text_in_prompt
        clocks[side] = of(recipe, side)
    found: dict[str, dict[str, Any]] = {side: {"kept_bytes": one.kept} for side, one in clocks.items()}
    for name in ("first_new", "first_known", "after"):
        taken = alternate({side: getattr(one, name) for side, one in clocks.items()}, repeats)
        for side, row in compare(name, "ms", taken)["rows"].items():
            found[side][f"{name}_ms"] = [row["median"], row["low"], row["high"]]
    return found


def woven(recipe: Recipe, side: str) -> Clocks:
    """A weave, about a picture or a document."""
    model, numbers = speaker_of(recipe, side), itertools.count(1)
    example = None if recipe.text is None else typical(recipe)

    def messages(number: int) -> Any:
        return asking(photo(number)) if example is None else reading(example, number)

    def ask(number: int) -> float:
        asked = messages(number)
        return 1000 * seconds(lambda: reply(model, prompt_of(model, asked), beams=1, longest=1))

    before = model.memory_cache.bytes
    prompt, decoder = prompt_of(model, messages(0)), model.plain.get()
    kept = model.memory_cache.bytes - before

    def say(tokens: int) -> Any:
        if decoder is None:
            return reply(model, prompt, beams=1, longest=tokens, min_new_tokens=tokens)
        return search(decoder, model.plain.weaves(), [prompt], beams=1, longest=tokens, ends=())

    return Clocks(lambda: ask(next(numbers)), lambda: ask(0), partial(after, say), kept)


def picture_in_prompt(recipe: Recipe, side: str) -> Clocks:
    """A picture whose tokens stand in the prompt."""
    speaker, numbers = speaker_of(recipe, side), itertools.count(1)
    (prompt,), begun = speaker.prompts([photo(0)], CAPTION)
    decoder, kept, known = speaker.decoder, KeptPrompt(speaker.decoder, prompt, begun), photo(0)

    def ask_new() -> float:
        new = photo(next(numbers))
        return 1000 * seconds(lambda: first_token(decoder, speaker.prompts([new], CAPTION)[0][0]))

    def ask_known() -> float:
        return 1000 * seconds(lambda: (picture_hash(known), speaker.tokens(CAPTION), kept.first_token()))

    def say(tokens: int) -> Any:
        return search(decoder, {}, [prompt], beams=1, longest=tokens, ends=())

    return Clocks(ask_new, ask_known, partial(after, say), kept.bytes)


def text_in_prompt(recipe: Recipe, side: str) -> Clocks:
    """A document that stands in the prompt."""
    model, example, numbers = reader_of(recipe, side), typical(recipe), itertools.count(1)
    decoder = model.plain.get()
    assert decoder is not None
    ids = in_prompt(model, example)
    prompt = Prompt(ids)
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ids, in_prompt(model, example, "?"), strict=False))
    kept = KeptPrompt(decoder, prompt, len(list(alike)))

    def ask_new() -> float:
        number = next(numbers)
        return 1000 * seconds(lambda: first_token(decoder, Prompt(in_prompt(model, example, number=number))))

    def ask_known() -> float:
        return 1000 * seconds(lambda: (in_prompt(model, example), kept.first_token()))

    def say(tokens: int) -> Any:
        return search(decoder, {}, [prompt], beams=1, longest=tokens, ends=())

    return Clocks(ask_new, ask_known, partial(after, say), kept.bytes)


def after(say: Callable[[int], Any]) -> float:
    """Milliseconds of a token after the first one, of something that says so many tokens."""
    first, more = seconds(lambda: say(1)), seconds(lambda: say(1 + AFTER))
    return 1000 * (more - first) / AFTER


def photo(number: int) -> Image.Image:
    """A photo with a grey pixel at one of its places, so that each has not been seen."""
    found = weft.load_image(CAT).copy()
    found.putpixel((number, 0), (128, 128, 128))
    return found


def reading(example: Example, number: int) -> list[dict[str, Any]]:
    """A conversation up to its answer, the last of its documents ending with a number."""
    last = example.documents[-1]
    messages = []
    for message in example.messages[:-1]:
        content = message["content"]
        if not isinstance(content, str):
            content = [{**part, "text": f"{part['text']} {number}."} if part is last else part for part in content]
        messages.append({**message, "content": content})
    return messages
