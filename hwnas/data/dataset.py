"""Which images and labels does a run use, and which of them may the search see?

A dataset is decoded once into uint8 tensors. Training sees ``train``, the search sees ``validation``, and
``test`` is used once, for the final table.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hwnas.data.augment import AugmentConfig
from hwnas.errors import DataError
from hwnas.files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
Percent = Annotated[float, Field(gt=0, lt=100)]


class DataConfig(BaseModel):
    """Where the images come from and how they are split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["digits", "npz", "folder", "idx", "cifar10", "cifar100", "jpeg", "huggingface"] = "digits"
    """``digits``: the 1,797 real 8x8 images of scikit-learn; ``npz``: arrays ``x_train``, ``y_train`` and optionally
    ``x_test``, ``y_test``; ``folder``: one folder of images a class, optionally below ``train/`` and ``test/``;
    ``idx``: the four files of MNIST or Fashion-MNIST, also gzipped; ``cifar10``, ``cifar100``: the binary version;
    ``jpeg``: an .npz of files, arrays ``jpeg_train`` (bytes one after the other), ``offset_train`` (where each begins,
    and the end) and ``y_train``, and the same with ``test``; ``huggingface``: name of a dataset of images and class
    labels on the hub, or a folder of ``save_to_disk`` (extra ``datasets``)."""
    path: str | None = None
    """File or folder; where it is not there, it is looked for below the folder that HWNAS_DATA names."""
    cache: str | None = None
    """Folder in which decoded images of the source ``folder`` are kept as uint8, so that they are decoded once."""
    image_size_px: Annotated[int, Field(gt=0)] | None = None
    """Edge to which images of ``folder`` and ``huggingface`` are resized (shorter edge, then centre crop); default:
    that of the largest resolution of the recipe."""
    validation_percent: Percent = 15.0
    """Share of the training images held out for the search, the same share of every class."""
    test_percent: Percent = 20.0
    """Share held out for the test split where the source has none."""
    max_images: Annotated[int, Field(gt=0)] | None = None
    """Use only this many images of every split, in their order; None: all."""
    seed: int = 0
    """Of the splits."""
    augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in memory."""

    images: Tensor
    """``(N, C, H, W)`` uint8."""
    labels: Tensor
    """``(N,)`` int64."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> ImageSet:
        """Return the rows ``index``."""
        return ImageSet(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> ImageSet:
        """Return the same on a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Splits:
    """A dataset ready for use."""

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet

    @cached_property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel of the training images, for pixel values in 0..1."""
        x = self.train.images.to(torch.float64) / 255.0
        std = x.std((0, 2, 3)).clamp(min=1e-3)
        return tuple(x.mean((0, 2, 3)).tolist()), tuple(std.tolist())

    @cached_property
    def sha256(self) -> str:
        """Sixteen hexadecimal digits that change with any pixel or label."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(part.images.contiguous().numpy().tobytes())
            digest.update(part.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def load_data(config: DataConfig, in_channels: int, classes: int, image_size_px: int) -> Splits:
    """Read, check and split a dataset.

    Args:
        config: where it is.
        in_channels: image channels that the network takes; grey images are repeated for 3, RGB images are an error
            for 1.
        classes: how many classes the network has.
        image_size_px: edge for images of differing sizes (``folder``) where the config names none.

    Raises:
        DataError: nothing there, no images, fewer than two classes, a broken image, labels out of range, or images
            that do not fit the network.
    """
    train, test, names = READERS[config.source](config, config.image_size_px or image_size_px)
    what = f"data source {config.source!r}" + (f" at {config.path}" if config.path else "")
    if len(train) == 0:
        raise DataError(f"{what} has no training images; give at least a few per class")
    train = _with_channels(train, in_channels, what)
    test = None if test is None else _with_channels(test, in_channels, what)
    if len(names) < 2 or int(train.labels.min()) == int(train.labels.max()):
        raise DataError(f"{what} has one class only; a classifier needs at least two")
    for part in (train, test):
        if part is not None and len(part) and (int(part.labels.min()) < 0 or int(part.labels.max()) >= classes):
            low, high = int(part.labels.min()), int(part.labels.max())
            raise DataError(
                f"{what} has labels from {low} to {high}, but the network has {classes} classes (0 to {classes - 1}); "
                f"set supernet.classes={high + 1} or correct the labels"
            )
    if len(names) != classes:
        raise DataError(f"{what} has {len(names)} classes, the network {classes}; set supernet.classes={len(names)}")
    if test is None:
        test, train = _split(train, config.test_percent, config.seed)
    validation, train = _split(train, config.validation_percent, config.seed + 1)
    if config.max_images is not None:
        train, validation, test = (
            p.take(torch.arange(min(len(p), config.max_images))) for p in (train, validation, test)
        )
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if len(part) == 0:
            raise DataError(f"{what} leaves no {name} images; give more images or change the split percentages")
    return Splits(config.source, names, train, validation, test)


def _split(images: ImageSet, percent: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Cut ``percent`` of every class off; the rest comes second. Both keep a shuffled, class-mixed order."""
    rng = np.random.default_rng(seed)
    labels = images.labels.numpy()
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: max(1, round(len(members) * percent / 100))]] = True
    order = rng.permutation(len(labels))
    return (
        images.take(torch.from_numpy(order[held_out[order]])),
        images.take(torch.from_numpy(order[~held_out[order]])),
    )


def _with_channels(part: ImageSet, in_channels: int, what: str) -> ImageSet:
    given = part.images.shape[1]
    if given == in_channels:
        return part
    if given == 1:
        return ImageSet(part.images.expand(-1, in_channels, -1, -1).contiguous(), part.labels)
    raise DataError(
        f"{what} has images of {given} channels, the network takes {in_channels}; set supernet.in_channels={given}"
    )


# -- readers: each returns train, test (None: to be split off) and class names ------------------------

Read = tuple[ImageSet, ImageSet | None, tuple[str, ...]]


def _read_digits(config: DataConfig, image_size_px: int) -> Read:
    """1,797 handwritten digits of 43 people (Alpaydin and Kaynak, 1998), 8x8, 17 grey levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = ImageSet(torch.from_numpy(grey)[:, None].contiguous(), torch.from_numpy(bunch.target).to(torch.int64))
    return images, None, tuple(str(n) for n in bunch.target_names)


def _read_npz(config: DataConfig, image_size_px: int) -> Read:
    """Arrays in MNIST style ``(N, H, W)`` or CIFAR style ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8."""
    path = _existing(config)
    arrays = _npz_arrays(path)
    missing = {"x_train", "y_train"} - set(arrays)
    if missing or ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(
            f"{path} has arrays {sorted(arrays)}; it needs x_train and y_train, and x_test with y_test or neither"
        )
    train = _image_set(arrays["x_train"], arrays["y_train"], f"{path}: x_train")
    test = _image_set(arrays["x_test"], arrays["y_test"], f"{path}: x_test") if "x_test" in arrays else None
    if "classes" in arrays:
        names = tuple(str(c) for c in arrays["classes"])
    else:
        names = tuple(str(i) for i in range(int(train.labels.max()) + 1 if len(train) else 0))
    return train, test, names


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz; never a pickle."""
    try:
        with path.open("rb") as raw:  # opened here, so that it is closed where NumPy gives up on it
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it holds a single array without a name")
            return {k: file[k] for k in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}; write it with numpy.savez") from None


def _image_set(x: np.ndarray, y: np.ndarray, where: str) -> ImageSet:
    if x.dtype != np.uint8:
        raise DataError(f"{where} is {x.dtype}; images must be uint8 (0 to 255)")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f"{where} has shape {x.shape}; use (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
        )
    y = y.reshape(-1)
    if len(x) != len(y):
        raise DataError(f"{where} has {len(x)} images but {len(y)} labels")
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{where}: labels are {y.dtype}; they must be integers")
    return ImageSet(torch.from_numpy(np.array(x, order="C")), torch.from_numpy(y.astype(np.int64)))


def _read_folder(config: DataConfig, image_size_px: int) -> Read:
    """One folder a class, or ``train/`` and ``test/`` with one folder a class each."""
    root = _existing(config)
    if not root.is_dir():
        raise DataError(f"{root} is a file; source 'folder' needs a folder with one folder of images a class")
    train_root = root / "train" if (root / "train").is_dir() else root
    names = tuple(sorted(p.name for p in train_root.iterdir() if p.is_dir()))
    cache = None if config.cache is None else Path(config.cache).expanduser()
    train = _decode_classes(train_root, names, image_size_px, cache)
    test = _decode_classes(root / "test", names, image_size_px, cache) if (root / "test").is_dir() else None
    return train, test, names


def _decode_classes(root: Path, names: tuple[str, ...], size_px: int, cache: Path | None) -> ImageSet:
    """Decode every image below ``root/<class>/``, or read what an earlier start decoded of the same files."""
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    ]
    labels = torch.tensor([label for _, label in found], dtype=torch.int64)
    if not found:
        return ImageSet(torch.zeros(0, 3, size_px, size_px, dtype=torch.uint8), labels)
    shape = (len(found), 3, size_px, size_px)
    if cache is None:
        pixels = np.empty(shape, dtype=np.uint8)
        _decode_into(pixels, [path for path, _ in found])
        return ImageSet(torch.from_numpy(pixels), labels)
    listing = [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p, _ in found]
    digest = hashlib.sha256(json.dumps([str(root.resolve()), size_px, listing]).encode()).hexdigest()[:16]
    path = cache / f"{root.name}-{size_px}px-{digest}.npy"

    def fill(temporary: Path) -> None:
        whole = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        _decode_into(whole, [p for p, _ in found])
        whole.flush()

    if not path.exists():
        write_atomically(path, fill)
    if not path.exists():  # another process is to write it
        return _decode_classes(root, names, size_px, None)
    # Pages are read when they are used, and a change of them stays in memory.
    return ImageSet(torch.from_numpy(np.load(path, mmap_mode="c")), labels)


def _decode_into(out: NDArray[np.uint8], files: Sequence[Path]) -> None:
    """Write the pixels of image files into ``(N, 3, H, H)``; a broken file is an error that names it."""
    from PIL import Image, UnidentifiedImageError

    for row, path in enumerate(files):
        try:
            with Image.open(path) as file:
                out[row] = _square(file, out.shape[2])
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise DataError(f"cannot read image {path}: {error}; repair or remove the file") from None


def _square(image: Image, size_px: int) -> NDArray[np.uint8]:
    """``(3, size_px, size_px)``: the shorter edge resized to ``size_px``, then the centre."""
    image = image.convert("RGB")
    scale = size_px / min(image.size)
    width, height = (max(size_px, round(edge * scale)) for edge in image.size)
    image = image.resize((width, height), 2)  # bilinear
    left, top = (width - size_px) // 2, (height - size_px) // 2
    return np.asarray(image.crop((left, top, left + size_px, top + size_px))).transpose(2, 0, 1)


def _read_huggingface(config: DataConfig, image_size_px: int) -> Read:
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
            pixels[row] = _square(image, image_size_px)
        return ImageSet(torch.from_numpy(pixels), torch.tensor(list(split[labels[0]]), dtype=torch.int64))

    held_out = next((splits[k] for k in ("test", "validation") if k in splits), None)
    return read(splits["train"]), None if held_out is None else read(held_out), tuple(columns[labels[0]].names)


def _read_jpeg(config: DataConfig, image_size_px: int) -> Read:
    """Encoded images in one .npz; all must have one size."""
    import io

    from PIL import Image, UnidentifiedImageError

    path = _existing(config)
    arrays = _npz_arrays(path)
    parts = []
    for part in ("train", "test"):
        needed = [f"jpeg_{part}", f"offset_{part}", f"y_{part}"]
        if missing := [n for n in needed if n not in arrays]:
            raise DataError(f"{path} lacks arrays {missing}; it has {sorted(arrays)}")
        content, offset, y = (arrays[n] for n in needed)
        if len(offset) != len(y) + 1 or (np.diff(offset) <= 0).any() or offset[-1] > len(content):
            raise DataError(f"{path}: offset_{part} does not fit {len(y)} labels and {len(content)} bytes")
        images = []
        for row in range(len(y)):
            try:
                with Image.open(io.BytesIO(content[offset[row] : offset[row + 1]].tobytes())) as file:
                    images.append(np.asarray(file.convert("RGB")).transpose(2, 0, 1))
            except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
                raise DataError(f"{path}: cannot read image {row} of jpeg_{part}: {error}") from None
        if len({i.shape for i in images}) > 1:
            raise DataError(f"{path}: images of jpeg_{part} differ in size; use source 'folder'")
        parts.append(_image_set(np.stack(images), y, f"{path}: {part}"))
    n = int(parts[0].labels.max()) + 1
    return parts[0], parts[1], tuple(map(str, arrays.get("classes", range(n))))


def _existing(config: DataConfig) -> Path:
    if config.path is None:
        raise DataError(f"data source {config.source!r} needs data.path")
    path = Path(config.path).expanduser()
    elsewhere = Path(os.environ.get("HWNAS_DATA", ".")).expanduser() / path
    found = path if path.exists() else elsewhere
    if not found.exists():
        raise DataError(
            f"data.path {config.path!r} does not exist; give the file or folder of your images, "
            "or set HWNAS_DATA to the folder that holds it"
        )
    return found


def _read_idx(config: DataConfig, image_size_px: int) -> Read:
    """The IDX files of MNIST and Fashion-MNIST under their published names, plain or gzipped."""
    root = _existing(config)
    parts = []
    for prefix in ("train", "t10k"):
        images = _idx_array(root, f"{prefix}-images-idx3-ubyte", 3)
        labels = _idx_array(root, f"{prefix}-labels-idx1-ubyte", 1)
        parts.append(_image_set(images, labels, f"{root}: {prefix}"))
    return parts[0], parts[1], tuple(str(i) for i in range(int(parts[0].labels.max()) + 1))


def _idx_array(root: Path, name: str, n_axes: int) -> np.ndarray:
    """One IDX file: magic number with type and axes, sizes, then bytes (LeCun, Cortes and Burges, MNIST page)."""
    found = [p for p in (root / name, root / f"{name}.gz", root / name.replace("-idx", ".idx")) if p.is_file()]
    if not found:
        raise DataError(f"{root} lacks {name} (or {name}.gz)")
    try:
        content = gzip.decompress(found[0].read_bytes()) if found[0].suffix == ".gz" else found[0].read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{found[0]} cannot be read: {error}") from None
    if len(content) < 4 + 4 * n_axes or content[:4] != bytes((0, 0, 8, n_axes)):
        raise DataError(f"{found[0]} is not an IDX file of unsigned bytes with {n_axes} axes")
    shape = np.frombuffer(content, ">u4", n_axes, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{found[0]} holds {values.size} bytes, its header says {shape.tolist()}; it is cut short")
    return values.reshape(shape.tolist())


CIFAR10_CLASSES: tuple[str, ...] = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def _read_cifar(config: DataConfig, image_size_px: int) -> Read:
    """The binary version of CIFAR-10 or CIFAR-100: label bytes, then 3,072 pixels, red, green and blue planes."""
    root = _existing(config)
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
        parts.append(_image_set(images, joined[:, n_labels - 1], str(root)))
    return parts[0], parts[1], names


READERS: dict[str, Callable[[DataConfig, int], Read]] = {
    "idx": _read_idx,
    "cifar10": _read_cifar,
    "cifar100": _read_cifar,
    "digits": _read_digits,
    "npz": _read_npz,
    "folder": _read_folder,
    "jpeg": _read_jpeg,
    "huggingface": _read_huggingface,
}
