"""A part of MNIST, small enough to train many supernets on a CPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from hwnas.data import DataConfig, Splits, load_data
from hwnas.task.classification import CLASSIFICATION


def reduced_mnist(path: str, resolution_px: int, train_images: int, validation_images: int = 1000) -> Splits:
    """Return the first images of the training and validation parts, and the whole test part.

    Args:
        path: .npz with x_train, y_train, x_test, y_test.
        resolution_px: largest edge that is used.
        train_images: how many.
        validation_images: how many.
    """
    splits = load_data(DataConfig(source="npz", path=path), CLASSIFICATION, 1, 10, resolution_px)
    return replace(
        splits,
        train=splits.train.take(torch.arange(train_images)),
        validation=splits.validation.take(torch.arange(validation_images)),
    )
