"""Which channels do two width phases keep, against the original package `ofa` on the same weights?

Both hold the full MobileNetV3 supernet (recipe ofa-mbv3-w1.0) with the same random weights. Channels are sorted before
the first width phase (expand ratios 4 and 6), all weights move by the same noise, as training would move them, and
channels are sorted before the second one (3, 4 and 6). Every middle channel carries its number in a batch norm's mean.

    python benchmarks/sorting_vs_ofa.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import original_ofa
from torch import Tensor

import hwnas
from hwnas.supernet import SuperNet, build_supernet
from hwnas.supernet.blocks.mbconv import ElasticMBConv, MBConvSpec
from hwnas.supernet.weights.once_for_all import load_ofa_weights

SIZE, PHASES = 64, ((6,), (4, 6), (3, 4, 6))


def main() -> None:
    """Sort twice on both sides and compare."""
    torch.set_num_threads(1)
    config = hwnas.load_recipe("ofa-mbv3-w1.0").supernet.model_copy(update={"resolutions": (SIZE,)})
    ours, theirs = build_supernet(config, 0).eval(), original_ofa(config.classes).eval()
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    print("channels of 20 blocks that the widths of each phase keep, and outputs of what was trained before")
    for phase in (0, 1):
        move(theirs, phase)
        tensors = {
            name.replace(".bn.bn.", ".bn.").replace(".conv.conv.", ".conv."): t
            for name, t in theirs.state_dict().items()
        }  # published names
        load_ofa_weights(ours, tensors, "ofa")
        trained = [ours.space.where(kernel_size=[7], expand_ratio=r) for r in PHASES[: phase + 1]]
        archs = [arch for part in trained for arch in part.sample(np.random.default_rng(phase), 3)]
        before = [outputs(ours, theirs, x, arch) for arch in archs]
        ours.sort_channels(trained)
        theirs.re_organize_middle_weights(expand_ratio_stage=phase)
        same, hidden, widths = compare(ours, theirs, PHASES[phase + 1])
        after = [outputs(ours, theirs, x, arch) for arch in archs]
        changes = [
            max(float((a[i] - b[i]).abs().max() / b[i].abs().max()) for a, b in zip(after, before, strict=True))
            for i in (0, 1)
        ]
        print(
            f"width phase {phase + 1} (ratios {PHASES[phase + 1]}): {same} of {widths} kept sets of middle channels are"
            f" identical; {hidden} of {widths_with_se(ours) * len(PHASES[phase + 1])} of squeeze-excite's hidden units"
        )
        print(f"    largest relative change of trained subnets' outputs: hwnas {changes[0]:.1e}, ofa {changes[1]:.1e}")


def move(net: Any, seed: int) -> None:
    """Stand for training: add noise to every tensor, and number the middle channels."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point() and "running" not in name:
                tensor.add_(torch.randn(tensor.shape, generator=g) * tensor.abs().mean().clamp(min=0.1))
        for block in net.blocks[1:]:
            mean = block.conv.depth_conv.bn.bn.running_mean
            mean.copy_(torch.arange(len(mean)) / len(mean))
            if block.conv.use_se:
                bias = block.conv.depth_conv.se.fc.reduce.bias
                bias.copy_(torch.arange(len(bias)) / len(bias))


def outputs(ours: SuperNet, theirs: Any, x: Tensor, arch: hwnas.Arch) -> tuple[Tensor, Tensor]:
    """Return both logits of one subnet."""
    operators = [
        arch.as_dict().get(f"stage{s}.block{b}", (7, 6)) for s in range(1, 6) for b in range(1, 5)
    ]  # fmt: skip
    theirs.set_active_subnet(
        ks=[o[0] for o in operators], e=[o[1] for o in operators],
        d=[arch.int(f"stage{s}.depth") for s in range(1, 6)],
    )  # fmt: skip
    with torch.no_grad():
        return ours(x, ours.space.arch(arch.as_dict())), theirs(x)


def middles(ours: SuperNet) -> list[tuple[str, ElasticMBConv]]:
    """Return the elastic inverted bottlenecks with an expansion, by slot, from input to output."""
    return [(n, b) for n, b in ours.elastic_blocks.items() if isinstance(b, ElasticMBConv) and b.expands]


def widths_with_se(ours: SuperNet) -> int:
    """Return how many blocks have squeeze-excite."""
    return sum(b.se is not None for _, b in middles(ours))


def compare(ours: SuperNet, theirs: Any, ratios: tuple[int, ...]) -> tuple[int, int, int]:
    """Return how many sets of first channels are the same, how many of hidden units, and how many sets there are."""
    same = hidden = n = 0
    slots = {s.name: s for s in ours.layout.slots}
    for (name, block), their in zip(middles(ours), theirs.blocks[1:], strict=True):
        specs = [s for s in ours.layout.specs(slots[name]) if isinstance(s, MBConvSpec)]
        widths = sorted({s.mid_channels for s in specs})[-len(ratios) :]
        conv = their.conv.depth_conv
        for width in widths:
            n += 1
            same += kept(block.depthwise_bn.running_mean, width) == kept(conv.bn.bn.running_mean, width)
            if block.se is not None and block.se.reduce.bias is not None:
                units = max(8, int(width // 4 + 4) // 8 * 8)
                hidden += kept(block.se.reduce.bias, units) == kept(conv.se.fc.reduce.bias, units)
    return same, hidden, n


def kept(numbers: Tensor | None, width: int) -> set[float]:
    """Return the numbers of the first channels."""
    assert numbers is not None
    return set(numbers[:width].tolist())


if __name__ == "__main__":
    main()
