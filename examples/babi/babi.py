"""bAbI: a language model trained from scratch to answer from memory alone, with facts as what it reads.

The question is the text of a small Llama. The story is its memory: each fact one memory token, made of the fact's
words, of how many facts ago it was said, and of the facts around it. Fusion layers in front of the decoder layers let
the question look at the facts several times over, and the next word is the answer. All twenty tasks share one model,
which isn't told which task it is given. The tasks are those of Weston et al. 2015 (arXiv 1502.05698).

    python examples/babi/babi.py train examples/babi/recipe.yaml --data FOLDER --out runs/babi
    python examples/babi/babi.py evaluate runs/babi --data FOLDER
    python examples/babi/babi.py explain runs/babi --data FOLDER --task 2

Notation: ``B`` questions, ``N`` facts of a story, ``U`` different facts of a batch, ``W`` words of a fact, ``T`` words
of a question, ``H`` width, ``L`` fusion layers, ``V`` words and answers.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from weft.attention import attention
from weft.config import WeftConfig
from weft.fusion import FeedForward, GatedCrossAttention, RMSNorm
from weft.memory import Memory, Placement
from weft.model import WeftModel
from weft.optimizers import MuonAdamW, cosine
from weft.runstate import load_run, save_run, swapped
from weft.weaving import WeaveConfig

TASKS = range(1, 21)
FAILED = 0.05
"""A task with a greater error counts as failed, as in the paper."""
Split = Literal["train", "valid", "test"]


# Data


@dataclass(frozen=True)
class Question:
    """One question and what was said before it.

    Attributes:
        task: 1 to 20; never shown to the model.
        facts: what was said so far, oldest first.
        text: the question.
        answer: one class, as in ``"garden"``, ``"n,w"`` or ``"apple,football"``.
        supporting: places in ``facts`` of those that the answer follows from.
    """

    task: int
    facts: tuple[str, ...]
    text: str
    answer: str
    supporting: tuple[int, ...]


def parse(lines: Iterable[str], task: int) -> Iterator[Question]:
    """The questions of a bAbI file, whose lines are ``number fact`` or ``number question<TAB>answer<TAB>numbers``.

    A line with the number 1 begins a new story.

    Raises:
        ValueError: a line is neither.
    """
    facts: list[str] = []
    places: dict[int, int] = {}
    for line in filter(None, map(str.strip, lines)):
        number, _, text = line.partition(" ")
        if not number.isdigit() or not text:
            raise ValueError(f"a line of task {task} is neither a fact nor a question: {line!r}")
        if number == "1":
            facts, places = [], {}
        if "\t" not in text:
            places[int(number)] = len(facts)
            facts.append(text.strip())
            continue
        question, answer, numbers = text.split("\t")
        supporting = tuple(places[int(number)] for number in numbers.split())
        yield Question(task, tuple(facts), question.strip(), answer.strip().lower(), supporting)


def load(folder: Path, split: Split, tasks: Sequence[int] = TASKS) -> list[Question]:
    """The questions of ``qaN_train.txt``, ``qaN_valid.txt`` or ``qaN_test.txt``."""
    return [
        question
        for task in tasks
        for question in parse((folder / f"qa{task}_{split}.txt").read_text(encoding="utf-8").splitlines(), task)
    ]


def words(text: str) -> list[str]:
    """Words of a fact or question; the question mark is one, since that is where the answer is asked for."""
    return re.findall(r"[a-z]+|\?", text.lower())


class Vocabulary:
    """Words and answers as numbers; 0 is padding, and 1 what was never seen."""

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = list(entries)
        self._ids = {entry: index for index, entry in enumerate(self.entries)}

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def of(cls, questions: Iterable[Question]) -> Vocabulary:
        """All words and answers of some questions."""
        found: set[str] = set()
        facts: set[str] = set()
        for question in questions:
            facts.update(question.facts)
            found.update(words(question.text), [question.answer])
        found.update(word for fact in facts for word in words(fact))
        return cls(["<pad>", "<unknown>", *sorted(found)])

    def ids(self, entries: Iterable[str]) -> list[int]:
        """Numbers of words or answers."""
        return [self._ids.get(entry, 1) for entry in entries]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some questions as tensors.

    Attributes:
        sentences: the words of all different facts, ``[U, W]``, 0 behind their ends.
        facts: which of them each story holds, oldest first, ``[B, N]``; -1 behind its last.
        ago: how many facts ago each was said, 0 for the last, ``[B, N]``.
        text: the words of the questions, ``[B, T]``, 0 behind their ends.
        last: the column of each question's last word, ``[B]``.
        answers: ``[B]``.
    """

    sentences: Int[Tensor, "U W"]
    facts: Int[Tensor, "B N"]
    ago: Int[Tensor, "B N"]
    text: Int[Tensor, "B T"]
    last: Int[Tensor, " B"]
    answers: Int[Tensor, " B"]


class Rows:
    """Questions as numbers, and batches of them.

    Args:
        questions: the questions.
        vocabulary: their words.
        facts: the last facts of a story that are kept.
    """

    def __init__(self, questions: Sequence[Question], vocabulary: Vocabulary, facts: int) -> None:
        numbers: dict[str, int] = {}
        kept: dict[tuple[str, ...], np.ndarray] = {}
        self.stories: list[np.ndarray] = []
        for question in questions:
            story = question.facts[-facts:]
            if story not in kept:
                kept[story] = np.array([numbers.setdefault(fact, len(numbers)) for fact in story], dtype=np.int64)
            self.stories.append(kept[story])
        self.sentences = padded([vocabulary.ids(words(fact)) for fact in numbers])
        texts = [vocabulary.ids(words(question.text)) for question in questions]
        self.text, self.text_lengths = padded(texts), np.array([len(text) for text in texts])
        self.answers = np.array(vocabulary.ids(question.answer for question in questions))
        self.lengths = np.array([len(story) for story in self.stories])
        self.tasks = np.array([question.task for question in questions])
        self.questions = questions

    def __len__(self) -> int:
        return len(self.stories)

    def batch(
        self, rows: Sequence[int] | np.ndarray, gap: float = 0.0, rng: np.random.Generator | None = None
    ) -> Batch:
        """Some of the questions as tensors.

        Args:
            rows: their places.
            gap: probability with which a fact, and all before it, are taken to have been said one step earlier.
            rng: draws the gaps.
        """
        rows = np.asarray(rows)
        width = max(1, int(self.lengths[rows].max()))
        held = np.arange(width) < self.lengths[rows, None]
        facts = np.full(held.shape, -1)
        facts[held] = np.concatenate([self.stories[row] for row in rows])
        different, places = np.unique(facts[held], return_inverse=True)
        facts[held] = places
        steps = held.astype(np.int64)
        if rng is not None and gap:
            steps += held & (rng.random(held.shape) < gap)
        ago = np.where(held, steps[:, ::-1].cumsum(1)[:, ::-1] - 1, 0)
        lengths = self.text_lengths[rows]
        sentences = self.sentences[different] if len(different) else self.sentences[:1]
        return Batch(
            sentences=torch.from_numpy(sentences[:, : max(1, int((sentences > 0).sum(1).max()))]),
            facts=torch.from_numpy(facts),
            ago=torch.from_numpy(ago),
            text=torch.from_numpy(self.text[rows, : lengths.max()]),
            last=torch.from_numpy(lengths - 1),
            answers=torch.from_numpy(self.answers[rows]),
        )

    def epoch(self, recipe: Recipe, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The rows of an epoch's batches: at random, but those of a batch have stories and questions of like length."""
        times = np.array([recipe.repeat.get(int(task), 1) for task in self.tasks])
        order = rng.permutation(np.repeat(np.arange(len(self)), times))
        batches: list[np.ndarray] = []
        for pool in np.split(order, range(64 * recipe.batch_size, len(order), 64 * recipe.batch_size)):
            batches += self.alike(pool, recipe)
        for index in rng.permutation(len(batches)):
            yield batches[index]

    def alike(self, rows: np.ndarray, recipe: Recipe) -> list[np.ndarray]:
        """Rows in batches of like length, those of long stories in smaller ones."""
        bucket = np.ceil(np.log2(self.lengths[rows].clip(4)) * 2)
        rows = rows[np.lexsort((self.lengths[rows], self.text_lengths[rows], bucket))]
        batches, begin = [], 0
        while begin < len(rows):
            end = begin + recipe.batch_size
            while end > begin + 1 and (end - begin) * self.lengths[rows[begin:end]].max() > recipe.facts_at_once:
                end -= max(1, (end - begin) // 8)
            batches.append(rows[begin:end])
            begin = end
        return batches


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of numbers as a table, 0 behind their ends."""
    table = np.zeros((max(1, len(rows)), max([len(row) for row in rows], default=1)), dtype=np.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


# Model


@dataclass
class Recipe:
    """All hyper-parameters; ``recipe.yaml`` says what each is."""

    seed: int = 0
    width: int = 64
    heads: int = 4
    decoder_layers: int = 4
    word_layers: int = 1
    story_layers: int = 2
    feed_forward: int = 128
    qk_norm: bool = False
    dropout: float = 0.05
    facts: int = 130
    gap: float = 0.1
    steps: int = 20000
    batch_size: int = 128
    facts_at_once: int = 2560
    repeat: dict[int, int] = field(default_factory=dict)
    learning_rate: float = 3e-3
    final_learning_rate: float = 0.02
    warmup: int = 300
    weight_decay: float = 0.05
    clip: float = 1.0
    average: float = 0.998
    evaluate_every: int = 1000
    evaluate_limit: int = 200

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """From a YAML file.

        Raises:
            ValueError: it has a key that a recipe has not.
        """
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"{path}: a recipe has no {', '.join(unknown)}.")
        return cls(**values)


class TwoWayLayer(nn.Module):
    """A pre-norm transformer layer in which half of the heads look back and half ahead, each at its own place as well.

    So what came before and what comes after are told apart by where one looks, and "the last time that ..." needs no
    more than a liking for what is recent.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = RMSNorm(width, eps=1e-6)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = RMSNorm(width, eps=1e-6)
        self.feed_forward = FeedForward(width, feed_forward)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():  # likes look at likes, and change nothing yet
            self.qkv_proj.weight[width : 2 * width] = self.qkv_proj.weight[:width]
            self.o_proj.weight.zero_()
            self.feed_forward.down_proj.weight.zero_()

    def forward(self, x: Float[Tensor, "B N H"], real: Bool[Tensor, "B N"]) -> Float[Tensor, "B N H"]:
        """``real`` is True where there is something to look at."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv_proj(self.norm(x)).chunk(3, -1)
        )
        back = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        directions = torch.stack([back if head < self.heads // 2 else back.T for head in range(self.heads)])
        looked = attention(query, key, value, directions & real[:, None, None, :])
        x = x + self.dropout(self.o_proj(looked.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class FactEncoder(nn.Module):
    """Stories as features: one vector a fact.

    A fact is the sum of its words, each times a mask of its place (Henaff et al. 2017, "recurrent entity networks").

    Args:
        recipe: widths and layers.
        embedding: the language model's words, which the encoder shares.
        longest: words of a fact, at most.
    """

    def __init__(self, recipe: Recipe, embedding: nn.Embedding, longest: int) -> None:
        super().__init__()
        self._shared = (embedding,)  # a tuple hides it: the words are the language model's to keep
        self.places = nn.Parameter(torch.randn(longest, recipe.width) * 0.3)
        self.masks = nn.Parameter(1 + torch.randn(longest, recipe.width) * 0.5)
        self.times = nn.Parameter(_waves(2 * recipe.facts, recipe.width))
        layer = (recipe.width, recipe.heads, recipe.feed_forward, recipe.dropout)
        self.word_layers = nn.ModuleList(TwoWayLayer(*layer) for _ in range(recipe.word_layers))
        self.norm = RMSNorm(recipe.width, eps=1e-6)
        self.story_layers = nn.ModuleList(TwoWayLayer(*layer) for _ in range(recipe.story_layers))

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B N H"], Bool[Tensor, "B N"]]:
        """Features of each fact, and which of them are real."""
        said = batch.sentences > 0
        x = self._shared[0](batch.sentences) + self.places[: said.shape[1]]
        for layer in self.word_layers:
            x = layer(x, said)
        sentences = self.norm((x * self.masks[: said.shape[1]] * said[..., None]).sum(1))
        held = batch.facts >= 0
        stories = F.embedding(batch.facts.clamp(min=0), sentences) + self.times[batch.ago]
        for layer in self.story_layers:
            stories = layer(stories, held)
        return stories, held


def _waves(times: int, width: int) -> Float[Tensor, "times width"]:
    """Sines of how long ago, half of them of its logarithm: a start from which learned times go on."""
    ago = torch.arange(times)[:, None].float()
    angles = torch.cat(
        [
            ago * torch.pi / torch.logspace(0.3, 2.7, width // 4, 10.0),
            (1 + ago).log() * torch.pi / torch.linspace(1, 6, width // 4),
        ],
        1,
    )
    return torch.cat([angles.sin(), angles.cos()], 1) * 0.5


def build(recipe: Recipe, words: int, longest: int) -> WeftModel:
    """A language model that reads stories, all of it new and all of it learning.

    Args:
        recipe: its hyper-parameters.
        words: size of the vocabulary.
        longest: words of a fact, at most.
    """
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=recipe.width,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.decoder_layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=64,
        initializer_range=recipe.width**-0.5,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
        attn_implementation="eager",  # of a handful of words, it learns faster than fused attention on a CPU
    )
    language_model = LlamaForCausalLM(config)
    model = WeftModel(WeftConfig(config), language_model)
    weave = WeaveConfig(
        layers=list(range(1, recipe.decoder_layers)),
        hidden_size=recipe.width,
        memory_size=recipe.width,
        heads=recipe.heads,
        kv_heads=recipe.heads,
        head_dim=recipe.width // recipe.heads,
        reads="texts",
        feed_forward=recipe.feed_forward,
        qk_norm=recipe.qk_norm,
        connector_layers=0,
        dropout=recipe.dropout,
    )
    encoder = FactEncoder(recipe, cast(nn.Embedding, language_model.get_input_embeddings()), longest)
    model.add_weave("story", weave, cast(Any, encoder))
    model.language_model.requires_grad_(True)  # a woven model's language model is frozen; this one has yet to learn
    _start(model)
    return model


@torch.no_grad()
def _start(model: WeftModel) -> None:
    """Start so that every hidden state is its word, and a word looks at the facts that hold it.

    All branches begin at zero, words are large beside what the first steps add to them, and queries are projected as
    keys are. Otherwise, when all tasks are learned at once, looking for what is asked about takes long to be found.
    """
    language_model = cast(Any, model.language_model)
    width = language_model.config.hidden_size
    language_model.get_input_embeddings().weight.normal_()
    language_model.model.norm.weight.fill_(width**-0.5)
    for layer in language_model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    for layer in cast(Iterable[GatedCrossAttention], model.weave("story").layers):
        layer.q_proj.weight.copy_(layer.k_proj.weight)


def answer_logits(model: WeftModel, batch: Batch) -> Float[Tensor, "B V"]:
    """What the language model says after each question, having read its story."""
    features, held = model.encoder("story")(batch)
    read = model.weave("story").read(Memory(features, (), held))
    rows = torch.arange(len(features))
    story = model.place(read, Placement(rows[:, None], torch.zeros(len(rows), 1, dtype=torch.long)))
    output = model(input_ids=batch.text, memories=[] if story is None else [story])
    return output.logits[rows, batch.last]


@torch.no_grad()
def looks(model: WeftModel, batch: Batch) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B L N"]]:
    """The same, and how much the last word of each question looks at each fact, its heads averaged, layer by layer."""
    found: list[Tensor] = []

    def look(layer: nn.Module, args: tuple) -> None:
        weights = cast(GatedCrossAttention, layer).weights(*args)
        found.append(weights.mean(1)[torch.arange(len(batch.last)), batch.last])

    with ExitStack() as hooks:
        for layer in model.weave("story").layers:
            hooks.callback(layer.register_forward_pre_hook(look).remove)
        logits = answer_logits(model, batch)
    return logits, torch.stack(found, 1)


# Training


def train(recipe: Recipe, data: Path, out: Path, *, tasks: Sequence[int] = TASKS, resume: bool = False) -> float:
    """Train on the tasks' training files, and write ``recipe.json``, ``vocabulary.json`` and ``state.safetensors``.

    Args:
        recipe: the hyper-parameters.
        data: folder with the bAbI files.
        out: folder of the run; it has a line in ``log.jsonl`` for each evaluation.
        tasks: which tasks to learn.
        resume: go on from the last checkpoint, to the same result as if the run had not been interrupted.

    Returns:
        Loss of the last step.
    """
    questions = load(data, "train", tasks)
    vocabulary = Vocabulary.of(questions)
    rows = Rows(questions, vocabulary, recipe.facts)
    valid = load(data, "valid", tasks)
    few = [q for task in tasks for q in [q for q in valid if q.task == task][: recipe.evaluate_limit]]
    watched = Rows(few, vocabulary, recipe.facts)
    model = build(recipe, len(vocabulary), rows.sentences.shape[1])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(model, recipe)
    averages = [parameter.detach().clone() for parameter in parameters]
    out.mkdir(parents=True, exist_ok=True)
    state, step, seconds = out / "state.safetensors", 0, 0.0
    if resume and state.is_file():
        fields = load_run(state, model, optimizer, averages)
        step, seconds = fields["step"], fields["seconds"]
    else:
        (out / "recipe.json").write_text(json.dumps({**asdict(recipe), "tasks": list(tasks)}, indent=1))
        known = {"words": vocabulary.entries, "longest": rows.sentences.shape[1]}
        (out / "vocabulary.json").write_text(json.dumps(known))
        (out / "log.jsonl").write_text("")
    model.train()
    losses: list[float] = []
    begin = time.monotonic() - seconds
    for number, chosen in _endless(rows, recipe):
        if number < step:
            continue
        if step >= recipe.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * cosine(step, recipe.steps, recipe.warmup, recipe.final_learning_rate)
        batch = rows.batch(chosen, recipe.gap, np.random.default_rng((recipe.seed, 1, step)))
        loss = F.cross_entropy(answer_logits(model, batch), batch.answers)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            share = min(recipe.average, (step + 1) / (step + 10))
            torch._foreach_lerp_(averages, [parameter.detach() for parameter in parameters], 1 - share)
        losses.append(loss.item())
        step += 1
        if step % recipe.evaluate_every == 0 or step == recipe.steps:
            seconds = time.monotonic() - begin
            with swapped(parameters, averages):
                errors = measure(model, watched, recipe).errors
            model.train()
            entry = {"step": step, "seconds": round(seconds), "loss": float(np.mean(losses)), "errors": errors}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            each = " ".join(f"{task}:{100 * error:.0f}" for task, error in errors.items())
            mean = 100 * float(np.mean(list(errors.values())))
            print(f"step {step}  {seconds:.0f} s  loss {entry['loss']:.4f}  error {mean:.2f} %  {each}", flush=True)
            losses = losses[-1:]
            save_run(state, model, optimizer, averages, {"step": step, "seconds": seconds})
    return losses[-1] if losses else float("nan")


def make_optimizer(model: nn.Module, recipe: Recipe) -> MuonAdamW:
    """Muon for the matrices that something goes through, AdamW for words, places, times and scales."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        table = name.endswith(("embed_tokens.weight", "places", "masks", "times"))
        (matrices if parameter.ndim == 2 and not table else others).append(parameter)
    return MuonAdamW(matrices, others, rate=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _endless(rows: Rows, recipe: Recipe) -> Iterator[tuple[int, np.ndarray]]:
    """Epoch after epoch of batches, numbered; each epoch's order follows from the seed alone."""
    number = epoch = 0
    while True:
        for chosen in rows.epoch(recipe, np.random.default_rng((recipe.seed, 0, epoch))):
            yield number, chosen
            number += 1
        epoch += 1


# Evaluation


@dataclass(frozen=True)
class Measured:
    """What a model does on some questions.

    Attributes:
        errors: share of wrong answers, by task.
        found: share of questions whose two facts most looked at are supporting ones (for a question that has but one:
            hold it), by way of looking (a fusion layer, their ``"mean"`` or ``"max"``) and task; empty if not asked
            for.
    """

    errors: dict[int, float]
    found: dict[str, dict[int, float]]


@torch.no_grad()
def measure(model: WeftModel, rows: Rows, recipe: Recipe, *, look: bool = False) -> Measured:
    """Answer all questions, and with ``look`` see which facts were looked at."""
    model.eval()
    right = np.zeros(len(rows), dtype=bool)
    found: dict[str, np.ndarray] = {}
    wide = replace(recipe, batch_size=256, facts_at_once=2 * recipe.facts_at_once)
    for chosen in rows.alike(np.arange(len(rows)), wide):
        batch = rows.batch(chosen)
        if not look:
            logits = answer_logits(model, batch)
        else:
            logits, weights = looks(model, batch)
            for way, each in ways(weights).items():
                hits = found.setdefault(way, np.zeros(len(rows), dtype=bool))
                top = each.topk(min(2, each.shape[1]), dim=1).indices.numpy()
                hits[chosen] = [_finds(rows, row, places) for row, places in zip(chosen, top, strict=True)]
        right[chosen] = (logits.argmax(-1) == batch.answers).numpy()
    tasks = sorted(set(rows.tasks.tolist()))
    by_task = {task: rows.tasks == task for task in tasks}
    return Measured(
        {task: float(1 - right[held].mean()) for task, held in by_task.items()},
        {way: {task: float(hits[held].mean()) for task, held in by_task.items()} for way, hits in found.items()},
    )


def ways(weights: Float[Tensor, "B L N"]) -> dict[str, Float[Tensor, "B N"]]:
    """Ways to see what was looked at: in one layer, on average over them, or in whichever looked most."""
    each = {f"layer {index + 1}": weights[:, index] for index in range(weights.shape[1])}
    return {**each, "mean": weights.mean(1), "max": weights.amax(1)}


def _finds(rows: Rows, row: int, places: np.ndarray) -> bool:
    question = rows.questions[row]
    forgotten = len(question.facts) - int(rows.lengths[row])
    supporting = {place - forgotten for place in question.supporting}
    return len(supporting & set(places.tolist())) == min(2, len(supporting))


@torch.no_grad()
def restore(out: Path) -> tuple[WeftModel, Recipe, Vocabulary, list[int]]:
    """A trained model (the running average of its weights), its recipe, words and tasks."""
    fields = json.loads((out / "recipe.json").read_text())
    tasks = fields.pop("tasks")
    recipe = Recipe(**{**fields, "repeat": {int(task): times for task, times in fields["repeat"].items()}})
    known = json.loads((out / "vocabulary.json").read_text())
    vocabulary = Vocabulary(known["words"])
    model = build(recipe, len(vocabulary), known["longest"])
    averages = [parameter.detach().clone() for parameter in model.parameters()]
    load_run(out / "state.safetensors", model, make_optimizer(model, recipe), averages)
    for parameter, average in zip(model.parameters(), averages, strict=True):
        parameter.copy_(average)
    return model.eval(), recipe, vocabulary, tasks


def evaluate(out: Path, data: Path, split: Split) -> dict[str, Any]:
    """Errors of a trained model, and how often it looks at the supporting facts, in the way that shows it best on a
    part of the training questions."""
    model, recipe, vocabulary, tasks = restore(out)
    learned = load(data, "train", tasks)
    sample = [learned[index] for index in np.random.default_rng(0).permutation(len(learned))[:4000]]
    seen = measure(model, Rows(sample, vocabulary, recipe.facts), recipe, look=True)
    way = max(seen.found, key=lambda way: float(np.mean(list(seen.found[way].values()))))
    new = measure(model, Rows(load(data, split, tasks), vocabulary, recipe.facts), recipe, look=True)
    return {
        "errors": new.errors,
        "mean_error": float(np.mean(list(new.errors.values()))),
        "failed": [task for task, error in new.errors.items() if error > FAILED],
        "way": way,
        "found": new.found[way],
        "mean_found": float(np.mean(list(new.found[way].values()))),
    }


def explain(out: Path, data: Path, task: int, number: int) -> str:
    """A story with the weight that each fact has in each fusion layer when the answer is given."""
    model, recipe, vocabulary, _ = restore(out)
    question = load(data, "valid", [task])[number]
    rows = Rows([question], vocabulary, recipe.facts)
    logits, weights = looks(model, rows.batch([0]))
    table = weights[0].T.tolist()
    lines = ["  ".join(f"hop {hop + 1}" for hop in range(weights.shape[1]))]
    first = len(question.facts) - len(table)
    for place, (fact, row) in enumerate(zip(question.facts[first:], table, strict=True), first):
        mark = "*" if place in question.supporting else " "
        lines.append("  ".join(f"{100 * weight:4.0f}%" for weight in row) + f"  {mark} {fact}")
    said = vocabulary.entries[int(logits[0].argmax())]
    share = float(logits[0].softmax(-1).max())
    lines.append(f"{question.text}  {said} ({100 * share:.0f}%); right is {question.answer}. * is a supporting fact.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="bAbI read by gated cross-attention.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("train", "recipe"), ("evaluate", "run"), ("explain", "run")):
        command = commands.add_parser(name)
        command.add_argument(what, type=Path)
        command.add_argument("--data", type=Path, required=True, help="folder with qa1_train.txt, qa1_valid.txt, ...")
    commands.choices["train"].add_argument("--out", type=Path, required=True, help="folder of the run")
    commands.choices["train"].add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    commands.choices["train"].add_argument("--tasks", type=int, nargs="+", default=list(TASKS), help="all by default")
    commands.choices["evaluate"].add_argument("--split", default="valid", choices=["train", "valid", "test"])
    commands.choices["evaluate"].add_argument("--json", action="store_true", help="for programs")
    commands.choices["explain"].add_argument("--task", type=int, default=2)
    commands.choices["explain"].add_argument("--number", type=int, default=0, help="which valid question of the task")
    given = parser.parse_args(arguments)
    if given.command == "train":
        train(Recipe.read(given.recipe), given.data, given.out, tasks=given.tasks, resume=given.resume)
    elif given.command == "explain":
        print(explain(given.run, given.data, given.task, given.number))
    else:
        result = evaluate(given.run, given.data, given.split)
        if given.json:
            print(json.dumps(result))
            return
        print("task  error  supporting facts looked at most")
        for task, error in result["errors"].items():
            print(f"{task:4d} {100 * error:5.1f}%  {100 * result['found'][task]:5.1f}%")
        print(f"mean {100 * result['mean_error']:5.2f}%  {100 * result['mean_found']:5.1f}%  ({result['way']})")
        print(f"failed (error above 5%): {len(result['failed'])} {result['failed']}")


if __name__ == "__main__":
    main()
