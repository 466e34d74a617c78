"""Memory of a process at its peak, each side in a process of its own.

    python benchmarks/peaks.py --threads 2 NAME

runs one of :data:`WORK` and prints megabytes.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import compare, left_out
from memory_peak import peak
from peers import EYES, PROMPT, LlamaCpp

TOKENS = 16
"""Tokens that are said."""
CAT = Path(__file__).parents[1] / "examples" / "cat.jpg"


def caption() -> None:
    """Weft as it loads, asked for a caption."""
    import weft

    weft.load().caption(CAT)


def chat() -> float:
    """``weft serve``, asked about a photo over HTTP: its memory."""
    command = [sys.executable, "-m", "weft", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = list[str]()
    for line in server.stderr:
        said.append(line)
        if "serves on " in line:
            break
    else:
        raise RuntimeError(said[-1] if said else "weft serve ended at once")
    photo = {"url": f"data:image/jpeg;base64,{base64.b64encode(CAT.read_bytes()).decode()}"}
    question = [{"type": "image_url", "image_url": photo}, {"type": "text", "text": "What is on this picture?"}]
    asked = {"model": "weft", "max_tokens": TOKENS, "messages": [{"role": "user", "content": question}]}
    address = line.split("serves on ")[1].strip() + "/v1/chat/completions"
    request = urllib.request.Request(address, json.dumps(asked).encode(), {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request).read()
        return peak(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def generate(dtype: torch.dtype) -> None:
    """The default language model in transformers, without eyes."""
    from transformers import AutoModelForCausalLM

    from weft.parts import resolve

    model = AutoModelForCausalLM.from_pretrained(resolve("smollm2-135m-instruct").path, dtype=dtype).eval()
    with torch.inference_mode():
        model.generate(torch.arange(100, 100 + PROMPT)[None], max_new_tokens=TOKENS, do_sample=False)


def after(work: Callable[[], Any]) -> Callable[[], float]:
    """Something that does its work in this process, and says how much memory that took."""

    def measured() -> float:
        work()
        return peak()

    return measured


WORK: dict[str, Callable[[], float]] = {
    "Weft, as it loads, a photo": after(caption),
    "weft serve, a chat about a photo": chat,
    "transformers generate, float32, text alone": after(lambda: generate(torch.float32)),
    "transformers generate, bfloat16, text alone": after(lambda: generate(torch.bfloat16)),
    **{f"{name}, a photo": after(lambda eyes=eyes: eyes().say(TOKENS)) for name, eyes in EYES.items()},
}
"""What is run, by name; each says how many megabytes it took."""


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
    print(WORK[options.name]())


if __name__ == "__main__":
    main()
