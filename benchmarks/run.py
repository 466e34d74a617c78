"""Weft's speed as ratios, each against a named peer in the same run on the same machine.

    python benchmarks/run.py [--threads 2] [--repeats 7] [--peers .venv-peers] [--photos data/flickr8k/train.jsonl]
    python benchmarks/run.py --only decoding,photos

Runs of all sides take turns after a round of warming up; medians are compared, and the spread is from the first to the
third quartile. Writes ``docs/benchmarks.json`` and the table ``docs/benchmarks.md``. With ``--only`` the other rows
stay as they are there, so that a long run can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from decoding import decoding
from learning import learning
from measuring import alternate, compare, seconds, setting, table
from peaks import peaks
from peers import TOKENS, LlamaCpp
from photos import CAT, asking, photos

import weft
from weft.engine import Engine
from weft.responding import ends_of
from weft.search import Prompt, search

ROOT = Path(__file__).parents[1]


def together(repeats: int) -> dict[str, Any]:
    """Tokens a second of 16 requests about 16 photos that have been read: at once, and one after another."""
    photo = weft.load_image(CAT)
    asked = [asking(photo.crop((index, index, photo.width - 16, photo.height - 16))) for index in range(16)]
    with Engine(weft.load) as engine:
        ends, engine._worker._ends = engine._worker._ends, set()  # replies of the same length on both sides
        assert ends

        def at_once() -> float:
            return 16 * TOKENS / seconds(lambda: engine.generate_batch(asked, max_tokens=TOKENS))

        def in_turn() -> float:
            return 16 * TOKENS / seconds(lambda: [engine.generate_batch([one], max_tokens=TOKENS) for one in asked])

        sides = {"16 at once": at_once, "one after another": in_turn}
        return compare("16 requests about 16 photos", "tokens/s", alternate(sides, repeats), rate=True)


def long_text(repeats: int) -> dict[str, Any]:
    """Answering about a text of 2,000 words, 32 tokens: read into memory before, against in the prompt."""
    words = " ".join(
        (ROOT / "examples" / "stories").glob("*.txt").__next__().read_text(encoding="utf-8").split()[:2000]
    )
    model = weft.load()
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
    parser.add_argument("--steps", type=int, default=12, help="steps of training, of each side")
    parser.add_argument("--peers", type=Path, help="folder of the environment in which llama.cpp is installed")
    parser.add_argument("--photos", type=Path, help="photos to train on, as 'weft data flickr8k' writes them")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="which rows; the others are kept as they were")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        sections = sections_of(options, Path(folder))
        chosen = options.only.split(",") if options.only else list(sections)
        if unknown := set(chosen) - set(sections):
            parser.error(f"--only: {', '.join(sorted(unknown))} is not known; there are: {', '.join(sections)}.")
        file = ROOT / "docs" / "benchmarks.json"
        found = json.loads(file.read_text(encoding="utf-8")) if options.only and file.is_file() else {}
        for name in chosen:
            found[name] = {"setting": setting(options.threads, options.repeats), "results": sections[name]()}
            found = {one: found[one] for one in sections if one in found}
            file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
            file.with_suffix(".md").write_text(table(list(found.values())), encoding="utf-8")
    print(table(list(found.values())))


def sections_of(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """The rows by the names that ``--only`` takes, in the order of the table."""
    repeats, threads = options.repeats, options.threads
    llama = None if options.peers is None else LlamaCpp(options.peers, threads)
    return {
        "decoding": lambda: decoding(llama, repeats),
        "photos": lambda: photos(repeats),
        "engine": lambda: [together(repeats)],
        "texts": lambda: [long_text(repeats)],
        "cold": lambda: cold_start(repeats),
        "peaks": lambda: peaks(threads, llama),
        "training": lambda: learning(folder, options.photos, options.steps),
        "knowledge": lambda: [passages()],
    }


if __name__ == "__main__":
    main()
