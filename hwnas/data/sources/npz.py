"""Arrays of an .npz file."""

from __future__ import annotations

from hwnas.data.source import Opened, Source, SourceConfig
from hwnas.data.sources.files import array_images, existing_path, npz_arrays, numbered
from hwnas.errors import DataError


class Npz(Source):
    """Arrays in MNIST style ``(N, H, W)`` or CIFAR style ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read ``x_train``, ``y_train`` and, where they are there, ``x_test``, ``y_test`` and ``classes``."""
        path = existing_path(config)
        arrays = npz_arrays(path)
        missing = {"x_train", "y_train"} - set(arrays)
        if missing or ("x_test" in arrays) != ("y_test" in arrays):
            raise DataError(
                f"{path} has arrays {sorted(arrays)}; it needs x_train and y_train, and x_test with y_test or neither"
            )
        train = array_images(arrays["x_train"], arrays["y_train"], f"{path}: x_train")
        test = array_images(arrays["x_test"], arrays["y_test"], f"{path}: x_test") if "x_test" in arrays else None
        names = tuple(str(c) for c in arrays["classes"]) if "classes" in arrays else numbered(train.labels)
        return Opened(names, train, test)


NPZ = Npz()
