"""Known sets of texts as conversations about documents: stories with questions, e-mails, news.

Each function is given a folder with the set's own files and writes JSONL: a user's message holds ``document`` parts
(text and id) and a question, the assistant's the answer; ``references`` are further right answers, ``supporting`` the
ids of the documents that hold the answer. Random choices are seeded: the same files give the same lines.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from weft.conversations import Documents, document_line, read_objects, write_lines, write_objects, write_text
from weft.errors import DataError
from weft.extracts import extracts
from weft.instructions import HEADLINE, SUMMARIES
from weft.passages import PIECE, cut
from weft.practice import answered_line, cloze_lines, reading_of
from weft.unanswerable import KINDS, Asked, Unanswerable

BESIDE = 5
"""Sections of a story that stand beside those that hold the answer, at most."""
CLOZES = 2
"""Questions that are made of a section's own sentences, at most."""
SHORTEST = 20
"""Characters of an e-mail that is learned from, at least."""


def sentence(text: str) -> str:
    """``" the sun"`` as ``"The sun."``: without space around it, with a capital and an end."""
    text = " ".join(text.split()).rstrip(",;:")
    if text and text.rstrip("\"'\u201d\u2019)")[-1:] not in (".", "!", "?"):
        text += "."
    return re.sub(r"^\W*\w", lambda start: start[0].upper(), text)


def fairytales(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write FairytaleQA (Xu et al., "Fantastic Questions and Where to Find Them", ACL 2022) as conversations.

    A document is a section of a story, with the id ``STORY#N``, counted from 1. In ``train.jsonl`` the sections that
    hold the answer stand alone, among others of their story, or among those of another. ``dev.jsonl`` gives those that
    do, ``dev-story.jsonl`` whole stories; ``dev-search.jsonl`` names the story in which to look, a file of
    ``sections/``, to be indexed. ``SPLIT-unanswerable-KIND.jsonl`` holds the same questions made unanswerable, for each
    of :data:`weft.unanswerable.KINDS`. Questions made of the stories' own sentences are in ``cloze-train.jsonl`` and
    ``cloze-train-unanswerable.jsonl``. ``stories/SPLIT/`` gets each story as a text file.

    Args:
        folder: holds ``SPLIT.jsonl`` (``story``, ``question``, ``answers``, ``sections``) and ``SPLIT_stories.jsonl``
            (``story``, ``sections``) for the splits ``train`` and ``dev``.
        out: folder to write to.

    Returns:
        Lines of each file, by its name without ``.jsonl``.

    Raises:
        DataError: a file is missing, or a line is not what it should be; it is named.
    """
    folder, out = Path(folder), Path(out)
    stories: dict[str, dict[str, list[tuple[str, str]]]] = {}
    questions: dict[str, list[Asked]] = {}
    for split in ("train", "dev"):
        stories[split] = _stories(folder / f"{split}_stories.jsonl")
        questions[split] = _questions(folder / f"{split}.jsonl", stories[split])
    for split, known in stories.items():
        for story, sections in known.items():
            text = "\n\n".join(section for _, section in sections)
            write_text(out / "stories" / split / f"{story}.txt", f"{text}\n")
    for story, sections in stories["dev"].items():
        numbered = [{"id": str(number), "text": text} for number, (_, text) in enumerate(sections, 1)]
        write_objects(out / "sections" / f"{story}.jsonl", numbered)
    lines = _practice(stories["train"], questions["train"]) | _trial(stories["dev"], questions["dev"])
    clozes = cloze_lines(stories["train"], random.Random("fairytales cloze"), count=CLOZES)
    lines["cloze-train"], lines["cloze-train-unanswerable"] = clozes
    return write_lines(out, lines)


def _practice(stories: Mapping[str, Documents], questions: Sequence[Asked]) -> dict[str, list[str]]:
    """The files of questions to learn from, without those that are made of the stories' own sentences."""
    rng, silent = random.Random("fairytales"), Unanswerable(stories, questions)
    lines: dict[str, list[str]] = {"train": [], **{f"train-unanswerable-{kind}": [] for kind in KINDS}}
    for asked in questions:
        documents = reading_of(asked, stories, rng, most=BESIDE)
        lines["train"].append(answered_line(asked, stories, documents))
        for kind in KINDS:
            lines[f"train-unanswerable-{kind}"] += silent.lines(kind, asked, documents, rng)
    return lines


def _trial(stories: Mapping[str, Documents], questions: Sequence[Asked]) -> dict[str, list[str]]:
    """The files of questions to try a model on."""
    rng, silent = random.Random("fairytales dev"), Unanswerable(stories, questions)
    lines: dict[str, list[str]] = {"dev": [], "dev-story": [], "dev-search": []}
    lines |= {f"dev-unanswerable-{kind}": [] for kind in KINDS}
    for asked in questions:
        told = stories[asked.text]
        answer, *references = asked.answers
        supporting, held = [told[index][0] for index in asked.held], [told[index] for index in asked.held]
        for name, documents in (("dev", held), ("dev-story", told)):
            lines[name].append(document_line(documents, asked.question, answer, references, supporting))
        file = f"{asked.text}.jsonl"
        supporting = [f"{file}#{index + 1}" for index in asked.held]
        lines["dev-search"].append(document_line([], asked.question, answer, references, supporting, source=file))
        for kind in KINDS:
            lines[f"dev-unanswerable-{kind}"] += silent.lines(kind, asked, held, rng)
    return lines


def _stories(file: Path) -> dict[str, list[tuple[str, str]]]:
    """The sections of each story, as documents."""
    stories = {}
    for where, fields in read_objects(file, {"story": str, "sections": [str]}):
        name = fields["story"]
        if Path(name).name != name:
            raise DataError(f"{where}: 'story' is {name!r}; it must be a name that a file can have.")
        stories[name] = [(f"{name}#{number}", text.strip()) for number, text in enumerate(fields["sections"], 1)]
    if len(stories) < 2:
        raise DataError(f"{file} holds {len(stories)} stories; two are needed, to ask one's questions of the other.")
    return stories


def _questions(file: Path, stories: Mapping[str, Documents]) -> list[Asked]:
    """Questions with cleaned answers."""
    spec = {"story": str, "question": str, "answers": [str], "sections": [int]}
    questions = []
    for where, fields in read_objects(file, spec):
        if fields["story"] not in stories:
            raise DataError(f"{where}: the story {fields['story']!r} is not among those of {file.stem}_stories.jsonl.")
        count = len(stories[fields["story"]])
        if not fields["sections"] or not all(1 <= number <= count for number in fields["sections"]):
            raise DataError(f"{where}: 'sections' is {fields['sections']}; the story has sections 1 to {count}.")
        answers = tuple(sentence(answer) for answer in fields["answers"] if answer.strip())
        if not answers:
            raise DataError(f"{where}: 'answers' holds no answer.")
        held = tuple(sorted({number - 1 for number in fields["sections"]}))
        questions.append(Asked(fields["story"], " ".join(fields["question"].split()), answers, held))
    return questions


def aeslc(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write AESLC (Zhang and Tetreault, "This Email Could Save Your Life", ACL 2019): e-mails and their subject lines.

    Args:
        folder: holds ``train.jsonl`` and ``dev.jsonl``, with ``id``, ``text`` and ``titles``. The first title is the
            answer, the others are references. E-mails of less than :data:`SHORTEST` characters are left out of
            training, as are those without a title everywhere.
        out: folder to write to.

    Returns:
        Lines of each file, by its name without ``.jsonl``.

    Raises:
        DataError: a file is missing, or a line is not what it should be; it is named.
    """
    lines: dict[str, list[str]] = {}
    for split in ("train", "dev"):
        lines[split] = []
        for _, mail in read_objects(Path(folder) / f"{split}.jsonl", {"id": str, "text": str, "titles": [str]}):
            text, titles = mail["text"].strip(), [title.strip() for title in mail["titles"] if title.strip()]
            if titles and (split == "dev" or len(text) >= SHORTEST):
                lines[split].append(document_line([(mail["id"], text)], HEADLINE, titles[0], titles[1:]))
    return write_lines(out, lines)


def bbc(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write the BBC News summaries (Greene and Cunningham, ICML 2006): titles, summaries and questions.

    A summary of this set is sentences of the article, shuffled. A long answer has them in the article's order, a medium
    one the best few, a short one the best (:mod:`weft.extracts`); only in ``dev.jsonl`` a long answer is the summary as
    it is given, to be compared with. Questions are made by :func:`weft.cloze.clozes`, and asked in
    ``cloze-SPLIT.jsonl`` of passages with the id ``ARTICLE#N``, once more in ``cloze-SPLIT-unanswerable.jsonl`` of what
    does not answer them.
    Articles that are also in ``dev.jsonl`` are left out of training.

    Args:
        folder: holds ``train.jsonl`` and ``dev.jsonl``, with ``id``, ``title``, ``text`` and ``summary``.
        out: folder to write to.

    Returns:
        Lines of each file, by its name without ``.jsonl``.

    Raises:
        DataError: a file is missing, or a line is not what it should be; it is named.
    """
    seen: set[str] = set()
    lines: dict[str, list[str]] = {}
    for split in ("dev", "train"):
        rng = random.Random(f"bbc {split}")
        articles = {}
        spec = {"id": str, "title": str, "text": str, "summary": str}
        lines[split] = []
        for _, fields in read_objects(Path(folder) / f"{split}.jsonl", spec):
            text, title = _paragraphs(fields["text"]), " ".join(fields["title"].split())
            if not text or not title or (split == "train" and text in seen):
                continue
            seen.add(text)
            articles[fields["id"]] = text
            answers = {HEADLINE: title}
            answers |= {SUMMARIES[length]: said for length, said in extracts(text, title, fields["summary"]).items()}
            if split == "dev":
                answers[SUMMARIES["long"]] = fields["summary"].strip()
            lines[split] += [document_line([(fields["id"], text)], *pair) for pair in answers.items() if pair[1]]
        made = cloze_lines({name: _sections(name, text) for name, text in articles.items()}, rng, count=3)
        lines[f"cloze-{split}"], lines[f"cloze-{split}-unanswerable"] = made
    return write_lines(out, lines)


def _paragraphs(text: str) -> str:
    """The paragraphs of a text, each in one line, with an empty line between them."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def _sections(name: str, text: str) -> list[tuple[str, str]]:
    """The passages in which an article is read when a summary of it is written, so that they are encoded once."""
    return [(f"{name}#{number}", text[slice(*span)]) for number, span in enumerate(cut(text, PIECE, overlap=0), 1)]
