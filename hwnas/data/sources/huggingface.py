"""Datasets of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.data.left_out import LeftOutCounter
from hwnas.data.pictures import room_for, square_picture
from hwnas.data.source import Entry, Labels, Opened, Pixels, Source, SourceConfig
from hwnas.data.sources.labels import MISSING, mapped, names_of, numbered
from hwnas.data.split_names import chosen_splits
from hwnas.errors import DataError, one_line, some


class HuggingFace(Source):
    """A dataset of the Hugging Face hub or of ``save_to_disk``: a column of images, and one of labels.

    Labels are the column that `SourceConfig.label_column` names, or the only one of class labels. They are matched
    between splits by their names.
    """

    columns = ("label_column", "image_column")

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Load the dataset; images are decoded when their pixels are asked for."""
        splits = _loaded(config.path)
        where = f"dataset {str(config.path)!r}"
        left_out = LeftOutCounter()
        names = chosen_splits(splits)
        if "train" not in names:
            raise DataError(f"{where} has splits {sorted(splits)}; it needs train")
        for name in sorted(set(splits) - set(names.values())):
            left_out.add("images of splits that are not used", name, len(splits[name]))
        features = splits[names["train"]].features
        image, label = _columns(features, config, where)
        classes, labels = _labels({s: splits[n] for s, n in names.items()}, label, where)
        parts = {}
        for split, name in names.items():
            if image not in splits[name].features:
                raise DataError(
                    f"{where} has no column {image!r} in its split {name}; give every split the same columns"
                )
            rows = np.flatnonzero(labels[split] != MISSING)
            left_out.add(f"images of {name}, which have no label", "", len(labels[split]) - len(rows))
            if len(rows) or split == "train":
                parts[split] = RowImages(
                    _undecoded(splits[name], image), image, labels[split][rows], rows, f"{where}, {name}",
                    getattr(features[image], "mode", None) in ("1", "L"),
                )  # fmt: skip
        return Opened(
            classes, parts["train"], parts.get("test"), parts.get("validation"), left_out=left_out.values()
        )  # fmt: skip


def _loaded(path: str | None) -> dict[str, Any]:
    """The splits of a dataset by name."""
    try:
        import datasets
    except ImportError:
        raise DataError("data.source huggingface needs the package datasets: pip install 'hwnas[datasets]'") from None
    if path is None:
        raise DataError("data source 'huggingface' needs data.path: the name of a dataset, or a folder of save_to_disk")
    with _one_line(f"data.path {path!r}"):
        local = Path(path).expanduser()
        found = datasets.load_from_disk(str(local)) if local.is_dir() else datasets.load_dataset(path)
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Make one line of whatever datasets, pyarrow, fsspec and the network raise."""
    try:
        yield
    except Exception as error:
        reason = one_line(str(error)) or type(error).__name__
        raise DataError(f"{what} cannot be loaded with datasets: {reason}; download or save it again") from error


def _columns(features: Mapping[str, Any], config: SourceConfig, where: str) -> tuple[str, str]:
    """The columns of images and labels: those that are named, or the only ones."""
    import datasets

    images = [k for k, v in features.items() if isinstance(v, datasets.Image)]
    classes = [k for k, v in features.items() if isinstance(v, datasets.ClassLabel)]
    others = [k for k, v in features.items() if k not in (*images, *classes) and _can_be_labels(v)]
    if config.image_column is not None:
        images = _named(config.image_column, images, "data.image_column", "image columns", where)
    if config.label_column is not None:
        classes = _named(config.label_column, [*classes, *others], "data.label_column", "label columns", where)
    if len(images) != 1 or len(classes) != 1:
        ways = []
        if len(images) > 1:
            ways.append(f"choose one with data.image_column={images[0]}")
        if len(classes) > 1:
            ways.append(f"choose one with data.label_column={classes[0]}")
        if not classes and others:
            ways.append(f"data.label_column can name one of {some(others)}")
        raise DataError("; ".join([
            f"{where} has image columns {images} and label columns {classes}; it needs one of each", *ways
        ]))  # fmt: skip
    return images[0], classes[0]


def _named(name: str, known: list[str], setting: str, what: str, where: str) -> list[str]:
    if name not in known:
        raise DataError(f"{setting} is {name!r}; {where} has the {what} {some(known) if known else 'none'}")
    return [name]


def _can_be_labels(feature: Any) -> bool:
    """Whether a column that is none of class labels has texts or whole numbers."""
    kind = str(getattr(feature, "dtype", ""))
    return kind in ("string", "large_string", "bool") or kind.startswith(("int", "uint"))


def _labels(splits: Mapping[Any, Any], column: str, where: str) -> tuple[tuple[str, ...], dict[Any, Labels]]:
    """Names of the classes, and ``(N,)`` numbers of the same classes for every split."""
    classes: tuple[str, ...] = ()
    found: dict[Any, Labels] = {}
    for split, rows in splits.items():  # "train" comes first
        what = f"{where}, split {split}"
        if column not in rows.features:
            if split == "train":
                raise DataError(f"{what} has no column {column!r}")
            found[split] = np.full(len(rows), MISSING)
            continue
        feature = rows.features[column]
        with _one_line(what):
            values = list(rows[column])
        if getattr(feature, "names", None) is not None:
            own = tuple(map(str, feature.names))
            numbers = np.array([MISSING if v is None else v for v in values], dtype=np.int64)
        elif str(feature.dtype).endswith("string"):
            own, numbers = names_of(values)
        else:
            numbers = np.array([MISSING if v is None else int(v) for v in values], dtype=np.int64)
            own = numbered(numbers, what)
        if split == "train":
            classes = own
        found[split] = mapped(numbers, own, classes, what)
    return classes, found


def _undecoded(rows: Any, column: str) -> Any:
    """The rows with their images as they are stored, so that they are decoded like those of other sources."""
    import datasets

    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))


@dataclass(frozen=True)
class RowImages:
    """A column of images of a dataset."""

    rows: Any
    column: str
    labels: Labels
    index: NDArray[np.int64]
    """Which rows of the dataset they are."""
    name: str
    grey: bool = False
    """Whether the dataset says that its images are brought to grey."""

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, index: int) -> str:
        """Return the row of an image."""
        return f"row {self.index[index]} of {self.name}"

    def entry(self, index: int) -> Entry:
        """Return the row, after the fingerprint of the dataset; see `HasListing`."""
        return Entry(f"{self.rows._fingerprint} {self.index[index]}", 0)

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return ``(B, 3, size_px, size_px)``."""
        out = room_for(len(indices), 3, size_px, size_px)
        for place, index in enumerate(indices.tolist()):
            with _one_line(self.place(index)):
                stored = self.rows[int(self.index[index])][self.column] or {}
            content, path = stored.get("bytes"), stored.get("path")
            if content is None and path is None:
                raise DataError(f"{self.place(index)} has no image; remove the row or give it one")
            where = self.place(index) if content is not None else f"{path} ({self.place(index)})"
            given = content if content is not None else Path(str(path))
            out[place] = square_picture(given, where, size_px, "L" if self.grey else None)
        return out


HUGGINGFACE = HuggingFace()
