"""Arrays of an .npz file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.errors import DataError

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.sources.files import Read, existing_path, image_set, npz_arrays


def read_npz(config: DataConfig, image_size_px: int) -> Read:
    """Arrays in MNIST style ``(N, H, W)`` or CIFAR style ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8."""
    path = existing_path(config)
    arrays = npz_arrays(path)
    missing = {"x_train", "y_train"} - set(arrays)
    if missing or ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(
            f"{path} has arrays {sorted(arrays)}; it needs x_train and y_train, and x_test with y_test or neither"
        )
    train = image_set(arrays["x_train"], arrays["y_train"], f"{path}: x_train")
    test = image_set(arrays["x_test"], arrays["y_test"], f"{path}: x_test") if "x_test" in arrays else None
    if "classes" in arrays:
        names = tuple(str(c) for c in arrays["classes"])
    else:
        names = tuple(str(i) for i in range(int(train.labels.max()) + 1 if len(train) else 0))
    return train, test, names
