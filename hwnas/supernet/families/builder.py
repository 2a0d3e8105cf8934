"""How are the slots of a family written down? Slot after slot; channels, sizes and stages are carried along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.layout import Slot


class SlotBuilder:
    """Collects slots; every slot knows the channels and the size that reach it.

    For families whose widths do not vary; others write their slots themselves.
    """

    def __init__(self, in_channels: int) -> None:
        self.channels = in_channels
        self.strides: tuple[int, ...] = ()
        self.slots: list[Slot] = []

    def add(
        self,
        name: str,
        choices: Sequence[str],
        make: Callable[..., BlockSpec | None],
        out_channels: int,
        stride: int = 1,
        stage: int | None = None,
    ) -> None:
        """Append a slot.

        Args:
            name: of the slot.
            choices: what it depends on besides the resolution.
            make: input channels, input size in pixels, then the options of ``choices``, to the block.
            out_channels: channels after it.
            stride: of the block.
            stage: number of its stage, see `Slot.stage`; the first slot of a stage from 1 on begins it.
        """
        channels, strides = self.channels, self.strides

        def spec(resolution: int, *options: Any) -> BlockSpec | None:
            return make(channels, size_after(resolution, strides), *options)

        begins_stage = bool(stage) and all(slot.stage != stage for slot in self.slots)
        self.slots.append(Slot(name, ("resolution", *choices), spec, stage, begins_stage))
        self.channels, self.strides = out_channels, (*strides, stride)


def size_after(size_px: int, strides: Sequence[int]) -> int:
    """Return the edge of a feature map after layers of odd kernels with padding ``kernel_size // 2``."""
    for stride in strides:
        size_px = (size_px - 1) // stride + 1
    return size_px
