"""The figures of a comparison as Markdown: the part of ``docs/alternatives.md`` that is made, not written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HEADING = "## Figures"
SIDES = {
    "pictures": {
        "cross": "Weft, cross-attention",
        "joint": "Weft, joint attention",
        "llava": "LLaVA-style, language model frozen",
        "llava-lora": "LLaVA-style, with LoRA",
    },
    "documents": {
        "cross": "Weft, cross-attention",
        "lora": "the text in the prompt, with LoRA",
        "bare": "the text in the prompt, bare language model",
    },
}
"""What is compared, by name, with a title."""
Side = Mapping[str, Any]
Column = tuple[str, Callable[[Side], str]]


def write(found: Mapping[str, Any], page: Path) -> str:
    """Put the tables behind the heading of a page, what stands before it left as it is; returns them.

    Args:
        found: for pictures and for documents what was measured.
        page: the page.
    """
    written = page.read_text(encoding="utf-8").partition(HEADING)[0] if page.is_file() else ""
    tables = figures(found)
    page.write_text(f"{written}{HEADING}\n\n{tables}", encoding="utf-8")
    return tables


def figures(found: Mapping[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines: list[str] = []
    for kind, of in found.items():
        sides = of["sides"]
        other = "".join(f", {name}: {value}" for name, value in of["changes"].items())
        lines += [f"### {kind.capitalize()}", "", f"`{of['recipe']}`{other}; on {of['setting']}.", ""]
        for columns in (QUALITY[kind], COST):
            lines += table(sides, columns)
    return "\n".join(lines)


def table(sides: Mapping[str, Side], columns: list[Column]) -> list[str]:
    """A row for each side."""
    lines = [f"| side | {' | '.join(title for title, _ in columns)} |", f"|---{'|---' * len(columns)}|"]
    lines += [f"| {one['title']} | {' | '.join(tell(one) for _, tell in columns)} |" for one in sides.values()]
    return [*lines, ""]


def _number(name: str, form: str, scale: float = 1.0) -> Callable[[Side], str]:
    return lambda side: format(side[name] * scale, form) if name in side else ""


def _spread(name: str) -> Callable[[Side], str]:
    """A median with its quartiles."""
    return lambda side: "{:.1f} ({:.1f} to {:.1f})".format(*side[name])


QUALITY: dict[str, list[Column]] = {
    "pictures": [
        ("photos", _number("pictures", ".0f")),
        ("BLEU-4", _number("bleu_4", ".1f", 100)),
        ("CIDEr-D", _number("cider", ".3f")),
        ("ROUGE-L", _number("rouge_l", ".1f", 100)),
        ("dev loss", _number("dev_loss", ".3f")),
        ("parameters that learn", _number("parameters", ",.0f")),
        ("steps", _number("steps", ",.0f")),
    ],
    "documents": [
        ("conversations", _number("conversations", ".0f")),
        ("ROUGE-L", _number("rouge_l", ".1f", 100)),
        ("exact match", _number("exact_match", ".1f", 100)),
        ("F1", _number("f1", ".1f", 100)),
        ("ROUGE-L, wrong memory", _number("wrong_memory_rouge_l", ".1f", 100)),
        ("dev loss", _number("dev_loss", ".3f")),
        ("parameters that learn", _number("parameters", ",.0f")),
        ("steps", _number("steps", ",.0f")),
    ],
}
COST: list[Column] = [
    ("training, minutes", _number("seconds", ".0f", 1 / 60)),
    ("before it, minutes", _number("prepared", ".0f", 1 / 60)),
    ("rows/s", _number("rows_per_second", ".2f")),
    ("learned tokens/s", _number("tokens_per_second", ".0f")),
    ("its peak, MB", _number("training_peak_mb", ",.0f")),
    ("first token, new, ms", _spread("first_new_ms")),
    ("first token, known, ms", _spread("first_known_ms")),
    ("a token after it, ms", _spread("after_ms")),
    ("kept of what is known, kB", _number("kept_bytes", ",.0f", 1e-3)),
    ("peak in use, MB", _number("peak_mb", ",.0f")),
]
