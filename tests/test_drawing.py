"""How the words of a reply are chosen."""

from __future__ import annotations

import pytest
import torch

from weft.drawing import Chooser, Sampling
from weft.errors import WeftError

PROMPT, REPLY = [0, 1], [2, 2, 3]
LOGITS = torch.tensor([4.0, -1.0, 5.0, 4.5, 3.0, 2.0])


def likeliest(**options):
    return Chooser(Sampling(**options)).choose(PROMPT, REPLY, LOGITS, int(LOGITS.argmax())).token


def drawn(**options):
    """Every word that is drawn in many attempts."""
    sampling = Sampling(temperature=1.0, seed=0, **options)
    chooser = Chooser(sampling)
    return {chooser.choose(PROMPT, REPLY, LOGITS, 2).token for _ in range(400)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2),
        ({"frequency_penalty": 0.4}, 2),  # 5 - 2 * 0.4 > 4.5 - 0.4
        ({"frequency_penalty": 0.6}, 0),  # 5 - 2 * 0.6 < 4
        ({"presence_penalty": 0.6}, 2),  # 5 - 0.6 > 4.5 - 0.6
        ({"presence_penalty": 1.1}, 0),  # 5 - 1.1 < 4
        ({"frequency_penalty": 2.0, "presence_penalty": -2.0}, 3),  # 5 - 4 + 2 < 4.5 - 2 + 2
        ({"repetition_penalty": 1.3}, 2),  # 5 / 1.3 > 3
        ({"repetition_penalty": 2.0}, 4),  # 5 / 2 < 3; words of the prompt count
        ({"logit_bias": {2: -100.0}}, 3),
        ({"logit_bias": {5: 3.5}}, 5),
    ],
)
def test_penalties_and_biases_change_the_likeliest_word(options, expected):
    assert likeliest(**options) == expected


def test_negative_logits_are_multiplied_by_the_repetition_penalty():
    logits = torch.tensor([-1.0, -1.5])
    assert Chooser(Sampling(repetition_penalty=2.0)).choose([0], [], logits, 0).token == 1


def test_words_are_drawn_among_those_that_are_allowed():
    chances = LOGITS.softmax(-1)
    assert drawn(top_k=2) == {2, 3}
    assert drawn(min_p=0.3) == set(torch.where(chances >= 0.3 * chances.max())[0].tolist()) == {0, 2, 3}
    assert drawn(logit_bias={2: -100.0, 3: -100.0}, top_k=1) == {0}


def test_log_probabilities_are_those_of_the_model_whatever_is_taken_away():
    said = Chooser(Sampling(logprobs=2, logit_bias={2: -100.0})).choose(PROMPT, REPLY, LOGITS, 2)
    expected = LOGITS.log_softmax(-1)
    assert said.token == 3 and said.log_probability == pytest.approx(float(expected[3]))
    assert [token for token, _ in said.likeliest] == [2, 3]


@pytest.mark.parametrize(
    "options", [{"top_k": -1}, {"min_p": 1.5}, {"repetition_penalty": 0.0}, {"logit_bias": {6: 1.0}}]
)
def test_what_can_not_be_is_refused(options):
    with pytest.raises(WeftError):
        likeliest(**options)
