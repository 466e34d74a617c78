"""The optimizers that a recipe can name: :func:`make_optimizer` is given a weave and hands on what moves its weights.

``"muon"`` orthogonalizes the momentum of every matrix (Jordan et al. 2024), with the steps' size matched to AdamW's
(Liu et al. 2025), so that one learning rate serves both; whatever is no matrix is AdamW's. On captions it reaches in 50
steps the loss for which AdamW needs more than 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weft.packing import multiplies_bfloat16

Name = Literal["muon", "adamw"]
BETAS = (0.9, 0.98)


def named(learned: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of a module by their names, or those that are given so."""
    return dict(learned.named_parameters() if isinstance(learned, nn.Module) else learned)


def make_optimizer(
    learned: nn.Module | Mapping[str, Tensor], name: Name, *, rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer for what learns; scales and positions are not decayed.

    Args:
        learned: a module that learns, or parameters by name.
        name: ``"muon"`` or ``"adamw"``.
        rate: learning rate.
        weight_decay: of matrices.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for key, parameter in named(learned).items():
        if parameter.requires_grad:
            table = key.endswith(("positions", "queries"))  # learned embeddings: no matrix that anything goes through
            (matrices if parameter.ndim == 2 and not table else others).append(parameter)
    if name == "muon":
        return MuonAdamW(matrices, others, rate=rate, weight_decay=weight_decay)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS)


def cosine(step: int, total: int, warmup: int, left: float) -> float:
    """The share of the highest learning rate at a step: a linear rise, then a cosine (Loshchilov and Hutter 2017).

    Args:
        step: counted from zero.
        total: steps of the run.
        warmup: steps of the rise.
        left: the share at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return left + (1 - left) * 0.5 * (1 + math.cos(math.pi * done))


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for the rest, with the groups and the state of one optimizer.

    Args:
        matrices: parameters of two dimensions.
        others: all other parameters.
        rate: learning rate of both.
        weight_decay: of the matrices.
    """

    def __init__(self, matrices: list[Tensor], others: list[Tensor], *, rate: float, weight_decay: float) -> None:
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(Muon(matrices, lr=rate, weight_decay=weight_decay))
        if others:
            self.parts.append(torch.optim.AdamW(others, lr=rate, betas=BETAS, weight_decay=0.0))
        super().__init__([group for part in self.parts for group in part.param_groups], {"lr": rate})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each part."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for part, group in zip(self.parts, self.param_groups, strict=True):  # a loaded state brings new groups
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss


class Muon(torch.optim.Optimizer):
    """Momentum of which only the directions count: every singular value of a step is about the same.

    As ``torch.optim.Muon``, which always multiplies in bfloat16: a processor that has to emulate it takes twenty times
    as long as in float32, and a step of the optimizer longer than all that comes before it.

    Args:
        matrices: parameters of two dimensions.
        lr: learning rate; a matrix moves as far as AdamW would move it.
        weight_decay: share of a matrix, in steps, that is taken away.
    """

    MOMENTUM = 0.95

    def __init__(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - self.MOMENTUM)
                update = orthogonalized(matrix.grad.lerp(momentum, self.MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * group["lr"])


def orthogonalized(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors and singular values near one: five Newton-Schulz iterations."""
    x = matrix.to(torch.bfloat16 if multiplies_bfloat16(matrix.device) else torch.float32)
    x = x.T if len(matrix) > matrix.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return x.T if len(matrix) > matrix.shape[1] else x
