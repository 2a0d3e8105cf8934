"""Two width phases, as once-for-all does them: the second orders channels within what the first has trained."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from hwnas.data import DataConfig
from hwnas.supernet import SuperNet, SupernetConfig, build_supernet
from hwnas.supernet.blocks.bottleneck import ElasticBottleneck
from hwnas.supernet.blocks.elastic_layers import by_importance
from hwnas.supernet.blocks.mbconv import ElasticMBConv
from hwnas.train.loop import train_supernet
from hwnas.train.phases import TrainConfig

STAGE = {
    "width": 16,
    "stride": 2,
    "depths": [1, 2],
    "kernel_sizes": [3, 5],
    "expand_ratios": [3, 4, 6],
    "act": "hswish",
}
MBV3 = {
    "family": "mbv3", "in_channels": 2, "classes": 7, "resolutions": [12], "stem_stride": 1, "stem_width": 16,
    "expand_width": 48, "feature_width": 64, "stages": [STAGE, {**STAGE, "width": 24, "se": True}],
}  # fmt: skip
OFAV2 = {**MBV3, "family": "ofav2", "parallel": True, "dense_skips": True}
RESNET = {
    "family": "resnet50d", "in_channels": 2, "classes": 7, "resolutions": [16], "stem_width": 16,
    "width_multipliers": [1.0], "expand_ratios": [0.2, 0.25, 0.35],
    "stages": [{"width": 64, "stride": 1, "base_depth": 1}, {"width": 128, "stride": 2, "base_depth": 1}],
}  # fmt: skip
CONFIGS = {"mbv3": MBV3, "ofav2": OFAV2, "resnet50d": RESNET}


def make(name):
    net = build_supernet(TypeAdapter(SupernetConfig).validate_python(CONFIGS[name]), seed=3).eval()
    learn(net, 0)
    return net


def learn(net, seed):
    """Stands for a phase of training: every tensor moves."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=g) * (0.05 if "var" in key else 0.3)).clamp_(
                    min=0.1 if "var" in key else -9
                )


def ratios(net, *kept):
    top = {f: [max(v for c in net.space.choices if f in c.fields for o in c.options
                   if (v := c.field_value(o, f)) is not None)] for f in ("kernel_size", "level") if
           any(f in c.fields for c in net.space.choices)}  # fmt: skip
    return net.space.where(expand_ratio=kept, **top)


def once_for_all_order(importance, widths, stage):
    """The order that once-for-all's description gives: from the widest group inwards, every group of channels gets an
    offset that grows by 1e5, far above any importance; then all are sorted by importance, largest first."""
    importance = importance.double().clone()
    if stage > 0:
        right, offset = len(importance), -len(widths) * 1e5
        for left in sorted(widths, reverse=True)[: stage + 1]:
            importance[left:right] += offset
            offset, right = offset + 1e5, left
    return torch.sort(importance, descending=True).indices


def norms(conv):
    return conv.weight.detach().abs().sum((0, 2, 3))


def middles(net):
    """Blocks with middle channels, each with the convolution that reads them, the batch norm that writes them, and the
    widths that the space gives them."""
    for slot in net.layout.slots:
        block = net.elastic_blocks[slot.name]
        block = getattr(block, "bottleneck", block)
        widths = sorted({getattr(s, "mid_channels", 0) for s in net.layout.specs(slot)} - {0})
        if isinstance(block, ElasticMBConv) and block.expands:
            yield slot.name, block.project, block.depthwise_bn, widths
        elif isinstance(block, ElasticBottleneck):
            yield slot.name, block.expand_conv, block.spatial_bn, widths


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_two_width_phases_keep_the_channels_that_once_for_all_keeps(name):
    net = make(name)
    choice = next(c for c in net.space.choices if "expand_ratio" in c.fields)
    values = sorted({v for o in choice.options if (v := choice.field_value(o, "expand_ratio")) is not None})
    assert len(values) == 3
    phases = [ratios(net, values[-1]), ratios(net, *values[1:])]
    moved = []
    for stage in (0, 1):
        before = {}
        for slot, reader, bn, widths in middles(net):
            bn.running_mean.copy_(torch.arange(len(bn.running_mean)))  # which channel is which
            before[slot] = once_for_all_order(norms(reader), widths, stage), torch.sort(norms(reader), descending=True)
        net.sort_channels(phases[: stage + 1])
        for slot, _, bn, widths in middles(net):
            wanted, anew = before[slot]
            assert bn.running_mean.long().tolist() == wanted.tolist(), (slot, stage)
            narrow = sorted(widths)[:2] if stage == 1 else sorted(widths)
            for width in narrow:
                assert set(bn.running_mean[:width].long().tolist()) == set(wanted[:width].tolist())
            middle = widths[1]
            moved.append(stage == 1 and set(anew.indices[:middle].tolist()) != set(range(middle)))
        learn(net, 1 + stage)
    assert any(moved), "ordering all channels anew would have kept the same ones: the test shows nothing"


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_what_is_trained_computes_the_same_after_the_next_sorting(name):
    net = make(name)
    choice = next(c for c in net.space.choices if "expand_ratio" in c.fields)
    values = sorted({v for o in choice.options if (v := choice.field_value(o, "expand_ratio")) is not None})
    trained = ratios(net, *values[1:])
    archs = trained.sample(np.random.default_rng(0), 8)
    resolution = net.space["resolution"].options[0]
    x = torch.randn(2, 2, resolution, resolution, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = [net(x, net.space.arch(a.as_dict())) for a in archs]
        narrow = net(x, net.space.smallest())
        net.sort_channels([trained])
        for a, wanted in zip(archs, before, strict=True):
            scale = wanted.abs().max()
            assert (net(x, net.space.arch(a.as_dict())) - wanted).abs().max() < 1e-4 * scale
        if name != "ofav2":  # its smallest has no bottleneck
            assert (net(x, net.space.smallest()) - narrow).abs().max() > 1e-3 * narrow.abs().max()


def test_channels_are_ordered_within_groups_only():
    reader = torch.tensor([1.0, 5.0, 2.0, 9.0, 3.0, 4.0]).view(1, 6, 1, 1)
    assert by_importance(reader).tolist() == [3, 1, 5, 4, 2, 0]
    assert by_importance(reader, [3]).tolist() == [1, 2, 0, 3, 5, 4]
    assert by_importance(reader, [3, 3, 4, 6, 0, 99]).tolist() == [1, 2, 0, 3, 5, 4]
    assert by_importance(reader, [1, 2]).tolist() == [0, 1, 3, 5, 4, 2]


def test_training_tells_what_earlier_phases_have_trained(splits, tiny, tmp_path, monkeypatch):
    ratios = tiny.stages[0].expand_ratios
    common = {"epochs": 0.5, "lr": 0.05}
    phases = [
        {"name": "full", **common},
        {"name": "width-1", **common, "elastic": {"expand_ratio": ratios[1:]}, "sort_channels": True},
        {"name": "width-2", **common, "elastic": {"expand_ratio": "all"}, "sort_channels": True},
    ]
    changes, sort = [], SuperNet.sort_channels

    @torch.no_grad()
    def watched(net, trained=()):
        trained = list(trained)
        net.eval()
        archs = [net.space.arch(part.smallest().as_dict()) for part in trained]
        images = [torch.randn(2, *net.layout.input_shape(a)) for a in archs]
        before = [net(x, a) for x, a in zip(images, archs, strict=True)]
        sort(net, trained)
        after = [net(x, a) for x, a in zip(images, archs, strict=True)]
        changes.append([float((a - b).abs().max()) for a, b in zip(before, after, strict=True)])
        net.train()

    monkeypatch.setattr(SuperNet, "sort_channels", watched)
    config = TrainConfig.model_validate({"batch_size": 8, "phases": phases})
    train_supernet(tiny, config, DataConfig(), splits, tmp_path)
    assert [len(c) for c in changes] == [1, 2]
    assert max(max(c) for c in changes) < 1e-4
