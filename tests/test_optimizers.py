"""The optimizers, against PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from weft.optimizers import make_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 3))


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(5, 6, generator=generator)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("native", [True, False])
def test_muon_moves_matrices_as_pytorchs_muon_does_and_the_rest_as_adamw(monkeypatch, native):
    monkeypatch.setattr("weft.optimizers.multiplies_bfloat16", lambda device: native)
    ours, theirs = network(), network()
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    others = [p for p in theirs.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)
    optimizer = make_optimizer(ours, "muon", rate=0.01, weight_decay=0.1)
    learn(ours, optimizer, 3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for one in (muon, adamw):
            one.zero_grad()
        theirs(torch.randn(5, 6, generator=generator)).square().sum().backward()
        for one in (muon, adamw):
            one.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        # PyTorch's own rounds its products to bfloat16; three steps move a number by about 0.02.
        assert torch.equal(mine, other) if native else torch.allclose(mine, other, atol=0.003)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_loaded_state_goes_on_to_the_same_weights(name):
    straight, first = network(), network()
    optimizer = make_optimizer(straight, name, rate=0.01, weight_decay=0.1)
    learn(straight, optimizer, 2)
    middle = make_optimizer(first, name, rate=0.01, weight_decay=0.1)
    learn(first, middle, 2)
    second = copy.deepcopy(first)
    resumed = make_optimizer(second, name, rate=0.5, weight_decay=0.1)
    resumed.load_state_dict(middle.state_dict())
    learn(straight, optimizer, 2)
    learn(second, resumed, 2)
    for mine, other in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_changed_rate_of_zero_moves_nothing(name):
    module = network()
    optimizer = make_optimizer(module, name, rate=0.01, weight_decay=0.1)
    before = copy.deepcopy(module.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    learn(module, optimizer, 1)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
