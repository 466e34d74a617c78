"""Options with which tasks hand their words to transformers' ``generate``, checked: what is not known, or would be
passed over, is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from weft.errors import WeftError
from weft.options import check_count, check_names

OWN = {
    "num_beams": "give beams",
    "max_length": "give max_new_tokens",
    "generation_config": "give what it says as options of their own",
    "return_dict_in_generate": "for tensors call generate()",
    "output_scores": "for tensors call generate()",
    "output_logits": "for tensors call generate()",
    "output_attentions": "for tensors call generate()",
    "output_hidden_states": "for tensors call generate()",
    "num_return_sequences": "a task says one thing; give the picture several times, or call generate()",
}
"""What tasks decide themselves, and what to do instead."""
_DRAWING = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": None, "top_h": None, "typical_p": 1.0}
"""Options of drawing, with the values at which they do nothing new."""
_FROM_ZERO = ("top_k", "min_p", "top_h")
"""Those that may be zero."""
_TASKS = ("beams", "bound", "explain", "keep", "length", "mode", "passages", "reading", "source", "top_memory", "where")
"""Options that tasks have of their own, which may have been meant."""


@lru_cache(maxsize=1)
def known_options() -> frozenset[str]:
    """What tasks take."""
    from transformers import GenerationConfig  # which a caption from a cold process does not wait for

    others = {"logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "assistant_model", "streamer"}
    names = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    return frozenset(names - {"transformers_version"} - OWN.keys() | others | {"tokenizer", "seed"})


def check_options(options: dict[str, Any], where: str = "A task", others: Collection[str] = ()) -> None:
    """Refuse options that are not known, or would do nothing.

    Args:
        options: for ``generate``, and ``seed``.
        where: what takes them, for the message.
        others: further names that may have been meant.

    Raises:
        WeftError: one is not known (the near one is suggested), is decided by the task, or is for drawing words where
            none are drawn.
    """
    for name, instead in OWN.items():
        if options.get(name) is not None and (name, options[name]) != ("num_return_sequences", 1):
            raise WeftError(f"{where} decides {name} itself; {instead}.")
    check_names(options.keys() - OWN.keys(), known_options(), where, {*_TASKS, *others})
    drawn = [name for name, idle in _DRAWING.items() if options.get(name, idle) not in (None, idle)]
    if drawn and not options.get("do_sample"):
        raise WeftError(f"{drawn[0]} is for drawing words, and none are drawn; give do_sample=True as well.")
    for name in (*_DRAWING, "repetition_penalty"):
        value = options.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and (value >= 0 if name in _FROM_ZERO else value > 0)):
            least = "from 0 on" if name in _FROM_ZERO else "above 0"
            raise WeftError(f"{name}: {value!r:.100} can't be; give a number {least}.")
    seed = options.get("seed")
    if seed is not None:
        check_count("seed", seed, 0)
        if seed >= 2**63:
            raise WeftError(f"seed: {seed} is too large; give one below 2**63.")


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw from a seed, and leave everybody else's chance as it was; None for chance as it is."""
    if seed is None:
        yield
        return
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
