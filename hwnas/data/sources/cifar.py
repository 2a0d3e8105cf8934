"""The binary versions of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas.errors import DataError

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.sources.files import Read, existing_path, image_set

CIFAR10_CLASSES: tuple[str, ...] = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def read_cifar(config: DataConfig, image_size_px: int) -> Read:
    """The binary version of CIFAR-10 or CIFAR-100: label bytes, then 3,072 pixels, red, green and blue planes."""
    root = existing_path(config)
    if config.source == "cifar10":
        n_labels, names = 1, CIFAR10_CLASSES
        files = ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"])
    else:  # coarse, then fine label
        n_labels, files = 2, (["train.bin"], ["test.bin"])
        listing = root / "fine_label_names.txt"
        names = tuple(listing.read_text().split()) if listing.is_file() else tuple(str(i) for i in range(100))
    parts = []
    for group in files:
        records = []
        for name in group:
            if not (root / name).is_file():
                raise DataError(f"{root} lacks {name}; give the folder of the binary version of {config.source}")
            values = np.fromfile(root / name, dtype=np.uint8)
            if values.size == 0 or values.size % (n_labels + 3072):
                raise DataError(
                    f"{root / name} has {values.size} bytes, no multiple of {n_labels + 3072}; it is cut short"
                )
            records.append(values.reshape(-1, n_labels + 3072))
        joined = np.concatenate(records)
        images = joined[:, n_labels:].reshape(-1, 3, 32, 32)
        parts.append(image_set(images, joined[:, n_labels - 1], str(root)))
    return parts[0], parts[1], names
