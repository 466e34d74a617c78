"""Memory of a process at its peak, each side in a process of its own.

    python benchmarks/peaks.py --threads 2 NAME

runs one of :data:`WORK` and prints megabytes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import compare, left_out
from peers import EYES, PROMPT, LlamaCpp

TOKENS = 16
"""Tokens that are said."""


def caption() -> None:
    """Weft as it loads, asked for a caption."""
    import weft

    weft.load().caption(Path(__file__).parents[1] / "examples" / "cat.jpg")


def generate(dtype: torch.dtype) -> None:
    """The default language model in transformers, without eyes."""
    from transformers import AutoModelForCausalLM

    from weft.parts import resolve

    model = AutoModelForCausalLM.from_pretrained(resolve("smollm2-135m-instruct").path, dtype=dtype).eval()
    with torch.inference_mode():
        model.generate(torch.arange(100, 100 + PROMPT)[None], max_new_tokens=TOKENS, do_sample=False)


WORK: dict[str, Callable[[], Any]] = {
    "Weft, as it loads, a photo": caption,
    "transformers generate, float32, text alone": lambda: generate(torch.float32),
    "transformers generate, bfloat16, text alone": lambda: generate(torch.bfloat16),
    **{f"{name}, a photo": lambda eyes=eyes: eyes().say(TOKENS) for name, eyes in EYES.items()},
}
"""What is run, by name."""


def peaks(threads: int, llama: LlamaCpp | None) -> list[dict[str, Any]]:
    """All of :data:`WORK`, and llama.cpp."""

    def run(name: str) -> float:
        command = [sys.executable, __file__, "--threads", str(threads), name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
        return float(done.stdout)

    found: dict[str, list[float]] = {}
    sides = {name: lambda name=name: run(name) for name in WORK}
    if llama is not None:
        sides["llama.cpp, four bits (Q4_1), text alone"] = lambda: llama.measure(1)["peak"]
    for name, side in sides.items():
        try:
            found[name] = [side()]
        except RuntimeError as error:
            left_out(name, error)
    return [compare("Peak memory of a process", "MB", found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=WORK, metavar="NAME")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    WORK[options.name]()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
