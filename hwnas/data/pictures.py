"""How does a picture of any size become a square of pixels?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


def square_pixels(image: Image, size_px: int) -> NDArray[np.uint8]:
    """Return ``(3, size_px, size_px)``: the shorter edge resized to ``size_px``, then the centre."""
    image = image.convert("RGB")
    scale = size_px / min(image.size)
    width, height = (max(size_px, round(edge * scale)) for edge in image.size)
    image = image.resize((width, height), 2)  # bilinear
    left, top = (width - size_px) // 2, (height - size_px) // 2
    return np.asarray(image.crop((left, top, left + size_px, top + size_px))).transpose(2, 0, 1)
