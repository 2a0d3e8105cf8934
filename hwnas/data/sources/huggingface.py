"""Datasets of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.data.pictures import square_pixels
from hwnas.data.source import Labels, Opened, Pixels, Source, SourceConfig
from hwnas.errors import DataError


class HuggingFace(Source):
    """A dataset of the Hugging Face hub or of ``save_to_disk``, with one column of images and one of class labels."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Load the dataset; images are decoded when their pixels are asked for."""
        try:
            import datasets
        except ImportError:
            raise DataError(
                "data.source huggingface needs the package datasets: pip install 'hwnas[datasets]'"
            ) from None
        if config.path is None:
            raise DataError(
                "data source 'huggingface' needs data.path: the name of a dataset, or a folder of save_to_disk"
            )
        try:
            local = Path(config.path).expanduser()
            found = datasets.load_from_disk(str(local)) if local.is_dir() else datasets.load_dataset(config.path)
        except (OSError, ValueError, ConnectionError) as error:
            raise DataError(f"data.path {config.path!r} cannot be loaded with datasets: {error}") from None
        splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
        if "train" not in splits:
            raise DataError(f"dataset {config.path!r} has splits {sorted(splits)}; it needs train")
        columns = splits["train"].features
        images = [k for k, v in columns.items() if isinstance(v, datasets.Image)]
        labels = [k for k, v in columns.items() if isinstance(v, datasets.ClassLabel)]
        if len(images) != 1 or len(labels) != 1:
            raise DataError(
                f"dataset {config.path!r} has image columns {images} and label columns {labels}; it needs one of each"
            )
        parts = {
            name: RowImages(split, images[0], np.array(list(split[labels[0]]), dtype=np.int64))
            for name, split in splits.items()
            if name in ("train", "test", "validation")
        }
        return Opened(tuple(columns[labels[0]].names), parts["train"], parts.get("test", parts.get("validation")))


@dataclass(frozen=True)
class RowImages:
    """A column of images of a dataset."""

    rows: Any
    column: str
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return ``(B, 3, size_px, size_px)``."""
        out = np.empty((len(indices), 3, size_px, size_px), dtype=np.uint8)
        for place, index in enumerate(indices.tolist()):
            out[place] = square_pixels(self.rows[index][self.column], size_px)
        return out


HUGGINGFACE = HuggingFace()
