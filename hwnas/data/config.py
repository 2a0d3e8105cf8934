"""What may a recipe say about its images?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hwnas.data.augment import AugmentConfig

if TYPE_CHECKING:
    pass


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
