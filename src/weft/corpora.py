"""Known sets of texts as conversations about documents: stories with questions, e-mails, news.

Each function is given a folder with the set's own files and writes JSONL: a user's message holds ``document`` parts
(text and id) and a question, the assistant's the answer; ``references`` are further right answers, ``supporting`` the
ids of the documents that hold the answer. Random choices are seeded: the same files give the same lines.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from weft.cloze import clozes
from weft.conversations import Documents, document_line, read_objects, write_lines, write_objects, write_text
from weft.errors import DataError
from weft.extracts import extracts
from weft.instructions import HEADLINE, NOT_SAID, SUMMARIES
from weft.passages import PIECE, cut

UNANSWERABLE = 0.2
"""Share of training questions that are asked once more, of documents that do not hold the answer."""
SAMPLED = 200
"""Questions of a development set that are asked of documents that do not hold the answer."""
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
    hold the answer stand alone, among others of their story, or among those of another; some questions are asked once
    more of sections that do not hold it. ``dev.jsonl`` gives those that do, ``dev-story.jsonl`` whole stories, and
    ``dev-unanswerable.jsonl`` sections of another story; ``dev-search.jsonl`` names the story in which to look, a file
    of ``sections/``, to be indexed. ``stories/SPLIT/`` gets each story as a text file.

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
    stories, questions = {}, {}
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
    lines: dict[str, list[str]] = {"train": [], "dev": [], "dev-story": [], "dev-search": [], "dev-unanswerable": []}
    rng = random.Random("fairytales")
    for asked in questions["train"]:
        lines["train"] += _practice(asked, stories["train"], rng)
    for asked in questions["dev"]:
        told = stories["dev"][asked["story"]]
        answer, *references = asked["answers"]
        supporting = _supporting(asked["story"], asked)
        for name, documents in (("dev", [told[index] for index in asked["sections"]]), ("dev-story", told)):
            lines[name].append(document_line(documents, asked["question"], answer, references, supporting))
        file = f"{asked['story']}.jsonl"
        supporting = _supporting(file, asked)
        lines["dev-search"].append(document_line([], asked["question"], answer, references, supporting, source=file))
    rng = random.Random("fairytales dev")
    chosen = rng.sample(range(len(questions["dev"])), min(SAMPLED, len(questions["dev"])))
    for asked in (questions["dev"][index] for index in sorted(chosen)):
        documents = _elsewhere(asked["story"], stories["dev"], 3, rng)
        lines["dev-unanswerable"].append(document_line(documents, asked["question"], NOT_SAID))
    return write_lines(out, lines)


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


def _questions(file: Path, stories: Mapping[str, Documents]) -> list[dict[str, Any]]:
    """Questions with cleaned answers; ``sections`` become indices in the order of the story."""
    spec = {"story": str, "question": str, "answers": [str], "sections": [int]}
    questions = []
    for where, fields in read_objects(file, spec):
        if fields["story"] not in stories:
            raise DataError(f"{where}: the story {fields['story']!r} is not among those of {file.stem}_stories.jsonl.")
        count = len(stories[fields["story"]])
        if not fields["sections"] or not all(1 <= number <= count for number in fields["sections"]):
            raise DataError(f"{where}: 'sections' is {fields['sections']}; the story has sections 1 to {count}.")
        answers = [sentence(answer) for answer in fields["answers"] if answer.strip()]
        if not answers:
            raise DataError(f"{where}: 'answers' holds no answer.")
        sections = sorted({number - 1 for number in fields["sections"]})
        question = " ".join(fields["question"].split())
        questions.append({"story": fields["story"], "question": question, "answers": answers, "sections": sections})
    return questions


def _supporting(name: str, asked: Mapping[str, Any]) -> list[str]:
    """Ids of the sections that hold an answer, in a story of that name."""
    return [f"{name}#{index + 1}" for index in asked["sections"]]


def _practice(asked: Mapping[str, Any], stories: Mapping[str, Documents], rng: random.Random) -> list[str]:
    """The lines of one training question: with its answer, and for some also without."""
    told, held = stories[asked["story"]], asked["sections"]
    others = [index for index in range(len(told)) if index not in held]
    answer, *references = dict.fromkeys(asked["answers"])
    documents = [told[index] for index in held]
    chance = rng.random()
    if 0.25 <= chance < 0.90:
        added = _tempting(asked["question"], told, others, rng.randint(1, 5), rng)
        documents = [told[index] for index in sorted([*held, *added])]
    elif chance >= 0.90:
        documents += _elsewhere(asked["story"], stories, rng.randint(1, 4), rng)
        rng.shuffle(documents)
    lines = [document_line(documents, asked["question"], answer, references, _supporting(asked["story"], asked))]
    if rng.random() < UNANSWERABLE:
        wanted = rng.randint(1, 3)
        # An answer runs on into the sections around it, and a name may stand anywhere in its story.
        said = [given.strip(" .").casefold() for given in asked["answers"]]
        far = [
            index
            for index in others
            if all(abs(index - at) > 1 for at in held) and not any(one in told[index][1].casefold() for one in said)
        ]
        if far and rng.random() < 0.5:
            documents = [told[index] for index in _tempting(asked["question"], told, far, wanted, rng)]
        else:
            documents = _elsewhere(asked["story"], stories, wanted, rng)
        lines.append(document_line(documents, asked["question"], NOT_SAID))
    return lines


def _tempting(question: str, told: Documents, among: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """Up to ``count`` sections of a story, in its order: half those that a search by words would find, half any."""
    words = [_words(text) for _, text in told]
    frequency = Counter(word for section in words for word in section)
    wanted = _words(question)
    found = sorted(among, key=lambda index: -math.fsum(1 / frequency[word] for word in wanted & words[index]))
    chosen = found[: count // 2]
    rest = found[count // 2 :]
    return sorted([*chosen, *rng.sample(rest, min(count - len(chosen), len(rest)))])


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    """The words of a text; a section is looked at for every question about its story."""
    return frozenset(re.findall(r"\w+", text.casefold()))


def _elsewhere(story: str, stories: Mapping[str, Documents], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Up to ``count`` sections of another story, in its order."""
    other = stories[rng.choice([name for name in stories if name != story])]
    return [other[index] for index in sorted(rng.sample(range(len(other)), min(count, len(other))))]


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
    ``cloze-SPLIT.jsonl`` of passages with the id ``ARTICLE#N``; some once more of passages that do not hold the answer.
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
        lines[f"cloze-{split}"] = _cloze_lines(articles, rng)
    return write_lines(out, lines)


def _paragraphs(text: str) -> str:
    """The paragraphs of a text, each in one line, with an empty line between them."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def _cloze_lines(articles: Mapping[str, str], rng: random.Random) -> list[str]:
    """Two or three questions about each article, asked of one to four of its passages: those of which a summary of it
    is written, so that they are encoded once."""
    spans = {name: cut(text, PIECE, overlap=0) for name, text in articles.items()}
    passages = {
        name: [(f"{name}#{number}", text[slice(*span)]) for number, span in enumerate(spans[name], 1)]
        for name, text in articles.items()
    }
    lines = []
    for name, text in articles.items():
        own = passages[name]
        for made in clozes(text, rng, rng.randint(2, 3)):
            held = next(at for at, (_, end) in enumerate(spans[name]) if made.sentence[1] <= end)
            others = [index for index in range(len(own)) if index != held]
            added = rng.sample(others, min(rng.randint(0, 3), len(others)))
            documents = [own[index] for index in sorted([held, *added])]
            lines.append(document_line(documents, made.question, made.answer, supporting=[own[held][0]]))
            if rng.random() < UNANSWERABLE:
                said, wanted = made.answer.strip(".").casefold(), rng.randint(1, 4)
                silent = [index for index in others if said not in own[index][1].casefold()]
                if silent:
                    documents = [own[index] for index in sorted(rng.sample(silent, min(wanted, len(silent))))]
                elif len(passages) > 1:
                    documents = _elsewhere(name, passages, wanted, rng)
                else:
                    continue
                lines.append(document_line(documents, made.question, NOT_SAID))
    return lines
