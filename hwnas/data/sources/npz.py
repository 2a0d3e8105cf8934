"""Arrays of an .npz file."""

from __future__ import annotations

from hwnas.data.left_out import LeftOutCounter
from hwnas.data.source import Opened, Source, SourceConfig
from hwnas.data.sources.files import (
    array_images,
    arrays_by_split,
    existing_path,
    labelled_parts,
    labels_by_split,
    npz_arrays,
)
from hwnas.errors import DataError


class Npz(Source):
    """Arrays in MNIST style ``(N, H, W)`` or CIFAR style ``(N, H, W, C)`` or ``(N, C, H, W)``."""

    columns = ("label_column", "image_column")

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read ``x_train``, ``y_train`` and, where they are there, those of other splits and ``classes``."""
        path = existing_path(config)
        arrays = npz_arrays(path)
        x, y = config.image_column or "x", config.label_column or "y"
        splits = arrays_by_split(arrays, (x, y))
        if "train" not in splits or any(set(found) != {x, y} for found in splits.values()):
            raise DataError(
                f"{path} has arrays {sorted(arrays)}; it needs {x}_train and {y}_train, and {x}_test with {y}_test or "
                "neither; data.image_column and data.label_column give other words than these two"
            )
        names = tuple(map(str, arrays["classes"].reshape(-1).tolist())) if "classes" in arrays else None
        classes, labels = labels_by_split({s: arrays[found[y]] for s, found in splits.items()}, names, str(path))
        parts = {s: array_images(arrays[found[x]], labels[s], f"{path}: {found[x]}") for s, found in splits.items()}
        left_out = LeftOutCounter()
        for name in sorted(set(arrays) - {"classes", *(a for found in splits.values() for a in found.values())}):
            left_out.add("arrays that are neither images nor labels of a split", name)
        given = labelled_parts(parts, left_out)
        return Opened(
            classes, given["train"], given.get("test"), given.get("validation"), left_out=left_out.values()
        )  # fmt: skip


NPZ = Npz()
