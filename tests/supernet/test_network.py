"""Supernet, extraction and BN calibration: bit-equal, by hand, and without memory."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.errors import SpaceError
from hwnas.space import SearchSpace
from hwnas.supernet import build_supernet, calibrate_bn, extract_subnet, fold_bn
from hwnas.supernet.blocks.layers import ConvBnAct
from hwnas.task.classification import CLASSIFICATION
from hwnas.train.phases import PhaseConfig, TrainConfig
from hwnas.train.step import make_optimiser, train_step


def assert_bit_equal(net, archs, images, batch=3):
    net.eval()
    for i, arch in enumerate(archs):
        x = images(batch, arch["resolution"], seed=i)
        subnet = extract_subnet(net, arch)
        with torch.no_grad():
            assert torch.equal(subnet(x), net(x, arch)), arch
            x = x.contiguous(memory_format=torch.channels_last)
            assert torch.equal(subnet(x), net(x, arch)), arch


def test_extracted_subnets_are_the_supernet_bit_for_bit(make_net, images, rng):
    net = make_net()
    archs = [net.space.largest(), net.space.smallest(), *net.space.sample(rng, 40), *net.space.sample(rng, 20, "archs")]
    assert len(set(archs)) > 50
    assert_bit_equal(net, archs, images)


def test_extracted_subnets_are_the_supernet_after_training_steps(tiny, images, rng):
    net = build_supernet(tiny, seed=5)
    phase = PhaseConfig(name="all", epochs=1, lr=0.1, subnets_per_step=3, sampling="sandwich")
    config = TrainConfig(batch_size=6, phases=(phase,))
    optimiser = make_optimiser(net, config)
    space = net.space.restrict({"resolution": [11]})
    for step in range(4):
        archs = [space.largest(), *space.sample(rng, 1), space.smallest()]
        y = torch.from_numpy(rng.integers(0, 7, 6))
        train_step(net.train(), optimiser, images(6, 11, step), y, archs, phase, config, 0.1, CLASSIFICATION)
    net.sort_channels()
    assert_bit_equal(net, net.space.sample(rng, 20), images)


def test_a_subnet_has_its_own_weights(make_net, images):
    net = make_net()
    arch = net.space.largest()
    subnet = extract_subnet(net, arch)
    x = images(2, 13)
    with torch.no_grad():
        before = subnet(x)
        for p in net.parameters():
            p.zero_()
        assert torch.equal(subnet(x), before)
    assert not subnet.training
    assert not any(type(m).__name__.startswith("Elastic") for m in subnet.modules())


def test_nothing_is_remembered_between_archs(make_net, images, rng):
    net = make_net()
    a, b = net.space.restrict({"resolution": [11]}).sample(rng, 2)
    x = images(2, 11)
    with torch.no_grad():
        first = net(x, a)
        net(x, b)
        assert torch.equal(net(x, a), first)
        assert not torch.equal(net(x, b), first)
    assert not make_net().state_dict().keys() - net.state_dict().keys()


def test_images_of_another_size_name_both_sizes(make_net, images):
    net = make_net()
    arch = net.space.restrict({"resolution": [11]}).largest()
    with pytest.raises(SpaceError, match=r"takes images of 5 x 11 x 11, got 5 x 13 x 13; resize"):
        net(images(2, 13), arch)
    with pytest.raises(SpaceError, match=r"got 3 x 11 x 11"):
        net(torch.zeros(2, 3, 11, 11), arch)
    with pytest.raises(SpaceError, match=r"got 5 x 11 x 13"):
        net(torch.zeros(2, 5, 11, 13), arch)


def test_an_arch_of_another_space_is_refused(make_net, tiny_with, images):
    net = make_net()
    wider = make_net(config=tiny_with(resolutions=[11, 17]))
    with pytest.raises(SpaceError, match="17 is not an option of 'resolution'"):
        net(images(2, 17), wider.space.largest())
    foreign = SearchSpace.of_choices({"op": [1, 2]}).largest()
    with pytest.raises(SpaceError, match="lacks choice 'resolution'"):
        extract_subnet(net, foreign)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(tiny):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    a, b, c = build_supernet(tiny, 1), build_supernet(tiny, 1), build_supernet(tiny, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name
    assert any(not torch.equal(t, c.state_dict()[n]) for n, t in a.state_dict().items())


def test_a_chain_fits_together(layout, rng):
    for arch in [layout.space.smallest(), layout.space.largest(), *layout.space.sample(rng, 20)]:
        chain = [spec for _, spec in layout.blocks(arch)]
        for before, after in itertools.pairwise(chain):
            assert before.out_channels == after.in_channels
            stride = getattr(before, "stride", 1)
            assert after.in_size_px == -(-before.in_size_px // stride)
        assert layout.input_shape(arch) == (5, arch["resolution"], arch["resolution"])


def test_archs_lead_to_their_blocks(layout):
    arch = layout.space.largest()
    assert arch.space.blocks(arch) == layout.blocks(arch)


# -- calibration ----------------------------------------------------------------------------------------


def normalised(a, mean, var):
    return (a - mean.reshape(1, -1, 1, 1)) / np.sqrt(var.reshape(1, -1, 1, 1) + 1e-5)


def test_calibration_is_the_mean_over_batches_by_hand():
    torch.manual_seed(0)
    net = nn.Sequential(ConvBnAct(5, 3, 1, act="relu"), ConvBnAct(3, 2, 1)).eval()
    net[0].bn.running_mean.fill_(3.0)
    net[1].bn.running_var.fill_(9.0)
    batches = [torch.randn(n, 5, 11, 13) * s for n, s in ((4, 1.0), (7, 2.0))]
    calibrate_bn(net, batches)
    means, variances = [[], []], [[], []]
    w0, w1 = (net[i].conv.weight.detach().numpy().astype(np.float64)[:, :, 0, 0] for i in (0, 1))
    for x in batches:
        a = np.einsum("oc,bchw->bohw", w0, x.numpy().astype(np.float64))
        means[0].append(a.mean((0, 2, 3)))
        variances[0].append(a.var((0, 2, 3), ddof=1))
        a = np.maximum(normalised(a, a.mean((0, 2, 3)), a.var((0, 2, 3))), 0)
        a = np.einsum("oc,bchw->bohw", w1, a)
        means[1].append(a.mean((0, 2, 3)))
        variances[1].append(a.var((0, 2, 3), ddof=1))
    for i in (0, 1):
        np.testing.assert_allclose(net[i].bn.running_mean.numpy(), np.mean(means[i], axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(net[i].bn.running_var.numpy(), np.mean(variances[i], axis=0), rtol=1e-4)


def test_calibration_changes_statistics_of_batch_norm_only(make_net, images):
    net = make_net()
    subnet = extract_subnet(net, net.space.largest())
    before = {k: v.clone() for k, v in subnet.state_dict().items()}
    momenta = [m.momentum for m in subnet.modules() if isinstance(m, nn.BatchNorm2d)]
    calibrate_bn(subnet, [images(6, 13, 1), images(6, 13, 2)])
    for name, tensor in subnet.state_dict().items():
        statistic = name.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")
        assert torch.equal(tensor, before[name]) != statistic, name
    assert [m.momentum for m in subnet.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert not any(m.training for m in subnet.modules())


def test_calibration_forgets_what_was_there_and_repeats(make_net, images):
    net = make_net()
    subnet = extract_subnet(net, net.space.smallest())
    batches = [images(5, 11, i) for i in range(3)]
    calibrate_bn(subnet, batches)
    once = {k: v.clone() for k, v in subnet.state_dict().items()}
    calibrate_bn(subnet, batches)
    assert all(torch.equal(v, once[k]) for k, v in subnet.state_dict().items())


def test_calibration_without_images_or_norms_changes_nothing(make_net):
    subnet = extract_subnet(make_net(), make_net().space.largest())
    before = {k: v.clone() for k, v in subnet.state_dict().items()}
    calibrate_bn(subnet, [])
    assert all(torch.equal(v, before[k]) for k, v in subnet.state_dict().items())
    calibrate_bn(nn.Linear(2, 3), [torch.zeros(1, 2)])


def test_calibration_returns_to_the_mode_it_came_in(images):
    net = ConvBnAct(5, 3, 3).train()
    calibrate_bn(net, [images(4, 11)])
    assert net.training
    assert net.bn.training


def test_folding_changes_rounding_only_and_nothing_of_the_network(make_net, images):
    net = make_net()
    subnet = extract_subnet(net, net.space.largest())
    calibrate_bn(subnet, [images(6, 13, 1)])
    before = {k: v.clone() for k, v in subnet.state_dict().items()}
    folded = fold_bn(subnet)
    x = images(5, 13, 2)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), subnet(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(v, before[k]) for k, v in subnet.state_dict().items())
    assert not any(getattr(m, "inplace", False) for m in subnet.modules())


def test_a_norm_after_anything_else_is_not_folded():
    net = nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(5), nn.ReLU()).eval()
    net[1].running_mean.fill_(2.0)
    x = torch.randn(3, 5, 8, 8)
    with torch.inference_mode():
        assert torch.equal(fold_bn(net)(x), net(x))
