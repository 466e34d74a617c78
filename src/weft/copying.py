"""Copying: attention over the tokens of a memory, used as a distribution over the next word.

A :class:`CopyGate` turns a memory's tokens into keys once, and lets the language model's last hidden states choose
among them and one more place, the sentinel. What falls to the sentinel is what the language model says itself; the
rest falls to the tokens that were looked at. So names and numbers are copied instead of guessed, and each copied word
knows its source (See et al. 2017; the sentinel after Merity et al. 2017).

Notation: ``G`` groups of rows that share a memory, ``T`` text tokens, ``S`` memory tokens, ``V`` words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weft.fusion import RMSNorm, project_real
from weft.memory import CopyKeys

FEW_NAMES = 3.0
"""Where the sentinel of a gate starts that may copy a handful of names."""
MANY_TOKENS = 8.0
"""Where that of one starts that may copy every token of a passage."""
FLOOR = 1e-30
"""Least probability of which a logarithm is taken: below every one that a word is chosen with, and finite."""


@dataclass(frozen=True, eq=False)
class Shares:
    """How the next word's probability is divided; natural logarithms, in float32.

    Attributes:
        copied: what falls to each memory token, ``[G, T, S]``; -inf where one may not be copied.
        generated: what is left to the language model, ``[G, T]``.
    """

    copied: Float[Tensor, "G T S"]
    generated: Float[Tensor, "G T"]


class CopyGate(nn.Module):
    """Decides how much of the next word is copied, and from where.

    A memory token is looked for by two features: its own, and the one before it, which holds what the language model
    expected to follow there. A hidden state that expects the same is drawn to that token, as a nearest-neighbour
    language model is (Khandelwal et al. 2020), and the gate starts out so: with one projection for both, and little
    that is copied.

    A name of several tokens is copied from its first one on, and goes on only where the token before was written; a
    learned weight says how much likelier that is than anything else (as an induction head does; Olsson et al. 2022).

    Args:
        hidden_size: width ``H`` of the language model's last hidden states.
        memory_size: width ``D`` of the memory's features.
        width: width in which they are compared.
        names: whether it copies names.
    """

    def __init__(self, hidden_size: int, memory_size: int, width: int, *, names: bool = False) -> None:
        super().__init__()
        self.hidden_norm = RMSNorm(hidden_size, eps=1e-6)
        self.memory_norm = RMSNorm(memory_size, eps=1e-6)
        self.q_proj = nn.Linear(hidden_size, width, bias=False)
        self.before_proj = nn.Linear(memory_size, width, bias=False)
        self.token_proj = nn.Linear(memory_size, width, bias=False)
        self.sentinel = nn.Linear(hidden_size, 1)
        if hidden_size == memory_size:
            self.before_proj.load_state_dict(self.q_proj.state_dict())
        nn.init.zeros_(self.sentinel.weight)
        # Some hundred tokens together then have a share of a few percent, and a handful of names one of a tenth.
        nn.init.constant_(self.sentinel.bias, FEW_NAMES if names else MANY_TOKENS)
        self.going_on = nn.Parameter(torch.tensor(2 * FEW_NAMES)) if names else None

    def read(
        self,
        features: Float[Tensor, "M N D"],
        ids: Int[Tensor, "M N"],
        mask: Bool[Tensor, "M N"] | None = None,
        begins: Bool[Tensor, "M N"] | None = None,
    ) -> CopyKeys:
        """Keys of a memory's tokens: all the work on the memory that is ever done here.

        A gate for names keeps each token that follows on another to where that one was written.

        Args:
            features: the memory.
            ids: its tokens, -1 where one can't be copied.
            mask: True where a token is real; None when all are.
            begins: True where a token does not follow on the one in front of it; None when only the first does not.
        """
        before, token = project_real(self._parts, features, mask).chunk(2, -1)
        before = F.pad(before[:, :-1], (0, 0, 1, 0))  # before the first there is none
        if begins is not None:
            before = before.masked_fill(begins[..., None], 0.0)
        ids = ids.to(features.device)
        if self.going_on is None:
            return CopyKeys(before + token, ids)
        after = F.pad(ids[:, :-1], (1, 0), value=-1)
        return CopyKeys(before + token, ids, after if begins is None else after.masked_fill(begins, -1))

    def _parts(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R width"]:
        features = self.memory_norm(features)
        return torch.cat((self.before_proj(features), self.token_proj(features)), -1)

    def forward(
        self,
        hidden: Float[Tensor, "G T H"],
        copying: CopyKeys,
        visible: Bool[Tensor, "G T S"] | None = None,
        written: Int[Tensor, "G T"] | None = None,
    ) -> Shares:
        """How the next word's probability is divided.

        Args:
            hidden: last hidden states of the language model, as its head takes them.
            copying: what :meth:`read` returned, ``[G, S, width]``.
            visible: True where a text token may look at a memory token; None when all may.
            written: the tokens that the hidden states stand at; None where they are not known, as where a language
                model is given embeddings, and then no name goes on.
        """
        hidden = self.hidden_norm(hidden)
        query, rest = self.q_proj(hidden), self.sentinel(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            scores = query.float() @ copying.keys.float().mT / math.sqrt(query.shape[-1])
            allowed = (copying.ids >= 0)[:, None]
            allowed = allowed if visible is None else allowed & visible
            if copying.after is not None and self.going_on is not None:
                anywhere = (copying.after < 0)[:, None]
                goes_on = torch.zeros_like(anywhere)
                if written is not None:
                    goes_on = copying.after[:, None] == written.to(copying.after.device)[..., None]
                scores = scores + goes_on * self.going_on.float()
                allowed = allowed & (anywhere | goes_on)
            scores = scores.masked_fill(~allowed, -math.inf)
            shares = torch.cat([scores, rest.float()], -1).log_softmax(-1)
        return Shares(shares[..., :-1], shares[..., -1])


def mixed(logits: Float[Tensor, "G T V"], shares: Shares, ids: Int[Tensor, "G S"]) -> Float[Tensor, "G T V"]:
    """Log-probabilities of all words: what the language model says, and what is copied, each by its share.

    A token that may copy nothing keeps its logits, bit for bit.
    """
    said = logits.float().log_softmax(-1) + shares.generated[..., None]
    places = ids.clamp(min=0)[:, None].expand_as(shares.copied)
    copied = torch.zeros_like(said).scatter_add(-1, places, shares.copied.exp())
    both = torch.logaddexp(said, copied.clamp(min=FLOOR).log())
    copies = (shares.copied > -math.inf).any(-1, keepdim=True)
    return torch.where(copies, both.to(logits.dtype), logits)


def target_losses(
    losses: Float[Tensor, " L"],
    copied: Float[Tensor, "L S"],
    generated: Float[Tensor, " L"],
    matches: Bool[Tensor, "L S"],
) -> Float[Tensor, " L"]:
    """Cross-entropy of right words that may be said or copied, computed in logarithms throughout.

    Args:
        losses: what the language model loses on each right word.
        copied: shares of the memory tokens, as :class:`Shares` has them.
        generated: what is left to the language model.
        matches: True where a memory token is the right word.
    """
    said = generated - losses
    held = matches & (copied > -math.inf)
    found = held.any(-1)
    # A sum over nothing would be -inf, and its gradient not a number: such rows get a finite sum that is not used.
    sums = copied.masked_fill(~held, -math.inf).where(found[:, None], torch.zeros_like(copied)).logsumexp(-1)
    return -torch.where(found, torch.logaddexp(said, sums), said)
