"""How bright are many images? Sums over their pixels, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Levels:
    """Adds up pixels, channel by channel; memory does not grow with their number."""

    sums: NDArray[np.float64] | None = None
    squares: NDArray[np.float64] | None = None
    n_pixels: int = 0
    lowest: int = 255
    highest: int = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Count ``(B, C, H, W)`` bytes."""
        values = pixels.astype(np.float64)
        sums, squares = values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))
        self.sums = sums if self.sums is None else self.sums + sums
        self.squares = squares if self.squares is None else self.squares + squares
        self.n_pixels += pixels.size // pixels.shape[1]
        self.lowest = min(self.lowest, int(pixels.min()))
        self.highest = max(self.highest, int(pixels.max()))

    def values(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of every channel, 0 to 255; empty before anything is added."""
        if self.sums is None or self.squares is None:
            return [], []
        mean = self.sums / self.n_pixels
        deviation = np.sqrt(np.maximum(self.squares / self.n_pixels - mean**2, 0))
        return mean.tolist(), deviation.tolist()
