"""Which sources of data are there, by name?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.sources.cifar import read_cifar
from hwnas.data.sources.digits import read_digits
from hwnas.data.sources.files import Read
from hwnas.data.sources.folder import read_folder
from hwnas.data.sources.huggingface import read_huggingface
from hwnas.data.sources.idx import read_idx
from hwnas.data.sources.jpeg import read_jpeg
from hwnas.data.sources.npz import read_npz

READERS: dict[str, Callable[[DataConfig, int], Read]] = {
    "idx": read_idx,
    "cifar10": read_cifar,
    "cifar100": read_cifar,
    "digits": read_digits,
    "npz": read_npz,
    "folder": read_folder,
    "jpeg": read_jpeg,
    "huggingface": read_huggingface,
}
