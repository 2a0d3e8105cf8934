"""One set of weights, many subnets: elastic layers, families, extraction, BN calibration."""

from hwnas.supernet.batch_norm import calibrate_bn, fold_bn
from hwnas.supernet.blocks.block import BlockSpec, count_params
from hwnas.supernet.build import build_supernet, fresh_subnet, make_layout
from hwnas.supernet.families.family import FAMILIES, Family, FamilyConfig, SupernetConfig, read_settings
from hwnas.supernet.layout import Layout, Slot
from hwnas.supernet.network import SuperNet, extract_subnet

__all__ = [
    "FAMILIES",
    "BlockSpec",
    "Family",
    "FamilyConfig",
    "Layout",
    "Slot",
    "SuperNet",
    "SupernetConfig",
    "build_supernet",
    "calibrate_bn",
    "count_params",
    "extract_subnet",
    "fold_bn",
    "fresh_subnet",
    "make_layout",
    "read_settings",
]
