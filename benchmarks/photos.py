"""A photo: how long until the first token about it, and what each one after it takes; beside other models with eyes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from decoding import speaker
from measuring import alternate, compare, seconds
from peers import EYES

import weft
from weft.responding import prompt_of, reply
from weft.tasks import CAPTION

CAT = Path(__file__).parents[1] / "examples" / "cat.jpg"
AFTER = 16
"""Tokens after the first one."""


def asking(image: Any) -> list[dict[str, Any]]:
    """A conversation that asks what is on a picture."""
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": CAPTION}]}]


def photos(repeats: int) -> list[dict[str, Any]]:
    """Weft on a new photo, on a known one, and on text alone; the peers, which keep nothing, on a photo."""
    model, photo, number = weft.load(), weft.load_image(CAT), 0

    def ask(messages: Any) -> float:
        return 1000 * seconds(lambda: reply(model, prompt_of(model, messages), beams=1, longest=1))

    def new() -> float:
        nonlocal number
        number += 1  # one more grey pixel, so that it has not been seen
        other = photo.copy()
        other.putpixel((number, 0), (128, 128, 128))
        return ask(asking(other))

    sides = {
        "a new photo": new,
        "a known photo": lambda: ask(asking(photo)),
        "text alone": lambda: ask([{"role": "user", "content": CAPTION}]),
    }
    first: dict[str, Callable[[], float]] = {
        f"{name}, a photo": lambda eyes=eyes: eyes().say(1) for name, eyes in EYES.items()
    }
    after: dict[str, Callable[[], float]] = {
        name: lambda eyes=eyes: (eyes().say(1 + AFTER) - eyes().say(1)) / AFTER for name, eyes in EYES.items()
    }
    return [
        compare("Time to the first token", "ms", alternate(sides, repeats, first)),
        compare("A token after it", "ms", alternate({"Weft": speaker(model, tokens=81)}, repeats, after)),
    ]
