"""How long does a network with several exits take until each of them has answered?"""

from __future__ import annotations

from hwnas.latency.table import Device
from hwnas.supernet.exits import ExitNetwork


def exit_latencies_ms(device: Device, network: ExitNetwork) -> list[float]:
    """Return the time until each exit has answered, first to last: the trunk up to it, and all heads so far.

    Raises:
        MissingBlockError: the device has no time for a block.
    """
    total, found = device.constant_ms, []
    for i, segment in enumerate(network.blocks):
        total += sum(device.block_ms(block) for block in segment)
        if i in network.head_blocks:
            total += sum(device.block_ms(block) for block in network.head_blocks[i])
            found.append(total)
    return found
