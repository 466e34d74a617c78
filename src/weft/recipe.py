"""A training recipe: everything a run depends on, in one YAML file that can be read, kept and repeated."""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from weft.errors import RecipeError
from weft.settings_check import checked, suggestion
from weft.weaving import DERIVED, Initial, WeaveConfig

WEAVE: dict[str, Any] = {
    **{name: kind for name, kind in typing.get_type_hints(WeaveConfig).items() if name not in DERIVED},
    "layers": list[int] | None,
    "every": int | None,
    "start": int | None,
    "initial": Initial,
    "labels": str | None,
}
"""What ``weave`` of a recipe may hold, each with its type."""
LORA: dict[str, Any] = {"rank": int, "alpha": float, "target_modules": list[str] | str}
"""What ``lora`` may hold."""
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")
"""What ``trackers`` may hold, as Accelerate calls them."""
_LEAST = {
    "batch_size": 1,
    "accumulate": 1,
    "evaluate_every": 1,
    "samples": 2,
    "epochs": 0,
    "max_steps": 1,
    "longest": 1,
    "passages": 1,
    "evaluate_limit": 1,
    "patience": 1,
    "sampled_vocabulary": 0,
    "warmup": 0,
    "weight_decay": 0,
    "citing": 0,
    "final_learning_rate": 0,
    "label_smoothing": 0,
    "average": 0,
}
"""The least that numbers may be."""
_SHARES = ("label_smoothing", "average")
"""Numbers that are below one."""
_POSITIVE = ("learning_rate", "clip")
"""Numbers that are above zero."""


@dataclass
class Recipe:
    """What a run of ``weft train`` does. Paths are relative to the recipe's own folder.

    Attributes:
        data: JSONL of conversations to learn, or a list of such files, in any of the forms of
            :mod:`weft.conversation_forms`.
        limits: for each file of ``data`` how many of its conversations are used, drawn by ``seed``; 0 for all.
        output: folder of the run: checkpoints, log, and the best weave.
        dev: JSONL of conversations to watch, or a list of such files; None for none.
        language_model: part, folder or Hub id of the frozen language model.
        vision: part, folder or Hub id of the frozen encoder of pictures, where ``text`` is not given.
        text: ``"language-model"``, or part, folder or Hub id of a frozen encoder of texts.
        name: name of the weave.
        weave: arguments of :func:`weft.weave`: ``layers``, ``every``, ``start``, ``initial``, ``feed_forward``, ...
        lora: a low-rank adapter in the language model that is learned together with the weave, and saved with it:
            ``rank``, and perhaps ``alpha`` (the rank by default) and ``target_modules`` (by default what PEFT knows for
            the family); None for none.
        initial_weights: a folder with a woven model to go on from, of whose ``weave`` settings only ``dropout`` can be
            changed, and ``labels`` and ``copy_width`` added; None to start anew.
        initial_connector: a folder with a woven model of whose weave of this name, on the same encoder and language
            model, the connector is taken, for new fusion layers that start as ``weave`` says; None for a new one.
        system_prompt: system message of conversations that have none; None leaves that to the chat template.
        doubt: how names of what pictures show are spoiled, so that the weave learns not to believe them all: ``forget``
            is the probability with which one is left out, ``mistake`` that with which a false one is added, ``fade``
            that with which all are made less sure.
        views: how each picture is shown, one of them drawn for each row and epoch.
        features: folder for features of pictures and for hidden states; shared by runs.
        seed: decides order, dropout and the start of the weave.
        optimizer: ``"muon"``, which learns fastest, or ``"adamw"``; see :mod:`weft.optimizers`.
        epochs: times that each row is seen.
        max_steps: steps of the run, whatever ``epochs`` says; None to go by that.
        batch_size: rows a step, over all processes; rows that share pictures and prompt count once.
        accumulate: parts in which a step is computed: each of rows of like length, and for less memory.
        learning_rate: at the top of the schedule, which rises linearly and falls as a cosine.
        final_learning_rate: share of it that is left at the end.
        warmup: steps of the rise.
        weight_decay: of matrices; scales and positions have none.
        clip: largest norm of the gradient.
        reward: ``"cider"`` for self-critical training: rows with several right answers are learned from sampled ones,
            weighted by CIDEr-D; None to learn the right answers themselves.
        samples: answers that are sampled for each such row.
        label_smoothing: share of each target spread over the vocabulary.
        average: decay a step of the running average of the weights, which is what is evaluated and kept; 0 for none.
        initial_share: share of ``initial_weights`` in the weights that are evaluated and kept, so that what was known
            before is not forgotten (Wortsman et al. 2022); 0 for none. What was added to them since has no share.
        precision: ``"bf16"`` or ``"fp32"``, of the frozen language model and of the products in encoder and weave;
            ``"auto"``, the default, for the first where the machine has instructions for it.
        passages: passages of a conversation's documents that are read, at most; the first ones.
        reading: ``"once"``, each passage being encoded for all questions, or ``"careful"``, with the question of its
            conversation before it.
        store_features: whether features of passages are kept on disk: with ``reading: careful`` of each passage for
            each question, twice the encoder's width in bytes a token in bfloat16. Otherwise they are computed for each
            step.
        longest: tokens of text of a row, at most; longer ones, which take the most memory, are not learned from. None
            for no bound.
        citing: what it counts, in losses of a word, that copying looks at the documents named in ``supporting``.
        share_prompts: whether rows with the same pictures, documents and prompt are computed as one.
        store_hidden: whether the hidden states below the first fusion layer are kept on disk.
        shard: whether several processes share the frozen decoder layers, each holding a part of them while it learns.
        sampled_vocabulary: words outside the training set's own that are drawn for each step's softmax; None to
            compute the whole vocabulary. With ``reward`` there are the training set's own alone, or all.
        evaluate_every: steps between evaluations on ``dev``, and between checkpoints.
        metric: what decides which weights are kept: the ``"loss"`` on ``dev``, ``"cider"`` of greedy captions, or
            ``"rouge"`` (ROUGE-L) of greedy responses to conversations about documents.
        evaluate_limit: examples of ``dev`` that an evaluation looks at; None for all.
        patience: evaluations without a gain after which the run stops; None for never.
        fetch_pictures: whether pictures that the data gives by web address are fetched, once each.
        trackers: where figures go beside the log: ``tensorboard``, ``wandb`` and what else Accelerate knows.
    """

    data: str | list[str]
    output: str
    dev: str | list[str] | None = None
    language_model: str = "smollm2-135m-instruct"
    vision: str = "efficientnet-lite2"
    text: str | None = None
    limits: list[int] = field(default_factory=list)
    name: str = "photos"
    weave: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] | None = None
    initial_weights: str | None = None
    initial_connector: str | None = None
    system_prompt: str | None = None
    doubt: dict[str, float] = field(default_factory=dict)
    views: list[Literal["plain", "mirror"]] = field(default_factory=lambda: ["plain"])
    features: str = "features"
    seed: int = 0
    optimizer: Literal["muon", "adamw"] = "muon"
    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    warmup: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    reward: Literal["cider"] | None = None
    samples: int = 5
    label_smoothing: float = 0.0
    average: float = 0.0
    initial_share: float = 0.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    passages: int = 16
    reading: Literal["once", "careful"] = "once"
    store_features: bool = True
    longest: int | None = None
    citing: float = 0.0
    share_prompts: bool = True
    store_hidden: bool = True
    shard: bool = False
    sampled_vocabulary: int | None = 1024
    evaluate_every: int = 200
    metric: Literal["loss", "cider", "rouge"] = "loss"
    evaluate_limit: int | None = None
    patience: int | None = None
    fetch_pictures: bool = False
    trackers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._check_numbers()
        self.weave = checked(self.weave, WEAVE, "weave.")
        if self.lora is not None:
            self.lora = checked(self.lora, LORA, "lora.")
            if (
                "rank" not in self.lora
                or min(value for value in self.lora.values() if isinstance(value, (int, float))) <= 0
            ):
                raise RecipeError(f"lora: {self.lora} needs a 'rank' of at least 1, and an 'alpha' above zero.")
        for name in self.trackers:
            if name not in TRACKERS:
                raise RecipeError(f"trackers: unknown tracker {name!r}; {suggestion(name, TRACKERS)}")
        if not 0 <= self.initial_share < 1 or (self.initial_share and self.initial_weights is None):
            raise RecipeError(
                f"initial_share: {self.initial_share} has to lie between 0 and 1, and is 0 without 'initial_weights'."
            )
        if not set(self.doubt) <= {"forget", "mistake", "fade"} or not all(0 <= p <= 1 for p in self.doubt.values()):
            raise RecipeError(
                f"doubt: {self.doubt} is not known; give probabilities of 'forget', 'mistake' and 'fade'."
            )
        if self.initial_connector is not None and self.initial_weights is not None:
            raise RecipeError("initial_connector: 'initial_weights' brings a connector already; give one of the two.")
        if self.reading == "careful" and self.text is None and self.initial_weights is None:
            raise RecipeError("reading: careful is a way to read texts; give 'text', the encoder of texts.")
        if self.shard and not self.store_features:
            raise RecipeError(
                "store_features: false needs the whole language model in each process; leave out 'shard'."
            )
        if self.metric != "loss" and self.dev is None:
            raise RecipeError(
                f"metric: {self.metric} needs words to compare with; give 'dev', a JSONL with references."
            )

    def _check_numbers(self) -> None:
        """Refuse numbers with which a run would do nothing, or fail after hours.

        Raises:
            RecipeError: there is one.
        """
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, (int, float))}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise RecipeError(f"{name}: {value} is no number to compute with; give another.")
            if value < _LEAST.get(name, value):
                raise RecipeError(f"{name}: {value} is too small; give at least {_LEAST[name]}.")
            if (name in _SHARES and value >= 1) or (name in _POSITIVE and value <= 0):
                raise RecipeError(f"{name}: {value} can't be; give a number {_wanted(name)}.")
        for name in ("data", "dev", "views"):
            if getattr(self, name) == []:
                raise RecipeError(f"{name}: the list is empty; name at least one, or leave it out.")
        if len(self.limits) > len(listed(self.data)) or any(limit < 0 for limit in self.limits):
            raise RecipeError(f"limits: {self.limits} must hold a number from 0 on for each file of 'data'.")


def _wanted(name: str) -> str:
    return "from 0 to below 1" if name in _SHARES else "above 0"


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once: of two values nobody knows which was meant."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"the key {twice!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def load_recipe(path: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: the file.
        settings: changes of single fields, each ``key=value``: the value in YAML, the key with a dot for a field of
            ``weave`` and its like (``weave.dropout=0.1``).

    Raises:
        RecipeError: the file is missing or no YAML mapping, a key is unknown (the near one is suggested) or missing, or
            a value is of another type.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise RecipeError(f"{path} is not a file; give a recipe (YAML).")
    if path.suffix in (".jsonl", ".json"):
        raise RecipeError(f"{path} is data; give a recipe (YAML) that names it: data: {path.name}, output: runs/mine.")
    try:
        fields = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise RecipeError(f"{path} can't be read ({error.strerror or error}).") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise RecipeError(f"{path} holds no mapping; a recipe has at least 'data' and 'output'.")
    fields = checked(fields, HINTS, f"{path}: ")
    given = [name for name in fields if name in _PATHS]
    for setting in settings:
        key = _set(fields, setting)
        given = [name for name in given if name != key]  # a path on the command line leads from where one is
    missing = [f.name for f in dataclasses.fields(Recipe) if f.name in ("data", "output") and f.name not in fields]
    if missing:
        raise RecipeError(f"{path}: {missing[0]!r} is missing.")
    try:
        recipe = Recipe(**fields)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    return _beside(recipe, path.parent, given)


def _set(fields: dict[str, Any], setting: str) -> str:
    """Change a field; returns which."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise RecipeError(f"{setting!r} sets nothing; give key=value, such as epochs=3 or weave.dropout=0.1.")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{setting!r}: the value is not YAML ({' '.join(str(error).split())}).") from None
    name, dot, inner = key.strip().partition(".")
    if dot:
        value = {**(fields.get(name) or {}), inner: value}
    fields |= checked({name: value}, HINTS, "")
    return name


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """A recipe with some fields changed; paths may be given as such.

    Raises:
        RecipeError: a field is unknown (the near one is suggested), or a value is of another type.
    """
    plain = {name: _plain(value) for name, value in changes.items()}
    return dataclasses.replace(recipe, **checked(plain, HINTS, ""))


def _plain(value: Any) -> Any:
    """Paths as strings."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


HINTS: dict[str, Any] = typing.get_type_hints(Recipe)
"""The type of each field of a recipe."""
_PATHS = ("data", "output", "dev", "features", "initial_weights", "initial_connector")


def _beside(recipe: Recipe, folder: Path, given: Sequence[str]) -> Recipe:
    """Paths made relative to the recipe's folder: those that it gives, and the features' by default."""
    names = [*given, *(["features"] if "features" not in given and recipe.features == "features" else [])]
    names += [name for name in ("language_model", "vision", "text") if str(getattr(recipe, name)).startswith(".")]

    def placed(path: Any) -> Any:
        return [str(folder / one) for one in path] if isinstance(path, list) else str(folder / path)

    paths = {name: getattr(recipe, name) for name in names}
    beside: dict[str, Any] = {name: placed(path) for name, path in paths.items() if path is not None}
    return dataclasses.replace(recipe, **beside)


def listed(files: str | list[str]) -> list[str]:
    """One file or several, as a list."""
    return [files] if isinstance(files, str) else files
