"""Evaluation: a woven model on a data set that it has not seen.

:func:`evaluate` is given a model and conversations with references; it answers them and hands on figures from
:mod:`weft.metrics`, and the perplexity of the references.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from weft.data import Example, collate, load_examples, rows_of
from weft.errors import DataError
from weft.memory import Memory, Placement
from weft.metrics import bleu, cider_d, rouge_l
from weft.model import WeftModel
from weft.progress import Reporter
from weft.tasks import CAPTION, TITLE

Task = Literal["caption", "title"]


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
    instruction = {"caption": CAPTION, "title": TITLE}[task]
    asked = [example for example in examples if _question(example) == instruction]
    if not asked:
        raise DataError(f"No example asks for a {task} ({instruction!r}); make the data with `weft data`, or ask so.")
    references: dict[str, list[str]] = {}
    for example in asked:
        found = references.setdefault(example.pictures[0], [])
        found += [text for text in (example.answer, *example.references) if text not in found]
    pictures = list(references)[:limit]
    predictions: list[str] = []
    with Reporter() as reporter:
        reporter.start(f"{task}s", len(pictures))
        for start in range(0, len(pictures), batch_size):
            some = pictures[start : start + batch_size]
            predictions += [said.text for said in model.say(some, instruction, beams=beams, **options)]
            reporter.advance(len(predictions))
    if output is not None:
        _write(Path(output), pictures, predictions, references)
    right = [references[picture] for picture in pictures]
    kept = [example for example in asked if example.pictures[0] in set(pictures)]
    figures: dict[str, Any] = {"task": task, "pictures": len(pictures), "beams": beams}
    figures |= {f"bleu_{order}": value for order, value in enumerate(bleu(predictions, right), 1)}
    figures |= {"rouge_l": rouge_l(predictions, right), "cider": cider_d(predictions, right)}
    return figures | {"perplexity": perplexity(model, kept, batch_size=batch_size)}


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


def _write(path: Path, pictures: Sequence[str], predictions: Sequence[str], references: dict[str, list[str]]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for picture, said in zip(pictures, predictions, strict=True):
            line = {"image": picture, "prediction": said, "references": references[picture]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    partial.replace(path)
