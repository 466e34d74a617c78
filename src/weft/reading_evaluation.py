"""Evaluation of what a model reads: answers, titles and summaries against those of people, and against controls.

:func:`evaluate_reading` lets a model respond to conversations about documents. The controls, measured in the same run,
are the bare language model with the documents in its prompt, which is what people do without Weft; the woven model with
the documents of another conversation, which shows whether it reads at all; and the first and the last sentence of the
documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from weft.answering import answer_each, without_refusing
from weft.conversations import write_objects
from weft.data import Example
from weft.errors import DataError
from weft.evaluable import with_room
from weft.instructions import HEADLINE, NOT_SAID, SUMMARIES
from weft.knowledge import KnowledgeBase, Passage
from weft.leaning import Leaning, lean, lean_on
from weft.memory import ReadMemory
from weft.model import WeftModel
from weft.passages import BOUND, PASSAGES, Piece, sentences
from weft.progress import Reporter
from weft.quoting import fits, quote
from weft.reading import LONGEST, evenly
from weft.reading_metrics import (
    citation_precision_recall,
    exact_match,
    recall_at,
    rouge,
    token_f1,
    top_citation,
)
from weft.responding import as_learned, respond
from weft.weaving import ReadingMode


@dataclass(frozen=True)
class Reading:
    """What a model said about documents, and what people said.

    Attributes:
        question: what was asked.
        prediction: what the model said.
        references: right answers.
        cited: ids of the documents that were read, the one leaned on most first; empty where nobody asked.
        supporting: ids of those that hold the answer.
    """

    question: str
    prediction: str
    references: list[str]
    cited: list[str]
    supporting: list[str]


def belongs(example: Example, task: str) -> bool:
    """Whether a conversation is one of a task: a title or a summary by its instruction, any other by having none."""
    question = example.question
    if task == "title":
        return question == HEADLINE
    if task == "summary":
        return question in SUMMARIES.values()
    return task == "read" or question not in (HEADLINE, *SUMMARIES.values())


def evaluate_reading(
    model: WeftModel,
    examples: Sequence[Example],
    task: str,
    *,
    knowledge: KnowledgeBase | None = None,
    passages: int = PASSAGES,
    controls: bool = False,
    limit: int | None = None,
    batch_size: int = 16,
    beams: int = 3,
    output: Path | None = None,
    reading: ReadingMode | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Let a model respond to conversations about documents; see :func:`weft.evaluation.evaluate`.

    Raises:
        DataError: no conversation is of the task, or one has no documents and there is no knowledge base.
    """
    chosen = [one for one in examples if belongs(one, task)][:limit]
    if not chosen:
        raise DataError(f"No conversation is of the task {task}; make the data with `weft data`.")
    how = model.weave_that_reads("texts").config.reading_of("answer" if task == "read" else task, reading)
    longest = LONGEST["long" if task == "summary" else "title" if task == "title" else "answer"]
    chosen = with_room(model, chosen, lambda one: one.messages[:-1], options.get("max_new_tokens", longest))
    held = [documents_of(model, one, knowledge, passages) for one in chosen]
    say: dict[str, Any] = {"batch_size": batch_size, "beams": beams, "longest": longest, **options}
    may_refuse = task == "answer"
    if task in ("title", "summary"):
        say |= without_refusing(model)
    cites = any(one.supporting for one in chosen)
    read: dict[str, Any] = {"how": how, "insisted": reading == how}
    said = _readings_of(model, chosen, held, cites=cites, may_refuse=may_refuse, **read, **say)
    if output is not None:
        write_objects(output, map(asdict, said))
    figures: dict[str, Any] = {"task": task, "reading": how, "conversations": len(said), "beams": beams, **judge(said)}
    figures |= _cited(said, knowledge is not None, passages)
    if controls:
        others = [held[_other(held, index)] for index in range(len(held))]
        wrong = _readings_of(model, chosen, others, may_refuse=may_refuse, **read, **say)
        figures |= {f"wrong_memory_{name}": value for name, value in judge(wrong).items()}
        bare = bare_readings(model, chosen, held, **say)
        figures |= {f"bare_{name}": value for name, value in judge(bare).items()}
        for name, place in (("first_sentence", 0), ("last_sentence", -1)):
            taken = [_reading(one, _sentence(passages, place), []) for one, passages in zip(chosen, held, strict=True)]
            figures |= {f"{name}_{figure}": value for figure, value in judge(taken).items() if figure != "not_said"}
    return figures


def read_and_judge(model: WeftModel, examples: Sequence[Example], *, batch_size: int = 16) -> dict[str, float]:
    """Figures of greedy responses to conversations about documents, whatever is asked; citations are not looked at."""
    held = [documents_of(model, one, None, PASSAGES) for one in examples]
    longest = LONGEST["long"] if any(one.question == SUMMARIES["long"] for one in examples) else LONGEST["answer"]
    say: dict[str, Any] = {"batch_size": batch_size, "beams": 1, "longest": longest, "may_refuse": True}
    how = model.weave_that_reads("texts").config.reading
    return judge(_readings_of(model, examples, held, how=how, insisted=True, **say))


def judge(said: Sequence[Reading]) -> dict[str, float]:
    """Figures of responses: ROUGE, and how many are the same as a right answer; the share of those that say that the
    text does not say."""
    predictions, right = [one.prediction for one in said], [one.references for one in said]
    figures = rouge(predictions, right)
    figures |= {"exact_match": exact_match(predictions, right), "f1": token_f1(predictions, right)}
    return figures | {"not_said": sum(text == NOT_SAID for text in predictions) / len(said)}


def _cited(said: Sequence[Reading], searched: bool, passages: int) -> dict[str, float]:
    """Figures of citations, over conversations that name the documents which hold the answer."""
    told = [one for one in said if one.supporting and one.cited]
    if not told:
        return {}
    cited, right = [one.cited for one in told], [one.supporting for one in told]
    single = [one for one in told if len(set(one.supporting)) == 1]
    figures: dict[str, float] = {}
    if searched:
        figures[f"recall_at_{passages}"] = recall_at(cited, right, passages)
    firsts = [ids[: len(set(truth))] for ids, truth in zip(cited, right, strict=True)]
    precision, recall = citation_precision_recall(firsts, right)
    figures |= {"citation_precision": precision, "citation_recall": recall}
    if single:
        figures["top_citation"] = top_citation([one.cited for one in single], [one.supporting for one in single])
    return figures


def _readings_of(
    model: WeftModel,
    examples: Sequence[Example],
    held: Sequence[Sequence[Piece]],
    *,
    how: ReadingMode,
    insisted: bool,
    may_refuse: bool = False,
    **say: Any,
) -> list[Reading]:
    """What a model says to conversations whose passages are read in some way; those too long for the prompt are read
    as a memory unless somebody insists."""
    memory = model.weave_that_reads("texts").config.reading if how == "prompt" else how
    asked = list(zip(examples, held, strict=True))
    room: dict[str, Any] = {"longest": say["longest"], "insisted": insisted}
    in_prompt = [how == "prompt" and fits(model, quote(model, some, one.question), **room) for one, some in asked]
    quoted = [pair for pair, stands in zip(asked, in_prompt, strict=True) if stands]
    read = [
        (one, [replace(piece, question=one.question) for piece in some] if memory == "careful" else some)
        for (one, some), stands in zip(asked, in_prompt, strict=True)
        if not stands
    ]
    said = iter(bare_readings(model, *_apart(quoted), **say))
    others = iter(readings(model, *_apart(read), may_refuse=may_refuse, **say))
    return [next(said if stands else others) for stands in in_prompt]


def _apart(asked: Sequence[tuple[Example, Sequence[Piece]]]) -> tuple[list[Example], list[Sequence[Piece]]]:
    return [one for one, _ in asked], [some for _, some in asked]


def readings(
    model: WeftModel,
    examples: Sequence[Example],
    held: Sequence[Sequence[Piece]],
    *,
    batch_size: int,
    beams: int,
    longest: int,
    cites: bool = False,
    may_refuse: bool = False,
    top_memory: int | None = None,
    **options: Any,
) -> list[Reading]:
    """What a model says to conversations, having read some passages for each.

    Args:
        model: the woven model.
        examples: the conversations.
        held: for each the passages to read.
        batch_size: conversations at once.
        beams: beams of the search.
        longest: tokens of a response, at most.
        cites: find out which documents each response leans on.
        may_refuse: decide first whether the passages hold an answer, as :func:`~weft.answering.answer_each` does.
        top_memory: how many passages each fusion layer looks at; None for all.
        **options: for ``generate``.
    """
    said: dict[int, Reading] = {}
    with Reporter() as reporter:
        reporter.start("responses", len(examples))
        for some, read, tokens, items in batches(model, examples, held, batch_size):
            say: dict[str, Any] = {"beams": beams, "longest": longest, "top_memory": top_memory, **options}
            if may_refuse:
                found = [one.response for one in answer_each(model, read, tokens, items, **say)]
            else:
                found = respond(model, read, tokens, items, **say)
            for index, prompt, own, response in zip(some, tokens, items, found, strict=True):
                leaned: list[str] = []
                if cites and read is not None:
                    leaning = lean(model, read, own, prompt, response.tokens, top_memory)
                    leaned = _ranked(leaning, held[index])
                said[index] = _reading(examples[index], response.text, leaned)
            reporter.advance(len(said))
    return [said[index] for index in range(len(examples))]


def batches(
    model: WeftModel, examples: Sequence[Example], held: Sequence[Sequence[Piece]], batch_size: int
) -> Iterator[tuple[list[int], ReadMemory | None, list[list[int]], list[list[tuple[int, int]]]]]:
    """Conversations as prompts over read memories, those with little to read first.

    Args:
        model: the woven model.
        examples: the conversations.
        held: for each the passages to read.
        batch_size: conversations at once.

    Yields:
        Indices of the conversations, what was read for them, tokens of their prompts, and the items that each holds.
    """
    order = sorted(range(len(examples)), key=lambda index: sum(len(piece.text) for piece in held[index]))
    memories: dict[str, ReadMemory] = {}
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        texts = {piece.content: piece for index in some for piece in held[index]}
        memories = {text: one for text, one in memories.items() if text in texts}
        missing = [piece for text, piece in texts.items() if text not in memories]
        if missing:
            fresh = model.read_texts(missing)
            memories |= {piece.content: fresh.item(place) for place, piece in enumerate(missing)}
        read = ReadMemory.concatenate([memories[text] for text in texts]) if texts else None
        places = {text: place for place, text in enumerate(texts)}
        prompts = [_prompt(model, examples[index]) for index in some]
        items = [
            [(places[piece.content], column) for piece in held[index]]
            for index, (_, column) in zip(some, prompts, strict=True)
        ]
        yield some, read, [prompt for prompt, _ in prompts], items


def bare_readings(
    model: WeftModel,
    examples: Sequence[Example],
    held: Sequence[Sequence[Piece]],
    *,
    batch_size: int,
    beams: int,
    longest: int,
    cites: bool = False,
    **options: Any,
) -> list[Reading]:
    """What the bare language model says with the passages in its prompt, and its own default system message; arguments
    as for :func:`readings`."""
    prompts = [quote(model, some, example.question) for example, some in zip(examples, held, strict=True)]
    order = sorted(range(len(examples)), key=lambda index: len(prompts[index].tokens))
    said: dict[int, Reading] = {}
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        tokens = [prompts[index].tokens for index in some]
        found = respond(model, None, tokens, [[]] * len(some), beams=beams, longest=longest, **options)
        for index, response in zip(some, found, strict=True):
            leaned = _ranked(lean_on(model, prompts[index], response.tokens)[0], held[index]) if cites else []
            said[index] = _reading(examples[index], response.text, leaned)
    return [said[index] for index in range(len(examples))]


def documents_of(model: WeftModel, example: Example, knowledge: KnowledgeBase | None, passages: int) -> list[Piece]:
    """The passages to read: those that are found, or those of the conversation's documents."""
    if knowledge is not None:
        found = knowledge.search(example.question, limit=passages, source=example.source)
        return [Piece(one.text, _id(one), one.span[0]) for one in found]
    documents = example.documents
    if not documents:
        raise DataError(f"{example.where}: the conversation holds no documents; give a knowledge base to look in.")
    encoder = model.encoder(model.weave_that_reads("texts").name)
    cut = [
        piece for number, one in enumerate(documents) for piece in encoder.cut(one["text"], str(one.get("id", number)))
    ]
    return evenly(cut, max(BOUND, len(documents)))


def _id(passage: Passage) -> str:
    """What data calls a passage of a knowledge base: its source, and its part where it has one."""
    return f"{passage.source}#{passage.part}" if passage.part else passage.source


def _prompt(model: WeftModel, example: Example) -> tuple[list[int], int]:
    """The tokens of a conversation up to its last answer, and the column from which on its documents may be seen."""
    assert model.processor is not None
    messages = list(example.messages[:-1])
    if not example.documents:
        last = messages[-1]
        content = last["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        messages[-1] = {**last, "content": [{"type": "document", "text": ""}, *parts]}
    rendered = model.processor.render(as_learned(model, messages), add_generation_prompt=True, **example.template)
    tokenized = model.processor.tokenize(rendered)
    return tokenized.ids, min(tokenized.document_columns)


def _ranked(leaning: Leaning, passages: Sequence[Piece]) -> list[str]:
    """Names of the documents, the one that a response leans on most first."""
    shares: dict[str, float] = {}
    for piece, share in zip(passages, leaning.shares, strict=False):
        shares[piece.name] = shares.get(piece.name, 0.0) + float(share)
    return sorted(shares, key=lambda name: -shares[name])


def _reading(example: Example, text: str, cited: list[str]) -> Reading:
    references = list(dict.fromkeys([example.answer, *example.references]))
    return Reading(example.question, text, references, cited, list(example.supporting))


def _sentence(passages: Sequence[Piece], place: int) -> str:
    """The sentence in one place of what is read; nothing where nothing is."""
    spans = [piece.text[begin:end] for piece in passages for begin, end in sentences(piece.text)]
    return spans[place] if spans else ""


def _other(held: Sequence[Sequence[Piece]], index: int) -> int:
    """A conversation that reads other passages: the next one that shares none."""
    own = {piece.text for piece in held[index]}
    for step in range(1, len(held)):
        other = (index + step) % len(held)
        if not own & {piece.text for piece in held[other]}:
            return other
    return index
