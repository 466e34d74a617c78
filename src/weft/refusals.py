"""Knowing when not to answer: how well a model tells questions without an answer, and its calibration.

:func:`judge_refusals` is given a model and conversations about documents that hold an answer or do not, and hands on
figures; :func:`calibrate` makes the model's probability that a question has no answer a true one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.answering import log_odds, log_refusals, unanswerable_chance
from weft.calibration import auc, calibration_error, platt, reliability, reliability_table, threshold
from weft.conversations import write_text
from weft.data import Example, load_examples
from weft.data_files import Files, listed
from weft.errors import DataError
from weft.instructions import NOT_SAID
from weft.knowledge import KnowledgeBase
from weft.model import WeftModel
from weft.passages import PASSAGES
from weft.progress import Reporter
from weft.reading_evaluation import batches, belongs, documents_of

REFUSED = 0.05
"""Share of the questions with an answer that is refused, where it is counted how many of those without one are."""


def calibrate(
    model: WeftModel,
    answerable: Files,
    unanswerable: Files,
    *,
    refused: float = REFUSED,
    limit: int | None = None,
    batch_size: int = 16,
    top_memory: int | None = None,
) -> dict[str, Any]:
    """Make the probability that a question has no answer a true one, and find from where on it is refused.

    Sets ``refusal_temperature``, ``refusal_bias`` and ``refuses_at`` of the weave that reads texts; saving the model
    saves them. Questions with and without an answer count alike, however many there are.

    Args:
        model: the woven model.
        answerable: JSONL of questions about documents that hold the answer.
        unanswerable: JSONL of questions about documents that do not.
        refused: share of the questions with an answer that may be refused.
        limit: questions of each file that are looked at; None for all.
        batch_size: how many of them at once.
        top_memory: how many of the documents that are read each fusion layer looks at; None for all.

    Returns:
        The three settings, and the figures of :func:`judge_refusals`.

    Raises:
        DataError: the data can't be used, or the model refuses questions with an answer as readily as those without.
    """
    if not 0 <= refused < 1:
        raise DataError(f"refused: {refused} is no share; give one from 0 to 1, without it.")
    say: dict[str, Any] = {"batch_size": batch_size, "top_memory": top_memory}
    held = _questions(answerable, limit)
    have = log_probabilities(model, [one for examples in held.values() for one in examples], **say)
    lack = {
        name: log_probabilities(model, examples, **say) for name, examples in _questions(unanswerable, limit).items()
    }
    weave = model.weave_that_reads("texts")
    every = [one for some in lack.values() for one in some]
    temperature, bias = platt(list(map(log_odds, have)), list(map(log_odds, every)))
    settings = {"refusal_temperature": temperature, "refusal_bias": bias}
    _set(model, weave.name, settings)
    chances = [unanswerable_chance(one, weave.config) for one in have]
    settings["refuses_at"] = threshold(chances, refused)
    _set(model, weave.name, settings)
    return settings | _figures(model, have, lack, refused, None)


def judge_refusals(
    model: WeftModel,
    answerable: Sequence[Example],
    unanswerable: Files,
    *,
    knowledge: KnowledgeBase | None = None,
    passages: int = PASSAGES,
    limit: int | None = None,
    batch_size: int = 16,
    top_memory: int | None = None,
    table: Path | None = None,
) -> dict[str, float]:
    """How well a model tells questions without an answer from those with one.

    Args:
        model: the woven model.
        answerable: conversations about documents that hold the answer.
        unanswerable: JSONL of conversations about documents that do not.
        knowledge: where documents of the answerable ones are looked for; by default they are in the messages.
        passages: passages to look up there.
        limit: questions of each file that are looked at; None for all.
        batch_size: how many of them at once.
        top_memory: how many of the documents that are read each fusion layer looks at; None for all.
        table: file for a reliability diagram, as a table in Markdown.

    Returns:
        ``refusal_auc``, ``refused_at_5`` (share of the unanswerable that is refused where 5 % of the answerable are),
        ``refusal_calibration_error``, and for each file of ``unanswerable`` the first two with its name behind.

    Raises:
        DataError: there are no questions of one kind.
    """
    say: dict[str, Any] = {"batch_size": batch_size, "top_memory": top_memory}
    asked = [one for one in answerable if belongs(one, "answer") and one.answer != NOT_SAID][:limit]
    have = log_probabilities(model, asked, knowledge=knowledge, passages=passages, **say)
    lack = {
        name: log_probabilities(model, examples, **say) for name, examples in _questions(unanswerable, limit).items()
    }
    return _figures(model, have, lack, REFUSED, table)


def log_probabilities(
    model: WeftModel,
    examples: Sequence[Example],
    *,
    knowledge: KnowledgeBase | None = None,
    passages: int = PASSAGES,
    batch_size: int = 16,
    top_memory: int | None = None,
) -> list[float]:
    """For each conversation the log-probability (natural) with which a model says that its documents do not say."""
    held = [documents_of(model, one, knowledge, passages) for one in examples]
    found: dict[int, float] = {}
    with Reporter() as reporter:
        reporter.start("refusals", len(examples))
        for some, read, prompts, items in batches(model, examples, held, batch_size):
            found |= zip(some, log_refusals(model, read, prompts, items, top_memory=top_memory), strict=True)
            reporter.advance(len(found))
    return [found[index] for index in range(len(examples))]


def _questions(files: Files, limit: int | None) -> dict[str, list[Example]]:
    """The questions of each file, by its name; of files of one name by all of their paths."""
    files = listed(files)
    names = [Path(file).stem for file in files]
    shown = [name if names.count(name) == 1 else str(file) for name, file in zip(names, files, strict=True)]
    return {name: load_examples(file)[:limit] for name, file in zip(shown, files, strict=True)}


def _set(model: WeftModel, name: str, settings: Mapping[str, float]) -> None:
    """Change settings of a weave, and what is saved of them."""
    for setting, value in settings.items():
        setattr(model.weave(name).config, setting, value)
    model.config.weaves[name] |= settings


def _figures(
    model: WeftModel,
    answerable: Sequence[float],
    unanswerable: Mapping[str, Sequence[float]],
    refused: float,
    table: Path | None,
) -> dict[str, float]:
    """Figures of log-probabilities of refusing."""
    config = model.weave_that_reads("texts").config
    have = [unanswerable_chance(one, config) for one in answerable]
    lack = {name: [unanswerable_chance(one, config) for one in some] for name, some in unanswerable.items()}
    every = [one for some in lack.values() for one in some]
    bins = reliability(have, every)
    if table is not None:
        write_text(table, reliability_table(bins))
    share, limit = round(100 * refused), threshold(have, refused)
    figures = {"refusal_auc": auc(have, every), f"refused_at_{share}": _share(every, limit)}
    figures["refusal_calibration_error"] = calibration_error(bins)
    for name, some in lack.items():
        figures |= {f"refusal_auc_{name}": auc(have, some), f"refused_at_{share}_{name}": _share(some, limit)}
    return figures


def _share(chances: Sequence[float], limit: float) -> float:
    return sum(one >= limit for one in chances) / len(chances)
