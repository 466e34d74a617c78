"""One run of a recipe: steps, evaluations, checkpoints.

:class:`Trainer` is given a :class:`~weft.recipe.Recipe` and perhaps a woven model. In the recipe's output folder it
keeps a checkpoint (safetensors and JSON), from which one process on a CPU goes on to the same result, and a log,
``log.jsonl``, one object a line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback

from weft.adapter_files import ADAPTERS, refill_adapters
from weft.adapters import adapters_hash, without_wrapper
from weft.callbacks import Callbacks
from weft.checkpoint import load_connector, name_parts, save_checkpoint
from weft.data import Row
from weft.errors import RecipeError, WeftError
from weft.evaluation import answers
from weft.feeding import Feed
from weft.learned import ADAPTER, about_adapters, add_lora_of, learned_parameters
from weft.losses import StepLoss
from weft.making import extend, weave
from weft.metrics import cider_d
from weft.model import WeftModel
from weft.optimizers import cosine, make_optimizer
from weft.part_checks import check_parts
from weft.parts import WEIGHTS
from weft.precision import settled
from weft.progress import Reporter
from weft.reading_evaluation import read_and_judge
from weft.recipe import Recipe
from weft.responding import as_learned
from weft.reward import SelfCritical
from weft.run_folder import (
    BEST,
    CHECKPOINT,
    LOG,
    begin,
    best_is_sound,
    free_folder,
    held,
    identity,
    look_back,
    state_of_run,
)
from weft.runstate import RunState, load_run, save_run, swapped
from weft.text_encoders import LanguageModelEncoder
from weft.tracking import begin_tracking, check_trackers, end_tracking, track
from weft.ways import Ways
from weft.weaving import decoder_layers
from weft.whole_files import read_tensors


class Trainer(Ways):
    """One run of a recipe.

    Args:
        recipe: what to do.
        model: a woven model to train; by default the recipe's own is made.
        data: conversations to learn, in place of the recipe's files: dicts in a list, a ``datasets.Dataset``.
        dev: conversations to watch, likewise.
        callbacks: callbacks of transformers that are told how it goes.
        resume: whether :meth:`run` goes on from the run's checkpoint unless it is told otherwise.

    Raises:
        DataError: a data file can't be used as it is.
        WeftError: the model has weights that want gradients and would not be learned, or a part of it has changed.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: WeftModel | None = None,
        *,
        data: Any = None,
        dev: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
        resume: bool = False,
    ) -> None:
        check_trackers(recipe.trackers)
        self.folder = Path(recipe.output)
        self.told = Callbacks(callbacks, recipe)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), log_with=recipe.trackers or None, project_dir=str(self.folder)
        )
        self.device = self.accelerator.device
        self.automatic, self.resume = recipe.precision == "auto", resume
        before = state_of_run(self.folder) if resume else RunState()
        self.recipe = recipe = settled(recipe, self.device, before.fields.get("precision"))
        set_seed(recipe.seed)
        self.added: set[str] = set()  # parameters that the initial weights had not
        self.model = model or self._woven()
        self.model.language_model = without_wrapper(self.model.language_model)
        if self.model.processor is None:
            raise WeftError("The model has no processor (tokenizer and encoder); set model.processor before training.")
        name_parts(self.model)
        check_parts(self.model)
        self.processor = self.model.processor
        self.processor.system_prompt = recipe.system_prompt
        self.model.to(self.device)
        self.weave = self.model.weave(recipe.name)
        self.weave.config.reading = self.model.config.weaves[recipe.name]["reading"] = recipe.reading
        self.learned = learned_parameters(self.model, recipe.name)
        self.parameters = list(self.learned.values())
        self._check_own_reading()
        namer = self.model.namer(recipe.name)
        encoder = self.model.encoder(recipe.name)
        given: dict[str, Any] = {"data": data, "dev": dev, "adapters": self._adapters(encoder)}
        given["arrange"] = partial(as_learned, self.model)
        given["positions"] = self.model.positions
        given["text_learns"] = any(name.startswith(ADAPTER) for name in self.learned)
        self.feed = Feed(recipe, self.processor, encoder, self.device, namer, self.model.with_names, **given)
        for module in self.weave.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.weave.config.dropout
        self.step = 0
        self.best = math.inf
        self.stale = 0
        self.step_module = StepLoss(self.model, recipe.name, recipe.label_smoothing, recipe.citing)
        self.critic = SelfCritical(self.model, recipe.name, self.feed.rows, recipe.samples) if recipe.reward else None
        self.optimizer = make_optimizer(
            self.learned, recipe.optimizer, rate=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.averages = [p.detach().clone() for p in self.parameters] if recipe.average else []
        self.initial = [p.detach().clone() for p in self.parameters] if recipe.initial_share else []
        self._plan()

    def _plan(self) -> None:
        """How many steps there are."""
        self.steps_an_epoch = len(self.feed.plan(0))
        self.total = self.recipe.max_steps or max(1, round(self.recipe.epochs * self.steps_an_epoch))

    def _woven(self) -> WeftModel:
        recipe = self.recipe
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        if recipe.initial_weights:
            model = WeftModel.from_pretrained(recipe.initial_weights, dtype=dtype)
            known = {name for name, _ in model.weave(recipe.name).named_parameters()}
            added = {name: recipe.weave[name] for name in ("labels", "copy_width") if name in recipe.weave}
            extend(model, recipe.name, **added)
            self.added = {name for name, _ in model.weave(recipe.name).named_parameters()} - known
            config = model.weave(recipe.name).config
            config.dropout = recipe.weave.get("dropout", config.dropout)
        else:
            vision = None if recipe.text else recipe.vision
            options = {"vision": vision, "text": recipe.text, "name": recipe.name, "dtype": dtype, **recipe.weave}
            model = weave(recipe.language_model, **options)
            if recipe.initial_connector:
                load_connector(model.weave(recipe.name), recipe.initial_connector)
        if recipe.lora is not None:
            self.added |= {f"{ADAPTER}{name}" for name in add_lora_of(model.language_model, recipe.lora)}
        return model

    def _adapters(self, encoder: Any) -> str:
        """A name for what adapters make of passages that the language model encodes."""
        return adapters_hash(self.model.language_model) if isinstance(encoder, LanguageModelEncoder) else ""

    def _check_own_reading(self) -> None:
        """Refuse to keep features that change while an adapter learns.

        Raises:
            RecipeError: passages are encoded by the language model, in which an adapter learns, and kept.
        """
        adapted = any(name.startswith(ADAPTER) for name in self.learned)
        own = isinstance(self.model.encoder(self.recipe.name), LanguageModelEncoder)
        if adapted and own and self.recipe.store_features:
            raise RecipeError(
                "store_features: the language model encodes the passages, and an adapter in it learns, so what is kept "
                "would not stay true; give store_features: false."
            )

    # The run

    def run(self, *, resume: bool | None = None, minutes: float | None = None) -> WeftModel:
        """Train to the end of the recipe, or to the early stop; returns the model with the best weights.

        Args:
            resume: go on from the run's checkpoint, if it has one; without it a folder that holds a run is left alone,
                and the run goes to one with a number behind its name. None for what was said before.
            minutes: stop after the step that ends later than this, counted from here, and write a checkpoint; at least
                one step is made. None for no limit.

        Raises:
            WeftError: the loss is not a number; the message names the batch.
        """
        resume, asked = self.resume if resume is None else resume, self.folder
        if not resume:
            self.folder = free_folder(self.folder)
            self.recipe = replace(self.recipe, output=str(self.folder))
            self.accelerator.project_configuration.set_directories(str(self.folder))
            self.accelerator.project_configuration.logging_dir = str(self.folder)
        said = [] if self.folder == asked else [f"{asked} holds a run already; this one goes to {self.folder}."]
        main = self.accelerator.is_main_process
        with held(self.folder) if main else nullcontext():
            state = state_of_run(self.folder) if resume else RunState()
            self.identity = identity(self.model, self.recipe, self.feed.rows, self.feed.content() if main else "")
            if resume and main:
                said += look_back(self.folder, self.recipe, state, self.identity)
            if main:
                begin(self.folder, self.recipe, goes_on=resume)
            return self._run(state, said, minutes)

    def _run(self, state: RunState, said: Sequence[str], minutes: float | None) -> WeftModel:
        """Train in a folder that is the run's own, from a state on."""
        until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        late = False
        with Reporter(self.folder / LOG, enabled=self.accelerator.is_main_process) as reporter:
            self._say_what(reporter, said)
            self._prepare(reporter)
            if self.recipe.shard and self.accelerator.num_processes > 1:
                self._shard()
            module, optimizer = self.accelerator.prepare(self.step_module, self.optimizer)
            to_mend = self._load(state, reporter)
            begin_tracking(self.accelerator, self.recipe)
            self.model.train()
            about = {"precision": self.recipe.precision, "steps": self.total}
            reporter.log(processes=self.accelerator.num_processes, device=str(self.device), **about)
            reporter.start("training", self.total, done=self.step)
            self.told.begin(self.total, model=self.model, processing_class=self.processor, optimizer=optimizer)
            if to_mend:
                self._evaluate(reporter)
            while self.step < self.total and not self._tired() and not late:
                epoch, at = divmod(self.step, self.steps_an_epoch)
                for parts in self.feed.plan(epoch)[at:]:
                    figures = self._update(module, optimizer, parts, epoch)
                    reporter.advance(self.step, **figures)
                    track(self.accelerator, self.step, figures)
                    asked = self.told.step(self.step, self.step / self.steps_an_epoch, figures)
                    last = self.step == self.total or asked.should_training_stop
                    if last or self.step % self.recipe.evaluate_every == 0 or asked.should_evaluate:
                        self._evaluate(reporter)
                        self._save()
                    elif asked.should_save:
                        self._save()
                    if last or self._tired() or self.told.control.should_training_stop:
                        break
                    if late := minutes is not None and self._is_over(until):
                        self._save()
                        reporter.log(step=self.step, stopped=True)
                        reporter.say(f"Stopped after {self.step:,} of {self.total:,} steps; resume the run to go on.")
                        break
                if self.told.control.should_training_stop:
                    break
            self.told.tell("on_train_end")
            end_tracking(self.accelerator)
        return self._best()

    def _say_what(self, reporter: Reporter, said: Sequence[str]) -> None:
        """Say what people may not expect of the run."""
        automatic = [f"precision: auto is {self.recipe.precision} on this machine."] if self.automatic else []
        reporter.say(*filter(None, (*said, *self.feed.about, *automatic, about_adapters(self.model))))

    def _shard(self) -> None:
        """Spread the frozen decoder layers over the processes (FSDP2, Zhao et al. 2023): each is gathered when it runs.

        What learns is small, and stays whole in every process; only its gradients are averaged.
        """
        mesh = init_device_mesh(self.device.type, (self.accelerator.num_processes,))
        for layer in decoder_layers(self.model.language_model):
            fully_shard(layer, mesh=mesh)
        frozen = [name for name, p in self.step_module.named_parameters() if not p.requires_grad]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.step_module, frozen)

    def _update(
        self, module: nn.Module, optimizer: Any, parts: Sequence[Sequence[Row]], epoch: int
    ) -> dict[str, float]:
        """One step of the optimizer, in parts; each process computes its share of every part."""
        recipe, world, rank = self.recipe, self.accelerator.num_processes, self.accelerator.process_index
        started = time.perf_counter()
        learned = sum(row.learned for part in parts for row in part)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * cosine(
                self.step, self.total, recipe.warmup, recipe.final_learning_rate
            )
        total = torch.zeros((), device=self.device)
        rewards: list[float] = []
        for index, part in enumerate(parts):
            mine = part[rank::world] or part[:1]
            share = float(len(part) > rank)  # a process without rows of its own computes one that counts nothing
            waits = self.accelerator.no_sync(module) if index < len(parts) - 1 else nullcontext()
            with waits, self._autocast():
                (memory, placement), weights = self.feed.memory(mine, epoch), None
                if self.critic is not None:
                    sampled = self.critic.try_answers(mine, memory, placement)
                    mine, weights = sampled.rows, sampled.weights
                    rewards.append(sampled.reward)
                loss = module(self.feed.batch(mine), memory, placement, weights) * (share * world / learned)
            if not torch.isfinite(loss):
                names = ", ".join(row.where for row in mine)
                raise WeftError(f"The loss of step {self.step + 1} is {loss.item()}; its batch was {names}.")
            self.accelerator.backward(loss)
            total += loss.detach() / world
        norm = self.accelerator.clip_grad_norm_(self.parameters, recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._average()
        loss = float(self.accelerator.reduce(total, "sum"))
        seconds = time.perf_counter() - started
        rate = optimizer.param_groups[0]["lr"]
        figures = {"loss": loss, "norm": float(norm), "rate": rate, "tokens": learned, "seconds": seconds}
        return figures | ({"reward": sum(rewards) / len(rewards)} if rewards else {})

    @torch.no_grad()
    def _average(self) -> None:
        """Move the running average; early in a run it forgets sooner, so that it does not lag behind the start."""
        if self.averages:
            decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - decay)

    # Watching and keeping

    def _is_over(self, until: float) -> bool:
        """Whether a time has come, for one of the processes and so for all."""
        over = torch.tensor(float(time.monotonic() >= until), device=self.device)
        return bool(self.accelerator.reduce(over, "sum"))

    def _tired(self) -> bool:
        return self.recipe.patience is not None and self.stale >= self.recipe.patience

    def _evaluate(self, reporter: Reporter) -> None:
        """Measure on the dev set, with averaged weights where they are kept; keep the best."""
        if not self.feed.dev_rows:
            self._keep()
            return
        with self._averaged():
            figures = {"dev_loss": self._dev_loss()}
            score = figures["dev_loss"]
            if self.recipe.metric != "loss":
                figures[f"dev_{self.recipe.metric}"] = found = self._dev_words()
                score = -found
            self.stale = 0 if score < self.best else self.stale + 1
            if score < self.best:
                self.best = score
                self._keep(averaged=True)
        self.model.train()
        reporter.log(step=self.step, best=abs(self.best), **figures)
        track(self.accelerator, self.step, figures)
        self.told.evaluated(figures, abs(self.best))

    @torch.no_grad()
    def _dev_loss(self) -> float:
        self.model.eval()
        order, size = sorted(self.feed.dev_rows, key=len), self.recipe.batch_size
        sums = [self._summed(order[start : start + size]) for start in range(0, len(order), size)]
        return sum(total for total, _ in sums) / sum(tokens for _, tokens in sums)

    def _dev_words(self) -> float:
        """How good greedy responses to the dev set are, by the recipe's metric."""
        self.model.eval()
        with self._autocast():
            if self.recipe.metric == "rouge":
                return read_and_judge(self.model, self.feed.dev_examples)["rouge_l"]
            said = answers(self.model, self.feed.dev_examples, "caption", beams=1, batch_size=50)
        return cider_d([one.prediction for one in said], [one.references for one in said])

    def _averaged(self) -> Any:
        """Within it, the weave has the weights that are evaluated and kept."""
        values = self.averages or [parameter.detach() for parameter in self.parameters]
        if self.initial:
            share = self.recipe.initial_share
            mixed = zip(self.learned, values, self.initial, strict=True)
            values = [one if name in self.added else one.lerp(first, share) for name, one, first in mixed]
        return swapped(self.parameters, values) if self.averages or self.initial else nullcontext()

    def _keep(self, averaged: bool = False) -> None:
        """Write the weights that are best so far: the model as it is now, in the language model's type."""
        if self.accelerator.is_main_process:
            with nullcontext() if averaged else self._averaged():
                dtype = self.model.language_model.dtype
                save_checkpoint(self.model, self.folder / BEST, weights_dtype=dtype, checked=True)

    def _save(self) -> None:
        """Write the checkpoint."""
        if self.accelerator.is_main_process:
            best = self.best if math.isfinite(self.best) else None
            about = {"precision": self.recipe.precision, "identity": self.identity, "watched": self._watched()}
            fields = {"step": self.step, "best": best, "stale": self.stale, **about}
            save_run(self.folder / CHECKPOINT, self.learned, self.optimizer, self.averages, fields)
        self.told.tell("on_save")

    def _load(self, state: RunState, reporter: Reporter) -> bool:
        """Go on where a checkpoint stands, if there is one; returns whether the best weights have to be found anew."""
        if state.file is None:
            return False
        fields = load_run(state.file, self.learned, self.optimizer, self.averages)
        self.step, self.stale = fields["step"], fields["stale"]
        self.best = math.inf if fields["best"] is None else fields["best"]
        if math.isfinite(self.best) and fields.get("watched", self._watched()) != self._watched():
            reporter.say("The dev set, or the metric, has changed; the best figure so far does not count any more.")
            self.best, self.stale = math.inf, 0
        kept = (self.folder / BEST).is_dir() or math.isfinite(self.best)
        if kept and not best_is_sound(self.folder):
            reporter.say(f"{self.folder / BEST} is damaged; the weights of the checkpoint take its place.")
            self.best, self.stale = math.inf, 0
            return True
        return False

    def _watched(self) -> dict[str, str]:
        """What the best figure is of."""
        return {"dev": self.feed.dev_rows.content(), "metric": self.recipe.metric}

    def _best(self) -> WeftModel:
        self.accelerator.wait_for_everyone()
        best = self.folder / BEST
        if (best / WEIGHTS).is_file():
            stored = read_tensors(best / WEIGHTS, "resume the run to find the best weights anew.")
            learned = {name.removeprefix("weaves."): tensor for name, tensor in stored.items()}
            self.model.weaves.load_state_dict(learned)
            refill_adapters(self.model.language_model, best / ADAPTERS)
        return self.model.eval()
