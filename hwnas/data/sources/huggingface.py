"""Datasets of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwnas.errors import DataError

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.images import ImageSet
from hwnas.data.sources.files import Read
from hwnas.data.sources.pictures import square_pixels


def read_huggingface(config: DataConfig, image_size_px: int) -> Read:
    """A dataset of the Hugging Face hub or of ``save_to_disk``, with one column of images and one of class labels."""
    try:
        import datasets
    except ImportError:
        raise DataError("data.source huggingface needs the package datasets: pip install 'hwnas[datasets]'") from None
    if config.path is None:
        raise DataError("data source 'huggingface' needs data.path: the name of a dataset, or a folder of save_to_disk")
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

    def read(split: Any) -> ImageSet:
        pixels = np.empty((len(split), 3, image_size_px, image_size_px), dtype=np.uint8)
        for row, image in enumerate(split[images[0]]):
            pixels[row] = square_pixels(image, image_size_px)
        return ImageSet(torch.from_numpy(pixels), torch.tensor(list(split[labels[0]]), dtype=torch.int64))

    held_out = next((splits[k] for k in ("test", "validation") if k in splits), None)
    return read(splits["train"]), None if held_out is None else read(held_out), tuple(columns[labels[0]].names)
