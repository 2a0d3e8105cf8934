"""One set of weights, many subnets: elastic layers, families, extraction, BN calibration."""

from hwnas.supernet.blocks import BlockSpec, count_params
from hwnas.supernet.families import SupernetConfig, build_supernet, make_layout
from hwnas.supernet.network import Layout, Slot, SuperNet, calibrate_bn, extract_subnet, fold_bn

__all__ = [
    "BlockSpec",
    "Layout",
    "Slot",
    "SuperNet",
    "SupernetConfig",
    "build_supernet",
    "calibrate_bn",
    "count_params",
    "extract_subnet",
    "fold_bn",
    "make_layout",
]
