"""Which augmentations of kornia are there for those who have it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hwnas.data.random_state import seeded
from hwnas.errors import DataError


def kornia_augment(pixels: Tensor, wanted: Sequence[Mapping[str, Mapping[str, Any]]], seed: int) -> Tensor:
    """Apply augmentations of kornia one after the other.

    Args:
        pixels: ``(B, C, H, W)`` in 0..1.
        wanted: class names of ``kornia.augmentation`` with their arguments.
        seed: decides all random numbers.

    Raises:
        DataError: kornia is not installed, has no such augmentation, or does not take the arguments.
    """
    try:
        import kornia.augmentation as augmentations
    except ImportError:
        raise DataError("data.augment.kornia needs the package kornia: pip install 'hwnas[kornia]'") from None
    with seeded(seed, pixels.device):
        for entry in wanted:
            for name, arguments in entry.items():
                made = getattr(augmentations, name, None)
                if made is None:
                    raise DataError(f"kornia.augmentation has no {name!r}; see its documentation for the names")
                try:
                    pixels = made(**arguments)(pixels)
                except (TypeError, ValueError) as error:
                    raise DataError(f"data.augment.kornia: {name} with {dict(arguments)}: {error}") from None
    return pixels
