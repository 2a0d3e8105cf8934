"""The digits of scikit-learn."""

from __future__ import annotations

import numpy as np

from hwnas.data.source import MemoryImages, Opened, Source, SourceConfig


class Digits(Source):
    """1,797 handwritten digits of 43 people (Alpaydin and Kaynak, 1998), 8x8, 17 grey levels."""

    licence = "CC BY 4.0 (Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI)"

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read them from scikit-learn."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        names = tuple(str(n) for n in bunch.target_names)
        return Opened(names, MemoryImages(grey[:, None], bunch.target.astype(np.int64)))


DIGITS = Digits()
