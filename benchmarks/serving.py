"""A soak of ``weft serve``, and the same text-only load against ``transformers serve``.

    python benchmarks/serving.py [--clients 32] [--requests 600] [--seconds 300] [--out docs/serving.json]

Clients on this machine ask for captions of new and known pictures, follow-up questions, answers from a knowledge base
and plain chats; they leave in the middle, and send pictures that are too large or broken. Greedy replies are compared
with those that were given alone: none may be another client's. What is printed: requests a second, time to the first
token, failures by kind, and how much memory the server held as it went.

Then the same chats go to both servers, one after the other, over the same language model.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from measuring import machine
from PIL import Image

import weft
from weft.parts import resolve

ROOT = Path(__file__).parents[1]
STORIES = ROOT / "examples" / "stories"
QUESTIONS = (
    "Who lives on the moon?",
    "What did the king of the ants do?",
    "Why are the dog and the cat enemies?",
    "Who built the church at Lund?",
    "Who was the favorite of fortune?",
)
CHATS = (
    "What is the capital of France?",
    "Name three colours.",
    "What is two plus two?",
    "Say hello in Spanish.",
    "What do bees make?",
    "What is the opposite of hot?",
    "Which planet do we live on?",
    "What is ice made of?",
)
LONGEST = 48
"""Tokens of a reply."""


@dataclass
class Load:
    """What has come of a load.

    Attributes:
        counts: requests by kind and how they ended.
        first_tokens: seconds to the first token of each reply that was streamed.
        tokens: that were said.
        wrong: replies that were not those given alone.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_tokens: list[float] = field(default_factory=list)
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ask:
    """A request of a kind, and the status that it should have; ``name`` is the same for equal requests."""

    kind: str
    name: str
    body: dict[str, Any]
    status: int = 200
    leaves: bool = False


def picture(index: int, size: int = 320) -> str:
    """A crop of an example photo as a data URL; each number is another."""
    photos = sorted((ROOT / "examples").glob("*.jpg"))
    photo = weft.load_image(photos[index % len(photos)])
    left, top = 7 * index % (photo.width // 3), 11 * index % (photo.height // 3)
    crop = photo.crop((left, top, left + photo.width // 2, top + photo.height // 2))
    file = io.BytesIO()
    crop.resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def chat(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request of one message."""
    return {"model": "weft", "messages": [{"role": "user", "content": list(parts)}], "max_tokens": LONGEST, **more}


def text(words: str) -> dict[str, Any]:
    """Words as a part."""
    return {"type": "text", "text": words}


def shown(url: str) -> dict[str, Any]:
    """A picture as a part."""
    return {"type": "image_url", "image_url": {"url": url}}


def mix(memories: list[str]) -> list[Ask]:
    """Requests of all kinds, those that are frequent more than once.

    Args:
        memories: ids of pictures that have been read.
    """
    broken = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff" + b"no picture" * 9).decode()
    captions = [
        Ask("caption", f"caption {n}", chat(shown(picture(n)), text("Describe the picture."))) for n in range(12)
    ]
    follow_ups = [
        Ask("follow-up", f"follow-up {n}", chat({"type": "memory", "id": id}, text("What colour is it?")))
        for n, id in enumerate(memories)
    ]
    answers = [Ask("knowledge", one, chat(text(one), knowledge="stories", passages=3)) for one in QUESTIONS]
    chats = [Ask("chat", one, chat(text(one))) for one in CHATS]
    leaving = [Ask("cancelled", one.name, one.body, leaves=True) for one in [*captions[:4], *chats[:4]]]
    huge = "data:image/jpeg;base64," + "A" * (21 * 2**20)
    refused = [
        Ask("broken picture", "broken", chat(shown(broken)), 400),
        Ask("oversize picture", "oversize", chat(shown(huge)), 413),
    ]
    return [*captions, *follow_ups, *answers, *chats, *leaving, *refused]


async def send(client: httpx.AsyncClient, ask: Ask, load: Load, expected: dict[str, str] | None = None) -> str | None:
    """Send a request and read its reply as it comes; a full server is asked again when it says so."""
    started, said, ended = time.perf_counter(), "", "other"
    try:
        while True:
            body = {**ask.body, "stream": True, "stream_options": {"include_usage": True}}
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code == 429:
                    load.counts[ask.kind, "asked again (429)"] += 1
                    await response.aread()
                    await asyncio.sleep(float(response.headers["retry-after"]))
                    continue
                if response.status_code != 200:
                    await response.aread()
                    ended = (
                        "refused, as it should be" if response.status_code == ask.status else str(response.status_code)
                    )
                    return None
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        ended = f"error {chunk['error']['code']}"
                        return None
                    load.tokens += (chunk.get("usage") or {}).get("completion_tokens", 0)
                    for choice in chunk["choices"]:
                        fresh = choice["delta"].get("content") or ""
                        if fresh and not said:
                            load.first_tokens.append(time.perf_counter() - started)
                        said += fresh
                    if ask.leaves and len(said) > 8:
                        ended = "left, as it should"
                        return None
                break
        ended = "answered"
        if expected is not None and said != expected[ask.name]:
            ended = "answered in other words"
            load.wrong.append(f"{ask.name}: {said!r}, alone {expected[ask.name]!r}")
        return said
    except httpx.HTTPError as error:
        # A server that refuses a body without reading on may close before all of it is sent.
        ended = "refused, as it should be" if ask.status == 413 else type(error).__name__
        return None
    finally:
        load.counts[ask.kind, ended] += 1


async def run(
    url: str, asks: list[Ask], clients: int, requests: int, seconds: float, expected: dict[str, str]
) -> tuple[Load, float]:
    """Some clients ask, until there have been so many requests, or it has taken so long."""
    load, left, chance = Load(), requests, random.Random(0)
    end = time.monotonic() + seconds

    async def one() -> None:
        nonlocal left
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            while left > 0 and time.monotonic() < end:
                left -= 1
                await send(client, chance.choice(asks), load, expected)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return load, time.perf_counter() - started


def resident(process: subprocess.Popen[str]) -> float:
    """Megabytes that a process holds."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def watched(process: subprocess.Popen[str], work: Any) -> tuple[Any, list[float]]:
    """Do something, and note what a process holds every second."""
    held: list[float] = []
    task = asyncio.ensure_future(work)
    while not task.done():
        held.append(resident(process))
        await asyncio.wait([task], timeout=1)
    return task.result(), held


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process, stopped at the end."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def weft_serve(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``weft serve`` with the example stories as its knowledge base, and its address."""
    shutil.copytree(STORIES, folder / "stories")
    weft.KnowledgeBase(folder / "stories").update()
    command = [sys.executable, "-m", "weft", "serve", "--port", "0", "--knowledge", str(folder)]
    with running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        yield process, next(line for line in process.stderr if "serves on" in line).split()[-1]


@contextmanager
def transformers_serve(port: int, *options: str) -> Iterator[str]:
    """The address of ``transformers serve`` with the language model on which Weft's weaves stand."""
    part, url = str(resolve("smollm2-135m-instruct").path), f"http://127.0.0.1:{port}"
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", part]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running([*serve, "--device", "cpu", "--port", str(port), *options], **quiet):
        for _ in range(240):
            try:
                httpx.get(f"{url}/health").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield url


def quantile(values: list[float], share: float) -> float:
    """A quantile of measured values."""
    return (
        statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]
        if len(values) > 1
        else values[0]
    )


def figures(load: Load, taken: float) -> dict[str, Any]:
    """What is told of a load."""
    done = sum(load.counts.values())
    return {
        "requests": done,
        "seconds": round(taken, 1),
        "requests a second": round(done / taken, 2),
        "tokens a second": round(load.tokens / taken, 1),
        "time to first token, median, s": round(quantile(load.first_tokens, 0.5), 3),
        "time to first token, 95th percentile, s": round(quantile(load.first_tokens, 0.95), 3),
        "by kind": {f"{kind}: {end}": count for (kind, end), count in sorted(load.counts.items())},
        "other words than alone": load.wrong[:5],
    }


async def soak(options: argparse.Namespace) -> dict[str, Any]:
    """The mixed load."""
    with tempfile.TemporaryDirectory() as folder, weft_serve(Path(folder)) as (process, url):
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            urls = [picture(100 + n) for n in range(6)]
            made = [(await client.post("/v1/memories", json={"image_url": {"url": one}})).json()["id"] for one in urls]
            asks = mix(made)
            expected: dict[str, str] = {}
            for ask in asks:
                if ask.status == 200 and not ask.leaves:
                    expected[ask.name] = await send(client, ask, Load()) or ""
        (load, taken), held = await watched(
            process, run(url, asks, options.clients, options.requests, options.seconds, expected)
        )
        async with httpx.AsyncClient(base_url=url) as client:
            metrics = (await client.get("/metrics")).text
        left = [
            line for line in metrics.splitlines() if line.startswith(("weft_replies_running ", "weft_replies_waiting "))
        ]
        quarter = max(1, len(held) // 4)
        grown = [round(max(held[: quarter * n])) for n in (1, 2, 3, 4)]
        return {**figures(load, taken), "resident at most, MB, up to each quarter": grown, "left behind": left}


async def chats(url: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """The text-only load."""
    asks = [
        Ask("chat", one, {**chat(model=model, temperature=0), "messages": [{"role": "user", "content": one}]})
        for one in CHATS
    ]
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        expected = {ask.name: await send(client, ask, Load()) or "" for ask in asks}
    load, taken = await run(url, asks, options.clients, options.requests // 6, options.seconds / 2, expected)
    return figures(load, taken)


def main() -> None:
    """Run both, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "serving.json")
    options = parser.parse_args()
    result = {"soak": asyncio.run(soak(options))}
    print(json.dumps(result, indent=2), flush=True)
    with tempfile.TemporaryDirectory() as folder, weft_serve(Path(folder)) as (_, url):
        result["chats, weft serve"] = asyncio.run(chats(url, "weft", options))
    part = str(resolve("smollm2-135m-instruct").path)
    batching = "--continuous-batching --attn-implementation sdpa --cb-num-blocks 512 --cb-max-batch-tokens 512"
    for name, flags in {"": "", ", continuous batching": batching}.items():
        name = f"chats, transformers serve{name}"
        with transformers_serve(8765, "--dtype", "bfloat16", *flags.split()) as url:
            try:
                result[name] = asyncio.run(chats(url, part, options))
            except (httpx.HTTPError, StopIteration, IndexError) as error:
                result[name] = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps(result, indent=2))
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(result, options.clients), encoding="utf-8")


def table(result: dict[str, Any], clients: int) -> str:
    """The figures in Markdown."""
    soaked, mine = result["soak"], result["chats, weft serve"]
    held = ", ".join(map(str, soaked["resident at most, MB, up to each quarter"]))
    others = sum(count for kind, count in soaked["by kind"].items() if "other words" in kind)
    lines = [
        "# Serving",
        "",
        f"Made by `python benchmarks/serving.py` with {clients} clients beside the server on {os.cpu_count()} cores: "
        f"{machine()}.",
        "",
        "A mixed load on `weft serve`: captions, follow-up questions, answers from a knowledge base, chats, clients "
        "that leave, and pictures that are broken or too large.",
        "",
        "| what | figure |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in soaked.items() if not isinstance(value, (dict, list))),
        f"| resident at most, MB, up to each quarter | {held} |",
        f"| replies in other words than those given alone | {others} |",
        "",
        "| kind and how it ended | requests |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in soaked["by kind"].items()),
        "",
        f"Chats of up to {LONGEST} tokens, the same to each server, over the same language model.",
        "",
        "| server | requests/s | tokens/s | first token, median, s | 95th percentile, s | weft serve / this one |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in result.items():
        if not name.startswith("chats"):
            continue
        if "failed" in one:
            lines.append(f"| {name} | {one['failed']} | | | | |")
            continue
        ratio = mine["requests a second"] / one["requests a second"]
        first = [one[f"time to first token, {which}, s"] for which in ("median", "95th percentile")]
        lines.append(
            f"| {name.removeprefix('chats, ')} | {one['requests a second']} | {one['tokens a second']} | {first[0]} | "
            f"{first[1]} | {ratio:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
