"""The digits of scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.images import ImageSet
from hwnas.data.sources.files import Read


def read_digits(config: DataConfig, image_size_px: int) -> Read:
    """1,797 handwritten digits of 43 people (Alpaydin and Kaynak, 1998), 8x8, 17 grey levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = ImageSet(torch.from_numpy(grey)[:, None].contiguous(), torch.from_numpy(bunch.target).to(torch.int64))
    return images, None, tuple(str(n) for n in bunch.target_names)
