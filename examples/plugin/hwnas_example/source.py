"""A source of images: bright rectangles on noise, made when they are asked for, so that they need no memory."""

from dataclasses import dataclass

import numpy as np

from hwnas import DataError, Opened

SIZE_PX = 16


@dataclass(frozen=True)
class RectangleImages:
    """``n`` pictures; picture i follows from (seed, i) alone."""

    n: int
    seed: int

    def __len__(self) -> int:
        return self.n

    def _box(self, i: int) -> np.ndarray:
        """Left, top, width and height in pixels."""
        rng = np.random.default_rng([self.seed, i])
        width, height = rng.integers(3, SIZE_PX - 1, 2)
        return np.array([rng.integers(0, SIZE_PX - width + 1), rng.integers(0, SIZE_PX - height + 1), width, height])

    @property
    def labels(self) -> np.ndarray:
        """``(N, 2)``: width and height in shares of the picture's edge."""
        return np.stack([self._box(i)[2:] for i in range(self.n)]) / SIZE_PX

    def pixels(self, indices: np.ndarray, size_px: int) -> np.ndarray:
        """Return ``(B, 1, 16, 16)`` uint8; all have one size, so ``size_px`` is not needed."""
        out = np.empty((len(indices), 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
        for row, i in enumerate(indices):
            left, top, width, height = self._box(int(i))
            out[row, 0] = np.random.default_rng([self.seed, int(i), 1]).integers(0, 80, (SIZE_PX, SIZE_PX))
            out[row, 0, top : top + height, left : left + width] = 220
        return out


class Rectangles:
    """As many pictures as ``data.options.images`` says, and a third of that to test."""

    def open(self, config, size_px: int) -> Opened:
        """Nothing is made yet."""
        n = config.options.get("images", 300)
        if not isinstance(n, int) or n < 6:
            raise DataError(f"data.options.images is {n!r}; give a whole number of at least 6")
        return Opened(("width", "height"), RectangleImages(n, config.seed), RectangleImages(n // 3, config.seed + 1))


RECTANGLES = Rectangles()
