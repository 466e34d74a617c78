"""Abstracts of papers as conversations."""

from __future__ import annotations

import json

import pytest

from weft.abstracts import pubmedqa, scitldr
from weft.errors import DataError
from weft.instructions import CLOZE, HEADLINE, NOT_SAID, SUMMARIES


def write(file, rows):
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def ids(line):
    return [part["id"] for part in line["messages"][0]["content"] if part["type"] == "document"]


def asked(line):
    return line["messages"][0]["content"][-1]["text"]


def answer(line):
    return line["messages"][1]["content"]


def paper(number, **more):
    text = (
        f"Deep nets forget what they learned.\nWe show that a net with {number + 10} layers on the set\nMNIST does not."
    )
    return {
        "id": f"p{number}",
        "title": f" Nets  that last {number}",
        "text": text,
        "summaries": ["A net that lasts.", " A  net that lasts.", "Lasting nets."],
        **more,
    }


@pytest.fixture
def papers(tmp_path):
    write(tmp_path / "dev.jsonl", [paper(0)])
    rows = [paper(0, id="again"), paper(1), paper(2, title="NETS THAT LAST"), paper(3, summaries=[])]
    write(tmp_path / "train.jsonl", rows)
    return tmp_path


def test_abstracts_get_titles_and_one_sentence_summaries(papers, tmp_path):
    counts = scitldr(papers, tmp_path / "out")
    title, summary = read(tmp_path / "out" / "dev.jsonl")
    assert (asked(title), answer(title)) == (HEADLINE, "Nets that last 0")
    assert (asked(summary), answer(summary), summary["references"]) == (
        SUMMARIES["short"],
        "A net that lasts.",
        ["Lasting nets."],
    )
    assert title["messages"][0]["content"][0] == {
        "type": "document",
        "text": "Deep nets forget what they learned. We show that a net with 10 layers on the set MNIST does not.",
        "id": "p0",
    }
    assert counts["dev"] == 2


def test_dev_abstracts_and_titles_in_capitals_are_not_learned(papers, tmp_path):
    scitldr(papers, tmp_path / "out")
    found = [(ids(line)[0], asked(line)) for line in read(tmp_path / "out" / "train.jsonl")]
    assert found == [("p1", HEADLINE), ("p1", SUMMARIES["short"]), ("p2", SUMMARIES["short"]), ("p3", HEADLINE)]
    clozes = read(tmp_path / "out" / "cloze-train.jsonl")
    assert clozes and all(asked(line).startswith(CLOZE.format("")) for line in clozes)
    assert not {"p0", "again"} & {id for line in clozes for id in ids(line)}
    missing = read(tmp_path / "out" / "cloze-train-unanswerable.jsonl")
    assert missing and all(answer(line) == NOT_SAID for line in missing)


def test_abstract_without_words_is_refused(papers, tmp_path):
    write(papers / "train.jsonl", [paper(1, text=" ")])
    with pytest.raises(DataError, match=r"train\.jsonl:1: 'text' or 'title' is empty"):
        scitldr(papers, tmp_path / "out")


def study(number):
    return {
        "id": f"s{number}",
        "question": f" Does tea number {number} help  against sleep?",
        "passages": [f"Sleep number {number} is common.", "We gave people some.", f"Group {number} slept less."],
        "labels": ["BACKGROUND", "METHODS", "RESULTS"],
        "answer": f"Drink {number} helps a little.",
    }


@pytest.fixture
def studies(tmp_path):
    write(tmp_path / "dev.jsonl", [study(2), study(3)])
    write(tmp_path / "train.jsonl", [study(number) for number in range(2, 42)])
    return tmp_path


def test_questions_are_asked_of_all_passages_and_supported_by_what_was_found(studies, tmp_path):
    counts = pubmedqa(studies, tmp_path / "out")
    assert counts["dev"] == 2 and counts["train"] == 38  # without those of the dev set
    line = read(tmp_path / "out" / "dev.jsonl")[0]
    assert ids(line) == ["s2#1", "s2#2", "s2#3"] and line["supporting"] == ["s2#3"]
    assert (asked(line), answer(line)) == ("Does tea number 2 help against sleep?", "Drink 2 helps a little.")
    lines = read(tmp_path / "out" / "train.jsonl")
    beside = [{id.split("#")[0] for id in ids(line)} for line in lines]
    assert {len(names) for names in beside} == {1, 2}
    for line, names in zip(lines, beside, strict=True):
        own = line["supporting"][0].split("#")[0]
        assert own in names and sum(id.startswith(f"{own}#") for id in ids(line)) == 3


def test_unanswerable_questions_lack_what_was_found(studies, tmp_path):
    pubmedqa(studies, tmp_path / "out")
    for kind in ("story", "section", "exchanged"):
        for own, line in zip(("s2", "s3"), read(tmp_path / "out" / f"dev-unanswerable-{kind}.jsonl"), strict=True):
            assert answer(line) == NOT_SAID and line["kind"] == kind
            number = own[1:]
            if kind == "story":
                assert not any(id.startswith(f"{own}#") for id in ids(line))
            elif kind == "section":
                assert ids(line)[:2] == [f"{own}#1", f"{own}#2"] and not ids(line)[2].startswith(f"{own}#")
            else:
                assert ids(line) == [f"{own}#1", f"{own}#2", f"{own}#3"] and f"number {number} " not in asked(line)
    lines = read(tmp_path / "out" / "train-unanswerable.jsonl")
    assert {line["kind"] for line in lines} == {"story", "section", "exchanged"} and len(lines) == 38


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": ["RESULTS"]}, "'passages' and 'labels' must be as many"),
        ({"passages": ["a", "b", " "]}, "no passage empty"),
        ({"answer": " "}, "'question' or 'answer' is empty"),
    ],
)
def test_study_that_lacks_something_is_refused(studies, tmp_path, change, says):
    write(studies / "dev.jsonl", [study(0) | change])
    with pytest.raises(DataError, match=says):
        pubmedqa(studies, tmp_path / "out")


def test_same_files_give_the_same_lines(papers, tmp_path):
    scitldr(papers, tmp_path / "one")
    scitldr(papers, tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
