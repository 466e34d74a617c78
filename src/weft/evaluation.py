"""Evaluation: a woven model on a data set that it has not seen.

:func:`evaluate` is given a model and conversations with references; it answers them and hands on figures from
:mod:`weft.metrics`, and the perplexity of the references.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weft.data import Example, collate, load_examples, rows_of
from weft.errors import DataError
from weft.memory import Memory, Placement
from weft.metrics import bleu, cider_d, rouge_l
from weft.model import WeftModel
from weft.progress import Reporter
from weft.tasks import INSTRUCTIONS, Task


def evaluate(
    model: WeftModel,
    data: str | Path | Sequence[Example],
    *,
    task: Task = "caption",
    limit: int | None = None,
    batch_size: int = 16,
    beams: int = 3,
    output: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Let a model say something about each picture of a data set, and compare it with what people said.

    Args:
        model: the woven model.
        data: JSONL of conversations, or examples that are loaded already; the examples of one picture are taken
            together, and all their answers and ``references`` are right answers.
        task: what is asked: a caption or a title.
        limit: pictures to look at; None for all.
        batch_size: pictures at once.
        beams: beams of the search.
        output: file to which the answers are written, one JSON object a line.
        **options: for ``generate``.

    Returns:
        ``pictures``, ``bleu_1`` to ``bleu_4``, ``rouge_l``, ``cider`` (CIDEr-D), all of them fractions, and
        ``perplexity``, of a token of the right answers to this task.

    Raises:
        DataError: the data can't be used, or holds no answers for the task.
    """
    examples = load_examples(data) if isinstance(data, (str, Path)) else list(data)
    said = answers(model, examples, task, limit=limit, batch_size=batch_size, beams=beams, **options)
    pictures = [one.picture for one in said]
    predictions, right = [one.prediction for one in said], [one.references for one in said]
    if output is not None:
        _write(Path(output), said)
    seen, instruction = set(pictures), INSTRUCTIONS[task]
    kept = [example for example in examples if _question(example) == instruction and example.pictures[0] in seen]
    figures: dict[str, Any] = {"task": task, "pictures": len(pictures), "beams": beams}
    figures |= {f"bleu_{order}": value for order, value in enumerate(bleu(predictions, right), 1)}
    figures |= {"rouge_l": rouge_l(predictions, right), "cider": cider_d(predictions, right)}
    return figures | {"perplexity": perplexity(model, kept, batch_size=batch_size)}


@dataclass(frozen=True)
class Answer:
    """What a model said about a picture, and what people said."""

    picture: str
    prediction: str
    references: list[str]


def answers(
    model: WeftModel,
    examples: Sequence[Example],
    task: Task,
    *,
    limit: int | None = None,
    batch_size: int = 16,
    beams: int = 3,
    **options: Any,
) -> list[Answer]:
    """Ask a model about each picture of a data set; arguments as for :func:`evaluate`.

    Raises:
        DataError: the data holds no answers for the task.
    """
    instruction = INSTRUCTIONS[task]
    references: dict[str, list[str]] = {}
    for example in examples:
        if _question(example) == instruction:
            found = references.setdefault(example.pictures[0], [])
            found += [text for text in (example.answer, *example.references) if text not in found]
    if not references:
        raise DataError(f"No example asks for a {task} ({instruction!r}); make the data with `weft data`, or ask so.")
    pictures = list(references)[:limit]
    said: list[Answer] = []
    with Reporter() as reporter:
        reporter.start(f"{task}s", len(pictures))
        for start in range(0, len(pictures), batch_size):
            some = pictures[start : start + batch_size]
            texts = [one.text for one in model.say(some, instruction, beams=beams, **options)]
            said += [Answer(name, text, references[name]) for name, text in zip(some, texts, strict=True)]
            reporter.advance(len(said))
    return said


@torch.inference_mode()
def perplexity(model: WeftModel, examples: Sequence[Example], *, batch_size: int = 16) -> float:
    """exp of the mean negative log-likelihood of a token that the assistant says, under the whole vocabulary."""
    assert model.processor is not None
    rows = sorted(rows_of(examples, model.processor, share_prompts=False), key=lambda row: (row.pictures, len(row)))
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


def _question(example: Example) -> str:
    """The text of the last user message."""
    user = [message for message in example.messages if message["role"] == "user"]
    content = user[-1]["content"] if user else ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content).strip()


def _write(path: Path, said: Sequence[Answer]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for one in said:
            line = {"image": one.picture, "prediction": one.prediction, "references": one.references}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    partial.replace(path)
