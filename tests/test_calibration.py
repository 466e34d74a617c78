"""Probabilities that are true, against definitions written out here."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from weft.calibration import auc, calibration_error, platt, reliability, reliability_table, threshold
from weft.errors import DataError


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_auc_is_the_share_of_pairs_in_order():
    rng = random.Random(0)
    have, lack = [rng.randint(0, 9) for _ in range(40)], [rng.randint(3, 12) for _ in range(30)]
    pairs = [(one > other) + 0.5 * (one == other) for one in lack for other in have]
    assert auc(have, lack) == pytest.approx(sum(pairs) / len(pairs))
    assert (auc([0.1], [0.2]), auc([0.2], [0.1]), auc([0.2], [0.2])) == (1, 0, 0.5)


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.5, 0.7), (0.4, -1.2)])
def test_platt_finds_the_temperature_and_bias_that_made_the_labels(temperature, bias):
    """Odds whose true probability is known, each counted as often as it has and has not an answer."""
    rng = np.random.default_rng(0)
    have, lack = [], []
    while min(len(have), len(lack)) < 4000:
        odds = rng.normal(-bias * temperature, 2 * temperature)
        (lack if rng.random() < sigmoid(odds / temperature + bias) else have).append(float(odds))
    found = platt(have[:4000], lack[:4000])
    assert found == pytest.approx((temperature, bias), abs=0.1)


def test_platt_does_not_care_how_many_questions_of_each_kind_there_are():
    rng = random.Random(1)
    have, lack = [rng.gauss(-1, 2) for _ in range(200)], [rng.gauss(1, 2) for _ in range(200)]
    assert platt(have, lack * 5) == pytest.approx(platt(have, lack), rel=0.05, abs=0.02)


def test_scores_that_tell_all_questions_apart_get_a_finite_scale():
    temperature, bias = platt([-3.0, -2.0], [2.0, 3.0])
    assert 0 < temperature < math.inf and math.isfinite(bias)
    assert 0.6 < sigmoid(2 / temperature + bias) < 0.99


@pytest.mark.parametrize(("have", "lack"), [([1.0, 2.0, 3.0], [0.0, 0.5, 1.0]), ([], [1.0]), ([1.0], [])])
def test_what_cannot_be_calibrated_is_refused(have, lack):
    with pytest.raises(DataError):
        platt(have, lack)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.25, 0.5])
def test_threshold_refuses_no_more_than_the_share(share):
    have = [number / 100 for number in range(100)]
    limit = threshold(have, share)
    assert sum(one >= limit for one in have) == share * 100
    assert not any(one >= threshold([0.3] * 20, share) for one in [0.3] * 20)


def test_reliability_counts_both_kinds_alike():
    bins = reliability([0.05, 0.15, 0.12, 0.95], [0.15, 0.9])
    assert [(one.begin, one.count) for one in bins] == [(0.0, 1), (0.1, 3), (0.9, 2)]
    low, middle, high = bins
    assert (low.said, low.true, low.weight) == pytest.approx((0.05, 0.0, 0.125))
    assert middle.true == pytest.approx(0.25 / 0.5)  # one of two without an answer, two of four with one
    assert middle.said == pytest.approx((0.125 * 0.15 + 0.125 * 0.12 + 0.25 * 0.15) / 0.5)
    assert high.weight == pytest.approx(0.125 + 0.25)
    error = sum(one.weight * abs(one.said - one.true) for one in bins)
    assert calibration_error(bins) == pytest.approx(error) and error > 0
    assert calibration_error(reliability([0.0, 0.0], [1.0])) == 0
    assert reliability_table(bins).splitlines()[-1] == "| 0.9 to 1.0 | 2 | 0.92 | 0.67 |"
