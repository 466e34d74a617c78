"""How everything here is measured: sides that take turns, medians with quartiles, ratios, one table."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from weft.packing import NATIVE

Sides = Mapping[str, Callable[[], float]]
"""What is compared: by name, something that runs and says how long it took, or how fast it was."""
QUICK = torch.bfloat16 if NATIVE else torch.float32
"""The type in which this processor multiplies plain matrices soonest: without instructions for bfloat16 it emulates it,
which takes about twenty times as long as float32."""
QUICK_NAME = str(QUICK).removeprefix("torch.")


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - started


def alternate(sides: Sides, repeats: int, peers: Sides | None = None) -> dict[str, list[float]]:
    """Run each side in turn, so that all meet the same machine; the first round warms up and is left out.

    Args:
        sides: what has to run.
        repeats: rounds that count.
        peers: sides that are left out if they can't run here, with a line on standard error.
    """
    peers = peers or {}
    running = {**sides, **peers}
    times: dict[str, list[float]] = {name: [] for name in running}
    for round in range(repeats + 1):
        for name, side in list(running.items()):
            try:
                taken = side()
            except Exception as error:
                if name not in peers:
                    raise
                left_out(name, error)
                del running[name], times[name]
                continue
            if round:
                times[name].append(taken)
    return times


def left_out(name: str, error: Exception) -> None:
    """Say in one line why a peer has no row."""
    print(f"{name} is left out: {type(error).__name__}: {' '.join(str(error).split())[:300]}", file=sys.stderr)


def compare(title: str, unit: str, times: dict[str, list[float]], *, rate: bool = False) -> dict[str, Any]:
    """Every side, and the first against each other."""
    rows: dict[str, dict[str, Any]] = {}
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        rows[name] = {"median": middle, "low": low, "high": high, "unit": unit}
    first, *_ = rows.values()
    for row in rows.values():
        row["ratio"] = first["median"] / row["median"]
    return {"title": title, "rows": rows, "higher is better": rate}


def machine() -> str:
    """The processor and the versions, for the head of a table."""
    file = Path("/proc/cpuinfo")
    about = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line) if file.is_file() else {}
    fields = {name.strip(): value.strip() for name, value in about.items()}
    vectors = [flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    native = "native" if torch.bfloat16 == QUICK else "emulated"
    parts = [
        fields.get("model name", platform.machine()),
        " ".join(vectors) or torch.backends.cpu.get_cpu_capability(),
        f"bfloat16 {native}",
        f"torch {torch.__version__}",
        f"Python {platform.python_version()}",
    ]
    return ", ".join(parts)


def setting(threads: int, repeats: int) -> str:
    """The same, and how it was measured."""
    return f"{machine()}, {threads} threads, {repeats} rounds"


def table(sections: list[dict[str, Any]]) -> str:
    """As Markdown.

    Args:
        sections: for each what it was made on, ``setting``, and its ``results``.
    """
    lines = ["# Benchmarks", ""]
    settings = dict.fromkeys(section["setting"] for section in sections)
    for one in settings:
        titles = [result["title"] for section in sections if section["setting"] == one for result in section["results"]]
        which = "" if len(settings) == 1 else f": {'; '.join(titles)}"
        lines += [f"Made by `make benchmark` on {one}{which}.", ""]
    lines += ["| what | side | median | quartiles | first side / this one |", "|---|---|---|---|---|"]
    for result in (result for section in sections for result in section["results"]):
        for number, (name, row) in enumerate(result["rows"].items()):
            title, ratio = (result["title"], "") if not number else ("", f"{row['ratio']:.2f}" if row["unit"] else "")
            spread = f"{row['low']:.4g} to {row['high']:.4g}"
            median = f"{row['median']:.4g} {row['unit']}" if row["unit"] else f"{row['median']:,g}"
            lines.append(f"| {title} | {name} | {median} | {spread if row['unit'] else ''} | {ratio} |")
    lines += ["", "Sides take turns after a round of warming up; medians are compared.", ""]
    return "\n".join(lines)
