"""Known sets of abstracts of papers as conversations: titles, summaries in a sentence, questions and their answers.

As in :mod:`weft.corpora`, each function is given a folder with the set's own files and writes JSONL.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from weft.conversations import Documents, document_line, read_objects, write_lines
from weft.errors import DataError
from weft.instructions import HEADLINE, SUMMARIES
from weft.practice import answered_line, cloze_lines, mixed
from weft.unanswerable import KINDS, Asked, Unanswerable

ALONE = 0.5
"""Share of questions about an abstract that are asked of it alone; beside others stand passages of another one."""
_FINDS = re.compile(r"RESULT|FINDING|CONCLUSION|CASE|DISCUSSION")
"""Labels of the passages of an abstract that say what was found."""


def scitldr(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write SciTLDR (Cachola et al., "TLDR: Extreme Summarization of Scientific Documents", EMNLP Findings 2020).

    Abstracts get titles and summaries in one sentence, of which the first is the answer and the others are references.
    Questions made of the training set's own sentences are in ``cloze-train.jsonl``, and in
    ``cloze-train-unanswerable.jsonl`` once more of what does not answer them. What is also in ``dev.jsonl`` is left out
    of training, and so are titles in capitals.

    Args:
        folder: holds ``train.jsonl`` and ``dev.jsonl``, with ``id``, ``title``, ``text`` and ``summaries``.
        out: folder to write to.

    Returns:
        Lines of each file, by its name without ``.jsonl``.

    Raises:
        DataError: a file is missing, or a line is not what it should be; it is named.
    """
    seen: set[str] = set()
    lines: dict[str, list[str]] = {}
    texts: dict[str, Documents] = {}
    spec = {"id": str, "title": str, "text": str, "summaries": [str]}
    for split in ("dev", "train"):
        lines[split], texts = [], {}
        for where, paper in read_objects(Path(folder) / f"{split}.jsonl", spec):
            text, title, *summaries = (
                " ".join(one.split()) for one in (paper["text"], paper["title"], *paper["summaries"])
            )
            summaries = [one for one in dict.fromkeys(summaries) if one and one != title]
            if not text or not title:
                raise DataError(f"{where}: 'text' or 'title' is empty.")
            if text in seen:
                continue
            seen.add(text)
            documents = [(paper["id"], text)]
            texts[paper["id"]] = documents
            if split == "dev" or not title.isupper():
                lines[split].append(document_line(documents, HEADLINE, title))
            if summaries:
                lines[split].append(document_line(documents, SUMMARIES["short"], summaries[0], summaries[1:]))
    made = cloze_lines(texts, random.Random("scitldr"), count=2)
    lines["cloze-train"], lines["cloze-train-unanswerable"] = made
    return write_lines(out, lines)


def pubmedqa(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write PubMedQA (Jin et al., EMNLP 2019): questions about abstracts, with their conclusion as the answer.

    A document is a passage of an abstract, with the id ``ID#N``, counted from 1; those that say what was found support
    the answer. In ``train.jsonl`` a question is asked of all passages of its abstract, of some with passages of another
    one among them. ``train-unanswerable.jsonl`` and ``dev-unanswerable-KIND.jsonl`` hold the same questions made
    unanswerable: of another abstract (``story``), of an abstract without what was found (``section``), and with a name
    or number exchanged. Questions made of the training set's own sentences are in ``cloze-train.jsonl`` and
    ``cloze-train-unanswerable.jsonl``.

    Args:
        folder: holds ``train.jsonl`` and ``dev.jsonl``, with ``id``, ``question``, ``passages``, ``labels`` and
            ``answer``.
        out: folder to write to.

    Returns:
        Lines of each file, by its name without ``.jsonl``.

    Raises:
        DataError: a file is missing, or a line is not what it should be; it is named.
    """
    rng = random.Random("pubmedqa")
    texts, questions = _abstracts(Path(folder) / "dev.jsonl")
    silent = Unanswerable(texts, questions, near=0)
    lines = {"dev": [answered_line(asked, texts, texts[asked.text]) for asked in questions]}
    for kind in KINDS:
        name = f"dev-unanswerable-{kind}"
        lines[name] = [line for one in questions for line in silent.lines(kind, one, texts[one.text], rng)]
    known = frozenset(texts)
    texts, questions = _abstracts(Path(folder) / "train.jsonl", known)
    silent = Unanswerable(texts, questions, near=0)
    lines |= {"train": [], "train-unanswerable": []}
    for asked in questions:
        documents: Documents = texts[asked.text]
        if rng.random() >= ALONE:
            documents = mixed(documents, asked.text, texts, rng.randint(1, 3), rng)
        lines["train"].append(answered_line(asked, texts, documents))
        lines["train-unanswerable"] += silent.any_lines(asked, documents, rng)
    made = cloze_lines(texts, rng, count=1)
    lines["cloze-train"], lines["cloze-train-unanswerable"] = made
    return write_lines(out, lines)


def _abstracts(file: Path, without: frozenset[str] = frozenset()) -> tuple[Mapping[str, Documents], Sequence[Asked]]:
    """The passages of each abstract, and the question about it."""
    spec = {"id": str, "question": str, "passages": [str], "labels": [str], "answer": str}
    texts: dict[str, Documents] = {}
    questions = []
    for where, fields in read_objects(file, spec):
        name, labels = fields["id"], fields["labels"]
        passages = [(f"{name}#{number}", text.strip()) for number, text in enumerate(fields["passages"], 1)]
        if len(labels) != len(passages) or not all(text for _, text in passages) or not passages:
            raise DataError(f"{where}: 'passages' and 'labels' must be as many, at least one, and no passage empty.")
        question, answer = (" ".join(fields[key].split()) for key in ("question", "answer"))
        if not question or not answer:
            raise DataError(f"{where}: 'question' or 'answer' is empty.")
        if name in without or name in texts:
            continue
        found = [index for index, label in enumerate(labels) if _FINDS.search(label.upper())]
        texts[name] = passages
        questions.append(Asked(name, question, (answer,), tuple(found or range(len(passages)))))
    return texts, questions
