"""Weft's speed as ratios, each against a named peer in the same run on the same machine.

    python benchmarks/run.py [--threads 2] [--repeats 7] [--peers .venv-peers]

Runs of all sides take turns after a round of warming up; medians are compared, and the spread is from the first to the
third quartile. Writes ``docs/benchmarks.json`` and the table ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
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
from measuring import alternate, compare, seconds, table
from peers import llama_cpp, mllama, smolvlm
from PIL import Image
from transformers import AutoModelForCausalLM

import weft
from weft.engine import Engine
from weft.memory import KeyValues, Placement, ReadMemory
from weft.model import WeftModel
from weft.parts import resolve
from weft.pictures import PictureFeatures, View
from weft.plain import PlainDecoder
from weft.recipe import load_recipe
from weft.responding import ends_of, prompt_of, reply
from weft.search import Prompt, search
from weft.tasks import CAPTION
from weft.trainer import Trainer

ROOT = Path(__file__).parents[1]
CAT = ROOT / "examples" / "cat.jpg"
PROMPT = 16
"""Tokens of a prompt."""
TOKENS = 64
"""Tokens that are decoded."""


def random_memory(model: WeftModel, tokens: int) -> ReadMemory:
    """A memory of so many random tokens, as the photos weave reads them."""
    config = model.weave("photos").config

    def one() -> torch.Tensor:
        return torch.randn(1, config.kv_heads, tokens, config.head_dim, dtype=torch.bfloat16)

    return ReadMemory("photos", tuple(KeyValues(one(), one()) for _ in config.layers))


def speaker(model: WeftModel, quantize: Any, rows: int = 1, tokens: int = 0) -> Callable[[], float]:
    """Milliseconds that Weft's own decoder takes for a step of some rows, each with a memory of so many tokens."""
    plain = PlainDecoder(model, quantize)
    decoder, weaves = plain.get(), plain.weaves()
    assert decoder is not None
    memories = () if not tokens else (model.place(random_memory(model, tokens), Placement.of([[(0, 0)]])),)
    prompts = [Prompt(list(range(100, 100 + PROMPT)), memories) for _ in range(rows)]

    def say(longest: int) -> float:
        return seconds(lambda: search(decoder, weaves, prompts, beams=1, longest=longest, ends=()))

    return lambda: 1000 * (say(1 + TOKENS) - say(1)) / TOKENS


def generating(language_model: Any, rows: int = 1, **options: Any) -> Callable[[], float]:
    """Milliseconds that transformers' ``generate`` takes for a step of some rows."""
    ids = torch.arange(100, 100 + PROMPT).expand(rows, -1).contiguous()
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "eos_token_id": None, **options}

    def say(tokens: int) -> float:
        return seconds(lambda: language_model.generate(ids, max_new_tokens=tokens, **options))

    return lambda: 1000 * (say(1 + TOKENS) - say(1)) / TOKENS


def decoding(model: WeftModel, wide: Any, peer: Callable[[], float] | None, repeats: int) -> list[dict[str, Any]]:
    """A token of one row and of eight, against transformers and llama.cpp; and what a memory costs."""
    one = {
        "Weft, as it loads (four bits)": speaker(model, "auto"),
        "Weft, bfloat16": speaker(model, None),
        "transformers generate, float32": generating(wide),
        "transformers generate, bfloat16": generating(model.language_model),
    }
    if peer is not None:
        one["llama.cpp, four bits (Q4_1)"] = peer
    eight = {
        "Weft, as it loads (four bits)": speaker(model, "auto", 8),
        "transformers generate, float32": generating(wide, 8),
        "transformers generate, bfloat16": generating(model.language_model, 8),
    }
    sizes = (0, 81, 1_000, 10_000)
    memories = {f"memory of {size:,} tokens" if size else "bare": speaker(model, "auto", 1, size) for size in sizes}
    return [
        compare("A token of one row", "ms", alternate(one, repeats)),
        compare("A step of eight rows", "ms", alternate(eight, repeats)),
        compare("A token with a memory, four bits", "ms", alternate(memories, repeats)),
    ]


def first_token(model: WeftModel, repeats: int) -> dict[str, Any]:
    """Time to the first token: of a new photo, of a known one, of text alone; and of other models with eyes."""
    photo, number = weft.load_image(CAT), 0
    known = [{"role": "user", "content": [{"type": "image", "image": photo}, {"type": "text", "text": CAPTION}]}]
    text = [{"role": "user", "content": CAPTION}]

    def ask(messages: Any) -> None:
        reply(model, prompt_of(model, messages), beams=1, longest=1)

    def new() -> None:
        nonlocal number
        number += 1  # one more grey pixel, so that it has not been seen
        other = photo.copy()
        other.putpixel((number, 0), (128, 128, 128))
        ask([{"role": "user", "content": [{"type": "image", "image": other}, {"type": "text", "text": CAPTION}]}])

    sides: dict[str, Callable[[], Any]] = {
        "a new photo": new,
        "a known photo": lambda: ask(known),
        "text alone": lambda: ask(text),
        "Mllama at this geometry, a photo": mllama(),
        "SmolVLM-256M's geometry, a photo in one tile": smolvlm(),
    }
    timed = {name: lambda side=side: 1000 * seconds(side) for name, side in sides.items()}
    return compare("Time to the first token", "ms", alternate(timed, repeats))


def together(model: WeftModel, repeats: int) -> dict[str, Any]:
    """Tokens a second of 16 requests about 16 photos that have been read: at once, and one after another."""
    photo = weft.load_image(CAT)
    asked = []
    for index in range(16):
        crop = photo.crop((index, index, photo.width - 16, photo.height - 16))
        asked.append(
            [{"role": "user", "content": [{"type": "image", "image": crop}, {"type": "text", "text": CAPTION}]}]
        )
    with Engine(model) as engine:
        ends, engine._ends = engine._ends, set()  # replies of the same length on both sides
        assert ends

        def at_once() -> float:
            return 16 * TOKENS / seconds(lambda: engine.generate_batch(asked, max_tokens=TOKENS))

        def in_turn() -> float:
            return 16 * TOKENS / seconds(lambda: [engine.generate_batch([one], max_tokens=TOKENS) for one in asked])

        sides = {"16 at once": at_once, "one after another": in_turn}
        return compare("16 requests about 16 photos", "tokens/s", alternate(sides, repeats), rate=True)


def long_text(model: WeftModel, repeats: int) -> dict[str, Any]:
    """Answering about a text of 2,000 words, 32 tokens: read into memory before, against in the prompt."""
    words = " ".join(
        (ROOT / "examples" / "stories").glob("*.txt").__next__().read_text(encoding="utf-8").split()[:2000]
    )
    question, options = "Who is this about?", {"beams": 1, "max_new_tokens": 32}
    decoder = model.plain.get()
    assert decoder is not None and model.processor is not None
    weaves = model.plain.weaves()
    message = [{"role": "user", "content": f"{words}\n\n{question}"}]
    ids = model.processor.tokenize(model.processor.render(message, add_generation_prompt=True)).ids
    sides = {
        "in a memory that has been read": lambda: seconds(lambda: model.answer(question, [words], **options)),
        "in the prompt": lambda: seconds(
            lambda: search(decoder, weaves, [Prompt(ids)], beams=1, longest=32, ends=ends_of(model))
        ),
    }
    return compare("An answer about 2,000 words", "s", alternate(sides, repeats))


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
        trainer.feed.held,
        EncodingEveryTime(trainer.feed.held.encoder, trainer.feed.held.store),
    )

    class Enough(Exception): ...

    rates: dict[str, list[float]] = {"with the feature store": [], "encoding every time": []}
    update = trainer._update

    def timed(module: Any, optimizer: Any, parts: Any, epoch: int) -> Any:
        name, pictures = ("with the feature store", stored) if trainer.step % 2 else ("encoding every time", encoding)
        trainer.feed.held = pictures
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


def cold_start(repeats: int) -> list[dict[str, Any]]:
    """``weft caption`` from a cold process, against importing what it stands on: time, and memory at its peak."""
    commands = {
        "weft caption cat.jpg": [sys.executable, "-m", "weft", "caption", str(CAT)],
        "import torch, transformers": [
            sys.executable,
            "-c",
            "import torch, transformers; from transformers import AutoModelForCausalLM, LlamaForCausalLM",
        ],
    }
    peaks: dict[str, list[float]] = {name: [] for name in commands}

    def run(name: str) -> float:
        command = [sys.executable, "-c", _PEAK, *commands[name]]
        peaks[name].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024)
        return seconds(lambda: subprocess.run(commands[name], check=True, capture_output=True))

    times = alternate({name: lambda name=name: run(name) for name in commands}, repeats)
    return [compare("A cold process", "s", times), compare("Its memory at the peak", "MB", peaks)]


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def passages() -> dict[str, Any]:
    """100,000 passages: see ``knowledge.py``."""
    command = [sys.executable, str(Path(__file__).with_name("knowledge.py"))]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = {
        name: {"median": value, "low": value, "high": value, "unit": "", "ratio": 1.0}
        for name, value in figures.items()
    }
    return {"title": "A knowledge base", "rows": rows, "higher is better": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peers", type=Path, help="folder of the environment in which llama.cpp is installed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peer = None
    if options.peers is not None:
        (gguf,) = options.peers.rglob("*.gguf")
        python = options.peers / "bin" / "python"
        peer = lambda: llama_cpp(python, gguf, options.threads, PROMPT, TOKENS)[1]  # noqa: E731
    model = weft.load()
    wide = AutoModelForCausalLM.from_pretrained(resolve("smollm2-135m-instruct").path, dtype=torch.float32).eval()
    results = decoding(model, wide, peer, options.repeats)
    del wide
    results += [
        first_token(model, options.repeats),
        together(model, options.repeats),
        long_text(model, options.repeats),
    ]
    del model
    results += cold_start(options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        results.append(training(options.repeats, Path(folder)))
    results.append(passages())
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
