"""How well a score tells questions without an answer from those with one, and how it becomes a probability.

Everything here is given numbers, one for each question: log-odds, or probabilities that it has no answer. Questions
with and without an answer count alike, however many there are of each, so a probability is that of a question which
might as well be the one as the other. Nothing here knows a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from weft.errors import DataError

BINS = 10
"""Parts of the range from 0 to 1 that a reliability diagram has."""


@dataclass(frozen=True)
class Bin:
    """Questions whose probabilities are close to each other.

    Attributes:
        begin: least probability.
        end: probability below which they are; in the last bin it is among them.
        count: questions.
        said: their mean probability of having no answer.
        true: share of them that has none.
        weight: their share of all questions.
    """

    begin: float
    end: float
    count: int
    said: float
    true: float
    weight: float


def auc(answerable: Sequence[float], unanswerable: Sequence[float]) -> float:
    """How often a question without an answer has a higher score than one with an answer; ties count half.

    Raises:
        DataError: there are no questions of one kind.
    """
    _check(answerable, unanswerable)
    some, others = torch.tensor(answerable).double().sort()[0], torch.tensor(unanswerable).double()
    below = torch.searchsorted(some, others) + torch.searchsorted(some, others, right=True)
    return float(below.double().mean()) / (2 * len(some))


def platt(answerable: Sequence[float], unanswerable: Sequence[float]) -> tuple[float, float]:
    """Temperature and bias that make log-odds those of a question without an answer: ``odds / temperature + bias``.

    The likeliest ones, with targets a little off 0 and 1 so that scores which tell all questions apart get no endless
    scale (Platt, "Probabilistic outputs for support vector machines", 1999).

    Raises:
        DataError: there are no questions of one kind, or those with an answer have the higher log-odds.
    """
    _check(answerable, unanswerable)
    odds = torch.tensor([*answerable, *unanswerable], dtype=torch.float64)
    counts = len(answerable), len(unanswerable)
    targets = torch.cat([torch.full((n,), t) for n, t in zip(counts, _targets(*counts), strict=True)]).double()
    weights = torch.cat([torch.full((n,), 1 / n) for n in counts]).double()
    middle, spread = odds.mean(), odds.std().clamp(min=1e-6)
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = line[0] * (odds - middle) / spread + line[1]
        value = binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum")
        value.backward()
        return value

    optimizer.step(loss)
    slope, at_middle = line.detach().tolist()
    if slope <= 0:
        raise DataError(
            "The model refuses questions with an answer as readily as those without; train it on both before it is "
            "calibrated."
        )
    return float(spread) / slope, at_middle - slope * float(middle / spread)


def _targets(answerable: int, unanswerable: int) -> tuple[float, float]:
    return 1 / (answerable + 2), (unanswerable + 1) / (unanswerable + 2)


def threshold(answerable: Sequence[float], share: float) -> float:
    """The score from which on a question is refused, so that no more than a share of those with an answer is.

    Args:
        answerable: probabilities of questions with an answer.
        share: from 0 to 1, without it.
    """
    falling = sorted(answerable, reverse=True)
    allowed = math.floor(share * len(falling))
    above = falling[allowed - 1] if allowed else 1.0
    return max((falling[allowed] + above) / 2, math.nextafter(falling[allowed], math.inf))


def reliability(answerable: Sequence[float], unanswerable: Sequence[float], bins: int = BINS) -> list[Bin]:
    """What share of questions has no answer, among those of about one probability; bins without questions are left out.

    Args:
        answerable: probabilities that questions with an answer have none.
        unanswerable: the same of questions without.
        bins: parts of the range from 0 to 1.

    Raises:
        DataError: there are no questions of one kind.
    """
    _check(answerable, unanswerable)
    rows = [(p, 0.0, 0.5 / len(answerable)) for p in answerable]
    rows += [(p, 1.0, 0.5 / len(unanswerable)) for p in unanswerable]
    found = []
    for index in range(bins):
        inside = [row for row in rows if min(int(row[0] * bins), bins - 1) == index]
        if weight := math.fsum(row[2] for row in inside):
            said = math.fsum(p * part for p, _, part in inside) / weight
            true = math.fsum(is_so * part for _, is_so, part in inside) / weight
            found.append(Bin(index / bins, (index + 1) / bins, len(inside), said, true, weight))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """How far probability and share are apart, a mean over all questions (ECE, Naeini et al. 2015)."""
    return math.fsum(one.weight * abs(one.said - one.true) for one in bins)


def reliability_table(bins: Sequence[Bin]) -> str:
    """A reliability diagram as a table in Markdown."""
    lines = ["| probability of no answer | questions | said | true |", "|---|---|---|---|"]
    lines += [f"| {one.begin:.1f} to {one.end:.1f} | {one.count} | {one.said:.2f} | {one.true:.2f} |" for one in bins]
    return "\n".join([*lines, ""])


def _check(answerable: Sequence[float], unanswerable: Sequence[float]) -> None:
    if not answerable or not unanswerable:
        raise DataError(
            f"There are {len(answerable)} questions with an answer and {len(unanswerable)} without; both are needed."
        )
