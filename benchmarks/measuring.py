"""How everything here is measured: sides that take turns, medians with quartiles, ratios, one table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - started


def alternate(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run each side in turn, so that all meet the same machine; the first round warms up and is left out."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round in range(repeats + 1):
        for name, side in sides.items():
            taken = side()
            if round:
                times[name].append(taken)
    return times


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


def table(results: list[dict[str, Any]], setting: str) -> str:
    """As Markdown."""
    lines = ["# Benchmarks", "", f"Made by `make benchmark` on {setting}.", ""]
    lines += ["| what | side | median | quartiles | first side / this one |", "|---|---|---|---|---|"]
    for result in results:
        for number, (name, row) in enumerate(result["rows"].items()):
            title, ratio = (result["title"], "") if not number else ("", f"{row['ratio']:.2f}" if row["unit"] else "")
            spread = f"{row['low']:.4g} to {row['high']:.4g}"
            median = f"{row['median']:.4g} {row['unit']}" if row["unit"] else f"{row['median']:,g}"
            lines.append(f"| {title} | {name} | {median} | {spread if row['unit'] else ''} | {ratio} |")
    lines += ["", "Sides take turns after a round of warming up; medians are compared.", ""]
    return "\n".join(lines)
