"""The digits of scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.data.source import MemoryImages, Opened, Source, SourceConfig


class Digits(Source):
    """1,797 handwritten digits of 43 people (Alpaydin and Kaynak, 1998), 8x8, 17 grey levels."""

    licence = "CC BY 4.0 (Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI)"

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read them from scikit-learn."""
        rows = _rows()
        grey = np.rint(rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        return Opened(tuple(map(str, range(10))), MemoryImages(grey, rows[:, -1].astype(np.int64)))


def _rows() -> NDArray[np.float64]:
    """``(1797, 65)``: 64 grey levels from 0 to 16 and the digit.

    They are read from the package's file where it lies as it has for years: to import scikit-learn takes seconds.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    return np.column_stack([images, digits])


DIGITS = Digits()
