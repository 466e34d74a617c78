"""What people ask of a woven model: captions and titles of pictures.

:class:`Tasks` is what :class:`~weft.model.WeftModel` offers beside ``generate``: it is given pictures, or memories that
have been read, and hands on :class:`Caption` objects. The instructions are those that the shipped weave was trained
with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from PIL import Image

from weft.errors import WeftError
from weft.explain import Seen, look
from weft.images import load_image
from weft.memory import Memory, Placement, ReadMemory
from weft.rendering import about_a_picture

if TYPE_CHECKING:
    from weft.model import WeftModel

CAPTION = "Describe the picture."
TITLE = "Give the picture a title."
Task = Literal["caption", "title"]
INSTRUCTIONS: dict[Task, str] = {"caption": CAPTION, "title": TITLE}
LONGEST = 60
"""Tokens after which an answer is cut off."""


@dataclass(frozen=True)
class Caption:
    """What a model says about a picture.

    Attributes:
        text: the words.
        name: the picture's file, or a description of it.
        log_probability: of the text, natural logarithm, summed over its tokens.
        seen: what each word looked at; None unless it was asked for.
    """

    text: str
    name: str
    log_probability: float
    seen: Seen | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the text."""
        return self.seen.words if self.seen is not None else tuple(self.text.split())

    def heatmap(self, word: str | int) -> Image.Image:
        """The picture with what a word looked at laid over it.

        Args:
            word: one of :attr:`words`, or its index.
        """
        return self._seen().heatmap(word)

    def sheet(self) -> Image.Image:
        """One tile a word: the picture, and what the word looked at."""
        return self._seen().sheet()

    def _seen(self) -> Seen:
        if self.seen is None:
            raise WeftError("This caption does not know what its words looked at; ask with explain=True.")
        return self.seen


class Tasks:
    """Captions and titles; a part of :class:`~weft.model.WeftModel`."""

    def caption(self, pictures: Any, *, beams: int = 3, explain: bool = False, **options: Any) -> Any:
        """Describe pictures in a sentence.

        Args:
            pictures: a picture (path, bytes, PIL image, file object), a memory that was read (``model.read``), or a
                list of them.
            beams: beams of the search; 1 is greedy.
            explain: find out what each word looked at.
            **options: for ``generate``.

        Returns:
            A :class:`Caption`, or a list of them for a list.

        Raises:
            PictureError: a picture can't be read.
        """
        return self.say(pictures, CAPTION, beams=beams, explain=explain, **options)

    def title(self, pictures: Any, *, beams: int = 3, explain: bool = False, **options: Any) -> Any:
        """Give pictures a title of a few words; arguments and result as for :meth:`caption`."""
        return self.say(pictures, TITLE, beams=beams, explain=explain, **options)

    @torch.inference_mode()
    def say(self, pictures: Any, instruction: str, *, beams: int = 3, explain: bool = False, **options: Any) -> Any:
        """Follow an instruction about each picture."""
        model = cast("WeftModel", self)
        if model.processor is None:
            raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
        many = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
        if not many:
            return []
        images = [None if isinstance(one, (Memory, ReadMemory)) else load_image(one) for one in many]
        reads = _read_each(model, many, images)
        rendered = model.processor.render(about_a_picture(instruction), add_generation_prompt=True)
        prompt, columns = model.processor.tokenize(rendered)
        input_ids = torch.tensor([prompt] * len(many), device=model.device)
        placement = Placement.of([[(index, columns[0])] for index in range(len(many))])
        memory = model.place(_side_by_side(reads), placement)
        options = {"max_new_tokens": LONGEST, "do_sample": False, **options}
        output = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            memories=[memory],
            num_beams=beams,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        chances = model.compute_transition_scores(
            output.sequences, output.scores, getattr(output, "beam_indices", None), normalize_logits=beams == 1
        )
        captions = []
        for index, (sequence, chance) in enumerate(zip(output.sequences, chances, strict=True)):
            answer = _until_end(sequence[len(prompt) :].tolist(), model)
            text = model.processor.decode(answer, skip_special_tokens=True).strip()
            seen = None
            if explain:
                picture = images[index]
                if picture is None:
                    raise WeftError("explain needs the picture itself, not only its memory; give the picture.")
                seen = look(model, reads[index], prompt, columns[0], answer, picture)
            total = float(chance[: len(answer) + 1].clamp(min=-1e4).sum())
            captions.append(Caption(text, _name(many[index]), total, seen))
        return captions if isinstance(pictures, (list, tuple)) else captions[0]


def _read_each(model: WeftModel, given: Sequence[Any], images: Sequence[Image.Image | None]) -> list[ReadMemory]:
    """A read memory of one item for each; pictures are encoded together."""
    fresh = [image for image in images if image is not None]
    read = model.read(fresh) if fresh else None
    items = iter(range(len(fresh)))
    return [
        cast(ReadMemory, read).item(next(items)) if image is not None else model.read(one)
        for one, image in zip(given, images, strict=True)
    ]


def _side_by_side(reads: Sequence[ReadMemory]) -> ReadMemory:
    return reads[0] if len(reads) == 1 else ReadMemory.concatenate(reads)


def _until_end(tokens: list[int], model: WeftModel) -> list[int]:
    """Tokens before the first one that ends a text."""
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    return next((tokens[:at] for at, token in enumerate(tokens) if token in ends), tokens)


def _name(given: Any) -> str:
    if isinstance(given, (str, Path)):
        return str(given)
    return str(getattr(given, "name", None) or getattr(given, "filename", None) or "picture")
