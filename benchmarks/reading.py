"""What each way to read costs: the time to the first word about 1, 4 and 8 passages of about 150 words.

    python benchmarks/reading.py [--model reader] [--repeats 7]

Passages and questions are made of words from a list; every question is new, and so is every passage but where a way is
measured over known ones. Prints a JSON object of medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from measuring import alternate, machine, seconds

import weft
from weft.quoting import quote
from weft.reading import prompt_about, read_pieces
from weft.responding import respond
from weft.text_encoders import Piece

WORDS = (
    "the a of and to in it was that he she they king queen wolf forest bread river night morning road house old young "
    "small great golden went came saw took gave said found lost made carried under over behind before after never"
)


def text(words: int) -> str:
    """Sentences of random words."""
    some = random.choices(WORDS.split(), k=words)
    return " ".join(" ".join(some[at : at + 12]).capitalize() + "." for at in range(0, words, 12))


def ways(model: weft.WeftModel, count: int) -> dict[str, Callable[[], Any]]:
    """For each way something that reads new passages, or known ones, and says one word about them."""
    known = [Piece(text(150)) for _ in range(count)]
    read_pieces(model, known)

    def over_memory(pieces: list[Piece], question: str, *, careful: bool = False) -> None:
        read = read_pieces(model, pieces, question if careful else "")
        prompt, held = prompt_about(model, question, range(len(read)))
        respond(model, read, [prompt], [held], beams=1, longest=1)

    def new() -> list[Piece]:
        return [Piece(text(150)) for _ in range(count)]

    def in_prompt(question: str) -> None:
        respond(model, None, [quote(model, known, question).tokens], [[]], beams=1, longest=1)

    return {
        "once, known passages": lambda: over_memory(known, text(10)),
        "once, new passages": lambda: over_memory(new(), text(10)),
        "careful": lambda: over_memory(known, text(10), careful=True),
        "prompt": lambda: in_prompt(text(10)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reader")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    random.seed(0)
    model = weft.load(options.model)
    figures: dict[str, Any] = {"machine": machine()}
    for count in (1, 4, 8):
        times = alternate({name: partial(seconds, say) for name, say in ways(model, count).items()}, options.repeats)
        figures[f"{count} passages"] = {name: round(statistics.median(some), 4) for name, some in times.items()}
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
