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
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from weft.checkpoint import load_connector, name_parts
from weft.data import Row
from weft.errors import WeftError
from weft.evaluation import answers
from weft.fastpath import HiddenStore, UpperStack, Vocabulary, losses_agree
from weft.feeding import PROBED, Feed, store_folder
from weft.losses import StepLoss
from weft.making import extend, weave
from weft.metrics import cider_d
from weft.model import WeftModel
from weft.optimizers import cosine, make_optimizer
from weft.progress import Reporter
from weft.reading_evaluation import read_and_judge
from weft.recipe import Recipe
from weft.responding import as_learned
from weft.reward import SelfCritical
from weft.runstate import load_run, save_run, swapped
from weft.store import FeatureStore
from weft.weaving import decoder_layers

CHECKPOINT = "checkpoint.safetensors"


class Trainer:
    """One run of a recipe.

    Args:
        recipe: what to do.
        model: a woven model to train; by default the recipe's own is made.

    Raises:
        DataError: a data file can't be used as it is.
    """

    def __init__(self, recipe: Recipe, model: WeftModel | None = None) -> None:
        self.recipe = recipe
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        set_seed(recipe.seed)
        self.model = model or self._woven()
        self.device = self.accelerator.device
        if self.model.processor is None:
            raise WeftError("The model has no processor (tokenizer and encoder); set model.processor before training.")
        name_parts(self.model)
        self.processor = self.model.processor
        self.processor.system_prompt = recipe.system_prompt
        self.model.to(self.device)
        namer = self.model.namer(recipe.name)
        encoder = self.model.encoder(recipe.name)
        arrange = partial(as_learned, self.model)
        self.feed = Feed(recipe, self.processor, encoder, self.device, namer, self.model.with_names, arrange)
        self.weave = self.model.weave(recipe.name)
        self.weave.config.reading = self.model.config.weaves[recipe.name]["reading"] = recipe.reading
        self.model.weaves.requires_grad_(False)
        self.weave.float().requires_grad_(True)
        for module in self.weave.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.weave.config.dropout
        self.step = 0
        self.best = math.inf
        self.stale = 0
        self.folder = Path(recipe.output)
        self.step_module = StepLoss(self.model, recipe.name, recipe.label_smoothing, recipe.citing)
        self.critic = SelfCritical(self.model, recipe.name, self.feed.rows, recipe.samples) if recipe.reward else None
        self.optimizer = make_optimizer(
            self.weave, recipe.optimizer, rate=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.averages = [p.detach().clone() for p in self.weave.parameters()] if recipe.average else []
        self.initial = [p.detach().clone() for p in self.weave.parameters()] if recipe.initial_share else []
        self.steps_an_epoch = len(self.feed.plan(0))
        self.total = max(1, round(recipe.epochs * self.steps_an_epoch))

    def _autocast(self) -> torch.autocast:
        """Mixed precision, if the recipe asks for it; Accelerate's own would be fixed for the whole process."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _woven(self) -> WeftModel:
        recipe = self.recipe
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        if recipe.initial_weights:
            model = WeftModel.from_pretrained(recipe.initial_weights, dtype=dtype)
            added = {name: recipe.weave[name] for name in ("labels", "copy_width") if name in recipe.weave}
            extend(model, recipe.name, **added)
            config = model.weave(recipe.name).config
            config.dropout = recipe.weave.get("dropout", config.dropout)
            return model
        vision = None if recipe.text else recipe.vision
        options = {"vision": vision, "text": recipe.text, "name": recipe.name, "dtype": dtype, **recipe.weave}
        model = weave(recipe.language_model, **options)
        if recipe.initial_connector:
            load_connector(model.weave(recipe.name), recipe.initial_connector)
        return model

    # The run

    def run(self, *, resume: bool = False, minutes: float | None = None) -> WeftModel:
        """Train to the end of the recipe, or to the early stop; returns the model with the best weights.

        Args:
            resume: go on from the run's checkpoint, if it has one.
            minutes: stop after the step that ends later than this, counted from here, and write a checkpoint; at least
                one step is made. None for no limit.

        Raises:
            WeftError: the loss is not a number; the message names the batch.
        """
        recipe, until = self.recipe, math.inf if minutes is None else time.monotonic() + 60 * minutes
        late = False
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "recipe.yaml").write_text(yaml.safe_dump(asdict(recipe), sort_keys=False), encoding="utf-8")
        with Reporter(self.folder / "log.jsonl", enabled=self.accelerator.is_main_process) as reporter:
            self._prepare(reporter)
            if recipe.shard and self.accelerator.num_processes > 1:
                self._shard()
            module, optimizer = self.accelerator.prepare(self.step_module, self.optimizer)
            if resume:
                self._load()
            self.model.train()
            reporter.log(processes=self.accelerator.num_processes, device=str(self.device), steps=self.total)
            reporter.start("training", self.total, done=self.step)
            while self.step < self.total and not self._tired() and not late:
                epoch, at = divmod(self.step, self.steps_an_epoch)
                for parts in self.feed.plan(epoch)[at:]:
                    figures = self._update(module, optimizer, parts, epoch)
                    reporter.advance(self.step, **figures)
                    if self.step % recipe.evaluate_every == 0 or self.step == self.total:
                        self._evaluate(reporter)
                        self._save()
                    if self.step == self.total or self._tired():
                        break
                    if late := minutes is not None and self._is_over(until):
                        self._save()
                        reporter.log(step=self.step, stopped=True)
                        reporter.say(f"Stopped after {self.step:,} of {self.total:,} steps; resume the run to go on.")
                        break
        return self._best()

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
        norm = self.accelerator.clip_grad_norm_(self.weave.parameters(), recipe.clip)
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
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.weave.parameters()], 1 - decay)

    # Before the first step

    def _prepare(self, reporter: Reporter) -> None:
        """Encode each picture once, and find the fastest way through the language model that gives the same loss."""
        if self.accelerator.is_main_process:
            with self._autocast():
                self.feed.encode(reporter)
        self.accelerator.wait_for_everyone()
        if not self.recipe.store_hidden:
            return
        first = min(layer for name in self.model.weaves for layer in self.model.weave(name).config.layers)
        store = FeatureStore(store_folder(self.recipe) / "hidden", dtype=self.model.language_model.dtype)
        identity = self.model.config.language_model.get("sha256", "")
        hidden = HiddenStore(store, UpperStack(self.model.language_model, first), identity)
        if not self._fast_way_holds(hidden):
            reporter.say("This language model does not run from stored hidden states; training runs all of it.")
            return
        if self.accelerator.is_main_process:
            self._fill_hidden(hidden, reporter)
        self.accelerator.wait_for_everyone()
        self.step_module.hidden = hidden
        if self.recipe.sampled_vocabulary is not None:
            size = self.step_module.head.weight.shape[0]
            self.step_module.vocabulary = Vocabulary.of(self.feed.rows, size, self.recipe.sampled_vocabulary)
            if self.critic is not None:
                self.critic.vocabulary = self.step_module.vocabulary

    @torch.no_grad()
    def _fast_way_holds(self, hidden: HiddenStore) -> bool:
        """Whether a batch has the same loss computed fast, and row by row through the whole model."""
        self.model.eval()
        rows = self.feed.rows[:PROBED]
        plain = self._loss([replace(row, answers=(answer,)) for row in rows for answer in row.answers], None)
        try:
            hidden.fill(self.feed.batch(rows))
            return losses_agree(self._loss(rows, hidden), plain)
        except (RuntimeError, TypeError, ValueError, IndexError):  # whatever a model makes of inputs it does not take
            return False

    def _loss(self, rows: Sequence[Row], hidden: HiddenStore | None) -> float:
        """The loss a token of some rows, from stored hidden states or without."""
        self.step_module.hidden = hidden
        try:
            total, tokens = self._summed(rows)
            return total / tokens
        finally:
            self.step_module.hidden = None

    def _summed(self, rows: Sequence[Row]) -> tuple[float, int]:
        """The loss of rows as evaluation sees it, summed over their learned tokens, and how many those are."""
        batch = self.feed.batch(rows)
        with self._autocast():
            return float(self.step_module(batch, *self.feed.memory(rows, None), full=True)), len(batch.targets)

    def _fill_hidden(self, hidden: HiddenStore, reporter: Reporter) -> None:
        wanted = {hidden.key(row): row for row in (*self.feed.rows, *self.feed.dev_rows)}
        rows = sorted((row for key, row in wanted.items() if key not in hidden.store), key=len)
        reporter.start("hidden states", len(rows))
        for start in range(0, len(rows), 32):
            hidden.fill(self.feed.batch(rows[start : start + 32]))
            reporter.advance(min(start + 32, len(rows)))

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
        parameters = list(self.weave.parameters())
        values = self.averages or [parameter.detach() for parameter in parameters]
        if self.initial:
            values = list(torch._foreach_lerp(values, self.initial, self.recipe.initial_share))
        return swapped(parameters, values) if self.averages or self.initial else nullcontext()

    def _keep(self, averaged: bool = False) -> None:
        """Write the weights that are best so far: the model as it is now."""
        if self.accelerator.is_main_process:
            with nullcontext() if averaged else self._averaged():
                self.model.save_pretrained(self.folder / "best", weights_dtype=torch.bfloat16)

    def _save(self) -> None:
        """Write the checkpoint."""
        if self.accelerator.is_main_process:
            best = self.best if math.isfinite(self.best) else None
            fields = {"step": self.step, "best": best, "stale": self.stale}
            save_run(self.folder / CHECKPOINT, self.weave, self.optimizer, self.averages, fields)

    def _load(self) -> None:
        """Go on where the checkpoint stands, if there is one."""
        path = self.folder / CHECKPOINT
        if path.is_file():
            fields = load_run(path, self.weave, self.optimizer, self.averages)
            self.step, self.stale = fields["step"], fields["stale"]
            self.best = math.inf if fields["best"] is None else fields["best"]

    def _best(self) -> WeftModel:
        self.accelerator.wait_for_everyone()
        best = self.folder / "best" / "model.safetensors"
        if best.is_file():
            learned = {name.removeprefix("weaves."): tensor for name, tensor in load_file(best).items()}
            self.model.weaves.load_state_dict(learned)
        return self.model.eval()
