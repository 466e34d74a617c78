"""A knowledge base of many passages: how fast it is indexed and searched, and what it takes on disk.

    python benchmarks/knowledge.py [--passages 100000] [--queries 200]

Documents are made of random words with the frequencies of natural text (Zipf), ten passages a file. Searches ask for
three words that stand together in a passage, so each has one that answers it best. Prints a JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import weft
from weft.passages import LONGEST

VOCABULARY = 50_000


def write_documents(folder: Path, passages: int) -> list[str]:
    """Files of ten passages each; returns three neighbouring words of some passages."""
    random.seed(0)
    words = [f"{random.choice('bcdfglmnprst')}{random.choice('aeiou')}{number:x}" for number in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))
    questions = []
    for number in range(passages // 10):
        sentences = []
        while sum(map(len, sentences)) < 10 * (LONGEST - 160) - 100:
            sentence = random.choices(words, cum_weights=weights, k=12)
            sentences.append(" ".join(sentence).capitalize() + ". ")
            if len(questions) < 1000 and random.random() < 0.05:
                questions.append(" ".join(random.choices(sentence, k=3)))
        (folder / f"{number:06}.txt").write_text("".join(sentences), encoding="utf-8")
    return questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = write_documents(folder, options.passages)
        base = weft.KnowledgeBase(folder)
        started = time.perf_counter()
        passages = base.update().passages
        indexing = time.perf_counter() - started
        started = time.perf_counter()
        assert base.update().unchanged == options.passages // 10
        again = time.perf_counter() - started
        times = []
        for question in (questions * options.queries)[: options.queries]:
            started = time.perf_counter()
            assert base.search(question)
            times.append(1000 * (time.perf_counter() - started))
        cuts = statistics.quantiles(times, n=20)
        size = sum(file.stat().st_size for file in base.path.rglob("*") if file.is_file())
        texts = sum(file.stat().st_size for file in folder.glob("*.txt"))
    figures = {
        "passages": passages,
        "passages a second": round(passages / indexing),
        "seconds when nothing has changed": round(again, 2),
        "search, ms, median": round(statistics.median(times), 1),
        "search, ms, 95th percentile": round(cuts[18], 1),
        "index, MB": round(size / 1e6, 1),
        "documents, MB": round(texts / 1e6, 1),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
