"""Training with everything that Weft does for it, against the plain loop: how fast, and whether both learn the same.

Both train the weave of ``recipes/photos.yaml`` with the same optimizer on the same captions in every step, in the type
that this processor multiplies soonest, without dropout and label smoothing, so that their losses can be compared. The
plain loop has features of pictures from disk as well; but it runs the whole language model for every caption, and the
softmax over all words.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import QUICK, compare
from PIL import Image

import weft
from weft.data import Row
from weft.pictures import PictureFeatures, View
from weft.progress import Reporter
from weft.recipe import Recipe, load_recipe
from weft.tasks import CAPTION
from weft.trainer import Trainer

ROOT = Path(__file__).parents[1]
CAPTIONS = 5
"""Captions of a picture."""
PICTURES = 160
"""Pictures that are learned from."""
UNSEEN = 20
"""Further ones, on whose captions the loss is measured at the end."""
PICTURES_A_STEP = 32
"""As the recipe has it."""
WARM = 2
"""Steps that do not count."""
WHO = "man woman boy girl child dog cat horse bird cyclist climber dancer farmer skier surfer runner"
WHAT = "young old small large brown white black happy tired muddy wet striped"
DOES = "runs jumps sleeps waits plays stands sits climbs walks swims"
WHERE = "street beach field river house forest mountain garden bridge pool park wall road market"
NEAR = "near behind across beside over through"
"""The words of made-up captions."""
PLAIN = {"store_hidden": False, "share_prompts": False, "sampled_vocabulary": None}
"""What the recipe of the plain loop says otherwise."""


class Timed(Trainer):
    """A trainer that notes how many captions it learns a second.

    Attributes:
        rates: of each step.
        storing: seconds for the hidden states of the training set and the dev set, once.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.rates: list[float] = []
        self.storing = 0.0

    def _update(self, module: Any, optimizer: Any, parts: Any, epoch: int) -> dict[str, float]:
        started = time.perf_counter()
        figures = super()._update(module, optimizer, parts, epoch)
        captions = sum(len(row.answers) for part in parts for row in part)
        self.rates.append(captions / (time.perf_counter() - started))
        return figures

    def _fill_hidden(self, hidden: Any, reporter: Reporter) -> None:
        started = time.perf_counter()
        super()._fill_hidden(hidden, reporter)
        self.storing = time.perf_counter() - started


class EncodingEveryTime(PictureFeatures):
    """As a trainer without a feature store has it."""

    def batch(self, pictures: list[tuple[str, View]]) -> torch.Tensor:
        return self.encode(pictures)


def learning(folder: Path, photos: Path | None, steps: int) -> list[dict[str, Any]]:
    """Captions a second of both, and of the first without a feature store; and their losses at the end.

    Args:
        folder: for the run.
        photos: JSONL of photos with captions; None for made-up ones.
        steps: steps of each side.
    """
    quick = Timed(recipe_of(folder, "quick", photos, steps))
    quick.run()
    encoding = Timed(replace(quick.recipe, output=str(folder / "encoding"), dev=None))
    held = encoding.feed.held
    assert isinstance(held, PictureFeatures)
    encoding.feed.held = EncodingEveryTime(held.encoder, held.store)
    encoding.total = max(WARM + 1, steps // 4)
    encoding.run()
    size = quick.recipe.batch_size * CAPTIONS
    plain = Timed(replace(quick.recipe, output=str(folder / "plain"), batch_size=size, **PLAIN))
    plain.feed.plan = lambda epoch: apart(plain.feed.rows, quick.feed.plan(epoch))  # type: ignore[method-assign]
    plain.run()
    epochs = load_recipe(ROOT / "recipes" / "photos.yaml").epochs
    once = quick.storing * PICTURES / (PICTURES + UNSEEN) / (PICTURES * CAPTIONS * epochs)
    rates = {
        "with everything": quick.rates[WARM:],
        f"with everything, storing counted ({epochs:g} epochs)": [1 / (1 / rate + once) for rate in quick.rates[WARM:]],
        "with everything, but pictures encoded every time": encoding.rates[WARM:],
        "the plain loop": plain.rates[WARM:],
    }
    losses = {"with everything": [quick.best], "the plain loop": [plain.best]}
    return [
        compare("Training on the shipped recipe", "captions/s", rates, rate=True),
        compare(f"Loss of a word on unseen captions, after {steps} steps", "nats", losses),
    ]


def recipe_of(folder: Path, name: str, photos: Path | None, steps: int) -> Recipe:
    """The shipped recipe, for a few steps on a few pictures."""
    pictures = from_file(photos) if photos is not None else made_up(folder)
    random.Random(0).shuffle(pictures)
    files = {"train": pictures[:PICTURES], "dev": pictures[PICTURES:]}
    for split, some in files.items():
        lines = [line(picture, caption) for picture, captions in some for caption in captions]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shipped = load_recipe(ROOT / "recipes" / "photos.yaml")
    return replace(
        shipped,
        data=str(folder / "train.jsonl"),
        dev=str(folder / "dev.jsonl"),
        output=str(folder / name),
        features=str(folder / "features"),
        weave={**shipped.weave, "dropout": 0.0},
        views=["plain"],
        label_smoothing=0.0,
        average=0.0,
        metric="loss",
        precision="bf16" if torch.bfloat16 == QUICK else "fp32",
        batch_size=PICTURES_A_STEP,
        epochs=steps * PICTURES_A_STEP / PICTURES,
        warmup=max(1, steps // 4),
        evaluate_every=steps,
    )


def apart(rows: list[Row], plan: list[list[list[Row]]]) -> list[list[list[Row]]]:
    """The steps of a plan with a row for every caption, in as many parts, those of like length together."""
    found = defaultdict(list)
    for row in rows:
        found[row.pictures].append(row)
    steps = []
    for step in plan:
        captions = sorted((one for part in step for row in part for one in found[row.pictures]), key=len)
        size = -(-len(captions) // len(step))
        steps.append([captions[start : start + size] for start in range(0, len(captions), size)])
    return steps


def line(picture: Path, caption: str) -> str:
    """A caption as a line of a data set."""
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": CAPTION}]
    return json.dumps({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": caption}]})


def from_file(photos: Path) -> list[tuple[Path, list[str]]]:
    """The first pictures of a data set that have enough captions."""
    found: dict[Path, list[str]] = defaultdict(list)
    for example in weft.data.load_examples(photos):
        if example.question == CAPTION:
            found[Path(example.pictures[0]).resolve()].append(example.answer)
    pictures = [(picture, captions[:CAPTIONS]) for picture, captions in found.items() if len(captions) >= CAPTIONS]
    if len(pictures) < PICTURES + UNSEEN:
        raise SystemExit(f"{photos} has {len(pictures)} pictures with captions; {PICTURES + UNSEEN} are needed.")
    return pictures[: PICTURES + UNSEEN]


def made_up(folder: Path) -> list[tuple[Path, list[str]]]:
    """Crops of the example photos, with captions by rule: the work of a real set, if not its content."""
    chance = random.Random(0)
    photos = [weft.load_image(file) for file in sorted((ROOT / "examples").glob("*.jpg"))]
    pictures = []
    for number in range(PICTURES + UNSEEN):
        photo = chance.choice(photos)
        left, top = chance.randrange(photo.width // 2), chance.randrange(photo.height // 2)
        crop = photo.crop((left, top, left + photo.width // 2, top + photo.height // 2))
        file = folder / f"{number}.jpg"
        crop.resize((160, 160), Image.Resampling.BICUBIC).save(file)
        captions = []
        for _ in range(CAPTIONS):
            who, does, near, other = (chance.choice(words.split()) for words in (WHO, DOES, NEAR, WHO))
            what, else_, where = (chance.choice(words.split()) for words in (WHAT, WHAT, WHERE))
            captions.append(f"A {what} {who} {does} {near} the {else_} {where} with a {other}.")
        pictures.append((file, captions))
    return pictures
