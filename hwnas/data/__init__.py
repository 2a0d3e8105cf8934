"""Datasets, splits, resolution-aware batches and augmentation on tensors (no torchvision)."""

from hwnas.data.augment import AugmentConfig, augment
from hwnas.data.batches import TrainBatches
from hwnas.data.config import NOT_BINDING_DATA, DataConfig
from hwnas.data.dataset import load_data, open_dataset
from hwnas.data.images import ImageSet, Splits
from hwnas.data.inputs import as_input
from hwnas.data.network_inputs import NetworkInputs
from hwnas.data.opened import Dataset, DatasetSplit
from hwnas.data.stream import ImageStream

__all__ = [
    "NOT_BINDING_DATA",
    "AugmentConfig",
    "DataConfig",
    "Dataset",
    "DatasetSplit",
    "ImageSet",
    "ImageStream",
    "NetworkInputs",
    "Splits",
    "TrainBatches",
    "as_input",
    "augment",
    "load_data",
    "open_dataset",
]
