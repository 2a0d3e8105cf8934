"""A family of networks: plain 3x3 convolutions, each of any of a few widths, with a block of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from pydantic import Field
from torch import Tensor, nn

from hwnas import (
    BlockSpec,
    Choice,
    ElasticBatchNorm2d,
    ElasticBlock,
    ElasticConv2d,
    FamilyConfig,
    HeadSpec,
    Layout,
    SearchSpace,
    Slot,
    largest_of,
)

Positive = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class HalvingSpec(BlockSpec):
    """A 3x3 convolution that halves the feature map, batch norm, ReLU."""

    kind: ClassVar[str] = "halving_conv"

    def build(self) -> nn.Module:
        """Return the plain layers."""
        return nn.Sequential(
            nn.Conv2d(self.in_channels, self.out_channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(self.out_channels),
            nn.ReLU(),
        )

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> "ElasticHalving":
        """Narrow blocks are the first channels of the widest."""
        return ElasticHalving(largest_of(specs, "in_channels", "out_channels"))


class ElasticHalving(ElasticBlock):
    """Holds the weights of the widest block."""

    def __init__(self, largest: HalvingSpec) -> None:
        super().__init__()
        self.conv = ElasticConv2d(largest.in_channels, largest.out_channels, 3, 2, 1, bias=False)
        self.bn = ElasticBatchNorm2d(largest.out_channels)

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C_out, H / 2, W / 2)``."""
        return nn.functional.relu(self.bn(self.conv(x, spec.out_channels)))

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """Copy the weights of a narrow block into its plain form."""
        conv, bn, _ = plain
        self.conv.fill(conv)
        self.bn.fill(bn)


class PlainConfig(FamilyConfig):
    """What stands under ``supernet`` in a recipe."""

    family: str
    widths: tuple[Positive, ...] = (8, 16)
    """Channels that every layer may have, ascending."""
    layers: Positive = 2


class Plain:
    """The family."""

    config = PlainConfig

    @staticmethod
    def layout(config: PlainConfig) -> Layout:
        """Every layer has one choice, its width; the head reads what the last layer gives."""
        names = [f"layer{i}.width" for i in range(1, config.layers + 1)]
        space = SearchSpace(
            (Choice("resolution", config.resolutions), *(Choice(name, config.widths) for name in names)),
            tuple((name,) for name in names),
        )
        slots = [
            Slot(f"layer{i}", ("resolution", *names[max(0, i - 2) : i]), _layer(i, config), stage=i)
            for i in range(1, config.layers + 1)
        ]

        def head(resolution: int, width: int) -> HeadSpec:
            size = _size(resolution, config.layers)
            return HeadSpec(width, config.classes, size, 0, "none", config.dropout_percent)

        slots.append(Slot("head", ("resolution", names[-1]), head))
        return Layout(space, tuple(slots), config.bn_eps, first_stage=1)


def _size(resolution: int, halvings: int) -> int:
    for _ in range(halvings):
        resolution = (resolution + 1) // 2
    return resolution


def _layer(number: int, config: PlainConfig):
    """The function from resolution, width before (but for the first layer) and own width to the block."""

    def make(resolution: int, *widths: int) -> HalvingSpec:
        before = widths[0] if number > 1 else config.in_channels
        return HalvingSpec(before, widths[-1], _size(resolution, number - 1))

    return make
