"""How does one slot of a supernet hold all that can stand in it? With shared weights, or with weights for each."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock
from hwnas.supernet.blocks.single_path import ChoiceBlock


def elastic_block(specs: Sequence[BlockSpec], share_weights: bool = True) -> ElasticBlock:
    """Return one elastic block that computes each of ``specs``.

    Their class says whether and how they share weights (`BlockSpec.elastic`); specs of several classes, or of a class
    that shares none, are candidates with weights of their own (`ChoiceBlock`).

    Args:
        specs: everything that can stand in one slot.
        share_weights: False: every spec has weights of its own, whatever its class says.
    """
    classes = {type(spec) for spec in specs}
    if (share_weights or len(specs) == 1) and len(classes) == 1:
        shared = classes.pop().elastic(specs)
        if shared is not None:
            return shared
    return ChoiceBlock(specs)
