"""Where are networks trained: on the CPU or on a GPU?"""

from __future__ import annotations

from typing import Literal

import torch

from hwnas.errors import RecipeError

DeviceName = Literal["cpu", "cuda", "auto"]
"""``auto``: a GPU where PyTorch sees one."""


def chosen_device(name: DeviceName) -> torch.device:
    """Return the device that a recipe means.

    Raises:
        RecipeError: no GPU is there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RecipeError("train.device is cuda, but PyTorch sees no GPU; use auto or cpu")
    return torch.device("cuda", torch.cuda.current_device())
