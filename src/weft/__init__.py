"""Weft gives a language model a memory to read: any language model gets eyes, and texts to look things up in.

>>> import weft
>>> model = weft.load()
>>> model.caption("dog.jpg").text
>>> model.answer("Who approves travel?", weft.KnowledgeBase("handbook/")).citations

What is named here is loaded when it is first used, so that ``import weft`` costs nothing. The layers' formula, the
function ``attention``, is in :mod:`weft.attention`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from weft.discovery import register, register_when_imported
from weft.errors import DataError, PartError, PictureError, RecipeError, WeftError

if TYPE_CHECKING:
    from weft.attention import Attention, CoAttention, CrossAttention
    from weft.config import WeftConfig
    from weft.copying import CopyGate
    from weft.deletion import faithfulness
    from weft.encoders import VisionEncoder, load_vision_encoder
    from weft.engine import Engine
    from weft.evaluation import evaluate
    from weft.fusion import Connector, GatedCrossAttention, Resampler
    from weft.images import load_image
    from weft.knowledge import KnowledgeBase, Passage
    from weft.making import load, weave
    from weft.memory import Memory, Placement, ReadMemory
    from weft.memory_cache import MemoryCache
    from weft.model import WeftModel
    from weft.processing import WeftProcessor
    from weft.reading import Answer, Citation, Summary
    from weft.recipe import Recipe, load_recipe
    from weft.refusals import calibrate
    from weft.tasks import Caption
    from weft.text_encoders import TextEncoder, load_text_encoder
    from weft.training import train

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Attention",
    "Caption",
    "Citation",
    "CoAttention",
    "Connector",
    "CopyGate",
    "CrossAttention",
    "DataError",
    "Engine",
    "GatedCrossAttention",
    "KnowledgeBase",
    "Memory",
    "MemoryCache",
    "PartError",
    "Passage",
    "PictureError",
    "Placement",
    "ReadMemory",
    "Recipe",
    "RecipeError",
    "Resampler",
    "Summary",
    "TextEncoder",
    "VisionEncoder",
    "WeftConfig",
    "WeftError",
    "WeftModel",
    "WeftProcessor",
    "calibrate",
    "evaluate",
    "faithfulness",
    "load",
    "load_image",
    "load_recipe",
    "load_text_encoder",
    "load_vision_encoder",
    "train",
    "weave",
]

_HOMES = {
    "attention": ("Attention", "CoAttention", "CrossAttention"),
    "deletion": ("faithfulness",),
    "encoders": ("VisionEncoder", "load_vision_encoder"),
    "engine": ("Engine",),
    "evaluation": ("evaluate",),
    "fusion": ("Connector", "GatedCrossAttention", "Resampler"),
    "config": ("WeftConfig",),
    "copying": ("CopyGate",),
    "making": ("load", "weave"),
    "images": ("load_image",),
    "knowledge": ("KnowledgeBase", "Passage"),
    "memory": ("Memory", "Placement", "ReadMemory"),
    "memory_cache": ("MemoryCache",),
    "model": ("WeftModel",),
    "processing": ("WeftProcessor",),
    "reading": ("Answer", "Citation", "Summary"),
    "recipe": ("Recipe", "load_recipe"),
    "refusals": ("calibrate",),
    "tasks": ("Caption",),
    "text_encoders": ("TextEncoder", "load_text_encoder"),
    "training": ("train",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"weft.{_HOME[name]}"), name)
    if "transformers" in sys.modules:
        register()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
