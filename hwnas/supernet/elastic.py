"""Which layers can shrink? Each holds the weights of its largest form; smaller forms are slices of it.

No layer remembers an active form: the caller passes the `BlockSpec` (or the sizes) with the input. `fill` copies
the very same slice into a plain module, so an extracted subnet computes what the supernet computed, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet import fused
from hwnas.supernet.blocks import (
    BN_EPS,
    BN_MOMENTUM,
    ActName,
    BlockSpec,
    Bottleneck,
    BottleneckSpec,
    ConvBnAct,
    ConvSpec,
    Head,
    HeadSpec,
    MBConv,
    MBConvSpec,
    Parallel,
    ParallelSpec,
    PoolSpec,
    Residual,
    SkipAdd,
    SkipAddSpec,
    SqueezeExcite,
    activate,
    conv_pixel,
    se_hidden,
    transformation,
)
from hwnas.supernet.cell import CellOp, CellOpSpec, cell_operator, join_cell
from hwnas.supernet.depthwise import depthwise_conv2d

SpecT = TypeVar("SpecT", bound=BlockSpec)


class ElasticConv2d(nn.Conv2d):
    """A convolution whose narrower forms are its first output and input channels."""

    def kernel(self, in_channels: int, out_channels: int) -> Tensor:
        """``(out_channels, in_channels, k, k)`` view of the first channels."""
        return self.weight[:out_channels, :in_channels]

    def forward(self, x: Tensor, out_channels: int) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` to ``(B, out_channels, H', W')``."""
        kernel = self.kernel(x.shape[1], out_channels)
        bias = None if self.bias is None else self.bias[:out_channels]
        if self.training and self.kernel_size == self.stride == x.shape[2:] == (1, 1):
            return conv_pixel(x, kernel, bias)
        return F.conv2d(x, kernel, bias, self.stride, self.padding)

    def fill(self, plain: nn.Conv2d) -> None:
        """Copy the slice of ``plain``'s shape into it."""
        with torch.no_grad():
            plain.weight.copy_(self.kernel(plain.in_channels, plain.out_channels))
            if plain.bias is not None and self.bias is not None:
                plain.bias.copy_(self.bias[: plain.out_channels])


class ElasticPixelConv2d(ElasticConv2d):
    """The elastic form of `PixelConv2d`."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor, out_channels: int) -> Tensor:  # type: ignore[override]
        """``(B, C, 1, 1)`` to ``(B, out_channels, 1, 1)``."""
        return conv_pixel(
            x, self.kernel(x.shape[1], out_channels), None if self.bias is None else self.bias[:out_channels]
        )


class ElasticDepthwiseConv2d(nn.Module):
    """A depthwise convolution with one largest kernel; smaller ones are its centre, linearly mapped.

    The maps form a chain (7 to 5, 5 to 3), start as the identity and are shared by all channels.

    Reference:
        Cai et al., 2020, Once-for-All, section 3.3 (elastic kernel size).
    """

    def __init__(self, channels: int, kernel_sizes: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.kernel_sizes = tuple(sorted(kernel_sizes))
        self.stride = stride
        largest = self.kernel_sizes[-1]
        self.weight = nn.Parameter(torch.empty(channels, 1, largest, largest))
        nn.init.normal_(self.weight, 0.0, (2.0 / largest**2) ** 0.5)
        self.maps = nn.ParameterDict(
            {
                f"{big}to{small}": nn.Parameter(torch.eye(small * small))
                for small, big in zip(self.kernel_sizes[:-1], self.kernel_sizes[1:], strict=True)
            }
        )

    def kernel(self, channels: int, kernel_size: int) -> Tensor:
        """``(channels, 1, kernel_size, kernel_size)`` kernel of the first channels."""
        weight = self.weight[:channels]
        sizes = self.kernel_sizes
        for small, big in zip(sizes[-2::-1], sizes[:0:-1], strict=True):
            if big <= kernel_size:
                break
            edge = (big - small) // 2
            centre = weight[:, :, edge : edge + small, edge : edge + small].reshape(channels, 1, -1)
            weight = F.linear(centre, self.maps[f"{big}to{small}"]).view(channels, 1, small, small)
        return weight

    def forward(self, x: Tensor, kernel_size: int) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H / stride, W / stride)``."""
        return depthwise_conv2d(x, self.kernel(x.shape[1], kernel_size), self.stride)

    def fill(self, plain: nn.Conv2d) -> None:
        """Copy the kernel of ``plain``'s shape into it."""
        with torch.no_grad():
            plain.weight.copy_(self.kernel(plain.out_channels, plain.kernel_size[0]))


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose narrower forms use, and update, the first channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, BN_EPS, BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` with any C up to the layer's channels."""
        c = x.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        return F.batch_norm(
            x, self.running_mean[:c], self.running_var[:c], self.weight[:c], self.bias[:c],
            self.training, self.momentum, self.eps,
        )  # fmt: skip

    def part(self, channels: int) -> fused.Norm:
        """The first channels, for a fused block."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        c = channels
        return fused.Norm(
            self.weight[:c], self.bias[:c], self.running_mean[:c], self.running_var[:c], self.momentum, self.eps
        )

    def fill(self, plain: nn.BatchNorm2d) -> None:
        """Copy weight, bias and running statistics of the first channels."""
        c = plain.num_features
        with torch.no_grad():
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(plain, name).copy_(getattr(self, name)[:c])


class ElasticBlock(nn.Module):
    """A block of a supernet: computes any spec of its kind that fits inside it."""

    begins_stage = False
    """Whether dense skips count their outputs from this block."""

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` through the block that ``spec`` describes."""
        raise NotImplementedError

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """Copy this block's weights for ``spec`` into ``plain``, which ``spec.build()`` made."""
        raise NotImplementedError

    def sort_channels(self) -> None:
        """Order what can be left out by importance, most important first; the block computes the same."""


def _largest(specs: Sequence[SpecT], *names: str) -> SpecT:
    """The first spec with the named sizes replaced by their maxima over all specs."""
    return replace(specs[0], **{name: max(getattr(s, name) for s in specs) for name in names})


class ElasticConvBnAct(ElasticBlock):
    """The elastic form of `ConvBnAct`, for a `ConvSpec`; with ``residual`` its input is added."""

    @classmethod
    def holding(cls, specs: Sequence[ConvSpec]) -> ElasticConvBnAct:
        """Return a block that computes each of ``specs``."""
        return cls(_largest(specs, "in_channels", "out_channels"))

    def __init__(self, largest: ConvSpec) -> None:
        super().__init__()
        k = largest.kernel_size
        self.conv = ElasticConv2d(largest.in_channels, largest.out_channels, k, largest.stride, k // 2, bias=False)
        self.bn = ElasticBatchNorm2d(largest.out_channels)
        self.act: ActName = largest.act

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, ConvSpec)
        y = activate(self.bn(self.conv(x, spec.out_channels)), self.act)
        return x + y if spec.residual else y

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        conv = plain.conv if isinstance(plain, Residual) else plain
        assert isinstance(conv, ConvBnAct)
        self.conv.fill(conv.conv)
        self.bn.fill(conv.bn)


class ElasticSqueezeExcite(nn.Module):
    """Squeeze-excite over the first channels of a block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_hidden(channels)
        self.reduce = ElasticPixelConv2d(channels, hidden)
        self.expand = ElasticPixelConv2d(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        c = x.shape[1]
        gate = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        gate = self.expand(F.relu(self.reduce(gate, se_hidden(c))), c)
        return x * F.hardsigmoid(gate)

    def part(self, channels: int) -> fused.Gate:
        """The slices for the first channels, for a fused block."""
        hidden = se_hidden(channels)
        assert self.reduce.bias is not None
        assert self.expand.bias is not None
        return fused.Gate(
            self.reduce.kernel(channels, hidden), self.reduce.bias[:hidden],
            self.expand.kernel(hidden, channels), self.expand.bias[:channels],
        )  # fmt: skip

    def fill(self, plain: SqueezeExcite) -> None:
        """Copy the slices of ``plain``'s shape into it."""
        self.reduce.fill(plain.reduce)
        self.expand.fill(plain.expand)


class ElasticMBConv(ElasticBlock):
    """The elastic form of `MBConv`: kernel size and middle channels vary, for an `MBConvSpec`."""

    @classmethod
    def holding(cls, specs: Sequence[MBConvSpec]) -> ElasticMBConv:
        """Return a block that computes each of ``specs``."""
        return cls(_largest(specs, "mid_channels"), tuple(sorted({s.kernel_size for s in specs})))

    def __init__(self, largest: MBConvSpec, kernel_sizes: tuple[int, ...]) -> None:
        super().__init__()
        mid = largest.mid_channels
        if largest.expand:
            self.expand_conv = ElasticConv2d(largest.in_channels, mid, 1, bias=False)
            self.expand_bn = ElasticBatchNorm2d(mid)
        self.depthwise = ElasticDepthwiseConv2d(mid, kernel_sizes, largest.stride)
        self.depthwise_bn = ElasticBatchNorm2d(mid)
        self.se = ElasticSqueezeExcite(mid) if largest.se else None
        self.project = ElasticConv2d(mid, largest.out_channels, 1, bias=False)
        self.project_bn = ElasticBatchNorm2d(largest.out_channels)
        self.act: ActName = largest.act
        self.expands = largest.expand

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, MBConvSpec)
        alone = type(self.depthwise_bn) is ElasticBatchNorm2d  # its statistics are not shared with other ranks
        if self.training and alone and spec.act in fused.ACTS and fused.suits(x, spec.mid_channels):
            joined: Tensor = self.project_bn(self._fused(x, spec))
            return x + joined if spec.residual else joined
        y: Tensor = x
        if self.expands:
            y = activate(self.expand_bn(self.expand_conv(y, spec.mid_channels)), self.act)
        y = activate(self.depthwise_bn(self.depthwise(y, spec.kernel_size)), self.act)
        if self.se is not None:
            y = self.se(y)
        y = self.project_bn(self.project(y, spec.out_channels))
        return x + y if spec.residual else y

    def _fused(self, x: Tensor, spec: MBConvSpec) -> Tensor:
        """Everything before the last batch norm, in training."""
        channels, mid = spec.in_channels, spec.mid_channels
        expand = (self.expand_conv.kernel(channels, mid), self.expand_bn.part(mid)) if self.expands else None
        return fused.inverted_bottleneck(
            x, expand, self.depthwise.kernel(mid, spec.kernel_size), self.depthwise_bn.part(mid), spec.stride,
            spec.act, None if self.se is None else self.se.part(mid), self.project.kernel(mid, spec.out_channels),
        )  # fmt: skip

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, MBConv)
        if self.expands:
            assert isinstance(plain.expand, ConvBnAct)
            self.expand_conv.fill(plain.expand.conv)
            self.expand_bn.fill(plain.expand.bn)
        self.depthwise.fill(plain.depthwise.conv)
        self.depthwise_bn.fill(plain.depthwise.bn)
        if self.se is not None:
            assert isinstance(plain.se, SqueezeExcite)
            self.se.fill(plain.se)
        self.project.fill(plain.project.conv)
        self.project_bn.fill(plain.project.bn)

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Order the middle channels by the L1 norm of the projection that reads them, largest first.

        Squeeze-excite's hidden units are ordered by the L1 norm of its expansion.

        Reference:
            Cai et al., 2020, Once-for-All, section 3.3 (elastic width).
        """
        if not self.expands:
            return
        order = self.project.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
        _reorder(self.project.weight, order, dim=1)
        _reorder(self.depthwise.weight, order, dim=0)
        _reorder(self.expand_conv.weight, order, dim=0)
        for bn in (self.expand_bn, self.depthwise_bn):
            for name in ("weight", "bias", "running_mean", "running_var"):
                _reorder(getattr(bn, name), order, dim=0)
        if self.se is not None:
            _reorder(self.se.reduce.weight, order, dim=1)
            _reorder(self.se.expand.weight, order, dim=0)
            assert self.se.expand.bias is not None
            assert self.se.reduce.bias is not None
            _reorder(self.se.expand.bias, order, dim=0)
            hidden = self.se.expand.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
            _reorder(self.se.reduce.weight, hidden, dim=0)
            _reorder(self.se.reduce.bias, hidden, dim=0)
            _reorder(self.se.expand.weight, hidden, dim=1)


def _reorder(tensor: Tensor, order: Tensor, dim: int) -> None:
    tensor.copy_(tensor.index_select(dim, order))


class ElasticHead(ElasticBlock):
    """The classifier of every subnet; its input may be narrower than its largest, for a `HeadSpec`."""

    @classmethod
    def holding(cls, specs: Sequence[HeadSpec]) -> ElasticHead:
        """Return a block that computes each of ``specs``."""
        return cls(_largest(specs, "in_channels", "feature_channels"))

    def __init__(self, largest: HeadSpec) -> None:
        super().__init__()
        width = largest.feature_channels or largest.in_channels
        self.mix = ElasticPixelConv2d(largest.in_channels, width, bias=False) if largest.feature_channels else None
        self.classifier = nn.Linear(width, largest.out_channels)
        self.act: ActName = largest.act

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        assert isinstance(spec, HeadSpec)
        x = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        if self.mix is not None:
            x = activate(self.mix(x, spec.feature_channels), self.act)
        x = F.dropout(x.flatten(1), spec.dropout_percent / 100, self.training)
        return F.linear(x, self.classifier.weight[:, : x.shape[1]], self.classifier.bias)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, Head)
        if self.mix is not None:
            assert isinstance(plain.mix, nn.Conv2d)
            self.mix.fill(plain.mix)
        with torch.no_grad():
            plain.classifier.weight.copy_(self.classifier.weight[:, : plain.classifier.in_features])
            plain.classifier.bias.copy_(self.classifier.bias)


class ElasticPool(ElasticBlock):
    """A pooling layer, the same for every subnet, for a `PoolSpec`."""

    @classmethod
    def holding(cls, specs: Sequence[PoolSpec]) -> ElasticPool:
        """Return a block that computes each of ``specs``."""
        return cls()

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, PoolSpec)
        return F.max_pool2d(x, spec.kernel_size, spec.stride, spec.kernel_size // 2)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """There is nothing to copy."""


class ElasticBottleneck(ElasticBlock):
    """The elastic form of `Bottleneck`: input, middle and output channels vary, for a `BottleneckSpec`."""

    @classmethod
    def holding(cls, specs: Sequence[BottleneckSpec]) -> ElasticBottleneck:
        """Return a block that computes each of ``specs``."""
        return cls(_largest(specs, "in_channels", "mid_channels", "out_channels"))

    def __init__(self, largest: BottleneckSpec) -> None:
        super().__init__()
        mid, out = largest.mid_channels, largest.out_channels
        self.reduce_conv = ElasticConv2d(largest.in_channels, mid, 1, bias=False)
        self.reduce_bn = ElasticBatchNorm2d(mid)
        self.spatial_conv = ElasticConv2d(mid, mid, 3, largest.stride, 1, bias=False)
        self.spatial_bn = ElasticBatchNorm2d(mid)
        self.expand_conv = ElasticConv2d(mid, out, 1, bias=False)
        self.expand_bn = ElasticBatchNorm2d(out)
        if largest.downsample:
            self.shortcut_conv = ElasticConv2d(largest.in_channels, out, 1, bias=False)
            self.shortcut_bn = ElasticBatchNorm2d(out)

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, BottleneckSpec)
        y = F.relu(self.reduce_bn(self.reduce_conv(x, spec.mid_channels)))
        y = F.relu(self.spatial_bn(self.spatial_conv(y, spec.mid_channels)))
        y = self.expand_bn(self.expand_conv(y, spec.out_channels))
        if spec.downsample:
            if spec.stride > 1:
                x = F.avg_pool2d(x, spec.stride, spec.stride, ceil_mode=True)
            x = self.shortcut_bn(self.shortcut_conv(x, spec.out_channels))
        return F.relu(x + y)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, Bottleneck)
        parts: list[tuple[str, nn.Module]] = [
            ("reduce", plain.reduce), ("spatial", plain.spatial), ("expand", plain.expand),
        ]  # fmt: skip
        if isinstance(plain.shortcut, nn.Sequential):
            parts.append(("shortcut", plain.shortcut[-1]))
        for name, part in parts:
            assert isinstance(part, ConvBnAct)
            getattr(self, f"{name}_conv").fill(part.conv)
            getattr(self, f"{name}_bn").fill(part.bn)

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Order both sets of middle channels by the L1 norm of the convolution that reads them, largest first."""
        for reader, writer in (("expand", "spatial"), ("spatial", "reduce")):
            reading = getattr(self, f"{reader}_conv").weight
            order = reading.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
            _reorder(reading, order, dim=1)
            _reorder(getattr(self, f"{writer}_conv").weight, order, dim=0)
            for name in ("weight", "bias", "running_mean", "running_var"):
                _reorder(getattr(getattr(self, f"{writer}_bn"), name), order, dim=0)


class ElasticJoin(ElasticBlock):
    """The elastic form of `Join`."""

    def join(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """Return the chain's next output; see `Join.join`."""
        raise NotImplementedError


class ElasticSkipAdd(ElasticJoin):
    """Adds earlier outputs of the stage, for a `SkipAddSpec`; it has no weights."""

    @classmethod
    def holding(cls, specs: Sequence[SkipAddSpec]) -> ElasticSkipAdd:
        """Return a block that computes each of ``specs``."""
        return cls()

    def join(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """Return ``x`` plus the first outputs of the stage."""
        assert isinstance(spec, SkipAddSpec)
        return SkipAdd(spec.n_added).join(x, earlier)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """There is nothing to copy."""


class ElasticParallel(ElasticBlock):
    """The elastic form of `Parallel`: only the inverted bottleneck is elastic, for a `ParallelSpec`."""

    @classmethod
    def holding(cls, specs: Sequence[ParallelSpec]) -> ElasticParallel:
        """Return a block that computes each of ``specs``."""
        return cls(_largest(specs, "mid_channels"), tuple(sorted({s.kernel_size for s in specs if s.level & 4})))

    def __init__(self, largest: ParallelSpec, kernel_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.bottleneck = ElasticMBConv(largest.bottleneck, kernel_sizes)
        self.conv = ConvBnAct(largest.in_channels, largest.out_channels, 1, largest.stride, act=largest.act)
        self.transformation = transformation(largest)

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, ParallelSpec)
        branches = []
        if spec.level & 4:
            branches.append(self.bottleneck(x, spec.bottleneck))
        if spec.level & 2:
            branches.append(self.conv(x))
        if spec.level & 1:
            branches.append(self.transformation(x))
        y: Tensor = branches[0]
        for other in branches[1:]:
            y = y + other
        return y

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, Parallel)
        assert isinstance(spec, ParallelSpec)
        if plain.bottleneck is not None:
            self.bottleneck.fill(plain.bottleneck, spec.bottleneck)
        for own, theirs in ((self.conv, plain.conv), (self.transformation, plain.transformation)):
            if theirs is not None:
                theirs.load_state_dict(own.state_dict())

    def sort_channels(self) -> None:
        """See `ElasticMBConv.sort_channels`."""
        self.bottleneck.sort_channels()


class ElasticCellOp(ElasticJoin):
    """Operators of one edge with weights of their own, for a `CellOpSpec`."""

    @classmethod
    def holding(cls, specs: Sequence[CellOpSpec]) -> ElasticCellOp:
        """Return a block that computes each of ``specs``."""
        return cls(specs[0].in_channels, tuple(dict.fromkeys(s.operator for s in specs)))

    def __init__(self, channels: int, operators: tuple[str, ...]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name: cell_operator(name, channels) for name in operators})

    def join(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """See `join_cell`."""
        assert isinstance(spec, CellOpSpec)
        return join_cell(self.candidates[spec.operator], x, earlier, spec)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, CellOp)
        assert isinstance(spec, CellOpSpec)
        plain.op.load_state_dict(self.candidates[spec.operator].state_dict())


class ChoiceBlock(ElasticBlock):
    """Candidates with weights of their own, of which a subnet uses one (single path), for any specs.

    Reference:
        Guo et al., 2020, Single Path One-Shot; Zhang et al., 2020, HURRICANE.
    """

    def __init__(self, specs: Sequence[BlockSpec]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({_name(spec): spec.build() for spec in specs})

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        y: Tensor = self.candidates[_name(spec)](x)
        return y

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        plain.load_state_dict(self.candidates[_name(spec)].state_dict())


def _name(spec: BlockSpec) -> str:
    """The spec without its size, as a module name."""
    cells = (f"{k}{v}" for k, v in spec.columns.items() if k != "in_size_px")
    return "-".join([spec.kind, *cells]).replace(".", "_")


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
