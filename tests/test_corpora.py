"""Known sets of texts, as conversations about documents."""

from __future__ import annotations

import json

import pytest

from weft.corpora import aeslc, bbc, fairytales, sentence
from weft.errors import DataError
from weft.extracts import extracts
from weft.instructions import CLOZE, HEADLINE, NOT_SAID, SUMMARIES
from weft.puzzles import babi


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def ids(line):
    return [part["id"] for part in line["messages"][0]["content"] if part["type"] == "document"]


def asked(line):
    return line["messages"][0]["content"][-1]["text"]


def answer(line):
    return line["messages"][1]["content"]


@pytest.fixture
def tales(tmp_path):
    folder = tmp_path / "in"
    for split, count in (("train", 200), ("dev", 4)):
        stories = [
            {"story": name, "sections": [f"{name} section {number}.\nOn it goes." for number in range(1, 9)]}
            for name in (f"{split}-fox", f"{split}-hen", f"{split}-owl")
        ]
        write(folder / f"{split}_stories.jsonl", stories)
        questions = [
            {
                "story": stories[number % 3]["story"],
                "question": f" Who is {number}? ",
                "answers": ["the wise fox", " The wise fox.", "a  beast"],
                "sections": [number % 8 + 1] if number % 5 else [5, 3],
            }
            for number in range(count)
        ]
        write(folder / f"{split}.jsonl", questions)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the sun ", "The sun."),
        ("he wept,\nand left.", "He wept, and left."),
        ("why not?", "Why not?"),
        ('"come in!"', '"Come in!"'),
        ("seven", "Seven."),
        ("7 days", "7 days."),
        ("élan", "Élan."),
        ("", ""),
    ],
)
def test_sentence_has_a_capital_and_an_end(text, expected):
    assert sentence(text) == expected


def test_training_questions_stand_among_other_sections(tales, tmp_path):
    counts = fairytales(tales, tmp_path / "out")
    lines = read(tmp_path / "out" / "train.jsonl")
    assert counts["train"] == len(lines) == 200
    alone = among = mixed = 0
    for line in lines:
        assert answer(line) == "The wise fox." and line["references"] == ["A beast."]
        story = line["supporting"][0].split("#")[0]
        extra = [id for id in ids(line) if id not in line["supporting"]]
        assert set(line["supporting"]) <= set(ids(line)) and len(extra) <= 5
        if not extra:
            alone += 1
        elif all(id.startswith(story) for id in extra):
            among += 1
            assert ids(line) == sorted(ids(line))
        else:
            mixed += 1
            assert not any(id.startswith(story) for id in extra)
    assert (30 < alone < 75, 100 < among < 160, 5 < mixed < 40) == (True,) * 3


@pytest.mark.parametrize("split", ["train", "dev"])
def test_each_question_is_asked_of_another_story_and_of_other_sections(tales, tmp_path, split):
    fairytales(tales, tmp_path / "out")
    lines = read(tmp_path / "out" / f"{split}.jsonl")
    held, counts = ({asked(line): value(line) for line in lines} for value in (lambda one: one["supporting"], ids))
    for kind in ("story", "section"):
        missing = read(tmp_path / "out" / f"{split}-unanswerable-{kind}.jsonl")
        assert len(missing) > 0.8 * len(lines)
        for line in missing:
            assert answer(line) == NOT_SAID and "supporting" not in line and line["kind"] == kind
            supporting = held[asked(line)]
            assert len(ids(line)) == len(counts[asked(line)])  # their number tells nothing
            story = supporting[0].split("#")[0]
            mine = {int(id.split("#")[1]) for id in ids(line) if id.startswith(f"{story}#")}
            assert bool(mine) == (kind == "section")
            assert not mine & {int(id.split("#")[1]) + step for id in supporting for step in (-1, 0, 1)}


def test_questions_are_made_of_the_training_stories_sentences(tales, tmp_path):
    told = read(tales / "train_stories.jsonl")
    for number, story in enumerate(told):
        story["sections"][2] += f" Then the wife of Halvor went down to the river with {number + 5} white geese."
    write(tales / "train_stories.jsonl", told)
    counts = fairytales(tales, tmp_path / "out")
    lines = read(tmp_path / "out" / "cloze-train.jsonl")
    assert counts["cloze-train"] == len(lines) == 3
    for line in lines:
        assert asked(line).startswith(CLOZE.format("")) and line["supporting"][0].endswith("#3")
        assert line["supporting"][0] in ids(line)
    missing = read(tmp_path / "out" / "cloze-train-unanswerable.jsonl")
    assert missing and all(answer(line) == NOT_SAID for line in missing)


def test_dev_sets_give_sections_stories_and_other_stories(tales, tmp_path):
    counts = fairytales(tales, tmp_path / "out")
    assert {name: counts[name] for name in counts if name in ("dev", "dev-story", "dev-search")} == {
        "dev": 4,
        "dev-story": 4,
        "dev-search": 4,
    }
    line = read(tmp_path / "out" / "dev.jsonl")[0]
    assert line["messages"][0]["content"][0] == {
        "type": "document",
        "text": "dev-fox section 3.\nOn it goes.",
        "id": "dev-fox#3",
    }
    assert (ids(line), line["supporting"]) == (["dev-fox#3", "dev-fox#5"],) * 2
    assert (asked(line), answer(line), line["references"]) == (
        "Who is 0?",
        "The wise fox.",
        ["The wise fox.", "A beast."],
    )
    whole = read(tmp_path / "out" / "dev-story.jsonl")[0]
    assert (ids(whole), whole["supporting"]) == ([f"dev-fox#{n}" for n in range(1, 9)], line["supporting"])
    looked_for = read(tmp_path / "out" / "dev-search.jsonl")[0]
    assert (asked(looked_for), ids(looked_for)) == (asked(line), [])
    assert looked_for["source"] == "dev-fox.jsonl"
    assert looked_for["supporting"] == ["dev-fox.jsonl#3", "dev-fox.jsonl#5"]
    sections = read(tmp_path / "out" / "sections" / "dev-fox.jsonl")
    assert sections[2] == {"id": "3", "text": "dev-fox section 3.\nOn it goes."} and len(sections) == 8
    text = (tmp_path / "out" / "stories" / "dev" / "dev-hen.txt").read_text(encoding="utf-8")
    assert text.startswith("dev-hen section 1.\nOn it goes.\n\ndev-hen section 2.") and len(text.split("\n\n")) == 8


def test_sections_that_a_search_would_find_stand_beside_those_that_hold_the_answer(tales, tmp_path):
    told = read(tales / "train_stories.jsonl")
    for story in told:
        story["sections"][6] += " Whoever bears a number is counted."
    write(tales / "train_stories.jsonl", told)
    rows = [row | {"question": f"Whoever bears {number}?"} for number, row in enumerate(read(tales / "train.jsonl"))]
    write(tales / "train.jsonl", rows)
    fairytales(tales, tmp_path / "out")
    beside = [
        ids(line)
        for line in read(tmp_path / "out" / "train.jsonl")
        if "supporting" in line and len(ids(line)) > len(line["supporting"]) + 1
    ]
    same = [found for found in beside if len({id.split("#")[0] for id in found}) == 1]
    assert same and all(f"{found[0].split('#')[0]}#7" in found for found in same)


def test_same_files_give_the_same_lines_and_nothing_half_written(tales, tmp_path):
    fairytales(tales, tmp_path / "one")
    fairytales(tales, tmp_path / "two")
    for file in (tmp_path / "one").rglob("*.jsonl"):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("file", "row", "says"),
    [
        ("train.jsonl", "{broken", r"train\.jsonl:1: not JSON"),
        ("train.jsonl", ["a list"], r"train\.jsonl:1, object 1: .* 'story' is str"),
        ("dev.jsonl", {"story": "dev-fox"}, r"dev\.jsonl:1: .* 'question' is str"),
        (
            "dev.jsonl",
            {"story": "gone", "question": "?", "answers": ["x"], "sections": [1]},
            r"dev\.jsonl:1: the story 'gone'",
        ),
        (
            "dev.jsonl",
            {"story": "dev-fox", "question": "?", "answers": ["x"], "sections": [9]},
            r"dev\.jsonl:1: 'sections' is \[9\]; the story has sections 1 to 8",
        ),
        (
            "dev.jsonl",
            {"story": "dev-fox", "question": "?", "answers": [" "], "sections": [1]},
            r"dev\.jsonl:1: 'answers' holds no answer",
        ),
        ("dev_stories.jsonl", {"story": "x", "sections": "one"}, r"dev_stories\.jsonl:1: .* 'sections' is a list of s"),
        ("dev_stories.jsonl", {"story": "../x", "sections": ["one"]}, r"'story' is '\.\./x'"),
        ("dev_stories.jsonl", {"story": "x", "sections": ["one"]}, r"dev_stories\.jsonl holds 1 stories"),
        ("dev_stories.jsonl", "", r"dev_stories\.jsonl is empty"),
    ],
)
def test_bad_line_is_refused_by_file_and_line(tales, tmp_path, file, row, says):
    write(tales / file, [row])
    with pytest.raises(DataError, match=says):
        fairytales(tales, tmp_path / "out")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train_stories\.jsonl is missing"):
        fairytales(tmp_path, tmp_path / "out")


def test_mails_get_their_subject_lines_as_titles(tmp_path):
    mail = {"id": "a-1", "text": " See you at ten in the hall. ", "titles": [" Meeting ", "meeting at ten"]}
    blank = mail | {"titles": [" "]}
    write(tmp_path / "train.jsonl", [mail, mail | {"text": "too short"}, blank])
    write(tmp_path / "dev.jsonl", [mail, mail | {"text": "too short"}, blank])
    assert aeslc(tmp_path, tmp_path / "out") == {"train": 1, "dev": 2}
    (line,) = read(tmp_path / "out" / "train.jsonl")
    text = {"type": "document", "text": "See you at ten in the hall.", "id": "a-1"}
    assert line == {
        "messages": [
            {"role": "user", "content": [text, {"type": "text", "text": HEADLINE}]},
            {"role": "assistant", "content": "Meeting"},
        ],
        "references": ["meeting at ten"],
    }
    write(tmp_path / "dev.jsonl", [{"id": 1, "text": "x", "titles": ["x"]}])
    with pytest.raises(DataError, match=r"dev\.jsonl:1: .* 'id' is str"):
        aeslc(tmp_path, tmp_path / "out")


LEAD = "A new bridge over the river Tyne was opened in Newcastle by Queen Margaret on Monday."
COST = "Mr Adam Holt said that the bridge over the river had cost £22m and taken six years to build."
QUOTE = '"We are very proud of our bridge.'
REFERS = "It joins the quays of Gateshead and Newcastle for the people of the river."
DULL = "Nobody in Durham liked it when it rained there in November 1987."


def test_extracts_are_sentences_in_the_texts_order():
    text = f"{LEAD} {QUOTE} {DULL}\n\n{COST} {REFERS}"
    made = extracts(text, "Queen opens new bridge", REFERS + COST + QUOTE + LEAD)
    assert made["long"] == f"{LEAD} {QUOTE} {COST} {REFERS}"
    assert made["short"] == LEAD
    assert made["medium"] in (f"{LEAD} {QUOTE} {COST}", f"{LEAD} {COST} {REFERS}")


def test_extracts_keep_to_their_lengths():
    long = [f"The {name} bridge of the city {'is very long and ' * 12}is old." for name in ("first", "second", "third")]
    made = extracts(" ".join(long), "The bridge", "".join(long))
    assert made["medium"].count(".") == 1 and made["medium"] in long
    assert len(made["short"]) <= 250
    endless = [f"The {name} bridge {'is very long and ' * 30}is old." for name in ("first", "northern")]
    assert set(extracts(" ".join(endless), "The bridge", "".join(endless)).values()) == {endless[0], " ".join(endless)}
    assert extracts("Other words.", "Title", "The summary.") == {}


@pytest.fixture
def news(tmp_path):
    folder = tmp_path / "in"
    for split, count in (("train", 40), ("dev", 3)):
        articles = [
            {
                "id": f"{split}/{number}",
                "title": f" Bridge  {split} {number} ",
                "text": f"{LEAD}  Number {split} {number}.\n\n" + "\n\n".join([f"{COST}  {DULL}", REFERS] * 8),
                "summary": COST + LEAD,
            }
            for number in range(count)
        ]
        write(folder / f"{split}.jsonl", articles)
    return folder


def test_articles_get_titles_and_summaries(news, tmp_path):
    counts = bbc(news, tmp_path / "out")
    assert (counts["train"], counts["dev"]) == (40 * 4, 3 * 4)
    lines = read(tmp_path / "out" / "train.jsonl")[:4]
    assert [asked(line) for line in lines] == [HEADLINE, *(SUMMARIES[length] for length in ("short", "medium", "long"))]
    assert answer(lines[0]) == "Bridge train 0"
    assert answer(lines[3]).startswith(f"{LEAD} {COST}")
    assert f"{LEAD} Number train 0.\n\n{COST} {DULL}" in lines[0]["messages"][0]["content"][0]["text"]
    assert answer(read(tmp_path / "out" / "dev.jsonl")[3]) == COST + LEAD


def test_article_of_the_dev_set_is_not_learned(news, tmp_path):
    rows = read(news / "dev.jsonl")
    write(news / "train.jsonl", [row | {"id": f"again/{row['id']}"} for row in rows] + read(news / "train.jsonl"))
    bbc(news, tmp_path / "out")
    for name in ("train", "cloze-train"):
        assert not any(id.startswith("again") for line in read(tmp_path / "out" / f"{name}.jsonl") for id in ids(line))


def test_clozes_are_asked_of_passages_that_hold_the_answer_and_of_others(news, tmp_path):
    counts = bbc(news, tmp_path / "out")
    held = read(tmp_path / "out" / "cloze-train.jsonl")
    missing = read(tmp_path / "out" / "cloze-train-unanswerable.jsonl")
    assert (counts["cloze-train"], counts["cloze-train-unanswerable"]) == (len(held), len(missing))
    assert len(held) >= 80 and len(missing) <= len(held)
    for line in held:
        (supporting,) = line["supporting"]
        texts = {part["id"]: part["text"] for part in line["messages"][0]["content"] if part["type"] == "document"}
        assert answer(line).strip(".").casefold() in texts[supporting].casefold()
        assert 1 <= len(texts) <= 4 and all(len(text) <= 2400 for text in texts.values())
    assert any(asked(line).startswith(CLOZE.format("")) for line in held)
    assert all(answer(line) == NOT_SAID and "supporting" not in line and 1 <= len(ids(line)) <= 4 for line in missing)
    bbc(news, tmp_path / "again")
    assert (tmp_path / "again" / "cloze-train.jsonl").read_bytes() == (tmp_path / "out/cloze-train.jsonl").read_bytes()


PUZZLE = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary got the football and the apple.
5 What is Mary carrying?\tfootball,apple\t4 1
1 The office is east of the hallway.
2 How do you go from the office to the hallway?\tw\t1
"""


def puzzles(folder, text=PUZZLE):
    for task in range(1, 21):
        for split in ("train", "valid"):
            (folder / f"qa{task}_{split}.txt").write_text(text if task == 7 else PUZZLE)


def test_facts_of_the_story_so_far_are_documents(tmp_path):
    puzzles(tmp_path)
    counts = babi(tmp_path, tmp_path / "out")
    assert counts == {"train": 60, "valid": 60} | {f"valid-{task}": 3 for task in range(1, 21)}
    lines = read(tmp_path / "out" / "valid-7.jsonl")
    assert [ids(line) for line in lines] == [["1", "2"], ["1", "2", "4"], ["1"]]
    assert [asked(line) for line in lines][:2] == ["Where is Mary?", "What is Mary carrying?"]
    assert [answer(line) for line in lines] == ["bathroom", "football,apple", "w"]
    assert [line["supporting"] for line in lines] == [["1"], ["4", "1"], ["1"]]
    assert lines[2]["messages"][0]["content"][0]["text"] == "The office is east of the hallway."


@pytest.mark.parametrize(
    "line", ["no number", "3", "3 Where is Mary?\tbathroom", "3 Where is Mary?\tbathroom\t9", "3 Q\t\t1"]
)
def test_bad_puzzle_is_refused_by_file_and_line(tmp_path, line):
    puzzles(tmp_path, PUZZLE.splitlines()[0] + "\n" + line)
    with pytest.raises(DataError, match=r"qa7_train\.txt:2: a line is a number and a fact, or"):
        babi(tmp_path, tmp_path / "out")


def test_missing_puzzle_is_named(tmp_path):
    with pytest.raises(DataError, match=r"qa1_train\.txt is missing"):
        babi(tmp_path, tmp_path / "out")
