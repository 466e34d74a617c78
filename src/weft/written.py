"""Captions that a weave writes to a beginning that is given, for photos of which nothing but a noun is known.

A data set of photos says of each what is on it, and no more. A weave that has learned from captions can say the rest as
people do, if it is told how to begin: "A teapot" goes on with "sits on a table". What it invents can be kept out: a
photo of one thing rarely shows people, whom such a weave sees everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from weft.caption_words import CROWDS, PEOPLE, plural
from weft.errors import WeftError
from weft.instructions import CAPTION
from weft.model import WeftModel
from weft.responding import ends_of, prompt_of
from weft.search import search

AT_ONCE = 16
"""Captions that are written at once."""
LONGEST = 14
"""Tokens that are written at most."""


def captions_from(model: WeftModel, photos: Sequence[tuple[Path, str]]) -> Iterator[str | None]:
    """A caption of each photo, that begins as it is told to, without words for people; None where it was not
    ended, or the beginning grew into another word.

    Args:
        model: a woven model that writes captions.
        photos: each with the beginning of its caption.

    Raises:
        WeftError: the model has no processor, or its language model can't be decoded the short way.
    """
    decoder = model.plain.get()
    if decoder is None or model.processor is None:
        raise WeftError("Captions are written by a model with a processor that can be decoded the short way.")
    tokenizer = model.processor.tokenizer

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    words = [*PEOPLE, *map(plural, PEOPLE), *CROWDS, "people", "himself", "herself", "his", "her", "their"]
    banned = [tokens(f" {word}") for word in words]
    for start in range(0, len(photos), AT_ONCE):
        some = photos[start : start + AT_ONCE]
        prompts = []
        for photo, beginning in some:
            content = [{"type": "image", "image": photo}, {"type": "text", "text": CAPTION}]
            prompt = prompt_of(model, [{"role": "user", "content": content}])
            prompts.append(replace(prompt, tokens=[*prompt.tokens, *tokens(beginning)]))
        found = search(
            decoder,
            model.plain.weaves(),
            prompts,
            beams=1,
            longest=LONGEST,
            ends=ends_of(model),
            banned=banned,
        )
        for (_, beginning), one in zip(some, found, strict=True):
            rest = tokenizer.decode(one.tokens, skip_special_tokens=True)
            ended = len(one.tokens) < LONGEST and rest.rstrip().endswith(".")
            yield (beginning + rest).strip() if ended and rest[0] in " ." else None
