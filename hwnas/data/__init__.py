"""Datasets, splits, resolution-aware batches and augmentation on tensors (no torchvision)."""

from hwnas.data.augment import AugmentConfig, augment
from hwnas.data.batches import TrainBatches, as_input
from hwnas.data.config import DataConfig
from hwnas.data.dataset import load_data, open_dataset
from hwnas.data.images import ImageSet, Splits
from hwnas.data.opened import Dataset, DatasetSplit

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "Dataset",
    "DatasetSplit",
    "ImageSet",
    "Splits",
    "TrainBatches",
    "as_input",
    "augment",
    "load_data",
    "open_dataset",
]
