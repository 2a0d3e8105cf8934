"""What are the blocks of a recipe called in the tables of others?

Every format names blocks in its own way, which is written down here as its tools write it. A block may be known under
one of several forms; a form is a list of parts that are added up, and a part may have several names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwnas.supernet import BlockSpec
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.families.builder import size_after

Form = Sequence[Sequence[str]]
"""Parts that a block is the sum of; of each part, the names it may have."""


def _shape(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def _in_out(block: BlockSpec, stride: int) -> str:
    size = block.in_size_px
    return f"input:{_shape(size, block.in_channels)}-output:{_shape(size_after(size, (stride,)), block.out_channels)}"


def once_for_all_keys(block: BlockSpec) -> Sequence[Form]:
    """Return the forms of a block in once-for-all's tables.

    Shapes are height x width x channels. Tables of its MobileNetV3 hold the channels between in ``expand`` and have
    ``se`` and ``hs``; those of its ProxylessNAS hold the ratio and have neither (``MBv3LatencyTable`` and
    ``ProxylessNASLatencyTable`` of ``ofa/nas/efficiency_predictor/latency_lookup_table.py``). What follows the last
    convolution is a sum of pooling, feature mix and classifier in the former, one entry in the latter.
    """
    if isinstance(block, MBConvSpec):
        begin, ratio = f"expanded_conv-{_in_out(block, block.stride)}", block.mid_channels / block.in_channels
        end = f"kernel:{block.kernel_size}-stride:{block.stride}-idskip:{int(block.residual)}"
        mobile = f"{begin}-expand:{block.mid_channels}-{end}-se:{int(block.se)}-hs:{int(block.act == 'hswish')}"
        forms = [[[mobile]]]
        if not block.se and block.act == "relu6" and ratio == int(ratio):
            forms.append([[f"{begin}-expand:{int(ratio)}-{end}"]])
        return forms
    if isinstance(block, ConvSpec):
        return [[[f"{'Conv' if block.kernel_size > 1 else 'Conv_1'}-{_in_out(block, block.stride)}"]]]
    if isinstance(block, HeadSpec):
        size, channels, classes = block.in_size_px, block.in_channels, block.out_channels
        mixed = block.feature_channels or channels
        parts = [[f"AvgPool2D-input:{_shape(size, channels)}-output:{_shape(1, channels)}"]]
        if block.feature_channels:
            parts.append([f"Conv_2-input:{_shape(1, channels)}-output:{_shape(1, mixed)}"])
        logits = f"Logits-input:{_shape(1, mixed)}-output"
        forms = [[*parts, [f"{logits}:{classes}", f"{logits}:{_shape(1, classes)}"]]]
        if not block.feature_channels:
            forms.append([[f"Logits-input:{_shape(size, channels)}-output:{classes}"]])
        return forms
    return []


def nsganetv2_keys(block: BlockSpec) -> Sequence[Form]:
    """Return the forms of a block in NSGANetV2's tables (``LatencyEstimator`` of its ``utils.py``).

    ``expand`` is the ratio; the time of ``final_expand_layer`` includes the pooling after it.
    """
    if isinstance(block, MBConvSpec):
        ratio = block.mid_channels / block.in_channels
        end = f"kernel:{block.kernel_size}-stride:{block.stride}-idskip:{int(block.residual)}-se:{int(block.se)}"
        return [[[f"MBConv-{_in_out(block, block.stride)}-expand:{int(ratio)}-{end}"]]] if ratio == int(ratio) else []
    if isinstance(block, ConvSpec):
        return [[[f"{'first_conv' if block.kernel_size > 1 else 'final_expand_layer'}-{_in_out(block, block.stride)}"]]]
    if isinstance(block, HeadSpec):
        channels, mixed = block.in_channels, block.feature_channels or block.in_channels
        parts = [[f"classifier-input:{mixed}-output:{block.out_channels}"]]
        if block.feature_channels:
            parts.insert(0, [f"feature_mix_layer-input:{_shape(1, channels)}-output:{_shape(1, mixed)}"])
        return [parts]
    return []


def nn_meter_keys(block: BlockSpec) -> Sequence[Form]:
    """Return the forms of a block in nn-Meter's block tables, of its ONNX Runtime and of its phones."""
    size, cin, cout = block.in_size_px, block.in_channels, block.out_channels
    if isinstance(block, MBConvSpec):
        ratio = f"{block.mid_channels / cin:g}"
        kind = "MobileNetV3ResBlock" if block.se else "MobileNetV2ResBlock"
        act = "hard_swish" if block.act == "hswish" else block.act
        se = "se" if block.se else "nose"
        return [[[
            f"{kind}_{size}_{cin}_{cout}_{block.kernel_size}_{ratio}_{block.stride}_{block.act}",
            f"conv_{size}_{cin}_{cout}_{ratio}_{block.stride}_{act}_{block.kernel_size}_{se}",
        ]]]  # fmt: skip
    if isinstance(block, ConvSpec):
        kind = "FirstConvBlock" if block.kernel_size > 1 else "FinalExpandBlock"
        return [[[
            f"{kind}_{size}_{cin}_{cout}_{block.kernel_size}_None_{block.stride}_{block.act}",
            f"firstconv_{size}_{cin}_{cout}_{block.stride}_{block.kernel_size}",
        ]]]  # fmt: skip
    if isinstance(block, HeadSpec):
        mixed = block.feature_channels or cin
        parts = [[f"LogitsBlock_1_{mixed}_{cout}_None_None_None_None"]]
        if block.feature_channels:
            parts.append([f"FeatureMixBlock_{s}_{cin}_{mixed}_1_None_1_{block.act}" for s in (1, size)])
        return [parts]
    return []


KEYS: dict[str, Callable[[BlockSpec], Sequence[Form]]] = {
    "once-for-all": once_for_all_keys, "nn-meter": nn_meter_keys, "nsganetv2": nsganetv2_keys,
}  # fmt: skip
"""Forms of a block, by the format of the table."""
