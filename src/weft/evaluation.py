"""Evaluation: a woven model on a data set that it has not seen.

:func:`evaluate` is given a model and conversations with references; it responds to them and hands on figures: of words
about pictures those of :mod:`weft.metrics` and :mod:`weft.hallucination` and the perplexity of the references, of
questions those of :mod:`weft.reading_metrics`. Conversations about documents go to :mod:`weft.reading_evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch

from weft.choosing import check_top
from weft.conversations import write_objects
from weft.data import Example, collate, load_examples, rows_of
from weft.data_files import Files, listed
from weft.errors import DataError
from weft.evaluable import asks, with_room, with_sound_pictures
from weft.hallucination import ObjectWords, chair_i, named
from weft.instructions import HEADLINE
from weft.knowledge import KnowledgeBase
from weft.memory import Memory, Placement
from weft.metrics import bleu, cider_d, rouge_l
from weft.model import WeftModel
from weft.output_files import check_free
from weft.passages import PASSAGES
from weft.progress import Reporter
from weft.rendering import about_a_picture
from weft.responding import as_learned, respond
from weft.tally import Tally
from weft.tasks import INSTRUCTIONS, LONGEST, Task
from weft.weaving import ReadingMode
from weft.whole_files import check_writable

EvaluatedTask = Literal["caption", "title", "summary", "answer", "read", "vqa"]
"""What can be evaluated: words about pictures; titles, summaries and answers from documents; whatever is asked of the
documents of a conversation; answers about pictures."""


def evaluate(
    model: WeftModel,
    data: str | Path | Iterable[Any],
    *,
    task: EvaluatedTask = "caption",
    knowledge: KnowledgeBase | str | Path | None = None,
    passages: int = PASSAGES,
    controls: bool = False,
    limit: int | None = None,
    batch_size: int = 16,
    beams: int = 3,
    top_memory: int | None = None,
    reading: ReadingMode | None = None,
    output: str | Path | None = None,
    unanswerable: Files = (),
    reliability: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Let a model respond to a data set that it has not seen, and compare it with what people said.

    Args:
        model: the woven model.
        data: JSONL of conversations, or the conversations themselves: dicts in a list, a ``datasets.Dataset``. Of a
            caption or the title of a picture, all conversations about that picture are taken together, and all their
            answers are right.
        task: what is asked.
        knowledge: a knowledge base, or its folder, to look for documents in; by default they are in the messages.
        passages: passages to look up there.
        controls: measure controls as well: with a wrong memory, and for documents the bare language model with them in
            its prompt, and their first and last sentence.
        limit: pictures, or conversations, to look at; None for all.
        batch_size: how many of them at once.
        beams: beams of the search.
        top_memory: how many of the documents that are read each fusion layer looks at; None for all.
        reading: how documents are read, as for ``model.answer``; None for what measured best for the task.
        output: file to which the responses are written, one JSON object a line.
        unanswerable: JSONL of questions that their documents do not answer, for the task ``answer``: how well the model
            tells them from those of ``data``.
        reliability: file for a table, in Markdown, of how true its probability is that a question has no answer.
        **options: for ``generate``.

    Returns:
        Of pictures ``pictures``, ``bleu_1`` to ``bleu_4``, ``rouge_l``, ``cider`` (CIDEr-D) and ``perplexity``, and
        ``chair_i`` and ``named`` of those whose objects the data gives; of documents ``rouge_1``, ``rouge_2``,
        ``rouge_l``, ``exact_match``, ``f1`` and figures of citations, and with ``unanswerable`` those of
        :func:`weft.refusals.judge_refusals`; of questions about pictures ``exact_match``,
        ``vqa_accuracy`` and ``f1``. All are fractions but perplexity.

    Raises:
        DataError: the data can't be used, holds nothing of the task, or there are unanswerable questions for a task
            that has none.
        WeftError: ``top_memory`` is below one, or a file is to be written over that is read, or was not written here.
    """
    check_top(top_memory)
    if task != "answer" and (unanswerable or reliability):
        raise DataError(f"The task {task} has no unanswerable questions; leave them out, or take the task answer.")
    if reliability and not unanswerable:
        raise DataError("A table of reliability needs unanswerable questions; give some.")
    sources = [str(one) for one in (data, *listed(unanswerable)) if isinstance(one, (str, Path))]
    for file, mark in ((output, b'"prediction"'), (reliability, b"|")):
        if file is not None:
            check_free(Path(file), sources, mark)
            check_writable(Path(file))
    tally = Tally()
    examples = load_examples(data, tally=tally)
    say = {"limit": limit, "batch_size": batch_size, "beams": beams, "top_memory": top_memory, **options}
    target = None if output is None else Path(output)
    examples = with_sound_pictures(examples, task, limit, tally)
    Reporter().say(*tally.sentences)
    of_texts = task == "title" and any(one.documents and one.question == HEADLINE for one in examples)
    if of_texts or task in ("summary", "answer", "read"):
        from weft.reading_evaluation import evaluate_reading

        base = KnowledgeBase(knowledge) if isinstance(knowledge, (str, Path)) else knowledge
        say |= {"knowledge": base, "passages": passages, "controls": controls, "output": target, "reading": reading}
        figures = evaluate_reading(model, examples, task, **say)
        if unanswerable:
            from weft.refusals import judge_refusals

            look: dict[str, Any] = {"limit": limit, "batch_size": batch_size, "top_memory": top_memory}
            look |= {
                "knowledge": base,
                "passages": passages,
                "table": None if reliability is None else Path(reliability),
            }
            figures |= judge_refusals(model, examples, unanswerable, **look)
        return figures
    if task == "vqa":
        return _evaluate_questions(model, examples, controls=controls, output=target, **say)
    return _evaluate_pictures(model, examples, cast(Task, task), output=target, **say)


def _evaluate_pictures(
    model: WeftModel, examples: Sequence[Example], task: Task, *, output: Path | None, batch_size: int, **say: Any
) -> dict[str, Any]:
    said = answers(model, examples, task, batch_size=batch_size, **say)
    pictures = [one.picture for one in said]
    predictions, right = [one.prediction for one in said], [one.references for one in said]
    if output is not None:
        write_objects(output, map(_line, said))
    seen, instruction = set(pictures), INSTRUCTIONS[task]
    kept = [one for one in examples if asks(one, instruction) and one.pictures[0] in seen]
    figures: dict[str, Any] = {"task": task, "pictures": len(pictures), "beams": say["beams"]}
    figures |= {f"bleu_{order}": value for order, value in enumerate(bleu(predictions, right), 1)}
    figures |= {"rouge_l": rouge_l(predictions, right), "cider": cider_d(predictions, right)}
    return figures | _hallucination(said, examples) | {"perplexity": perplexity(model, kept, batch_size=batch_size)}


def _hallucination(said: Sequence[Said], examples: Sequence[Example]) -> dict[str, float]:
    """What the words about pictures whose objects are annotated name of them; nothing where there are none."""
    seen = [one for one in said if one.objects]
    if not seen:
        return {}
    words = ObjectWords(one for example in examples for one in example.objects)
    predictions, objects = [one.prediction for one in seen], [one.objects for one in seen]
    return {
        "chair_i": chair_i(predictions, [one.references for one in seen], objects, words),
        "named": named(predictions, objects, words),
    }


def _evaluate_questions(
    model: WeftModel,
    examples: Sequence[Example],
    *,
    controls: bool,
    output: Path | None,
    limit: int | None,
    batch_size: int,
    **say: Any,
) -> dict[str, Any]:
    """Questions about pictures; the control is asked about the picture of another question."""
    asked = [one for one in examples if one.pictures and one.question not in INSTRUCTIONS.values()][:limit]
    if not asked:
        raise DataError("No conversation asks about a picture; make the data with `weft data flickr8k-questions`.")
    asked = with_room(model, asked, lambda one: about_a_picture(one.question), say.get("max_new_tokens", LONGEST))
    pictures = [one.pictures[0] for one in asked]
    said = _answers_about(model, asked, pictures, batch_size, say)
    if output is not None:
        write_objects(output, map(_line, said))
    figures: dict[str, Any] = {"task": "vqa", "questions": len(said), "beams": say["beams"], **_judged(said)}
    if controls:
        half = len(pictures) // 2
        wrong = _answers_about(model, asked, [*pictures[half:], *pictures[:half]], batch_size, say)
        figures |= {f"wrong_memory_{name}": value for name, value in _judged(wrong).items()}
    return figures


def _judged(said: Sequence[Said]) -> dict[str, float]:
    from weft.reading_metrics import exact_match, token_f1, vqa_accuracy

    predictions, right = [one.prediction for one in said], [one.references for one in said]
    return {
        "exact_match": exact_match(predictions, right),
        "vqa_accuracy": vqa_accuracy(predictions, right),
        "f1": token_f1(predictions, right),
    }


def _answers_about(
    model: WeftModel, asked: Sequence[Example], pictures: Sequence[str], batch_size: int, say: dict[str, Any]
) -> list[Said]:
    """What a model answers to questions, each about one of the pictures; questions about one share its memory."""
    assert model.processor is not None
    said: list[Said] = []
    with Reporter() as reporter:
        reporter.start("questions", len(asked))
        for start in range(0, len(asked), batch_size):
            some, shown = asked[start : start + batch_size], pictures[start : start + batch_size]
            names = list(dict.fromkeys(shown))
            messages = [as_learned(model, about_a_picture(one.question)) for one in some]
            rendered = [model.processor.render(one, add_generation_prompt=True) for one in messages]
            tokenized = [model.processor.tokenize(one) for one in rendered]
            prompts = [one.ids for one in tokenized]
            held = [[(names.index(name), one.columns[0])] for name, one in zip(shown, tokenized, strict=True)]
            with torch.inference_mode():
                read = model.read([Path(name) for name in names])
            found = respond(model, read, prompts, held, longest=LONGEST, **say)
            for example, name, response in zip(some, shown, found, strict=True):
                right = list(dict.fromkeys([example.answer, *example.references]))
                said.append(Said(name, response.text, right, example.question))
            reporter.advance(len(said))
    return said


@dataclass(frozen=True)
class Said:
    """What a model said about a picture, and what people said; the question, where it is not the task's own.

    Its objects are those that the data gives for the picture.
    """

    picture: str
    prediction: str
    references: list[str]
    question: str = ""
    objects: tuple[str, ...] = ()


def _line(said: Said) -> dict[str, Any]:
    line: dict[str, Any] = {"image": said.picture, "prediction": said.prediction, "references": said.references}
    more = {"question": said.question, "objects": list(said.objects)}
    return line | {name: value for name, value in more.items() if value}


def answers(
    model: WeftModel,
    examples: Sequence[Example],
    task: Task,
    *,
    limit: int | None = None,
    batch_size: int = 16,
    beams: int = 3,
    **options: Any,
) -> list[Said]:
    """Ask a model about each picture of a data set; arguments as for :func:`evaluate`.

    Raises:
        DataError: the data holds no answers for the task.
    """
    instruction = INSTRUCTIONS[task]
    references: dict[str, list[str]] = {}
    objects: dict[str, dict[str, None]] = {}  # of each picture, in order and each once
    for example in examples:
        if asks(example, instruction):
            found = references.setdefault(example.pictures[0], [])
            found += [text for text in (example.answer, *example.references) if text not in found]
            objects.setdefault(example.pictures[0], {}).update(dict.fromkeys(example.objects))
    if not references:
        raise DataError(
            f"No example asks for a {task} ({instruction!r}) of a picture; make the data with `weft data`, or ask so."
        )
    pictures = list(references)[:limit]
    said: list[Said] = []
    with Reporter() as reporter:
        reporter.start(f"{task}s", len(pictures))
        for start in range(0, len(pictures), batch_size):
            some = pictures[start : start + batch_size]
            texts = [one.text for one in model.say(some, instruction, beams=beams, **options)]
            said += [
                Said(name, text, references[name], objects=tuple(objects[name]))
                for name, text in zip(some, texts, strict=True)
            ]
            reporter.advance(len(said))
    return said


@torch.inference_mode()
def perplexity(model: WeftModel, examples: Sequence[Example], *, batch_size: int = 16) -> float:
    """exp of the mean negative log-likelihood of a token that the assistant says, under the whole vocabulary."""
    assert model.processor is not None
    options: dict[str, Any] = {"share_prompts": False, "arrange": partial(as_learned, model)}
    options["positions"] = model.positions
    rows = sorted(rows_of(examples, model.processor, **options), key=lambda row: (row.pictures, len(row)))
    total, tokens = 0.0, 0
    memories: dict[str, Memory] = {}
    for start in range(0, len(rows), batch_size):
        batch = collate(rows[start : start + batch_size], model.processor.tokenizer.pad_token_id or 0)
        names = list(dict.fromkeys(picture for row in batch.rows for picture in row.pictures))
        memories = {name: memories[name] if name in memories else model.encode(name) for name in names}
        placed = None
        if names:
            features = torch.cat([memories[name].features for name in names])
            rows_items = [
                [(names.index(picture), column) for picture, column in zip(row.pictures, row.columns, strict=True)]
                for row in batch.rows
            ]
            placed = model.place(model.read(Memory(features, ())), Placement.of(rows_items))
        logits = model(
            input_ids=batch.input_ids.to(model.device),
            attention_mask=batch.attention_mask.to(model.device),
            memories=[] if placed is None else [placed],
            use_cache=False,
        ).logits
        chances = logits.flatten(0, 1)[batch.predicting.to(logits.device)].float().log_softmax(-1)
        total -= float(chances.gather(-1, batch.targets.to(logits.device)[:, None]).sum())
        tokens += len(batch.targets)
    return math.exp(total / tokens)
