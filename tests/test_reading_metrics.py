"""The figures for texts that answer, title or summarize, against values by hand and the formulas written out."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weft.errors import DataError
from weft.reading_metrics import (
    citation_precision_recall,
    exact_match,
    recall_at,
    rouge,
    token_f1,
    top_citation,
    vqa_accuracy,
)

Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], float]


def rouge_1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    return rouge(predictions, references)["rouge_1"]


def rouge_2(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    return rouge(predictions, references)["rouge_2"]


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    return rouge(predictions, references)["rouge_l"]


METRICS: list[Metric] = [rouge_1, rouge_2, rouge_l, exact_match, token_f1, vqa_accuracy]

# Words of up to three letters, which ROUGE's stemmer leaves as they are, and what the normalizations act upon.
WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "red",
    "two",
    "2",
    "10",
    "ten",
    "The",
    "U.S.",
    "it's",
    "wet,",
    "hot-dog",
    "?",
    "1,000",
]
texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
plain_texts = st.lists(st.sampled_from(["a", "the", "dog", "cat", "red", "big"]), max_size=10).map(" ".join)
references = st.lists(texts, min_size=1, max_size=6)
rows = st.lists(st.tuples(texts, references), min_size=1, max_size=5)
ids = st.lists(st.sampled_from("abcdef"), max_size=6)
id_rows = st.lists(st.tuples(ids, ids), min_size=1, max_size=5).filter(lambda rows: any(right for _, right in rows))


def split(rows: Sequence[tuple[str, list[str]]]) -> tuple[list[str], list[list[str]]]:
    return [prediction for prediction, _ in rows], [right for _, right in rows]


# ROUGE


@pytest.mark.parametrize(
    ("prediction", "one", "two", "longest"),
    [
        ("police killed the gunman", 1, 1, 1),
        ("Police kill the gunman!", 1, 1, 1),  # one stem
        ("the gunman kill police", 1, 1 / 3, 2 / 4),  # "the gunman" is in common
        ("the gunman police killed", 1, 2 / 3, 2 / 4),  # "the gunman" and "police killed"
        ("the police", 2 * (2 / 2 * 2 / 4) / (2 / 2 + 2 / 4), 0, 2 * (1 / 2 * 1 / 4) / (1 / 2 + 1 / 4)),
        ("a dog", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_rouge_of_lins_example_is_that_worked_out_by_hand(
    prediction: str, one: float, two: float, longest: float
) -> None:
    figures = rouge([prediction], [["police killed the gunman"]])
    assert figures == pytest.approx({"rouge_1": one, "rouge_2": two, "rouge_l": longest})


def test_rouge_is_the_mean_over_rows() -> None:
    figures = rouge(["the gunman kill police", "cat"], [["police killed the gunman"], ["dog"]])
    assert figures == pytest.approx({"rouge_1": 1 / 2, "rouge_2": 1 / 6, "rouge_l": 1 / 4})


def test_each_figure_of_rouge_takes_the_reference_that_is_best_for_it() -> None:
    same_words, same_pair = "d c b a", "a b x y z"
    figures = rouge(["a b c d"], [[same_words, same_pair]])
    # Of the second: two of four words and of five; a pair of three and of four; "a b" is its longest subsequence.
    assert figures == pytest.approx({"rouge_1": 1, "rouge_2": 2 / 7, "rouge_l": 4 / 9})


@settings(deadline=None, max_examples=100)
@given(one=plain_texts, other=plain_texts)
def test_rouge_of_random_texts_is_that_of_the_definitions(one: str, other: str) -> None:
    words, right = one.split(), other.split()

    def f1(common: int, found: int, wanted: int) -> float:
        return 2 * common / (found + wanted) if common else 0.0

    def common_ngrams(size: int) -> float:
        found, wanted = (Counter(zip(*(text[at:] for at in range(size)), strict=False)) for text in (words, right))
        return f1(sum((found & wanted).values()), sum(found.values()), sum(wanted.values()))

    def subsequence() -> int:
        table = [[0] * (len(right) + 1) for _ in range(len(words) + 1)]
        for i, a in enumerate(words):
            for j, b in enumerate(right):
                table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
        return table[-1][-1]

    expected = [common_ngrams(1), common_ngrams(2), f1(subsequence(), len(words), len(right))]
    assert list(rouge([one], [[other]]).values()) == pytest.approx(expected)


# SQuAD


def squad(prediction: str, right: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of one answer by the formulas of SQuAD's script, step by step."""

    def normalized(text: str) -> str:
        text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return re.sub(r"\s+", " ", re.sub(r"\b(a|an|the)\b", " ", text)).strip()

    def f1(text: str) -> float:
        found, wanted = normalized(prediction).split(), normalized(text).split()
        if not found or not wanted:
            return float(found == wanted)
        common = sum(min(found.count(word), wanted.count(word)) for word in set(found))
        if common == 0:
            return 0.0
        precision, recall = common / len(found), common / len(wanted)
        return 2 * precision * recall / (precision + recall)

    return max(float(normalized(prediction) == normalized(text)) for text in right), max(map(f1, right))


@pytest.mark.parametrize(
    ("prediction", "right", "exact", "f1"),
    [
        ("The Denver  Broncos.", ["Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),  # precision 1, recall 1/2
        ("Broncos of Denver", ["Denver Broncos", "the Broncos"], 0, 4 / 5),  # precision 2/3, recall 1
        ("in the U.S.A.", ["USA"], 0, 2 / 3),
        ("an apple a day", ["apple day"], 1, 1),
        ("theory", ["ory"], 0, 0),  # an article within a word stays
        ("dog dog dog", ["dog dog cat"], 0, 2 / 3),  # two of three: each word counts as often as both have it
        ("one two", ["two one"], 0, 1),
        ("well-known", ["wellknown", "well known"], 1, 1),
        ("the", [""], 1, 1),  # as in SQuAD 2.0 no word is right beside no word
        ("", ["dog"], 0, 0),
        ("10", ["ten"], 0, 0),
    ],
)
def test_exact_match_and_f1_are_those_worked_out_by_hand(
    prediction: str, right: list[str], exact: float, f1: float
) -> None:
    assert exact_match([prediction], [right]) == exact
    assert token_f1([prediction], [right]) == pytest.approx(f1)


def test_exact_match_and_f1_are_means_over_rows() -> None:
    predictions, right = ["Broncos", "The Broncos!"], [["Denver Broncos"], ["Broncos"]]
    assert exact_match(predictions, right) == 1 / 2
    assert token_f1(predictions, right) == pytest.approx(5 / 6)


@settings(deadline=None)
@given(rows=rows)
def test_exact_match_and_f1_of_random_rows_are_those_of_squads_formulas(rows: list[tuple[str, list[str]]]) -> None:
    exact, f1 = zip(*(squad(*row) for row in rows), strict=True)
    assert exact_match(*split(rows)) == pytest.approx(sum(exact) / len(rows))
    assert token_f1(*split(rows)) == pytest.approx(sum(f1) / len(rows))


# VQA


@pytest.mark.parametrize(
    ("agreeing", "people", "accuracy"),
    [
        (0, 10, 0),
        (1, 10, 0.3),  # a third in the nine subsets that still have the answer
        (2, 10, 0.6),  # two thirds in eight, a third in two
        (3, 10, 0.9),  # all in seven, two thirds in three
        (4, 10, 1),
        (10, 10, 1),
        (4, 4, 1),
        (2, 4, 1 / 2),  # (1/3 + 1/3 + 2/3 + 2/3) / 4
        (3, 3, 2 / 3),  # with one left out two remain to agree
        (1, 3, 2 / 9),
        (1, 2, 1),  # too few to be left out: one of them is right
        (0, 2, 0),
        (1, 1, 1),
        (0, 1, 0),
    ],
)
def test_accuracy_grows_with_the_number_of_people_who_agree(agreeing: int, people: int, accuracy: float) -> None:
    right = ["yes"] * agreeing + ["no"] * (people - agreeing)
    assert vqa_accuracy(["yes"], [right]) == pytest.approx(accuracy)


def test_accuracy_of_a_small_corpus_is_that_worked_out_by_hand() -> None:
    small: list[tuple[str, list[str]]] = [
        ("Two dogs!", ["2 dogs"] * 4 + ["two dogs"] * 2 + ["dogs"] * 4),  # six agree
        ("1,000-mile", ["1000 mile", "1000mile", "1,000-mile"] + ["far"] * 7),  # two: beside 1,000 a hyphen joins
        ("dont walk", ["don't walk"] * 3 + ["walk", "stop", "stop", "stop", "red hand", "hand", "stop"]),
        ("a cat", ["dog"] * 10),
    ]
    assert [vqa_accuracy([prediction], [right]) for prediction, right in small] == pytest.approx([1, 0.6, 0.9, 0])
    assert vqa_accuracy(*split(small)) == pytest.approx(2.5 / 4)


@given(prediction=texts, right=st.lists(st.sampled_from(["dog", "cat", "red"]), min_size=3, max_size=8))
def test_accuracy_is_the_mean_over_all_subsets_without_one_person(prediction: str, right: list[str]) -> None:
    subsets = list(combinations(right, len(right) - 1))
    for answer in [*right, prediction + " zebra"]:
        expected = sum(min(1.0, subset.count(answer) / 3) for subset in subsets) / len(subsets)
        assert vqa_accuracy([answer], [right]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("  Yes.\n", "yes"),
        ("The  red\tdog", "red dog"),
        ("an apple", "a apple"),
        ("none zero one two", "0 0 1 2"),
        ("three four five six", "3 4 5 6"),
        ("seven eight nine Ten", "7 8 9 10"),
        ("two dogs, one cat", "2 dogs 1 cat"),
        ("black/white", "black white"),
        ("hot-dog", "hot dog"),
        ("no, thanks", "no thanks"),
        ("1,000", "1000"),
        ("dont", "don't"),
        ("u.s.", "us"),
    ],
)
def test_answers_that_vqa_takes_for_equal_are(prediction: str, right: str) -> None:
    assert vqa_accuracy([prediction], [[right]]) == 1
    assert vqa_accuracy([right], [[prediction]]) == 1


@pytest.mark.parametrize(
    ("prediction", "right"),
    [("3.5", "35"), ("eleven", "11"), ("its", "it's"), ("were", "we're"), ("theory", "ory"), ("someone", "some1")],
)
def test_answers_that_vqa_takes_for_different_are(prediction: str, right: str) -> None:
    assert vqa_accuracy([prediction], [[right]]) == 0


# Properties and errors of all figures for texts


@settings(deadline=None, max_examples=50)
@given(rows=rows)
@pytest.mark.parametrize("metric", METRICS)
def test_figure_of_any_texts_is_a_fraction(metric: Metric, rows: list[tuple[str, list[str]]]) -> None:
    assert 0 <= metric(*split(rows)) <= 1


@settings(deadline=None, max_examples=50)
@given(rows=rows, order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("metric", METRICS)
def test_order_of_references_does_not_matter(metric: Metric, rows: list[tuple[str, list[str]]], order: Random) -> None:
    predictions, right = split(rows)
    shuffled = [order.sample(texts, len(texts)) for texts in right]
    assert metric(predictions, shuffled) == pytest.approx(metric(predictions, right))


@settings(deadline=None, max_examples=50)
@given(text=texts, others=references)
@pytest.mark.parametrize("metric", [rouge_1, rouge_2, rouge_l, exact_match, token_f1])
def test_text_that_is_one_of_its_references_is_wholly_right(metric: Metric, text: str, others: list[str]) -> None:
    text = f"red {text} dog"  # ROUGE-2 asks for two words
    assert metric([text], [[*others, text]]) == pytest.approx(1)


@given(text=texts, people=st.sampled_from([1, 2, 4, 10]), others=references)
def test_answer_of_everyone_or_of_four_people_is_wholly_right(text: str, people: int, others: list[str]) -> None:
    assert vqa_accuracy([text], [[text] * people]) == 1
    assert vqa_accuracy([text], [[text] * 4 + others]) == 1


@pytest.mark.parametrize("metric", [rouge, exact_match, token_f1, vqa_accuracy])
def test_rows_that_can_not_be_scored_are_refused(metric: Metric) -> None:
    with pytest.raises(DataError, match="2 predictions for 1 rows of references"):
        metric(["a", "b"], [["a"]])
    with pytest.raises(DataError, match="nothing to score"):
        metric([], [])
    with pytest.raises(DataError, match="row 1 has no reference"):
        metric(["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="references of row 0 are one string"):
        metric(["a"], ["a"])


# Searches and citations


def test_recall_is_that_worked_out_by_hand() -> None:
    ranked = [["a", "b", "c"], ["d", "e"], ["f"], []]
    right = [["c", "a"], ["e"], [], ["g"]]
    assert recall_at(ranked, right, 1) == pytest.approx((1 / 2 + 0 + 0) / 3)  # the row without right ids is left out
    assert recall_at(ranked, right, 2) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert recall_at(ranked, right, 3) == recall_at(ranked, right, 100) == pytest.approx((1 + 1 + 0) / 3)


def test_citations_are_counted_over_all_rows_at_once() -> None:
    cited = [["a", "b", "c", "d"], ["e"], [], ["x"]]
    right = [["a"], ["e", "f"], ["g"], []]
    # Two of six cited ids are right, two of four right ones are cited; the mean over rows would be another.
    assert citation_precision_recall(cited, right) == pytest.approx((2 / 6, 2 / 4))


def test_ids_that_a_row_gives_twice_count_once() -> None:
    assert citation_precision_recall([["a", "a", "b"]], [["a", "c", "c"]]) == (1 / 2, 1 / 2)
    assert recall_at([["a", "a", "b"]], [["a", "b", "b"]], 2) == 1 / 2  # a repeated id takes a place in the ranking


def test_answers_without_citations_have_neither_precision_nor_recall() -> None:
    assert citation_precision_recall([[], []], [["a"], []]) == (0, 0)


def test_first_citation_alone_is_the_top_one() -> None:
    cited = [["a", "x"], ["x", "b"], [], ["c"]]
    right = [["b", "a"], ["b"], ["c"], []]
    assert top_citation(cited, right) == 1 / 4


@given(rows=id_rows, k=st.integers(1, 8))
def test_figures_of_any_ids_are_fractions_and_recall_grows_with_k(
    rows: list[tuple[list[str], list[str]]], k: int
) -> None:
    given_ids, right = [found for found, _ in rows], [wanted for _, wanted in rows]
    precision, recall = citation_precision_recall(given_ids, right)
    assert 0 <= precision <= 1 and 0 <= recall <= 1 and 0 <= top_citation(given_ids, right) <= 1
    assert 0 <= recall_at(given_ids, right, k) <= recall_at(given_ids, right, k + 1) <= 1


@given(rows=id_rows)
def test_ids_that_are_the_right_ones_are_wholly_right(rows: list[tuple[list[str], list[str]]]) -> None:
    right = [wanted for _, wanted in rows if wanted]
    backwards = [wanted[::-1] for wanted in right]
    for given_ids in (right, backwards):  # the order of right ids means nothing
        assert recall_at(given_ids, right, 6) == 1
        assert citation_precision_recall(given_ids, right) == (1, 1)
        assert top_citation(given_ids, right) == 1


@given(rows=id_rows)
def test_precision_and_recall_change_places_with_their_arguments(rows: list[tuple[list[str], list[str]]]) -> None:
    cited, right = [found for found, _ in rows], [wanted for _, wanted in rows]
    assume(any(cited))
    assert citation_precision_recall(cited, right) == citation_precision_recall(right, cited)[::-1]


@pytest.mark.parametrize(
    "metric", [lambda found, right: recall_at(found, right, 3), citation_precision_recall, top_citation]
)
def test_ids_that_can_not_be_scored_are_refused(metric: Callable[[object, object], object]) -> None:
    with pytest.raises(DataError, match="2 rows of ids for 1 rows of right ids"):
        metric([["a"], []], [["a"]])
    with pytest.raises(DataError, match="nothing to score"):
        metric([], [])
    with pytest.raises(DataError, match="at least one row that has a right id"):
        metric([["a"], []], [[], []])
    with pytest.raises(DataError, match="ids of row 1 are one string"):
        metric([["a"], "ab"], [["a"], ["b"]])
    with pytest.raises(DataError, match="ids of row 0 are one string"):
        metric([["a"]], ["a"])


@pytest.mark.parametrize("k", [0, -1])
def test_recall_among_no_ids_is_refused(k: int) -> None:
    with pytest.raises(DataError, match=f"first {k} ids"):
        recall_at([["a"]], [["a"]], k)
