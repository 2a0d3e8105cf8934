"""Which elastic block holds which specs?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock
from hwnas.supernet.blocks.bottleneck import BottleneckSpec, ElasticBottleneck
from hwnas.supernet.blocks.cell import CellOpSpec, ElasticCellOp
from hwnas.supernet.blocks.conv import ConvSpec, ElasticConvBnAct
from hwnas.supernet.blocks.head import ElasticHead, HeadSpec
from hwnas.supernet.blocks.mbconv import ElasticMBConv, MBConvSpec
from hwnas.supernet.blocks.parallel import ElasticParallel, ParallelSpec
from hwnas.supernet.blocks.pool import ElasticPool, PoolSpec
from hwnas.supernet.blocks.single_path import ChoiceBlock
from hwnas.supernet.blocks.skip_add import ElasticSkipAdd, SkipAddSpec

ELASTIC: dict[type[BlockSpec], Callable[[Any], ElasticBlock]] = {
    ConvSpec: ElasticConvBnAct.holding,
    MBConvSpec: ElasticMBConv.holding,
    HeadSpec: ElasticHead.holding,
    PoolSpec: ElasticPool.holding,
    BottleneckSpec: ElasticBottleneck.holding,
    ParallelSpec: ElasticParallel.holding,
    SkipAddSpec: ElasticSkipAdd.holding,
    CellOpSpec: ElasticCellOp.holding,
}
"""Which elastic block holds which specs; specs of several classes, or of any other, share no weights."""


def elastic_block(specs: Sequence[BlockSpec], share_weights: bool = True) -> ElasticBlock:
    """Return one elastic block that computes each of ``specs``.

    Args:
        specs: everything that can stand in one slot.
        share_weights: False: every spec has weights of its own.
    """
    classes = {type(spec) for spec in specs}
    if (share_weights or len(specs) == 1) and len(classes) == 1 and (make := ELASTIC.get(classes.pop())) is not None:
        return make(specs)
    return ChoiceBlock(specs)
