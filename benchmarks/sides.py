"""The sides that are compared, and how each of them is trained: one recipe, one feed, one optimizer for all.

:func:`train` is given a :class:`Setup` and a side's name. Weft's own sides are runs of :class:`weft.trainer.Trainer`,
the others of :class:`~prompted_training.PromptRun`.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from prompted import Prompted, Sizes
from prompted_rows import PicturesInPrompt, TextsInPrompt
from prompted_training import BEST, PromptRun
from prompted_words import Speaker

from weft.evaluation import answers
from weft.feeding import Feed
from weft.making import weave
from weft.metrics import cider_d
from weft.model import WeftModel
from weft.packing import NATIVE
from weft.plain import PlainDecoder
from weft.precision import settled
from weft.progress import Reporter
from weft.recipe import Recipe, changed, load_recipe
from weft.trainer import Trainer

WOVEN = ("cross", "joint")
"""Sides that are weaves."""


@dataclass(frozen=True)
class Setup:
    """What a comparison is made on.

    Attributes:
        recipe: file of the recipe of the weave.
        folder: where runs are kept.
        changes: fields of the recipe that are changed for all sides.
        steps: steps of each side; None for the recipe's epochs.
    """

    recipe: Path
    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None

    def recipe_of(self, side: str) -> Recipe:
        """The recipe of a side; that of those that are no weaves says how large they are."""
        shared = {"output": self.folder / side, "features": self.folder / "features"}
        recipe = changed(load_recipe(self.recipe), **shared, **self.changes)
        if recipe.initial_weights is not None:
            raise SystemExit(f"{self.recipe} goes on from a weave; take a recipe that starts anew, as all sides do.")
        return changed(recipe, weave={**recipe.weave, "joint": True}) if side == "joint" else recipe


def train(setup: Setup, side: str, minutes: float = math.inf) -> dict[str, Any]:
    """Train a side, or go on with it.

    Args:
        setup: what on.
        side: its name.
        minutes: time after which to stop; the next call goes on.

    Returns:
        Steps that are done, and of how many; parameters that learn; and, over the whole run, seconds, rows and learned
        tokens a second, the loss on the dev set of the weights that were kept, and peak memory in MB.
    """
    recipe = setup.recipe_of(side)
    if side in WOVEN:
        trainer = BoundedTrainer(recipe, setup.steps, minutes)
        trainer.run(resume=True)
        parameters, step, total = sum(one.numel() for one in trainer.weave.parameters()), trainer.step, trainer.total
        feed = trainer.feed
    else:
        run = prompt_run(recipe, side, setup.steps)
        run.run(resume=True, minutes=minutes)
        parameters, step, total, feed = run.model.parameters, run.step, run.total, run.feed
    log = Path(recipe.output) / "log.jsonl"
    with Reporter(log) as reporter:
        reporter.log(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {"parameters": parameters, "steps": step, "of": total, **_logged(log, _rows(feed, step))}


def prompt_run(recipe: Recipe, side: str, steps: int | None = None) -> PromptRun:
    """The run of a side that is no weave."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = settled(recipe, device)
    set_seed(recipe.seed)
    prompted, model = prompted_model(recipe, side)
    model.to(device)
    prompted.learned.to(device)
    assert model.processor is not None
    feed = Feed(recipe, model.processor, model.encoder(recipe.name), device)
    held = TextsInPrompt(feed) if recipe.text else PicturesInPrompt(feed, prompted.words)
    judge = None if recipe.metric == "loss" else _judge(recipe, prompted, feed, model)
    return PromptRun(recipe, prompted, feed, held, judge, steps)


def prompted_model(recipe: Recipe, side: str) -> tuple[Prompted, WeftModel]:
    """A prompted model that learns as many parameters as the recipe's weave, and the woven model that it stands on."""
    model = fresh(recipe)
    weave = model.weave(recipe.name)
    parameters = sum(one.numel() for one in weave.parameters())
    sizes = Sizes.matching(parameters, model, weave.config, lora="lora" in side)
    return Prompted(model, recipe.name, sizes), model


def learned(recipe: Recipe, side: str) -> tuple[Prompted, WeftModel]:
    """What a side has learned, LoRA folded into the language model, and the woven model that it stands on."""
    prompted, model = prompted_model(changed(recipe, precision="bf16"), side)
    prompted.load(Path(recipe.output) / BEST)
    prompted.train(False)
    prompted.fold()
    return prompted, for_use(model)


def fresh(recipe: Recipe) -> WeftModel:
    """The recipe's woven model as it starts."""
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    vision = None if recipe.text else recipe.vision
    options = {"vision": vision, "text": recipe.text, "name": recipe.name, "dtype": dtype, **recipe.weave}
    model = weave(recipe.language_model, **options).eval()
    assert model.processor is not None
    model.processor.system_prompt = recipe.system_prompt
    return model


def for_use(model: WeftModel) -> WeftModel:
    """A model in bfloat16 as :func:`weft.load` has it on this processor."""
    model = model if NATIVE else model.to(torch.float32)
    model.plain = PlainDecoder(model.eval(), narrow=not NATIVE)
    return model


def _judge(recipe: Recipe, prompted: Prompted, feed: Feed, model: WeftModel) -> Callable[[], float]:
    """CIDEr-D of greedy captions, as a weave's run measures it."""
    if recipe.metric != "cider":
        raise SystemExit(f"metric: {recipe.metric} is not known here; take a recipe whose metric is 'loss' or 'cider'.")
    plain = fresh(recipe) if prompted.sizes.rank else model
    speaker = Speaker(prompted, plain, lambda pictures: feed.held.batch([(one, "plain") for one in pictures]))

    def judge() -> float:
        speaker.refresh()
        said = answers(speaker, feed.dev_examples, "caption", beams=1, batch_size=50)  # type: ignore[arg-type]
        return cider_d([one.prediction for one in said], [one.references for one in said])

    return judge


class BoundedTrainer(Trainer):
    """A trainer that takes so many steps, stops when its time is over, and logs how long the preparations took."""

    def __init__(self, recipe: Recipe, steps: int | None, minutes: float) -> None:
        super().__init__(recipe)
        self.total = steps or self.total
        self.until = time.monotonic() + 60 * minutes

    def _prepare(self, reporter: Reporter) -> None:
        started = time.perf_counter()
        super()._prepare(reporter)
        reporter.log(prepared=time.perf_counter() - started)

    def _tired(self) -> bool:
        if time.monotonic() < self.until:
            return super()._tired()
        if self.step:
            self._save()
        return True


def _rows(feed: Feed, steps: int) -> int:
    """Rows of the first steps."""
    rows, epoch = 0, 0
    while steps > 0:
        plan = feed.plan(epoch)[:steps]
        rows += sum(len(part) for parts in plan for part in parts)
        steps, epoch = steps - len(plan), epoch + 1
    return rows


def _logged(log: Path, rows: int) -> dict[str, Any]:
    """What a run's log says of all of it; a step that was taken twice, since a run was cut off, counts once."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = {line["step"]: line for line in lines if "loss" in line}
    if not steps:
        return {}
    seconds = sum(line["seconds"] for line in steps.values())
    figures = {
        "seconds": seconds,
        "prepared": sum(line.get("prepared", 0.0) for line in lines),
        "rows_per_second": rows / seconds,
        "tokens_per_second": sum(line["tokens"] for line in steps.values()) / seconds,
        "training_peak_mb": max(line.get("peak", 0.0) for line in lines),
    }
    kept, best = None, math.nan
    for line in lines:
        if "dev_loss" in line and line["best"] != best:
            kept, best = line["dev_loss"], line["best"]
    return figures | ({} if kept is None else {"dev_loss": kept})
