"""Weft's speed as ratios, each against a named peer in the same run on the same machine.

    python benchmarks/run.py [--threads 2] [--repeats 7]

Runs of the two sides alternate after a warm-up; medians are compared, and the spread is from the first to the third
quartile. Writes ``docs/benchmarks.json`` and the table ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import weft
from weft.memory import Placement
from weft.model import WeftModel
from weft.pictures import PictureFeatures, View
from weft.recipe import load_recipe
from weft.rendering import about_a_picture
from weft.tasks import CAPTION
from weft.trainer import Trainer

ROOT = Path(__file__).parents[1]
CAT = ROOT / "examples" / "cat.jpg"


def alternate(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run each side in turn, so that both meet the same machine; the first round warms up and is left out."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round in range(repeats + 1):
        for name, side in sides.items():
            taken = side()
            if round:
                times[name].append(taken)
    return times


def compare(title: str, unit: str, times: dict[str, list[float]], *, rate: bool = False) -> dict[str, Any]:
    """The first side against the second."""
    rows = {}
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        rows[name] = {"median": middle, "low": low, "high": high, "unit": unit}
    ours, peer = (row["median"] for row in rows.values())
    return {"title": title, "rows": rows, "ratio": ours / peer, "higher is better": rate}


def prompt(model: WeftModel) -> tuple[torch.Tensor, int]:
    """The prompt of a caption, and the column from which on the picture is seen."""
    rendered = model.processor.render(about_a_picture(CAPTION), add_generation_prompt=True)
    tokens, columns, _ = model.processor.tokenize(rendered)
    return torch.tensor([tokens]), columns[0]


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - started


def decoding(model: WeftModel, repeats: int) -> dict[str, Any]:
    """A token decoded with a read memory of 81 patches, against the same language model bare."""
    ids, column = prompt(model)
    placed = [model.place(model.read(CAT), Placement.of([[(0, column)]]))]
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "eos_token_id": None}

    def a_token(generate: Callable[..., Any], **more: Any) -> float:
        first = seconds(lambda: generate(ids, max_new_tokens=1, **options, **more))
        return 1000 * (seconds(lambda: generate(ids, max_new_tokens=65, **options, **more)) - first) / 64

    sides = {
        "with a read memory of 81 patches": lambda: a_token(model.generate, memories=placed),
        "the language model bare (transformers)": lambda: a_token(model.language_model.generate),
    }
    return compare("A decoded token", "ms", alternate(sides, repeats))


def second_question(model: WeftModel, repeats: int) -> dict[str, Any]:
    """Time to the first token of a second question about a picture, against the first question."""
    ids, column = prompt(model)
    image = weft.load_image(CAT)
    read = model.read(image)

    def ask(picture: Any) -> None:
        placed = [model.place(model.read(picture), Placement.of([[(0, column)]]))]
        model.generate(ids, attention_mask=torch.ones_like(ids), memories=placed, max_new_tokens=1)

    sides = {
        "second question (the picture is read)": lambda: 1000 * seconds(lambda: ask(read)),
        "first question (encode and read)": lambda: 1000 * seconds(lambda: ask(image)),
    }
    return compare("Time to the first token", "ms", alternate(sides, repeats))


class EncodingEveryTime(PictureFeatures):
    """As a trainer without a feature store has it."""

    def batch(self, pictures: list[tuple[str, View]]) -> torch.Tensor:
        return self.encode(pictures)


def training(repeats: int, folder: Path) -> dict[str, Any]:
    """Rows a second of the shipped recipe with the feature store, against encoding pictures in every step."""
    recipe = replace(
        load_recipe(ROOT / "recipes" / "photos.yaml"),
        data=str(conversations(folder)),
        dev=None,
        metric="loss",
        output=str(folder / "run"),
        features=str(folder / "features"),
        evaluate_every=10**9,
        epochs=10**6,
    )
    trainer = Trainer(recipe)
    stored, encoding = (
        trainer.feed.pictures,
        EncodingEveryTime(trainer.feed.pictures.encoder, trainer.feed.pictures.store),
    )

    class Enough(Exception): ...

    rates: dict[str, list[float]] = {"with the feature store": [], "encoding every time": []}
    update = trainer._update

    def timed(module: Any, optimizer: Any, parts: Any, epoch: int) -> Any:
        name, pictures = ("with the feature store", stored) if trainer.step % 2 else ("encoding every time", encoding)
        trainer.feed.pictures = pictures
        started = time.perf_counter()
        figures = update(module, optimizer, parts, epoch)
        if trainer.step > 4:
            rates[name].append(sum(map(len, parts)) / (time.perf_counter() - started))
        if trainer.step >= 4 + 2 * repeats:
            raise Enough
        return figures

    trainer._update = timed  # type: ignore[method-assign]
    with suppress(Enough):
        trainer.run()
    return compare("Training on the shipped recipe", "rows/s", rates, rate=True)


def conversations(folder: Path) -> Path:
    """256 crops of the example photos, with five captions each: the work of a real set, if not its content."""
    random.seed(0)
    photos = [weft.load_image(file) for file in sorted((ROOT / "examples").glob("*.jpg"))]
    sentence = "a brown dog runs through the green grass while two small children watch it from near the old house"
    words = sentence.split(" ")
    lines = []
    for number in range(256):
        photo = photos[number % len(photos)]
        left, top = random.randrange(photo.width // 2), random.randrange(photo.height // 2)
        name = f"{number}.jpg"
        crop = photo.crop((left, top, left + photo.width // 2, top + photo.height // 2))
        crop.resize((160, 160), Image.Resampling.BICUBIC).save(folder / name)
        for _ in range(5):
            answer = " ".join(random.sample(words, 11)).capitalize() + "."
            content = [{"type": "image", "image": name}, {"type": "text", "text": CAPTION}]
            messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            lines.append(json.dumps({"messages": messages}))
    (folder / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "data.jsonl"


def cold_start(repeats: int) -> dict[str, Any]:
    """``weft caption`` from a cold process, against importing what it stands on."""
    commands = {
        "weft caption cat.jpg": [sys.executable, "-m", "weft", "caption", str(CAT)],
        "import torch, transformers": [
            sys.executable,
            "-c",
            "import torch, transformers; from transformers import AutoModelForCausalLM, LlamaForCausalLM",
        ],
    }
    sides = {
        name: lambda command=command: seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        for name, command in commands.items()
    }
    return compare("A cold process", "s", alternate(sides, repeats))


def table(results: list[dict[str, Any]], setting: str) -> str:
    """As Markdown."""
    lines = ["# Benchmarks", "", f"Made by `make benchmark` on {setting}.", ""]
    lines += ["| what | side | median | quartiles | ratio |", "|---|---|---|---|---|"]
    for result in results:
        for number, (name, row) in enumerate(result["rows"].items()):
            title, ratio = ("", "") if number else (result["title"], f"{result['ratio']:.2f}")
            spread = f"{row['low']:.4g} to {row['high']:.4g}"
            lines.append(f"| {title} | {name} | {row['median']:.4g} {row['unit']} | {spread} | {ratio} |")
    lines += ["", "The ratio is the first side against the second.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = weft.load()
    results = [decoding(model, options.repeats), second_question(model, options.repeats)]
    results.append(cold_start(options.repeats))
    del model
    with tempfile.TemporaryDirectory() as folder:
        results.append(training(options.repeats, Path(folder)))
    setting = (
        f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, bfloat16, Python "
        f"{platform.python_version()}, {options.repeats} rounds"
    )
    docs = ROOT / "docs"
    (docs / "benchmarks.json").write_text(json.dumps({"setting": setting, "results": results}, indent=2) + "\n")
    (docs / "benchmarks.md").write_text(table(results, setting))
    print(table(results, setting))


if __name__ == "__main__":
    main()
