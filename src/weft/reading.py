"""What people ask of a model that reads texts: answers with citations, titles and summaries.

:class:`ReadingTasks` is a part of what :class:`~weft.model.WeftModel` offers. Texts of any length are cut into passages
at the ends of sentences, each passage is encoded alone and read once, and all of them together are the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from weft.answering import answer_each, without_refusing
from weft.errors import DataError, WeftError
from weft.instructions import HEADLINE, NOT_SAID, SUMMARIES, Length
from weft.leaning import Leaning, lean
from weft.memory import ReadMemory
from weft.passages import BOUND, PASSAGES, Span
from weft.rendering import about_documents
from weft.responding import Response, respond

if TYPE_CHECKING:
    from weft.knowledge import KnowledgeBase, Mode, Passage
    from weft.model import WeftModel
    from weft.text_encoders import Piece

LONGEST: dict[str, int] = {"answer": 80, "title": 32, "short": 96, "medium": 200, "long": 480}
"""Tokens after which a text is cut off."""


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
        confidence: the probability that they do, as the weave has learned it, or as :func:`weft.calibrate` has made it.
        citations: the passages that were read, the one that the answer leans on most first; none where there is no
            answer.
        log_probability: of the text, natural logarithm, summed over its tokens.
    """

    text: str
    question: str
    confident: bool
    confidence: float
    citations: tuple[Citation, ...]
    log_probability: float

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
    """

    text: str
    name: str
    log_probability: float
    article: str = field(repr=False)
    read: tuple[int, int]
    leaning: Leaning | None = field(default=None, repr=False)

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
        where: Mapping[str, str] | None = None,
        beams: int = 3,
        keep: bool = False,
        top_memory: int | None = None,
        **options: Any,
    ) -> Answer:
        """Answer a question from a knowledge base, or from texts, and cite.

        Args:
            question: the question.
            knowledge: a knowledge base, the folder of one that has been indexed, or texts, all of which are read.
            passages: passages to look up.
            mode: how to look them up: by ``"text"``, ``"semantic"`` or ``"hybrid"``.
            source: a pattern for the files to look in, as in ``"guide/*.md"``; None for all.
            where: values that a document's metadata must have.
            beams: beams of the search for words; 1 is greedy.
            keep: keep what was read beside the index, so that no passage is read twice.
            top_memory: how many of the passages each fusion layer looks at, at each word the most promising ones; None
                for all.
            **options: for ``generate``.

        Raises:
            WeftError: the folder has not been indexed, the question is longer than the language model takes, or
                ``top_memory`` is below one.
            DataError: the question is empty.
        """
        if not question.strip():
            raise DataError("The question is empty; ask something.")
        model = cast("WeftModel", self)
        base = _base(knowledge)
        if base is None:
            found = _given(model, cast("Sequence[str]", knowledge))
        else:
            found = base.search(question, limit=passages, mode=mode, source=source, where=where)
        if not found:
            return Answer(NOT_SAID, question, False, 0.0, (), 0.0)
        read = read_passages(model, found, base if keep else None)
        prompt, held = prompt_about(model, question, range(len(read)))
        options = {"beams": beams, "longest": LONGEST["answer"], "top_memory": top_memory, **options}
        (answered,) = answer_each(model, read, [prompt], [held], **options)
        response, confident = answered.response, answered.response.text != NOT_SAID
        citations: tuple[Citation, ...] = ()
        if confident:
            citations = cite(found, lean(model, read, held, prompt, response.tokens, top_memory))
        return Answer(response.text, question, confident, answered.confidence, citations, response.log_probability)

    def summarize(
        self,
        text: str | Path,
        *,
        length: Length = "medium",
        bound: int = BOUND,
        beams: int = 1,
        explain: bool = False,
        top_memory: int | None = None,
        **options: Any,
    ) -> Summary:
        """Summarize a text of any length.

        Args:
            text: the text, or the path of a document (.txt, .md, .html, .pdf, .docx).
            length: ``"short"``, ``"medium"`` or ``"long"``.
            bound: passages of it that are read, at most; of a longer text those are chosen that stand evenly apart.
            beams: beams of the search; 1 is greedy.
            explain: find out which sentences the summary leaned on.
            top_memory: how many of the passages that are read each fusion layer looks at, at each word the most
                promising ones; None for all.
            **options: for ``generate``.

        Raises:
            DataError: there is nothing to summarize, the document can't be read, or there is no such length.
            WeftError: ``top_memory`` is below one.
        """
        if length not in SUMMARIES:
            raise DataError(f"{length!r} is no length of a summary; choose {', '.join(SUMMARIES)}.")
        longest = LONGEST[length]
        options["top_memory"] = top_memory
        return self._write_about(text, SUMMARIES[length], bound, beams, longest, explain, options)

    def title_text(
        self,
        text: str | Path,
        *,
        bound: int = BOUND,
        beams: int = 3,
        explain: bool = False,
        top_memory: int | None = None,
        **options: Any,
    ) -> Summary:
        """Give a text a title; arguments and result as for :meth:`summarize`."""
        options["top_memory"] = top_memory
        return self._write_about(text, HEADLINE, bound, beams, LONGEST["title"], explain, options)

    def _write_about(
        self,
        text: str | Path,
        instruction: str,
        bound: int,
        beams: int,
        longest: int,
        explain: bool,
        options: dict[str, Any],
    ) -> Summary:
        model = cast("WeftModel", self)
        name, article = document(text)
        every = model.encoder(model.weave_that_reads("texts").name).cut(article, name)
        chosen = evenly(every, bound)
        read = model.read_texts(chosen)
        response, leaning = say_of(model, read, instruction, beams, longest, leans=explain, **options)
        counts = (len(chosen), len(every))
        return Summary(response.text, name, response.log_probability, article, counts, leaning)


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
    rendered = model.processor.render(about_documents([""], instruction), add_generation_prompt=True)
    prompt, _, (column,) = model.processor.tokenize(rendered)
    return prompt, [(item, column) for item in items]


def read_passages(model: WeftModel, found: Sequence[Passage], keeper: KnowledgeBase | None = None) -> ReadMemory:
    """Read passages, those that are kept beside an index from there.

    Args:
        model: the woven model.
        found: the passages.
        keeper: the knowledge base beside whose index they are kept; None for none.
    """
    from weft.text_encoders import Piece

    pieces = [Piece(one.text, one.source, one.span[0]) for one in found]
    if keeper is None:
        return model.read_texts(pieces)
    return ReadMemory.concatenate(keeper.memories.read(model, pieces))


def cite(found: Sequence[Passage], leaning: Leaning) -> tuple[Citation, ...]:
    """Passages as citations, the one that was leaned on most first."""
    citations = []
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

    Raises:
        DataError: it is empty, or can't be read.
    """
    if isinstance(text, Path):
        from weft.documents import read_documents

        parts = list(read_documents(text))
        name, words = str(text), "\n\n".join(part.text for part in parts)
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
    if bound < 1:
        raise DataError(f"bound: {bound} passages are too few; give at least 1.")
    if len(pieces) <= bound:
        return list(pieces)
    step = (len(pieces) - 1) / max(1, bound - 1)
    return [pieces[round(index * step)] for index in range(bound)]


def _base(knowledge: Any) -> KnowledgeBase | None:
    """The knowledge base that was given, or whose folder was; None for texts."""
    from weft.knowledge import KnowledgeBase

    if isinstance(knowledge, (str, Path)):
        return KnowledgeBase(knowledge)
    return knowledge if isinstance(knowledge, KnowledgeBase) else None


def _given(model: WeftModel, texts: Sequence[str]) -> list[Passage]:
    """Texts as passages."""
    from weft.knowledge import Passage

    encoder = model.encoder(model.weave_that_reads("texts").name)
    return [
        Passage(piece.text, piece.name, "", (piece.start, piece.start + len(piece.text)), 0.0)
        for number, text in enumerate(texts, 1)
        for piece in encoder.cut(text, f"text {number}" if len(texts) > 1 else "text")
    ]
