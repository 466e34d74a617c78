"""What people ask of a woven model about pictures: captions, titles, answers; and, from :mod:`weft.reading`, of texts.

:class:`Tasks` is what :class:`~weft.model.WeftModel` offers beside ``generate``: it is given pictures, or memories that
have been read, and hands on :class:`Caption` objects. The instructions are those that the shipped weave was trained
with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from PIL import Image

from weft.errors import DataError, WeftError
from weft.explain import Seen, look, needed
from weft.generation_options import check_options, known_options
from weft.images import URL, load_image
from weft.instructions import CAPTION, TITLE
from weft.memory import Memory, ReadMemory
from weft.options import check_count, check_names, check_value
from weft.reading import ReadingTasks
from weft.rendering import Messages, about_a_picture
from weft.responding import as_learned, prompt_of, reply, respond
from weft.text_sources import names_file

if TYPE_CHECKING:
    from weft.drawing import Sampling
    from weft.model import WeftModel
    from weft.weaving import ReadingMode

Task = Literal["caption", "title"]
Explain = bool | Literal["sketch"]
"""Whether to find out what each word needs of the picture; ``"sketch"`` for where it looked, which is quicker."""
EXPLAINS = (True, False, "sketch")
INSTRUCTIONS: dict[Task, str] = {"caption": CAPTION, "title": TITLE}
_DRAWS = ("temperature", "top_p")
"""Options of a stream that are numbers, beside its length and seed."""
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
            pictures: a picture (path, bytes, file object, PIL image, array or tensor), a memory that was read
                (``model.read``), or a list of them.
            beams: beams of the search; 1 is greedy.
            explain: find out what each word needs of the picture: by how much less likely it is without a region.
                ``"sketch"`` for where it looked (attention), which is quicker and tells less.
            weave: name of the weave that reads them; by default the first that reads pictures.
            **options: for ``generate`` (``length_penalty``, above one for longer captions; ``max_new_tokens``,
                ``do_sample``, ...), and ``seed`` of what is drawn.

        Returns:
            A :class:`Caption`, or a list of them for a list.

        Raises:
            PictureError: a picture can't be read.
            WeftError: the model has no such weave, it does not read pictures, or a memory was read by another one; or
                an option is not known, or would do nothing.
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
            check_value("explain", explain, EXPLAINS)
            return self.title_text(text, beams=beams, explain=bool(explain), **options)
        return self.say(what, TITLE, beams=beams, explain=explain, weave=weave, **options)

    def ask(
        self,
        picture: Any,
        question: str | Sequence[str],
        *,
        beams: int = 3,
        explain: Explain = False,
        weave: str | None = None,
        **options: Any,
    ) -> Any:
        """Answer a question about a picture; arguments and result as for :meth:`caption`.

        Of lists of as many pictures as questions each question is about its own picture; one of either goes with all of
        the other.

        Raises:
            PictureError: a picture can't be read.
            DataError: a question is empty, or there are not as many of them as of pictures.
        """
        for one in question if isinstance(question, (list, tuple)) else [question]:
            if not isinstance(one, str):
                raise DataError(f"The question is {one!r:.100}; ask in words.")
            if not one.strip():
                raise DataError("The question is empty; ask something.")
        return self.say(picture, question, beams=beams, explain=explain, weave=weave, **options)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        *,
        beams: int = 1,
        top_memory: int | None = None,
        reading: ReadingMode | None = None,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        stream: bool = False,
        **options: Any,
    ) -> Any:
        """The next message of a conversation about any number of pictures and documents.

        Args:
            messages: ``{"role": ..., "content": ...}`` and what else the chat template takes of a message
                (``tool_calls``, ``name``, ``reasoning_content``, ...), the last one the user's or a tool's; content is
                a string or a list of parts, of type ``"text"``, ``"image"`` or ``"document"``. Pictures and documents
                stand where the weave learned to see them, mostly before the words. Or a list of conversations.
            beams: beams of the search; 1 is greedy.
            top_memory: how many pictures, and how many passages of documents, each fusion layer looks at, at each word
                the most promising ones; None for all.
            reading: how documents are read, as for :meth:`~weft.reading.ReadingTasks.answer`.
            tools: functions, or their JSON schemas, for the chat template.
            chat_template_kwargs: what else the chat template takes (``enable_thinking``, ...); variables that it names
                may be given as such, too.
            stream: hand on the reply's text piece by piece.
            **options: for ``generate`` (``max_new_tokens``, ``do_sample``, ...), and ``seed`` of what is drawn. For a
                stream these are ``max_new_tokens``, ``do_sample``, ``temperature``, ``top_p`` and ``seed``.

        Returns:
            The assistant's message, ready to be appended; a list of them for a list; an iterator over pieces of its
            text for a stream.

        Raises:
            DataError: a message is not what it should be, or the last one is the assistant's.
            PictureError: a picture can't be read.
            WeftError: ``top_memory`` is below one, documents are too long for the prompt that they are to stand in, or
                an option is not known.

        Example:
            >>> messages = [{"role": "user", "content": [{"type": "image", "image": "dog.jpg"},
            ...                                          {"type": "text", "text": "What is in the picture?"}]}]
            >>> messages.append(model.chat(messages))
        """
        model = cast("WeftModel", self)
        if model.processor is None:
            raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
        known = model.processor.template_variables
        if not isinstance(chat_template_kwargs, (Mapping, type(None))):
            raise WeftError(f"chat_template_kwargs: {chat_template_kwargs!r:.100} can't be; give an object.")
        template = dict(chat_template_kwargs or {})
        template |= {name: options.pop(name) for name in options.keys() & (known - known_options())}
        if tools:
            if "tools" not in known:
                raise WeftError("The chat template knows no tools; leave them out, or give a model that calls tools.")
            template["tools"] = list(tools)
        longest = options.pop("max_new_tokens", LONGEST_REPLY)
        many = isinstance(messages, (list, tuple)) and bool(messages) and isinstance(messages[0], (list, tuple))
        conversations = cast(Sequence[Messages], messages if many else [messages])
        if stream:
            if many or beams != 1:
                raise WeftError("A stream is of one conversation, and without beams; leave stream or the others out.")
            from weft.streaming import (
                stream as streamed,
            )  # transformers, which a caption from a cold process is without

            sampling = _sampling(longest, options)
            return streamed(model, prompt_of(model, conversations[0], top_memory, reading, longest, template), sampling)
        check_options(options, "chat", {"chat_template_kwargs", "stream", *known})
        check_count("max_new_tokens", longest)
        prompts = [prompt_of(model, one, top_memory, reading, longest, template) for one in conversations]
        replies = [reply(model, prompt, beams=beams, longest=longest, **options) for prompt in prompts]
        said = [{"role": "assistant", "content": one.text} for one in replies]
        return said if many else said[0]

    def say(
        self,
        pictures: Any,
        instruction: str | Sequence[str],
        *,
        beams: int = 3,
        explain: Explain = False,
        weave: str | None = None,
        top_memory: int | None = None,
        **options: Any,
    ) -> Any:
        """Follow an instruction about each picture, or each of as many instructions about its own."""
        model = cast("WeftModel", self)
        if model.processor is None:
            raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
        check_value("explain", explain, EXPLAINS)
        check_options(options)
        given = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
        asked = [instruction] if isinstance(instruction, str) else list(instruction)
        if not given or not asked:
            return []
        count = max(len(given), len(asked))
        if not {len(given), len(asked)} <= {1, count}:
            raise DataError(
                f"{len(given)} pictures and {len(asked)} questions; give as many of each, or one of either."
            )
        owners = [0] * count if len(given) == 1 else list(range(count))
        prompts, columns = [], []
        for words in asked:
            rendered = model.processor.render(as_learned(model, about_a_picture(words)), add_generation_prompt=True)
            ids, (column,), _ = model.processor.tokenize(rendered)
            prompts.append(ids)
            columns.append(column)
        prompts, columns = ([one[0]] * count if len(asked) == 1 else one for one in (prompts, columns))  # type: ignore[assignment]
        with torch.inference_mode():
            reads = _read_each(model, given, weave)
            read = reads[0] if len(reads) == 1 else ReadMemory.concatenate(reads)
        if explain and read.weave in model.switches.off():
            raise WeftError(f"The weave {read.weave!r} is disabled, so no word needs the picture; leave out explain.")
        held = [[pair] for pair in zip(owners, columns, strict=True)]
        options |= {"longest": LONGEST, "top_memory": top_memory}
        captions = []
        for index, said in enumerate(respond(model, read, prompts, held, beams=beams, **options)):
            seen, shown = None, given[owners[index]]
            if explain:
                if isinstance(shown, (Memory, ReadMemory)):
                    raise WeftError("explain needs the picture itself, not only its memory; give the picture.")
                way = look if explain == "sketch" else needed
                image = load_image(shown)
                seen = way(model, reads[owners[index]], prompts[index], columns[index], said.tokens, image)
            captions.append(Caption(said.text, _name(shown), said.log_probability, seen))
        lists = isinstance(pictures, (list, tuple)) or not isinstance(instruction, str)
        return captions if lists else captions[0]


def _sampling(longest: int, options: dict[str, Any]) -> Sampling:
    """How the words of a stream are chosen."""
    from weft.drawing import Sampling

    check_options(options, "A stream")
    check_names(options, ("do_sample", "seed", *_DRAWS), "A stream")
    check_count("max_new_tokens", longest)
    given = {name: value for name, value in options.items() if name in _DRAWS and value is not None}
    temperature = float(given.pop("temperature", 1.0))
    return Sampling(longest, temperature if options.get("do_sample") else 0.0, seed=options.get("seed"), **given)


def _text(given: Any) -> str | Path | None:
    """A text, or the path of a document, if that is what was given; None for pictures."""
    if not isinstance(given, (str, Path)):
        return None
    from weft.documents import READERS

    if isinstance(given, Path) or names_file(given):
        return Path(given) if Path(given).suffix.lower() in READERS else None
    is_text = len(given.split()) > 1 or not given.isascii()  # in many scripts words stand without spaces
    return given if is_text and not URL.match(given) else None


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
