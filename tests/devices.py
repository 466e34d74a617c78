"""The device on which the tests compute: ``WEFT_TEST_DEVICE``, such as ``cuda``; a CPU by default.

``pretended`` is one that a CPU plays (:mod:`pretended`): slow, and it refuses what a GPU would.
"""

from __future__ import annotations

import os

import torch

NAME = os.environ.get("WEFT_TEST_DEVICE", "cpu")
if NAME == "pretended":
    import pretended  # noqa: F401  (which makes it known)
DEVICE = torch.device(NAME)
