"""What people ask of a model that reads texts: answers with citations, titles and summaries.

:class:`ReadingTasks` is a part of what :class:`~weft.model.WeftModel` offers. Texts of any length are cut into passages
at the ends of sentences. How these are read is up to ``reading``: ``"once"``, each encoded alone for all questions;
``"careful"``, each encoded for this question, which stands before it; in both ways all of them together are the memory.
Or ``"prompt"``: they stand in the prompt of the bare language model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from weft.answering import answer_each, without_refusing
from weft.errors import DataError, WeftError
from weft.generation_options import check_options
from weft.instructions import HEADLINE, NOT_SAID, SUMMARIES, Length
from weft.leaning import Leaning, lean, lean_on
from weft.memory import ReadMemory
from weft.options import check_value, near
from weft.passages import BOUND, PASSAGES, Piece, Span
from weft.quoting import fits, quote
from weft.rendering import about_documents
from weft.responding import Response, as_learned, reply, respond
from weft.search import Prompt
from weft.text_sources import check_words, may_be_path, text_or_file
from weft.weaving import ReadingMode

if TYPE_CHECKING:
    from weft.knowledge import KnowledgeBase, Mode, Passage
    from weft.labels import Value
    from weft.model import WeftModel

LONGEST: dict[str, int] = {"answer": 80, "title": 32, "short": 96, "medium": 200, "long": 480}
"""Tokens after which a text is cut off."""


_OWN = ("beams", "top_memory", "longest")
"""Options that are not for ``generate``."""


@dataclass(frozen=True)
class Citation:
    """A passage that an answer leans on.

    Attributes:
        text: the passage.
        source: its file, or what it was given as.
        part: the part of the file that ``span`` refers to; empty for the whole file.
        span: where it stands there, in characters.
        weight: its share of the attention with which the answer was written; those of an answer sum to one.
        quote: the sentence of it on which the answer leans most.
        quote_span: where that stands, in characters of the same part.
    """

    text: str
    source: str
    part: str
    span: Span
    weight: float
    quote: str
    quote_span: Span


@dataclass(frozen=True)
class Answer:
    """An answer to a question, from passages.

    Attributes:
        text: the words.
        question: the question.
        confident: whether the passages hold an answer; where they do not, the text says so.
        confidence: the probability that they do, as the weave has learned it, or as :func:`weft.calibrate` has made it;
            None where they stood in the prompt, of which no weave has learned to judge.
        citations: the passages that were read, the one that the answer leans on most first; none where there is no
            answer.
        log_probability: of the text, natural logarithm, summed over its tokens.
        reading: how the passages were read.
    """

    text: str
    question: str
    confident: bool
    confidence: float | None
    citations: tuple[Citation, ...]
    log_probability: float
    reading: ReadingMode = "once"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Summary:
    """A title or a summary of a text.

    Attributes:
        text: the words.
        name: what the text is called.
        log_probability: of the words, natural logarithm, summed over their tokens.
        article: the text that it is of.
        read: passages of it that were read, and passages that it has.
        leaning: what its words leaned on; None unless it was asked for.
        reading: how it was read.
    """

    text: str
    name: str
    log_probability: float
    article: str = field(repr=False)
    read: tuple[int, int]
    leaning: Leaning | None = field(default=None, repr=False)
    reading: ReadingMode = "once"

    def __str__(self) -> str:
        return self.text

    def sentences(self) -> list[tuple[Span, float]]:
        """The sentences that were read, as spans of the article, each with its share of what the words leaned on.

        Raises:
            WeftError: it was not asked for.
        """
        if self.leaning is None:
            raise WeftError("This text does not know what it leaned on; ask with explain=True.")
        return sorted(one for item in range(len(self.leaning.items)) for one in self.leaning.sentences(item))


class ReadingTasks:
    """Answers, titles and summaries; a part of :class:`~weft.model.WeftModel`."""

    def answer(
        self,
        question: str,
        knowledge: KnowledgeBase | str | Path | Sequence[str],
        *,
        passages: int = PASSAGES,
        mode: Mode = "text",
        source: str | None = None,
        where: Mapping[str, Value] | None = None,
        beams: int = 3,
        keep: bool = False,
        top_memory: int | None = None,
        reading: ReadingMode | None = None,
        **options: Any,
    ) -> Answer:
        """Answer a question from a knowledge base, or from texts, and cite.

        Args:
            question: the question.
            knowledge: a knowledge base, the folder of one that has been indexed, or texts, all of which are read.
            passages: passages to look up.
            mode: how to look them up: by ``"text"``, ``"semantic"`` or ``"hybrid"``.
            source: a pattern for the files to look in, as in ``"guide/*.md"``; None for all.
            where: values that a document's metadata must have; None for a name of which it is to have none.
            beams: beams of the search for words; 1 is greedy.
            keep: keep what was read beside the index, so that no passage is read twice.
            top_memory: how many of the passages each fusion layer looks at, at each word the most promising ones; None
                for all.
            reading: how the passages are read: ``"once"`` for all questions, ``"careful"`` with the question before
                each of them, or ``"prompt"`` as words of the prompt, by the bare language model; by default what
                measured best for the weave, with ``"prompt"`` only for texts that are short
                (:data:`weft.quoting.LONGEST_PROMPT`). In the prompt nothing is refused, and what is said does not
                depend on the weave.
            **options: for ``generate``.

        Raises:
            WeftError: the folder has not been indexed, the question is longer than the language model takes, or so are
                the passages that are to stand in the prompt; or ``top_memory`` is below one.
            DataError: the question is empty.
        """
        if not isinstance(question, str) or not question.strip():
            raise DataError("The question is empty; ask something.")
        check_options(options, "answer")
        model = cast("WeftModel", self)
        base = _base(knowledge)
        if base is None:
            found = _given(model, cast("Sequence[str]", knowledge))
        else:
            found = base.search(question, limit=passages, mode=mode, source=source, where=where)
        if not found:
            return Answer(NOT_SAID, question, False, 0.0, (), 0.0)
        options = {"beams": beams, "longest": options.pop("max_new_tokens", LONGEST["answer"]), **options}
        how, quoting = way(model, "answer", reading, _pieces(found), question, options["longest"])
        if quoting is not None:
            said = reply(model, quoting, **options)
            citations = cite(found, lean_on(model, quoting, said.tokens)[0]) if said.tokens else ()
            return Answer(said.text, question, True, None, citations, said.log_probability, how)
        sight = question if how == "careful" else ""
        if base is None:  # with room for the question
            found = _given(model, cast("Sequence[str]", knowledge), sight)
        read = read_pieces(model, _pieces(found), sight, base if keep else None)
        prompt, held = prompt_about(model, question, range(len(read)))
        options["top_memory"] = top_memory
        (answered,) = answer_each(model, read, [prompt], [held], **options)
        said, confident = answered.response, answered.response.text != NOT_SAID
        citations = cite(found, lean(model, read, held, prompt, said.tokens, top_memory)) if confident else ()
        return Answer(said.text, question, confident, answered.confidence, citations, said.log_probability, how)

    def summarize(
        self,
        text: str | Path,
        *,
        length: Length = "medium",
        bound: int = BOUND,
        beams: int = 1,
        explain: bool = False,
        top_memory: int | None = None,
        reading: ReadingMode | None = None,
        **options: Any,
    ) -> Summary:
        """Summarize a text of any length.

        Args:
            text: the text, or the path of a document (.txt, .md, .html, .pdf, .docx); a string that is the name of a
                file is never taken for a text.
            length: ``"short"``, ``"medium"`` or ``"long"``.
            bound: passages of it that are read, at most; of a longer text those are chosen that stand evenly apart.
            beams: beams of the search; 1 is greedy.
            explain: find out which sentences the summary leaned on.
            top_memory: how many of the passages that are read each fusion layer looks at, at each word the most
                promising ones; None for all.
            reading: how it is read, as for :meth:`answer`, the instruction being the question.
            **options: for ``generate``.

        Raises:
            DataError: there is nothing to summarize, the document can't be read, or there is no such length.
            WeftError: ``top_memory`` is below one, or the text is too long for the prompt that it is to stand in.
        """
        if not isinstance(length, str) or length not in SUMMARIES:
            raise DataError(f"{length!r} is no length of a summary; {near(length, SUMMARIES, 'choose')}")
        options |= {"beams": beams, "top_memory": top_memory, "longest": LONGEST[length]}
        return self._write_about("summary", text, SUMMARIES[length], bound, reading, explain, options)

    def title_text(
        self,
        text: str | Path,
        *,
        bound: int = BOUND,
        beams: int = 3,
        explain: bool = False,
        top_memory: int | None = None,
        reading: ReadingMode | None = None,
        **options: Any,
    ) -> Summary:
        """Give a text a title; arguments and result as for :meth:`summarize`."""
        options |= {"beams": beams, "top_memory": top_memory, "longest": LONGEST["title"]}
        return self._write_about("title", text, HEADLINE, bound, reading, explain, options)

    def _write_about(
        self,
        task: str,
        text: str | Path,
        instruction: str,
        bound: int,
        reading: ReadingMode | None,
        explain: bool,
        options: dict[str, Any],
    ) -> Summary:
        model = cast("WeftModel", self)
        check_options({name: value for name, value in options.items() if name not in _OWN}, task)
        check_value("explain", explain, (True, False))
        name, article = document(text)
        encoder = model.encoder(model.weave_that_reads("texts").name)
        every = encoder.cut(article, name)
        longest = options["longest"] = options.pop("max_new_tokens", options["longest"])
        how, quoting = way(model, task, reading, evenly(every, bound), instruction, longest)
        leaning: Leaning | None
        if quoting is not None:
            del options["top_memory"]
            said = reply(model, quoting, **{**without_refusing(model), **options})
            leaning = lean_on(model, quoting, said.tokens)[0] if explain else None
        else:
            sight = instruction if how == "careful" else ""
            every = encoder.cut(article, name, question=sight)
            read = read_pieces(model, evenly(every, bound), sight)
            said, leaning = say_of(model, read, instruction, leans=explain, **options)
        counts = (min(len(every), bound), len(every))
        return Summary(said.text, name, said.log_probability, article, counts, leaning, how)


def way(
    model: WeftModel, task: str, asked: ReadingMode | None, pieces: Sequence[Piece], question: str, longest: int
) -> tuple[ReadingMode, Prompt | None]:
    """How passages are read for a task, and the prompt that holds them if that is how.

    Args:
        model: the woven model.
        task: ``"answer"``, ``"title"`` or ``"summary"``.
        asked: how somebody wants them to be read; None for what measured best.
        pieces: the passages.
        question: the question, or the instruction.
        longest: tokens of what is to be said.

    Raises:
        WeftError: they are to stand in the prompt, and are too long for it.
    """
    config = model.weave_that_reads("texts").config
    mode = config.reading_of(task, asked)
    if mode != "prompt":
        return mode, None
    prompt = quote(model, pieces, question)
    return (mode, prompt) if fits(model, prompt, longest, insisted=asked == mode) else (config.reading, None)


def say_of(
    model: WeftModel,
    read: ReadMemory,
    instruction: str,
    beams: int,
    longest: int,
    *,
    leans: bool,
    top_memory: int | None = None,
    **options: Any,
) -> tuple[Response, Leaning | None]:
    """Follow an instruction about all items of a memory of passages, and say what the words leaned on."""
    prompt, held = prompt_about(model, instruction, range(len(read)))
    options = {"beams": beams, "longest": longest, **without_refusing(model), **options}
    (response,) = respond(model, read, [prompt], [held], top_memory=top_memory, **options)
    return response, lean(model, read, held, prompt, response.tokens, top_memory) if leans else None


def prompt_about(model: WeftModel, instruction: str, items: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a prompt about documents, and the items that it holds."""
    if model.processor is None:
        raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
    messages = as_learned(model, about_documents([""], instruction))
    rendered = model.processor.render(messages, add_generation_prompt=True)
    prompt, _, (column,) = model.processor.tokenize(rendered)
    return prompt, [(item, column) for item in items]


def read_pieces(
    model: WeftModel, pieces: Sequence[Piece], question: str = "", keeper: KnowledgeBase | None = None
) -> ReadMemory:
    """Read passages, those that are kept beside an index from there.

    Args:
        model: the woven model.
        pieces: the passages.
        question: the question in whose sight they are encoded; empty for none.
        keeper: the knowledge base beside whose index they are kept; None for none.
    """
    asked = [replace(piece, question=question) for piece in pieces]
    if keeper is None:
        return model.read_texts(asked)
    return ReadMemory.concatenate(keeper.memories.read(model, asked))


def cite(found: Sequence[Passage], leaning: Leaning) -> tuple[Citation, ...]:
    """Passages as citations, the one that was leaned on most first; none where nothing was looked at."""
    citations = []
    if not leaning.items:
        return ()
    for index, (passage, share) in enumerate(zip(found, leaning.shares, strict=True)):
        spans = leaning.sentences(index) or [(passage.span, 0.0)]
        (begin, end), _ = max(spans, key=lambda one: one[1])
        start = passage.span[0]
        quote = passage.text[begin - start : end - start]
        weight = float(share)
        citations.append(
            Citation(passage.text, passage.source, passage.part, passage.span, weight, quote, (begin, end))
        )
    return tuple(sorted(citations, key=lambda one: -one.weight))


def document(text: str | Path) -> tuple[str, str]:
    """The name and the text of what is given: a text, or the path of a document.

    What was guessed, replaced or left out in reading the document is logged as a warning.

    Raises:
        DataError: it is neither, it is empty, or can't be read.
    """
    text = text_or_file(text)
    if isinstance(text, Path):
        from weft.documents import read_documents

        parts = list(read_documents(text))
        name, words = str(text), "\n\n".join(part.text for part in parts)
        for note in (note for part in parts for note in part.notes):
            logging.getLogger(__name__).warning("%s %s.", name, note)
    else:
        name, words = "text", text
    if not words.strip():
        raise DataError(f"{name} holds no text; give one with words in it.")
    return name, words


def evenly(pieces: Sequence[Piece], bound: int) -> list[Piece]:
    """At most so many passages: all, or those that stand evenly apart, the first and the last among them.

    Raises:
        DataError: the bound is below one.
    """
    if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
        raise DataError(f"bound: {bound!r:.100} passages are too few; give at least 1.")
    if len(pieces) <= bound:
        return list(pieces)
    step = (len(pieces) - 1) / max(1, bound - 1)
    return [pieces[round(index * step)] for index in range(bound)]


def _base(knowledge: Any) -> KnowledgeBase | None:
    """The knowledge base that was given, or whose folder was; None for texts."""
    from weft.knowledge import KnowledgeBase

    if isinstance(knowledge, KnowledgeBase):
        return knowledge
    if isinstance(knowledge, (str, Path)):
        if not may_be_path(str(knowledge)):
            raise DataError(f"{str(knowledge)!r:.100} is no folder; give the folder of documents, or a list of texts.")
        return KnowledgeBase(knowledge)
    if not isinstance(knowledge, (list, tuple)):
        raise DataError(f"Knowledge is {knowledge!r:.100}; give a knowledge base, its folder, or a list of texts.")
    for one in knowledge:
        if not isinstance(one, str):
            raise DataError(f"A text is {one!r:.100}; give a list of strings.")
        check_words(one, "A text")
    return None


def _pieces(found: Sequence[Passage]) -> list[Piece]:
    """Passages as they are encoded."""
    return [Piece(one.text, one.source, one.span[0]) for one in found]


def _given(model: WeftModel, texts: Sequence[str], question: str = "") -> list[Passage]:
    """Texts as passages, with room for a question before each."""
    from weft.knowledge import Passage

    encoder = model.encoder(model.weave_that_reads("texts").name)
    return [
        Passage(piece.text, piece.name, "", (piece.start, piece.start + len(piece.text)), 0.0)
        for number, text in enumerate(texts, 1)
        for piece in encoder.cut(text, f"text {number}" if len(texts) > 1 else "text", question=question)
    ]
