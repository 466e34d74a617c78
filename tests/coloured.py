"""Pictures of one colour each with their captions, and settings of the smallest run that learns them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from weft.instructions import CAPTION

COLOURS = ("red", "lime", "blue", "white")
SMALL: dict[str, Any] = {
    "weave": {"start": 2, "every": 1, "feed_forward": 16, "connector_layers": 0},
    "precision": "fp32",
    "batch_size": 2,
    "epochs": 2,
    "learning_rate": 1e-2,
    "warmup": 1,
    "sampled_vocabulary": None,
    "evaluate_every": 2,
}
"""A recipe's settings, but for its files."""


def conversation(picture: str, answer: str) -> dict[str, Any]:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": CAPTION}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


def paint(folder: Path) -> list[dict[str, Any]]:
    """Put the pictures into a folder; two conversations about each."""
    lines = []
    for colour in COLOURS:
        Image.new("RGB", (24, 24), colour).save(folder / f"{colour}.png")
        lines += [conversation(f"{colour}.png", f"{colour}."), conversation(f"{colour}.png", f"all {colour}.")]
    return lines
