"""The digits of scikit-learn, each among pieces of others: hard enough to tell networks apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.data.source import MemoryImages, Opened, Source, SourceConfig
from hwnas.data.sources.digits import DIGITS

SIZE_PX = 12
"""Edge of a picture; a digit has 8."""
SHIFT_PX = 1
"""A digit lies in the middle, or so far beside it: to find it anywhere would take longer to learn."""
DIGIT_PX, PIECE_PX = 8, 4
PIECES = 2
"""Of other digits in each picture."""
PARTS = {"train": (0.6, 4), "validation": (0.2, 10), "test": (0.2, 5)}
"""Share of the digits, and pictures of each. No digit, and no piece of one, is in two parts."""


class ClutteredDigits(Source):
    """1,797 handwritten digits of 43 people (Alpaydin and Kaynak, 1998), 8x8, in 9,707 pictures of 12x12 pixels.

    Much as Mnih et al., 2014, Recurrent Models of Visual Attention, section 4.1, clutter MNIST: pieces of other digits
    lie anywhere, each pixel is the brightest of what lies there. The pictures are always the same.
    """

    licence = DIGITS.licence

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Make them from scikit-learn's images."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        labels = bunch.target.astype(np.int64)
        rng = np.random.default_rng(0)
        made = {}
        for (name, (_, times)), members in zip(PARTS.items(), _parts(labels, rng), strict=True):
            centre = np.tile(members, times)
            made[name] = MemoryImages(_pictures(grey, members, centre, rng)[:, None], labels[centre])
        return Opened(tuple(map(str, bunch.target_names)), made["train"], made["test"], made["validation"])


def _parts(labels: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Numbers of the digits of each part, every class in the same shares."""
    found: list[list[NDArray[np.int64]]] = [[] for _ in PARTS]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum([share for share, _ in PARTS.values()]) * len(members)).astype(int)
        for part, some in zip(found, np.split(members, ends[:-1]), strict=True):
            part.append(some)
    return [rng.permutation(np.concatenate(part)) for part in found]


def _pictures(
    grey: NDArray[np.uint8], members: NDArray[np.int64], centre: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """``(N, 12, 12)`` pictures of the digits ``centre``, among pieces of ``members``."""
    out = np.zeros((len(centre), SIZE_PX, SIZE_PX), np.uint8)
    for picture, number in zip(out, centre, strict=True):
        for other in rng.choice(members, PIECES):
            y, x = rng.integers(0, DIGIT_PX - PIECE_PX + 1, 2)
            _lay(picture, grey[other, y : y + PIECE_PX, x : x + PIECE_PX], rng.integers(0, SIZE_PX - PIECE_PX + 1, 2))
        middle = (SIZE_PX - DIGIT_PX) // 2
        _lay(picture, grey[number], rng.integers(middle - SHIFT_PX, middle + SHIFT_PX + 1, 2))
    return out


def _lay(picture: NDArray[np.uint8], piece: NDArray[np.uint8], at: NDArray[np.int64]) -> None:
    y, x = at
    place = picture[y : y + len(piece), x : x + len(piece)]
    np.maximum(place, piece, out=place)


CLUTTERED_DIGITS = ClutteredDigits()
