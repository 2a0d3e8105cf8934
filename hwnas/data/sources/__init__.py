"""Where images come from: one file a source."""

from __future__ import annotations

from hwnas.data.source import Source
from hwnas.registry import Registry

SOURCES: Registry[Source] = Registry(
    "source",
    {
        "digits": "hwnas.data.sources.digits:DIGITS",
        "cluttered-digits": "hwnas.data.sources.cluttered_digits:CLUTTERED_DIGITS",
        "npz": "hwnas.data.sources.npz:NPZ",
        "folder": "hwnas.data.sources.folder:FOLDER",
        "idx": "hwnas.data.sources.idx:IDX",
        "cifar10": "hwnas.data.sources.cifar:CIFAR10",
        "cifar100": "hwnas.data.sources.cifar:CIFAR100",
        "jpeg": "hwnas.data.sources.jpeg:JPEG",
        "huggingface": "hwnas.data.sources.huggingface:HUGGINGFACE",
        "webdataset": "hwnas.data.sources.webdataset:WEBDATASET",
    },
    needs=("open",),
    page="hwnas.data.source",
)
"""Sources by the names that recipes use."""
