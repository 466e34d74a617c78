"""Weft beside what people use instead, trained on the same rows in the same steps with as many parameters.

    python benchmarks/alternatives.py pictures RUNS [--recipe recipes/photos.yaml] [--minutes 9]
    python benchmarks/alternatives.py documents RUNS [--recipe recipes/reader-stories.yaml] [--only cross,lora]

Trains each side in a folder of ``RUNS``, or goes on with it (``--minutes`` bounds what one call trains of each), and
measures those whose training is over: what they say of the dev set, first tokens, tokens after them, memory. Each side
is trained and looked at in a process of its own; times are taken in turn in one. Writes ``docs/alternatives.json`` and
the figures of ``docs/alternatives.md``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from alternatives_page import SIDES, write
from measuring import QUICK, setting

ROOT = Path(__file__).parents[1]
RECIPES = {"pictures": "photos.yaml", "documents": "reader-stories.yaml"}


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    if options.stage:
        print(json.dumps(worked(options)))
        return
    found: dict[str, Any] = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    mine = found.setdefault(options.kind, {"sides": {}})
    done = []
    for side in options.only:
        trained = {} if side == "bare" else stage("train", options, side)
        if trained and trained["steps"] < trained["of"]:
            print(f"{side}: step {trained['steps']} of {trained['of']}; run this again to go on.")
            continue
        told = {name: value for one in ("words", "peak") for name, value in stage(one, options, side).items()}
        mine["sides"][side] = {"title": options.known[side], **trained, **told}
        done.append(side)
    if not done:
        return
    for side, times in stage("times", options, ",".join(done)).items():
        mine["sides"][side] |= times
    mine["sides"] = {side: mine["sides"][side] for side in options.known if side in mine["sides"]}
    about = {"setting": setting(options.threads, options.repeats), "recipe": options.recipe.name}
    found[options.kind] = {**mine, **about, "changes": changes(options)}
    options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(write(found, options.output.with_suffix(".md")))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=RECIPES)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--recipe", type=Path, help="of the weave; the others learn from the same rows")
    parser.add_argument("--data", help="JSONL to learn, in place of the recipe's")
    parser.add_argument("--dev", help="JSONL to measure on, in place of the recipe's")
    parser.add_argument("--task", default="answer", help="what is asked of documents, as 'weft evaluate' has it")
    parser.add_argument("--only", metavar="SIDE[,SIDE]", help="which sides; figures of the others are kept")
    parser.add_argument("--steps", type=int, help="steps of each side; the recipe's by default")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time to train each side in this call")
    parser.add_argument("--learning-rate", type=float, help="in place of the recipe's, for the sides of this call")
    parser.add_argument("--limit", type=int, help="dev pictures, or conversations, to measure words on; all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "alternatives.json")
    parser.add_argument("--stage", choices=("train", "words", "peak", "times"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.known = SIDES[options.kind]
    options.only = options.only.split(",") if options.only else list(options.known)
    if unknown := set(options.only) - set(options.known):
        parser.error(f"--only: {', '.join(sorted(unknown))} is not known; there are: {', '.join(options.known)}.")
    options.recipe = options.recipe or ROOT / "recipes" / RECIPES[options.kind]
    return options


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of the recipe that are not as it has them."""
    precision = None if torch.bfloat16 == QUICK or torch.cuda.is_available() else "fp32"
    named = {"data": options.data, "dev": options.dev, "learning_rate": options.learning_rate, "precision": precision}
    return {name: value for name, value in named.items() if value is not None}


def stage(name: str, options: argparse.Namespace, sides: str) -> dict[str, Any]:
    """One stage of some sides, in a process of its own."""
    given = [*sys.argv[1:], "--stage", name, "--only", sides]
    done = subprocess.run([sys.executable, __file__, *given], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def worked(options: argparse.Namespace) -> dict[str, Any]:
    """What a stage gives."""
    from clocks import times
    from looks import ask_once, words
    from sides import Setup, train

    setup = Setup(options.recipe, options.runs, changes(options), options.steps)
    first = options.only[0]
    if options.stage == "train":
        return train(setup, first, options.minutes)
    if options.stage == "words":
        return words(setup, first, options.limit, options.task)
    if options.stage == "times":
        return times(setup, options.only, options.repeats)
    ask_once(setup, first)
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    main()
