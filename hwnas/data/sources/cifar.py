"""The binary versions of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.data.source import MemoryImages, Opened, Source, SourceConfig
from hwnas.data.sources.files import array_images, existing_path
from hwnas.errors import DataError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar(Source):
    """Records of label bytes (the last counts, or the one that a recipe names), then 3,072 pixels: red, green, blue."""

    name: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    """Names of the classes, by the name of every label byte of a record; `SourceConfig.label_column` chooses one."""

    columns = ("label_column",)

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read the files of a folder."""
        root = existing_path(config)
        column = config.label_column or [*self.labels][-1]
        if column not in self.labels:
            raise DataError(f"data.label_column is {column!r}; the labels of {self.name} are {', '.join(self.labels)}")
        listing = root / f"{column}_label_names.txt"  # lists the names of the classes, where it is there
        try:
            names = tuple(listing.read_text("utf-8").split()) if listing.is_file() else self.labels[column]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{listing} cannot be read: {error}; it should list names of classes") from None
        byte = [*self.labels].index(column)
        return Opened(names, self._read(root, self.train_files, byte), self._read(root, self.test_files, byte))

    def _read(self, root: Path, files: Sequence[str], byte: int) -> MemoryImages:
        record = len(self.labels) + PIXELS
        parts = []
        for name in files:
            if not (root / name).is_file():
                raise DataError(f"{root} lacks {name}; give the folder of the binary version of {self.name}")
            values = np.fromfile(root / name, dtype=np.uint8)
            if values.size == 0 or values.size % record:
                raise DataError(f"{root / name} has {values.size} bytes, no multiple of {record}; it is cut short")
            parts.append(values.reshape(-1, record))
        joined = np.concatenate(parts)
        images = joined[:, len(self.labels) :].reshape(-1, 3, 32, 32)
        return array_images(images, joined[:, byte].astype(np.int64), f"{root}: {files[0]}")


CIFAR10 = Cifar(
    "cifar10", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",),
    {"label": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")},
)  # fmt: skip
CIFAR100 = Cifar(
    "cifar100", ("train.bin",), ("test.bin",),
    {"coarse": tuple(str(i) for i in range(20)), "fine": tuple(str(i) for i in range(100))},
)  # fmt: skip
