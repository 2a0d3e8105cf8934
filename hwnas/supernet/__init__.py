"""One set of weights, many subnets: elastic layers, families, extraction, BN calibration."""

from hwnas.supernet.batch_norm import calibrate_bn, fold_bn
from hwnas.supernet.blocks.block import BlockSpec, count_params
from hwnas.supernet.build import SupernetConfig, build_supernet, make_layout
from hwnas.supernet.layout import Layout, Slot
from hwnas.supernet.network import SuperNet, extract_subnet

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
