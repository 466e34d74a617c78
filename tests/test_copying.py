"""Copying against its formula: words summed one by one in float64, and gradients of that sum by autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weft.batch import BatchMemory
from weft.copying import CopyGate, Shares, mixed, target_losses
from weft.memory import CopyKeys, KeyValues, Placement

WORDS, HIDDEN, MEMORY, WIDTH = 13, 12, 10, 8

cases = given(
    groups=st.integers(1, 3),
    texts=st.integers(1, 4),
    tokens=st.integers(1, 7),
    words=st.integers(2, WORDS),
    seed=st.integers(0, 2**32),
)

pytestmark = pytest.mark.usefixtures("on_device")
"""Few words and many tokens, so that most words occur several times and some not at all."""


def probabilities(logits: Tensor, shares: Shares, ids: Tensor) -> Tensor:
    """What falls to each word, word by word: the definition, in float64."""
    said, result = logits.double().softmax(-1), []
    copied, generated = shares.copied.double().exp(), shares.generated.double().exp()
    for group in range(logits.shape[0]):
        for text in range(logits.shape[1]):
            for word in range(logits.shape[2]):
                places = [place for place, token in enumerate(ids[group].tolist()) if token == word]
                chance = generated[group, text] * said[group, text, word]
                result.append(chance + sum(copied[group, text, place] for place in places))
    return torch.stack(result).view_as(logits)


def divided(scores: Tensor, rest: Tensor, allowed: Tensor) -> Shares:
    """Shares as a gate divides them, in the type of the scores."""
    both = torch.cat([scores.masked_fill(~allowed, -math.inf), rest[..., None]], -1).log_softmax(-1)
    return Shares(both[..., :-1], both[..., -1])


def example(groups: int, texts: int, tokens: int, words: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, scores, what is left to saying, and ids, of which some are -1."""
    torch.manual_seed(seed)
    logits, rest = torch.randn(groups, texts, words) * 3, torch.randn(groups, texts)
    return logits, torch.randn(groups, texts, tokens) * 3, rest, torch.randint(-1, words, (groups, tokens))


def allowed(scores: Tensor, ids: Tensor) -> Tensor:
    """Tokens that have an id, of which each text token sees some."""
    return (torch.rand_like(scores) < 0.7) & (ids >= 0)[:, None]


@settings(deadline=None, max_examples=60)
@cases
def test_word_has_what_is_said_of_it_and_what_is_copied_from_each_place_it_stands(
    groups: int, texts: int, tokens: int, words: int, seed: int
) -> None:
    logits, scores, rest, ids = example(groups, texts, tokens, words, seed)
    may = allowed(scores, ids)
    shares = divided(scores, rest, may)
    found = mixed(logits, shares, ids)
    assert torch.isfinite(found).all()
    blind = ~may.any(-1)
    assert torch.equal(found[blind], logits[blind])
    expected = probabilities(logits, shares, ids)
    torch.testing.assert_close(found.double().softmax(-1), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.exp().sum(-1)[~blind], torch.ones_like(rest)[~blind], rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=60)
@cases
def test_loss_of_a_target_is_that_of_the_mixed_distribution(
    groups: int, texts: int, tokens: int, words: int, seed: int
) -> None:
    logits, scores, rest, ids = example(groups, texts, tokens, words, seed)
    shares = divided(scores, rest, allowed(scores, ids))
    targets = torch.randint(words, (groups, texts))
    said = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    matches = (ids[:, None] == targets[..., None]).flatten(0, 1)
    found = target_losses(said, shares.copied.flatten(0, 1), shares.generated.flatten(), matches)
    expected = -probabilities(logits, shares, ids).gather(-1, targets[..., None]).log().flatten()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_targets_that_stand_nowhere_once_and_often_in_a_memory() -> None:
    """By hand: halves and quarters of a probability."""
    copied = torch.tensor([[0.25, 0.25, 0.0, 0.25]]).log().expand(3, -1)
    generated, said = torch.full((3,), math.log(0.25)), -torch.tensor([0.4, 0.4, 0.4]).log()
    ids = torch.tensor([5, 7, 5, 5])  # the third one can't be seen
    matches = ids == torch.tensor([[9], [7], [5]])
    found = target_losses(said, copied, generated, matches)
    expected = -torch.tensor([0.25 * 0.4, 0.25 * 0.4 + 0.25, 0.25 * 0.4 + 0.5]).log()
    torch.testing.assert_close(found, expected)


def test_target_that_can_not_be_said_is_learned_by_copying_alone() -> None:
    copied = torch.tensor([[-0.7, -1.2]], requires_grad=True)
    found = target_losses(torch.tensor([math.inf]), copied, torch.tensor([-0.9]), torch.tensor([[True, False]]))
    assert found.item() == pytest.approx(0.7)
    (gradient,) = torch.autograd.grad(found.sum(), copied)
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_numbers_stay_finite_and_so_do_their_gradients(dtype: torch.dtype) -> None:
    logits, scores, rest, ids = example(3, 4, 6, WORDS, seed=0)
    may = allowed(scores, ids)
    may[0], may[1, 2] = False, False
    for size in (1e-3, 1.0, 1e4):
        given = (logits * size).to(dtype).requires_grad_()
        score, left = (scores * size).requires_grad_(), (rest * size).requires_grad_()
        shares = divided(score, left, may)
        found = mixed(given, shares, ids)
        assert found.dtype == dtype
        assert torch.isfinite(found).all()
        assert torch.equal(found[0], given[0]) and torch.equal(found[1, 2], given[1, 2])
        weights = torch.randn(found.shape).to(dtype)
        for gradient in torch.autograd.grad((found * weights).sum(), (given, score, left)):
            assert torch.isfinite(gradient).all()


def test_mixed_bfloat16_is_the_rounded_distribution() -> None:
    logits, scores, rest, ids = example(2, 3, 6, WORDS, seed=1)
    shares = divided(scores, rest, (ids >= 0)[:, None].expand_as(scores))
    found = mixed(logits.bfloat16(), shares, ids)
    expected = probabilities(logits.bfloat16(), shares, ids).log()
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-6)


def test_gradient_of_the_mixture_is_that_of_its_definition() -> None:
    logits, scores, rest, ids = example(2, 3, 6, WORDS, seed=2)
    may, weights = allowed(scores, ids), torch.randn(2, 3, WORDS)
    may[1, 1] = False
    given = [tensor.requires_grad_() for tensor in (logits, scores, rest)]
    ours = torch.autograd.grad((mixed(logits, divided(scores, rest, may), ids).softmax(-1) * weights).sum(), given)
    wide = [tensor.detach().double().requires_grad_() for tensor in given]
    chances = probabilities(wide[0], divided(wide[1], wide[2], may), ids)
    theirs = torch.autograd.grad((chances * weights).sum(), wide)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.double(), their, rtol=1e-4, atol=1e-6)


def test_gradient_of_the_loss_is_that_of_its_definition() -> None:
    """Over targets that stand nowhere, once and often, and places that see nothing."""
    logits, scores, rest, ids = (tensor for tensor in example(3, 5, 7, 6, seed=3))
    may, targets = allowed(scores, ids), torch.randint(6, (3, 5))
    may[2, 1:3] = False
    given = [tensor.double().requires_grad_() for tensor in (logits, scores, rest)]

    def losses(logits: Tensor, scores: Tensor, rest: Tensor) -> Tensor:
        shares = divided(scores, rest, may)
        said = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        matches = (ids[:, None] == targets[..., None]).flatten(0, 1)
        return target_losses(said, shares.copied.flatten(0, 1), shares.generated.flatten(), matches)

    def definition(logits: Tensor, scores: Tensor, rest: Tensor) -> Tensor:
        chances = probabilities(logits, divided(scores, rest, may), ids)
        return -chances.gather(-1, targets[..., None]).log().flatten()

    assert torch.autograd.gradcheck(losses, given)
    torch.testing.assert_close(losses(*given), definition(*given))
    weights = torch.randn(15, dtype=torch.float64)
    ours = torch.autograd.grad((losses(*given) * weights).sum(), given)
    theirs = torch.autograd.grad((definition(*given) * weights).sum(), given)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


# The gate


def gate(hidden: int = HIDDEN, memory: int = MEMORY, width: int = WIDTH, seed: int = 0) -> CopyGate:
    """A gate as it might be after training."""
    torch.manual_seed(seed)
    made = CopyGate(hidden, memory, width)
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, -0.7, 0.7)
    return made


def by_definition(made: CopyGate, hidden: Tensor, features: Tensor, ids: Tensor, visible: Tensor) -> Shares:
    """The gate's formula, place by place, in float64."""
    w = {name: parameter.detach().double() for name, parameter in made.named_parameters()}
    hidden, features = hidden.double(), features.double()

    def normal(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean() + 1e-6).sqrt() * weight

    copied = torch.full((*hidden.shape[:2], features.shape[1]), -math.inf, dtype=torch.float64)
    generated = torch.zeros(hidden.shape[:2], dtype=torch.float64)
    for group, text in ((g, t) for g in range(hidden.shape[0]) for t in range(hidden.shape[1])):
        state = normal(hidden[group, text], w["hidden_norm.weight"])
        query = w["q_proj.weight"] @ state
        scores = {}
        for place in range(features.shape[1]):
            if ids[group, place] < 0 or not visible[group, text, place]:
                continue
            own, before = (normal(features[group, at], w["memory_norm.weight"]) for at in (place, place - 1))
            key = w["token_proj.weight"] @ own
            if place > 0:
                key = key + w["before_proj.weight"] @ before
            scores[place] = query @ key / math.sqrt(len(query))
        rest = (w["sentinel.weight"] @ state + w["sentinel.bias"])[0]
        total = torch.stack([*scores.values(), rest]).logsumexp(0)
        generated[group, text] = rest - total
        for place, score in scores.items():
            copied[group, text, place] = score - total
    return Shares(copied, generated)


@pytest.mark.parametrize("seed", range(4))
def test_gate_is_its_formula(seed: int) -> None:
    made = gate(seed=seed)
    hidden, features, ids = torch.randn(2, 3, HIDDEN), torch.randn(2, 5, MEMORY), torch.randint(-1, 6, (2, 5))
    visible = torch.rand(2, 3, 5) < 0.6
    visible[1, 0] = False
    with torch.no_grad():
        read = made.read(features, ids)
        for seen in (visible, torch.ones_like(visible)):
            shares = made(hidden, read, seen)
            expected = by_definition(made, hidden, features, ids, seen)
            torch.testing.assert_close(shares.copied.double(), expected.copied, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(shares.generated.double(), expected.generated, rtol=1e-5, atol=1e-5)
        assert torch.equal(made(hidden, read).copied, shares.copied)


def test_memory_that_is_padded_for_its_neighbours_is_read_as_it_is_alone() -> None:
    """Also its first token, before which there is none."""
    made = gate()
    features, ids = torch.randn(1, 4, MEMORY), torch.tensor([[3, 1, 4, 1]])
    alone = made.read(features, ids)
    padded = torch.nn.functional.pad(features, (0, 0, 0, 3), value=9.0)
    together = made.read(padded, torch.nn.functional.pad(ids, (0, 3), value=-1))
    torch.testing.assert_close(together.keys[:, :4], alone.keys, rtol=0, atol=1e-6)
    hidden = torch.randn(1, 2, HIDDEN)
    torch.testing.assert_close(made(hidden, together).copied[..., :4], made(hidden, alone).copied, rtol=0, atol=1e-5)


def test_new_gate_copies_little_and_looks_for_what_a_state_expects() -> None:
    """A state like the one before a token is drawn to that token, more than to any other."""
    torch.manual_seed(0)
    made = CopyGate(64, 64, 64)
    features, ids = torch.randn(1, 200, 64), torch.arange(200)[None]
    with torch.no_grad():
        copied = made(features, made.read(features, ids)).copied.exp()
    assert 0.001 < float(copied.sum(-1).mean()) < 0.15
    following = torch.arange(1, 200)
    assert (copied[0, :-1].argmax(-1) == following).float().mean() > 0.95


def test_gate_learns_through_every_parameter_and_in_bfloat16_no_gradient_is_infinite() -> None:
    for seed, cast in ((0, False), (1, True), (2, True)):
        made = gate(seed=seed)
        hidden, features = torch.randn(3, 4, HIDDEN, requires_grad=True), torch.randn(3, 6, MEMORY, requires_grad=True)
        ids, visible, targets = torch.randint(-1, 4, (3, 6)), torch.rand(3, 4, 6) < 0.5, torch.randint(4, (3, 4))
        visible[0] = False
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            shares = made(hidden, made.read(features, ids), visible)
            matches = (ids[:, None] == targets[..., None]).flatten(0, 1)
            said = torch.rand(12) * 5
            losses = target_losses(said, shares.copied.flatten(0, 1), shares.generated.flatten(), matches)
        assert losses.dtype == torch.float32
        found = torch.autograd.grad(losses.sum(), (*made.parameters(), hidden, features))
        assert all(gradient.isfinite().all() and gradient.any() for gradient in found)
        assert not found[-2][0].any()


def test_gradient_of_the_gate_is_that_of_its_formula() -> None:
    made = gate(seed=5)
    hidden, features, ids = torch.randn(2, 3, HIDDEN), torch.randn(2, 5, MEMORY), torch.randint(-1, 4, (2, 5))
    visible, targets, said = torch.rand(2, 3, 5) < 0.7, torch.randint(4, (2, 3)), torch.rand(2, 3) * 4
    hidden.requires_grad_()
    matches = ids[:, None] == targets[..., None]
    shares = made(hidden, made.read(features, ids), visible)
    losses = target_losses(
        said.flatten(), shares.copied.flatten(0, 1), shares.generated.flatten(), matches.flatten(0, 1)
    )
    (ours,) = torch.autograd.grad(losses.sum(), hidden)
    step, numbers = 1e-5, torch.zeros_like(hidden, dtype=torch.float64)

    def loss(moved: Tensor) -> float:
        found = by_definition(made, moved, features, ids, visible)
        copied = (found.copied.exp() * matches).sum(-1)
        return -float((found.generated.exp() * (-said.double()).exp() + copied).log().sum())

    for place in range(hidden.numel()):
        moved = torch.zeros(hidden.numel(), dtype=torch.float64)
        moved[place] = step
        moved = moved.view_as(hidden)
        wide = hidden.detach().double()
        numbers.view(-1)[place] = (loss(wide + moved) - loss(wide - moved)) / (2 * step)
    torch.testing.assert_close(ours.double(), numbers, rtol=1e-3, atol=1e-5)


# In a batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_without_memory_and_blind_places_keep_their_logits_bit_for_bit(dtype: torch.dtype) -> None:
    made = gate().to(dtype)
    features, ids = torch.randn(1, 5, MEMORY, dtype=dtype), torch.tensor([[3, -1, 4, 1, 5]])
    nothing = KeyValues(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2))
    memory = BatchMemory(
        weave="reader",
        layers=(nothing,),
        rows=torch.tensor([0, 2]),
        placement=Placement.of([[(0, 2)], [(0, 0)]]),
        sees="all",
        owners=torch.zeros(1, 5, dtype=torch.long),
        copying=made.read(features, ids),
    )
    hidden, logits = torch.randn(3, 4, HIDDEN, dtype=dtype), torch.randn(3, 4, WORDS, dtype=dtype)
    found = memory.mix(made, hidden, logits, memory.visible(torch.arange(4)), None)
    assert found.dtype == dtype
    assert torch.equal(found[1], logits[1])
    assert torch.equal(found[0, :2], logits[0, :2])
    moved = (found != logits).any(-1)
    assert moved.tolist() == [[False, False, True, True], [False] * 4, [True] * 4]


def test_rows_that_share_a_memory_divide_as_they_do_alone() -> None:
    made = gate()
    features, ids = torch.randn(2, 5, MEMORY), torch.randint(-1, 6, (2, 5))
    hidden = torch.randn(4, 3, HIDDEN)
    nothing = KeyValues(torch.zeros(2, 1, 5, 2), torch.zeros(2, 1, 5, 2))
    memory = BatchMemory(
        weave="reader",
        layers=(nothing,),
        rows=None,
        placement=Placement.of([[(0, 0)], [(0, 1)], [(1, 0)], [(1, 2)]]),
        sees="all",
        owners=torch.zeros(2, 5, dtype=torch.long),
        copying=made.read(features, ids),
    )
    visible = memory.visible(torch.arange(3))
    shares, held = memory.shares(made, hidden, visible, None)
    assert held.tolist() == ids[[0, 0, 1, 1]].tolist()
    for row, item in enumerate((0, 0, 1, 1)):
        copying = CopyKeys(memory.copying.keys[item : item + 1], ids[item : item + 1])
        alone = made(hidden[row : row + 1], copying, visible[row : row + 1])
        torch.testing.assert_close(shares.copied[row], alone.copied[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(shares.generated[row], alone.generated[0], rtol=0, atol=1e-5)
