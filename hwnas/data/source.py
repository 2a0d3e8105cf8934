"""What is a source of images? It opens them, says what their labels are called, and gives pixels when it is asked.

A source of one's own is an object with a method `open`, whose parts are `MemoryImages`, `FileImages`, or anything else
with the three members of `Images`::

    class Tiles:
        def open(self, config, size_px):
            files = sorted(existing_path(config).glob("*.tif"))
            return Opened(("field", "forest"), FileImages(files, np.array([int("forest" in f.name) for f in files])))

    tiles = Tiles()  # in a recipe: data.source=my_package.tiles:tiles
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hwnas.data.pictures import square_pixels
from hwnas.errors import DataError

Labels = NDArray[Any]
"""``(N,)`` integers or ``(N, k)`` floats: what the task makes targets of."""
Pixels = NDArray[np.uint8]
"""``(B, C, H, W)``."""


class SourceConfig(BaseModel):
    """What a recipe tells a source."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    source: str = "digits"
    """``digits``: the 1,797 real 8x8 images of scikit-learn; ``npz``: arrays ``x_train``, ``y_train`` and optionally
    ``x_test``, ``y_test``; ``folder``: one folder of images a class, optionally below ``train/`` and ``test/``;
    ``idx``: the four files of MNIST or Fashion-MNIST, also gzipped; ``cifar10``, ``cifar100``: the binary version;
    ``jpeg``: an .npz of files, arrays ``jpeg_train`` (bytes one after the other), ``offset_train`` (where each begins,
    and the end) and ``y_train``, and the same with ``test``; ``huggingface``: name of a dataset of images and class
    labels on the hub, or a folder of ``save_to_disk`` (extra ``datasets``); ``package.module:object``: one of your own,
    see `hwnas.data.source`."""
    path: str | None = None
    """File or folder; where it is not there, it is looked for below the folder that HWNAS_DATA names."""
    cache: str | None = None
    """Folder in which decoded images of the source ``folder`` are kept as uint8, so that they are decoded once."""
    image_size_px: int | None = Field(default=None, gt=0, le=8192)
    """Edge to which images of ``folder`` and ``huggingface`` are resized (shorter edge, then centre crop); default:
    that of the largest resolution of the recipe."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What else a source of your own wants to know."""


class Images(Protocol):
    """Some images of a source; nothing needs to be in memory before `pixels` asks for it."""

    def __len__(self) -> int:
        """How many."""
        ...

    @property
    def labels(self) -> Labels:
        """Of all images, in their order."""
        ...

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return the images ``indices``, in this order, all of one size and with 1 or 3 channels.

        Args:
            indices: ``(B,)`` numbers from 0, at least one.
            size_px: edge to which images that differ in size are brought. Images that all have one size may come as
                they are: they are brought to the resolution of each network later.

        Raises:
            DataError: an image cannot be read; its file is named.
        """
        ...


@dataclass(frozen=True)
class Opened:
    """What a source gives."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of their numbers; of other tasks what the network's outputs stand for."""
    train: Images
    test: Images | None = None
    """None: a share of ``train`` is held out as the recipe says (``data.test_percent``)."""


class Source(Protocol):
    """Where images come from."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Find the images and read their labels.

        Args:
            config: the section ``data`` of a recipe.
            size_px: edge that `Images.pixels` will be asked for.

        Raises:
            DataError: they are not there, or damaged.
        """
        ...


@dataclass(frozen=True)
class MemoryImages:
    """Images of one size, in memory or in a memory map."""

    images: Pixels
    """``(N, C, H, W)``."""
    labels: Labels

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return them as they are; see `Images.pixels`."""
        if len(indices) == len(self.images) and np.array_equal(indices, np.arange(len(indices))):
            return self.images  # a memory map stays one
        return self.images[indices]


@dataclass(frozen=True)
class FileImages:
    """Image files, decoded when their pixels are asked for: shorter edge resized, centre cut out, as RGB."""

    files: Sequence[Path]
    labels: Labels

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Decode the files ``indices``; see `Images.pixels`."""
        out = np.empty((len(indices), 3, size_px, size_px), dtype=np.uint8)
        self.decode_into(out, indices)
        return out

    def decode_into(self, out: Pixels, indices: NDArray[np.int64]) -> None:
        """Write the pixels of the files ``indices`` into ``(B, 3, size, size)``.

        Raises:
            DataError: a file is no image, or a broken one; it is named.
        """
        from PIL import Image, UnidentifiedImageError

        for row, index in enumerate(indices.tolist()):
            path = self.files[index]
            try:
                with Image.open(path) as file:
                    out[row] = square_pixels(file, out.shape[2])
            except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
                raise DataError(f"cannot read image {path}: {error}; repair or remove the file") from None
