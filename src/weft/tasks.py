"""What people ask of a woven model about pictures: captions, titles, answers; and, from :mod:`weft.reading`, of texts.

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

from weft.errors import DataError, WeftError
from weft.explain import Seen, look, needed
from weft.images import PICTURES, load_image
from weft.instructions import CAPTION, TITLE
from weft.memory import Memory, ReadMemory
from weft.reading import ReadingTasks
from weft.rendering import Messages, about_a_picture
from weft.responding import prompt_of, reply, respond

if TYPE_CHECKING:
    from weft.model import WeftModel
    from weft.weaving import ReadingMode

Task = Literal["caption", "title"]
Explain = bool | Literal["sketch"]
"""Whether to find out what each word needs of the picture; ``"sketch"`` for where it looked, which is quicker."""
INSTRUCTIONS: dict[Task, str] = {"caption": CAPTION, "title": TITLE}
LONGEST = 60
"""Tokens after which words about a picture are cut off."""
LONGEST_REPLY = 256
"""Tokens after which a message of a conversation is cut off."""


@dataclass(frozen=True)
class Caption:
    """What a model says about a picture.

    Attributes:
        text: the words.
        name: the picture's file, or a description of it.
        log_probability: of the text, natural logarithm, summed over its tokens.
        seen: what each word needs of the picture, or looked at; None unless it was asked for.
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

    @property
    def matters(self) -> tuple[bool, ...]:
        """For each word whether some region of the picture matters to it."""
        return self._seen().matters

    def heatmap(self, word: str | int) -> Image.Image:
        """The picture, lit where it matters to a word.

        Args:
            word: one of :attr:`words`, or its index.
        """
        return self._seen().heatmap(word)

    def sheet(self) -> Image.Image:
        """One tile a word: the picture, lit where it matters to the word."""
        return self._seen().sheet()

    def _seen(self) -> Seen:
        if self.seen is None:
            raise WeftError("This caption does not know what its words need of the picture; ask with explain=True.")
        return self.seen


class Tasks(ReadingTasks):
    """What can be asked about pictures and texts; a part of :class:`~weft.model.WeftModel`."""

    def caption(
        self, pictures: Any, *, beams: int = 3, explain: Explain = False, weave: str | None = None, **options: Any
    ) -> Any:
        """Describe pictures in a sentence.

        Args:
            pictures: a picture (path, bytes, PIL image, file object), a memory that was read (``model.read``), or a
                list of them.
            beams: beams of the search; 1 is greedy.
            explain: find out what each word needs of the picture: by how much less likely it is without a region.
                ``"sketch"`` for where it looked (attention), which is quicker and tells less.
            weave: name of the weave that reads them; by default the first that reads pictures.
            **options: for ``generate`` (``length_penalty``, above one for longer captions; ``max_new_tokens``, ...).

        Returns:
            A :class:`Caption`, or a list of them for a list.

        Raises:
            PictureError: a picture can't be read.
            WeftError: the model has no such weave, it does not read pictures, or a memory was read by another one.
        """
        return self.say(pictures, CAPTION, beams=beams, explain=explain, weave=weave, **options)

    def title(
        self, what: Any, *, beams: int = 3, explain: Explain = False, weave: str | None = None, **options: Any
    ) -> Any:
        """Give pictures, or a text, a title of a few words.

        Args:
            what: pictures, as for :meth:`caption`; or a text, or the path of a document (.txt, .md, .html, ...).
            beams: beams of the search; 1 is greedy.
            explain: find out what each word needs of the picture, as for :meth:`caption`, or which sentences the title
                leaned on.
            weave: name of the weave that reads pictures, as for :meth:`caption`.
            **options: for ``generate``; of a text also ``bound`` and ``top_memory``, as for
                :meth:`~weft.reading.ReadingTasks.summarize`.

        Returns:
            A :class:`Caption`, or a list of them for a list; of a text a :class:`~weft.reading.Summary`.

        Raises:
            PictureError: a picture can't be read.
            DataError: a document can't be read.
        """
        text = _text(what)
        if text is not None:
            if weave is not None:
                raise WeftError(f"weave={weave!r} chooses who reads a picture, and this is a text; leave it out.")
            return self.title_text(text, beams=beams, explain=bool(explain), **options)
        return self.say(what, TITLE, beams=beams, explain=explain, weave=weave, **options)

    def ask(
        self,
        picture: Any,
        question: str,
        *,
        beams: int = 3,
        explain: Explain = False,
        weave: str | None = None,
        **options: Any,
    ) -> Any:
        """Answer a question about a picture; arguments and result as for :meth:`caption`.

        Raises:
            PictureError: a picture can't be read.
            DataError: the question is empty.
        """
        if not question.strip():
            raise DataError("The question is empty; ask something.")
        return self.say(picture, question, beams=beams, explain=explain, weave=weave, **options)

    def chat(
        self,
        messages: Messages,
        *,
        beams: int = 1,
        top_memory: int | None = None,
        reading: ReadingMode | None = None,
        **options: Any,
    ) -> dict[str, str]:
        """The next message of a conversation about any number of pictures and documents.

        Args:
            messages: ``{"role": ..., "content": ...}``, the last one the user's; content is a string or a list of
                parts, of type ``"text"``, ``"image"`` or ``"document"``.
            beams: beams of the search; 1 is greedy.
            top_memory: how many pictures, and how many passages of documents, each fusion layer looks at, at each word
                the most promising ones; None for all.
            reading: how documents are read, as for :meth:`~weft.reading.ReadingTasks.answer`.
            **options: for ``generate`` (``max_new_tokens``, ...).

        Returns:
            The assistant's message, ready to be appended.

        Raises:
            DataError: a message is not what it should be, or the last one is not the user's.
            PictureError: a picture can't be read.
            WeftError: ``top_memory`` is below one, or documents are too long for the prompt that they are to stand in.

        Example:
            >>> messages = [{"role": "user", "content": [{"type": "image", "image": "dog.jpg"},
            ...                                          {"type": "text", "text": "What is in the picture?"}]}]
            >>> messages.append(model.chat(messages))
        """
        model = cast("WeftModel", self)
        longest = options.pop("max_new_tokens", LONGEST_REPLY)
        prompt = prompt_of(model, messages, top_memory, reading, longest)
        said = reply(model, prompt, beams=beams, **{"longest": longest, **options})
        return {"role": "assistant", "content": said.text}

    def say(
        self,
        pictures: Any,
        instruction: str,
        *,
        beams: int = 3,
        explain: Explain = False,
        weave: str | None = None,
        **options: Any,
    ) -> Any:
        """Follow an instruction about each picture; arguments and result as for :meth:`caption`."""
        model = cast("WeftModel", self)
        if model.processor is None:
            raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
        if explain not in (True, False, "sketch"):
            raise WeftError(f"explain={explain!r} is not known; give True, False or 'sketch'.")
        many = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
        if not many:
            return []
        rendered = model.processor.render(about_a_picture(instruction), add_generation_prompt=True)
        prompt, columns, _ = model.processor.tokenize(rendered)
        with torch.inference_mode():
            reads = _read_each(model, many, weave)
            read = reads[0] if len(reads) == 1 else ReadMemory.concatenate(reads)
        if explain and read.weave in model.switches.off():
            raise WeftError(f"The weave {read.weave!r} is disabled, so no word needs the picture; leave out explain.")
        held = [[(index, columns[0])] for index in range(len(many))]
        options = {"longest": LONGEST, **options}
        captions = []
        for index, said in enumerate(respond(model, read, [prompt] * len(many), held, beams=beams, **options)):
            seen = None
            if explain:
                if isinstance(many[index], (Memory, ReadMemory)):
                    raise WeftError("explain needs the picture itself, not only its memory; give the picture.")
                way = look if explain == "sketch" else needed
                seen = way(model, reads[index], prompt, columns[0], said.tokens, load_image(many[index]))
            captions.append(Caption(said.text, _name(many[index]), said.log_probability, seen))
        return captions if isinstance(pictures, (list, tuple)) else captions[0]


def _text(given: Any) -> str | Path | None:
    """A text, or the path of a document, if that is what was given; None for pictures."""
    if not isinstance(given, (str, Path)):
        return None
    from weft.documents import READERS

    if Path(given).suffix.lower() in READERS and len(str(given)) < 1000:
        return Path(given)
    is_name = len(str(given)) < 1000 and (Path(given).exists() or Path(given).suffix.lower() in PICTURES)
    return given if isinstance(given, str) and " " in given.strip() and not is_name else None


def _read_each(model: WeftModel, given: Sequence[Any], weave: str | None) -> list[ReadMemory]:
    """A read memory of one item for each; pictures are encoded together.

    Raises:
        WeftError: there is no such weave, it does not read pictures, or a memory was read by another one.
    """
    if weave is not None and model.weave(weave).config.reads != "pictures":
        raise WeftError(f"weave={weave!r} reads texts; choose one that reads pictures.")
    others = {one.weave for one in given if isinstance(one, ReadMemory)} - {weave}
    if weave is not None and others:
        raise WeftError(
            f"weave={weave!r} can't look at a memory that the weave {min(others)!r} has read; read it anew."
        )
    fresh = iter(model.read_pictures([one for one in given if not isinstance(one, (Memory, ReadMemory))], weave))
    return [model.read(one, weave) if isinstance(one, (Memory, ReadMemory)) else next(fresh) for one in given]


def _name(given: Any) -> str:
    if isinstance(given, (str, Path)):
        return str(given)
    return str(getattr(given, "name", None) or getattr(given, "filename", None) or "picture")
