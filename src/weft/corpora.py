"""Known sets of texts as conversations about documents: stories with questions, e-mails, news, small logic puzzles.

Each function is given a folder with the set's own files and writes JSONL: a user's message holds ``document`` parts
(text and id) and a question, the assistant's the answer; ``references`` are further right answers, ``supporting`` the
ids of the documents that hold the answer. Random choices are seeded: the same files give the same lines.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from weft.cloze import clozes
from weft.errors import DataError
from weft.instructions import HEADLINE, NOT_SAID, SUMMARIES, Length
from weft.passages import PIECE, cut, sentences

UNANSWERABLE = 0.12
"""Share of training questions that are asked once more, of documents that do not hold the answer."""
SAMPLED = 200
"""Questions of a development set that are asked of documents that do not hold the answer."""
SHORTEST = 20
"""Characters of an e-mail that is learned from, at least."""
SHORT, MEDIUM = 250, 450
"""Characters of a summary in one sentence, and in a few."""

_REFERS = re.compile(
    r"""["'(]*(?:but|and|he|she|it|they|this|that|these|those|his|her|its|their|however|meanwhile|so|also|both|one
    |another|such|then|there|we|i|you|our|my|instead|nevertheless|in\ addition)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""How a sentence begins that leans on the one before it."""

Documents = Sequence[tuple[str, str]]
"""Id and text of each document."""


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
    ``dev-unanswerable.jsonl`` sections of another story. ``stories/SPLIT/`` gets each story as a text file.

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
            _write(out / "stories" / split / f"{story}.txt", "\n\n".join(text for _, text in sections))
    rng = random.Random("fairytales")
    lines: dict[str, list[str]] = {"train": [], "dev": [], "dev-story": [], "dev-unanswerable": []}
    for asked in questions["train"]:
        lines["train"] += _practice(asked, stories["train"], rng)
    for asked in questions["dev"]:
        told = stories["dev"][asked["story"]]
        answer, *references = asked["answers"]
        for name, documents in (("dev", [told[index] for index in asked["sections"]]), ("dev-story", told)):
            lines[name].append(_line(documents, asked["question"], answer, references, _supporting(asked)))
    chosen = rng.sample(range(len(questions["dev"])), min(SAMPLED, len(questions["dev"])))
    for asked in (questions["dev"][index] for index in sorted(chosen)):
        documents = _elsewhere(asked["story"], stories["dev"], 3, rng)
        lines["dev-unanswerable"].append(_line(documents, asked["question"], NOT_SAID))
    return _write_lines(out, lines)


def _stories(file: Path) -> dict[str, list[tuple[str, str]]]:
    """The sections of each story, as documents."""
    stories = {}
    for where, fields in _read(file, {"story": str, "sections": [str]}):
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
    for where, fields in _read(file, spec):
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


def _supporting(asked: Mapping[str, Any]) -> list[str]:
    return [f"{asked['story']}#{index + 1}" for index in asked["sections"]]


def _practice(asked: Mapping[str, Any], stories: Mapping[str, Documents], rng: random.Random) -> list[str]:
    """The lines of one training question: with its answer, and for some also without."""
    told, held = stories[asked["story"]], asked["sections"]
    others = [index for index in range(len(told)) if index not in held]
    answer, *references = dict.fromkeys(asked["answers"])
    documents = [told[index] for index in held]
    chance = rng.random()
    if 0.35 <= chance < 0.90:
        added = rng.sample(others, min(rng.randint(1, 4), len(others)))
        documents = [told[index] for index in sorted([*held, *added])]
    elif chance >= 0.90:
        documents += _elsewhere(asked["story"], stories, rng.randint(1, 4), rng)
        rng.shuffle(documents)
    lines = [_line(documents, asked["question"], answer, references, _supporting(asked))]
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
            documents = [told[index] for index in sorted(rng.sample(far, min(wanted, len(far))))]
        else:
            documents = _elsewhere(asked["story"], stories, wanted, rng)
        lines.append(_line(documents, asked["question"], NOT_SAID))
    return lines


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
        for _, mail in _read(Path(folder) / f"{split}.jsonl", {"id": str, "text": str, "titles": [str]}):
            text, titles = mail["text"].strip(), [title.strip() for title in mail["titles"] if title.strip()]
            if titles and (split == "dev" or len(text) >= SHORTEST):
                lines[split].append(_line([(mail["id"], text)], HEADLINE, titles[0], titles[1:]))
    return _write_lines(out, lines)


def bbc(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write the BBC News summaries (Greene and Cunningham, ICML 2006): titles, summaries and questions.

    A summary of this set is sentences of the article, shuffled. A long answer has them in the article's order, a medium
    one the best few, a short one the best (:func:`extracts`); only in ``dev.jsonl`` a long answer is the summary as it
    is given, to be compared with. Questions are made by :func:`weft.cloze.clozes`, and asked in ``cloze-SPLIT.jsonl``
    of passages with the id ``ARTICLE#N``; some once more of passages that do not hold the answer. Articles that are
    also in ``dev.jsonl`` are left out of training.

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
        for _, fields in _read(Path(folder) / f"{split}.jsonl", spec):
            text, title = _paragraphs(fields["text"]), " ".join(fields["title"].split())
            if not text or not title or (split == "train" and text in seen):
                continue
            seen.add(text)
            articles[fields["id"]] = text
            answers = {HEADLINE: title}
            answers |= {SUMMARIES[length]: said for length, said in extracts(text, title, fields["summary"]).items()}
            if split == "dev":
                answers[SUMMARIES["long"]] = fields["summary"].strip()
            lines[split] += [_line([(fields["id"], text)], *pair) for pair in answers.items() if pair[1]]
        lines[f"cloze-{split}"] = _cloze_lines(articles, rng)
    return _write_lines(out, lines)


def extracts(text: str, title: str, summary: str) -> dict[Length, str]:
    """Summaries of three lengths, made of sentences that a given summary takes from its text.

    Those that stand on their own come first: that open and close their quotation marks, and do not begin by referring
    to what was said before. Among them those are best that have most words in common with title and summary.

    Args:
        text: an article.
        title: its title.
        summary: some of its sentences, in any order, with or without space between them.

    Returns:
        ``long``: all these sentences; ``medium``: up to three, :data:`MEDIUM` characters together; ``short``: one of at
        most :data:`SHORT` characters, or the shortest. In the text's order; empty if the summary holds no sentence of
        the text.
    """
    glued = re.sub(r"\s+", "", summary)
    chosen = [text[begin:end] for begin, end in sentences(text) if re.sub(r"\s+", "", text[begin:end]) in glued]
    if not chosen:
        return {}

    def rank(place: int) -> tuple[bool, float]:
        own = set(_words(chosen[place]))
        rest = {word for index, other in enumerate(chosen) if index != place for word in _words(other)}
        named = set(_words(title))
        alone = chosen[place].count('"') % 2 == 0 and not _REFERS.match(chosen[place])
        shared = 2 * len(own & rest) / max(1, len(own) + len(rest))
        return alone, shared + len(own & named) / max(1, len(named))

    best = sorted(range(len(chosen)), key=rank, reverse=True)
    picked: list[int] = []
    for place in best:
        if len(picked) < 3 and sum(len(chosen[index]) + 1 for index in [*picked, place]) <= MEDIUM + 1:
            picked.append(place)
    short = next((chosen[place] for place in best if len(chosen[place]) <= SHORT), min(chosen, key=len))
    medium = " ".join(chosen[place] for place in sorted(picked)) or short
    return {"short": short, "medium": medium, "long": " ".join(chosen)}


def _words(text: str) -> list[str]:
    """The words that say something: without the short ones."""
    return [word for word in re.findall(r"\w+", text.casefold()) if len(word) > 3 or word.isdigit()]


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
            lines.append(_line(documents, made.question, made.answer, supporting=[own[held][0]]))
            if rng.random() < UNANSWERABLE:
                said, wanted = made.answer.strip(".").casefold(), rng.randint(1, 4)
                silent = [index for index in others if said not in own[index][1].casefold()]
                if silent:
                    documents = [own[index] for index in sorted(rng.sample(silent, min(wanted, len(silent))))]
                elif len(passages) > 1:
                    documents = _elsewhere(name, passages, wanted, rng)
                else:
                    continue
                lines.append(_line(documents, made.question, NOT_SAID))
    return lines


def babi(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write the 20 bAbI tasks (Weston et al., arXiv 1502.05698): small stories to draw conclusions from.

    Each fact of the story so far is a document, with the number of its line as id. ``train.jsonl`` and ``valid.jsonl``
    hold all tasks, ``valid-N.jsonl`` each by itself. Answers are as they are in the set.

    Args:
        folder: holds ``qaN_train.txt`` and ``qaN_valid.txt`` for N from 1 to 20. A line is a number, 1 where a story
            begins, and a fact, or a question, its answer and the numbers of the facts that it follows from, with tabs
            between them.
        out: folder to write to.

    Returns:
        Lines of each file, by its name without ``.jsonl``.

    Raises:
        DataError: a file is missing, or a line is not what it should be; it is named.
    """
    train, valid = (
        {task: _puzzles(Path(folder) / f"qa{task}_{split}.txt") for task in range(1, 21)}
        for split in ("train", "valid")
    )
    files = {f"valid-{task}": lines for task, lines in valid.items()}
    files |= {"train": list(chain(*train.values())), "valid": list(chain(*valid.values()))}
    return _write_lines(out, files)


def _puzzles(file: Path) -> list[str]:
    """The questions of one bAbI file."""
    lines = []
    facts: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        place, _, said = line.strip().partition(" ")
        facts = {} if place == "1" else facts
        question, *rest = (field.strip() for field in said.split("\t"))
        supporting = rest[-1].split() if rest else []
        shaped = place.isdigit() and all((question, *rest)) and len(rest) in (0, 2)
        if not shaped or not set(supporting) <= facts.keys():
            raise DataError(
                f"{file}:{number}: a line is a number and a fact, or a number, a question, its answer and the numbers "
                "of earlier facts, with tabs between them."
            )
        if rest:
            lines.append(_line(list(facts.items()), question, rest[0], supporting=supporting))
        else:
            facts[place] = question
    return lines


def _text(file: Path) -> str:
    if not file.is_file():
        raise DataError(f"{file} is missing; give the folder that holds it.")
    return file.read_text(encoding="utf-8")


def _read(file: Path, spec: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with where it stood; ``spec`` gives each field's type, in a list if many.

    Raises:
        DataError: the file is missing or empty, or a line is no object with these fields.
    """
    found = []
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg}); each line is one object.") from None
        for name, kind in spec.items():
            if not isinstance(fields, dict) or name not in fields or not _fits(fields[name], kind):
                wanted = f"a list of {kind[0].__name__}" if isinstance(kind, list) else kind.__name__
                raise DataError(f"{where}: each line is an object whose {name!r} is {wanted}.")
        found.append((where, fields))
    if not found:
        raise DataError(f"{file} is empty; it needs one object a line.")
    return found


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(isinstance(one, kind[0]) for one in value)
    return isinstance(value, kind)


def _line(
    documents: Documents,
    question: str,
    answer: str,
    references: Sequence[str] = (),
    supporting: Sequence[str] = (),
) -> str:
    parts: list[dict[str, str]] = [{"type": "document", "text": text, "id": id} for id, text in documents]
    content = [*parts, {"type": "text", "text": question}]
    line: dict[str, Any] = {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    }
    line |= {"references": list(references)} if references else {}
    line |= {"supporting": list(supporting)} if supporting else {}
    return json.dumps(line, ensure_ascii=False)


def _write_lines(out: str | Path, files: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Write ``NAME.jsonl`` of each name's lines, and count them."""
    for name, lines in files.items():
        _write(Path(out) / f"{name}.jsonl", "\n".join(lines))
    return {name: len(lines) for name, lines in files.items()}


def _write(file: Path, text: str) -> None:
    """Write a text file that is there in full or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8", newline="\n")
    partial.replace(file)
