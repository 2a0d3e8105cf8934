"""The binary versions of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.data.source import MemoryImages, Opened, Source, SourceConfig
from hwnas.data.sources.files import array_images, existing_path
from hwnas.errors import DataError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar(Source):
    """Records of label bytes (the last one counts), then 3,072 pixels in planes of red, green and blue."""

    name: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    label_bytes: int
    classes: tuple[str, ...]
    classes_file: str | None = None
    """Lists the names of the classes, where it is there."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read the files of a folder."""
        root = existing_path(config)
        listing = None if self.classes_file is None else root / self.classes_file
        names = tuple(listing.read_text().split()) if listing is not None and listing.is_file() else self.classes
        return Opened(names, self._read(root, self.train_files), self._read(root, self.test_files))

    def _read(self, root: Path, files: Sequence[str]) -> MemoryImages:
        record = self.label_bytes + PIXELS
        parts = []
        for name in files:
            if not (root / name).is_file():
                raise DataError(f"{root} lacks {name}; give the folder of the binary version of {self.name}")
            values = np.fromfile(root / name, dtype=np.uint8)
            if values.size == 0 or values.size % record:
                raise DataError(f"{root / name} has {values.size} bytes, no multiple of {record}; it is cut short")
            parts.append(values.reshape(-1, record))
        joined = np.concatenate(parts)
        images = joined[:, self.label_bytes :].reshape(-1, 3, 32, 32)
        return array_images(images, joined[:, self.label_bytes - 1], str(root))


CIFAR10 = Cifar(
    "cifar10", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), 1,
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)  # fmt: skip
CIFAR100 = Cifar(  # coarse, then fine label
    "cifar100", ("train.bin",), ("test.bin",), 2, tuple(str(i) for i in range(100)), "fine_label_names.txt"
)
