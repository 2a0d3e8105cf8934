"""What sources share: finding files, arrays of an .npz, checks of images and labels."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from hwnas.data.left_out import LeftOutCounter
from hwnas.data.pictures import NoRuleError, eight_bits, without_alpha
from hwnas.data.source import Images, Labels, MemoryImages, Pixels, SourceConfig
from hwnas.data.sources.labels import MISSING, mapped, names_of, numbered, unlabelled
from hwnas.data.split_names import SplitName, chosen_splits, split_of
from hwnas.errors import DataError, UnreadableError, one_line
from hwnas.reading import check_memory, unpacked_zip_bytes


class HasName(Images, Protocol):
    """Images that say what they are."""

    @property
    def name(self) -> str:
        """Such as ``file.npz: x_train``."""
        ...


Named = TypeVar("Named", bound=HasName)


def npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz; never a pickle."""
    try:
        check_memory(unpacked_zip_bytes(path), path)
    except (UnreadableError, OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else one_line(str(error))
        raise DataError(f"{path} cannot be read as .npz: {reason}; write it with numpy.savez") from None
    try:
        with path.open("rb") as raw:  # opened here, so that it is closed where NumPy gives up on it
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it holds a single array without a name")
            return {k: file[k] for k in file.files}
    except Exception as error:  # of zipfile, zlib and NumPy: ten classes at least, on damaged files
        reason = one_line(str(error)) or type(error).__name__
        raise DataError(f"{path} cannot be read as .npz: {reason}; write it with numpy.savez") from error


def arrays_by_split(arrays: Mapping[str, np.ndarray], columns: Sequence[str]) -> dict[SplitName, dict[str, str]]:
    """Return which array is which column of which split: ``x_train``, ``x_val``, also ``train_images``.

    Args:
        arrays: of an .npz.
        columns: such as ``x`` and ``y``.
    """
    found: dict[SplitName, dict[str, str]] = {}
    for column in columns:
        splits = {}
        for name in arrays:
            for rest in (name.removeprefix(f"{column}_"), name.removesuffix(f"_{column}")):
                if rest != name and split_of(rest):
                    splits[rest] = name
        for split, rest in chosen_splits(splits).items():
            found.setdefault(split, {})[column] = splits[rest]
    return found


def labels_by_split(
    labels: Mapping[SplitName, Labels], names: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], dict[SplitName, Labels]]:
    """Return the names of the classes, and labels as a task takes them; texts become numbers of classes.

    Args:
        labels: of every split, as an array has them.
        names: of the classes; None: those that the training labels have, or numbers.
        where: begins messages.

    Raises:
        DataError: labels of a test split that training has not, or of another type or shape.
    """
    found: dict[SplitName, Labels] = {}
    for split, values in labels.items():
        what = f"{where}, split {split}"
        if values.dtype.kind in "US":
            own, numbers = names_of(values.reshape(-1).tolist())
            names = names if names is not None else own  # "train" comes first
            found[split] = mapped(numbers, own, names, what)
        elif values.dtype.kind in "iub":
            if values.ndim > 1 and values.size != len(values):
                raise DataError(
                    f"{what}: labels have shape {values.shape}; give one number an image, of one-hot labels y.argmax(1)"
                )
            found[split] = values.reshape(-1).astype(np.int64)
        elif values.dtype.kind == "f" and np.isfinite(values).all():
            found[split] = values.reshape(len(values), -1) if values.ndim else values.reshape(0, 1)
        else:
            reason = "not all finite" if values.dtype.kind == "f" else str(values.dtype)
            raise DataError(f"{what}: labels are {reason}; they must be integers, floats or texts")
    return tuple(names) if names is not None else numbered(found["train"], where), found


def array_images(x: np.ndarray, y: Labels, where: str) -> MemoryImages:
    """Return arrays as images; ``where`` names them in errors.

    Args:
        x: ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, C 1 or 3, or ``(N, H, W, 4)`` with an alpha channel; of
            types that `hwnas.data.pictures` has rules for.
        y: ``(N,)`` integers or ``(N, k)`` floats.
        where: such as ``file.npz: x_train``.

    Raises:
        DataError: another shape or type.
    """
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f"{where} has shape {x.shape}; use (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, "
            "or (N, H, W, 4) with alpha"
        )
    if len(x) != len(y):
        raise DataError(f"{where} has {len(x)} images but {len(y)} labels")
    if len(x) and 0 in x.shape:
        raise DataError(f"{where} has images without pixels, shape {x.shape}")
    try:
        pixels: Pixels = eight_bits(x)
    except NoRuleError as error:
        raise DataError(f"{where}: {error}") from None
    if x.shape[1] == 4:
        pixels = without_alpha(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return MemoryImages(np.array(pixels, order="C"), y, where)


def labelled_parts(parts: Mapping[SplitName, Named], left_out: LeftOutCounter) -> dict[SplitName, Named]:
    """Return the splits that have labels; one whose every label is `MISSING` is left out."""
    found = {}
    for split, images in parts.items():
        if split != "train" and unlabelled(images.labels):
            left_out.add(f"images of {split}, which have no label ({MISSING})", images.name, len(images))
        else:
            found[split] = images
    return found


def existing_path(config: SourceConfig) -> Path:
    """Return the file or folder that ``data.path`` names, here or below the folder HWNAS_DATA.

    Raises:
        DataError: there is none.
    """
    if config.path is None:
        raise DataError(f"data source {config.source!r} needs data.path")
    try:
        path = Path(config.path).expanduser()
        elsewhere = Path(os.environ.get("HWNAS_DATA", ".")).expanduser() / path
        found = path if path.exists() else elsewhere
        exists = bool(config.path) and found.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a user that is not known
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.path {config.path[:100]!r} cannot be looked for: {reason}; give another") from None
    if not exists:
        raise DataError(
            f"data.path {config.path!r} does not exist; give the file or folder of your images, "
            "or set HWNAS_DATA to the folder that holds it"
        )
    return found
