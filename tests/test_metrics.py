"""The metrics against ``pycocoevalcap``, the scorer of the COCO captions, on the same words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.errors import DataError
from weft.metrics import CiderD, bleu, cider_d, rouge_l, tokenize

CAPTIONS: list[tuple[str, list[str]]] = [
    (
        "A brown dog runs through the grass.",
        [
            "A brown dog is running through tall grass .",
            "The dog runs in a field .",
            "A dog's running; it looks happy!",
        ],
    ),
    (
        "a man riding a wave on a surfboard",
        ["A surfer rides a big wave .", "A man on a surfboard rides the wave .", "Man in a black wetsuit surfing"],
    ),
    (
        "Two children are playing with a ball on the beach .",
        ["Two kids play on the beach with a red ball .", "Children playing on the sand .", "Two boys and a ball ."],
    ),
    (
        "A woman in a red coat is talking on her cell-phone.",
        ["A woman wearing a red coat talks on the phone .", 'A lady says "hello" into her cell-phone .'],
    ),
    ("a dog", ["Two white dogs are chasing each other in deep snow .", "A white dog follows another white dog ."]),
    (
        "Three people people people are standing are standing in front of of a building .",
        ["Three people are standing in front of a building .", "A group waits outside an old brick building ."],
    ),
    (
        "The cyclist doesn't see the car (it is behind him).",
        ["A cyclist rides in front of a car .", "The man on the bike does n't notice the car behind him ."],
    ),
    (
        "A boy jumps into the swimming pool.",
        ["A boy jumps into the swimming pool .", "A child in blue trunks leaps into the water .", "Splash !"],
    ),
    (
        "people sitting at a table",
        ["Four friends eat lunch at a table outdoors .", "People sit around a table .", "Some people at a caf\u00e9 ."],
    ),
    ("snowboarder", ["A snowboarder flies off a ramp .", "A person on a snowboard in mid-air , against a blue sky ."]),
    ("", ["A black cat sleeps on a windowsill .", "A cat is lying by the window ."]),
    (
        "A football player in number 23 throws the ball to a player in number 7 while the crowd watches and cheers",
        ["A quarterback passes .", "The player wearing # 23 throws a football .", "Football players during a game ."],
    ),
]
PREDICTIONS = [prediction for prediction, _ in CAPTIONS]
REFERENCES = [references for _, references in CAPTIONS]

WORDS = ["a", "the", "dog", "man", "runs", "on", "grass", "red", "ball", "in"]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
rows = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1, max_size=6)


def coco(scorer: str, predictions: list[str], references: list[list[str]]) -> Any:
    """The figure of the corpus and those of its rows by ``pycocoevalcap``, on the words that Weft finds."""
    package = pytest.importorskip(f"pycocoevalcap.{scorer.lower()}.{scorer.lower()}")
    found = {row: [" ".join(tokenize(text))] for row, text in enumerate(predictions)}
    right = {row: [" ".join(tokenize(text)) for text in texts] for row, texts in enumerate(references)}
    options = {"verbose": 0} if scorer == "Bleu" else {}
    return getattr(package, scorer)().compute_score(right, found, **options)


def assert_same(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_figures_of_a_small_corpus_are_those_that_pycocoevalcap_once_gave() -> None:
    assert_same(bleu(PREDICTIONS, REFERENCES), [0.6767676767608, 0.5188149596388, 0.3726838261818, 0.2590185984472])
    assert_same(rouge_l(PREDICTIONS, REFERENCES), 0.5302820341124)
    assert_same(cider_d(PREDICTIONS, REFERENCES), 1.2970966886200)


def test_figures_of_a_small_corpus_are_those_of_pycocoevalcap() -> None:
    assert_same(bleu(PREDICTIONS, REFERENCES), coco("Bleu", PREDICTIONS, REFERENCES)[0])
    assert_same(rouge_l(PREDICTIONS, REFERENCES), coco("Rouge", PREDICTIONS, REFERENCES)[0])
    corpus, each = coco("Cider", PREDICTIONS, REFERENCES)
    assert_same(cider_d(PREDICTIONS, REFERENCES), corpus)
    assert_same(CiderD(REFERENCES).scores(PREDICTIONS, REFERENCES), each)


@settings(deadline=None, max_examples=150)
@given(rows=rows)
def test_figures_of_random_corpora_are_those_of_pycocoevalcap(rows: list[tuple[str, list[str]]]) -> None:
    predictions, references = [prediction for prediction, _ in rows], [right for _, right in rows]
    assert_same(bleu(predictions, references), coco("Bleu", predictions, references)[0])
    assert_same(rouge_l(predictions, references), coco("Rouge", predictions, references)[0])
    if any(text for right in references for text in right):  # the original fails where no reference has a word
        assert_same(CiderD(references).scores(predictions, references), coco("Cider", predictions, references)[1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog , a cat .", "a dog a cat"),
        ("A dog, a cat.", "a dog a cat"),
        ('He says: "stop!" -- really?', "he says stop really"),
        ("The dog's owner doesn't see it.", "the dog 's owner does n't see it"),
        ("They can't, we cannot; I'm sure they're gonna win", "they ca n't we can not i 'm sure they 're gon na win"),
        ("a well-worn T-shirt", "a well-worn t-shirt"),
        ("It is five o'clock (p.m.)", "it is five o'clock -lrb- p.m. -rrb-"),
        ("Mr. Brown of Miami U. won 10,000 at 8:30", "mr. brown of miami u. won 10,000 at 8:30"),
        ("player # 23 & friends", "player # 23 & friends"),
        ("Slip 'n' Slide by example.com", "slip 'n' slide by example.com"),
        ("men 's shoes", "men 's shoes"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_words_are_those_of_the_penn_treebank_without_punctuation(text: str, words: str) -> None:
    assert tokenize(text) == words.split()


def test_typographic_quotes_and_dashes_are_plain_ones() -> None:
    assert tokenize("The dog\u2019s \u201chome\u201d \u2013 a caf\u00e9\u2026") == [
        "the",
        "dog",
        "'s",
        "home",
        "a",
        "caf\u00e9",
    ]


@given(st.text(max_size=40))
def test_any_text_has_words_without_spaces_and_in_lower_case(text: str) -> None:
    for word in tokenize(text):
        assert word and not any(letter.isspace() for letter in word) and word == word.lower()


def test_perfect_predictions_score_the_highest() -> None:
    right = [[texts[0]] for texts in REFERENCES]
    perfect = [texts[0] for texts in REFERENCES]
    assert_same(bleu(perfect, right), [1, 1, 1, 1])
    assert_same(rouge_l(perfect, right), 1)
    longest = [min(len(tokenize(text)), 4) for text in perfect]  # a text of three words has no 4-gram to share
    assert_same(CiderD(right).scores(perfect, right), 10 * np.array(longest) / 4)


def test_one_corpus_scores_many_texts_of_one_row_alike_in_any_company() -> None:
    cider = CiderD(REFERENCES)
    alone = [cider.scores([text], [REFERENCES[0]])[0] for text in PREDICTIONS]
    assert_same(cider.scores(PREDICTIONS, [REFERENCES[0]] * len(PREDICTIONS)), alone)
    assert np.argmax(alone) == 0


def test_words_that_the_corpus_never_saw_weigh_as_the_rarest() -> None:
    corpus = [["a dog"], ["a cat"], ["a bird"], ["the dog"]]
    rare, common = CiderD(corpus).scores(["zebra", "a"], [["zebra stripes"], ["a stripes"]])
    assert rare > common > 0


def test_common_subsequence_of_long_texts_is_that_of_the_textbook() -> None:
    generator = np.random.default_rng(0)
    one, other = (generator.choice(WORDS, size).tolist() for size in (150, 180))
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    precision, recall = table[-1, -1] / len(one), table[-1, -1] / len(other)
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert_same(rouge_l([" ".join(one)], [[" ".join(other)]]), expected)


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider_d])
def test_rows_that_can_not_be_scored_are_refused(metric: Any) -> None:
    with pytest.raises(DataError, match="2 predictions for 1 rows of references"):
        metric(["a", "b"], [["a"]])
    with pytest.raises(DataError, match="nothing to score"):
        metric([], [])
    with pytest.raises(DataError, match="row 1 has no reference"):
        metric(["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="references of row 0 are one string"):
        metric(["a"], ["a"])
