"""Zero-cost proxies against their formulas, worked out on networks small enough for it."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.proxies.activations import jacob_cov, linear_regions, naswot
from hwnas.objectives.proxies.by_name import PROXIES, ProxyCase
from hwnas.objectives.proxies.flatness import flatness
from hwnas.objectives.proxies.gradients import grasp, saliencies, synflow, zico
from hwnas.objectives.proxies.networks import without_residual_links
from hwnas.objectives.proxies.tangent_kernel import ntk_condition
from hwnas.objectives.proxies.thin import random_crops, thin_network
from hwnas.objectives.proxies.zen import zen
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout
from hwnas.supernet.blocks.bottleneck import BottleneckSpec
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.blocks.reduction import ReductionSpec
from hwnas.supernet.blocks.skip_add import SkipAddSpec
from hwnas.task.classification import CLASSIFICATION


@pytest.fixture
def softmax():
    """A linear classifier of 3 inputs and 4 classes with what its gradient is made of, in float64."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 4))
    x, y = torch.randn(5, 3, 1, 1), torch.tensor([0, 1, 2, 3, 1])
    weight = net[1].weight.detach().double().numpy()
    inputs = x[:, :, 0, 0].double().numpy()
    logits = inputs @ weight.T + net[1].bias.detach().double().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return net, x, y, weight, inputs, logits, p, p - np.eye(4)[y.numpy()]


def test_saliencies_of_softmax_regression(softmax):
    net, x, y, weight, inputs, logits, _, residual = softmax
    gradient = residual.T @ inputs / 5
    found = saliencies(net, x, y, CLASSIFICATION)
    assert found["grad_norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert found["snip"] == pytest.approx(np.abs(weight * gradient).sum(), rel=1e-5)
    assert found["fisher"] == pytest.approx(0.5 * ((logits * residual / 5) ** 2).mean(0).sum(), rel=1e-5)


def test_grasp_of_softmax_regression(softmax):
    net, x, y, weight, inputs, _, p, residual = softmax
    gradient = residual.T @ inputs / 5
    moved = inputs @ gradient.T  # what the gradient's direction does to the logits
    change = p * moved - p * (p * moved).sum(1, keepdims=True)
    hessian_gradient = change.T @ inputs / 5
    assert grasp(net, x, y, CLASSIFICATION) == pytest.approx(-(hessian_gradient * weight).sum(), rel=1e-4)


def test_fisher_sums_over_positions_before_it_squares():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    x, y = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1])
    w, v = net[0].weight.item(), net[2].weight.detach()
    maps = w * x.flatten(1)
    logits = maps @ v.T
    residual = (logits.softmax(1) - F.one_hot(y)) / 3
    per_map = (maps * (residual @ v)).sum(1)  # one channel
    expected = 0.5 * per_map.square().mean() + (0.5 * (logits * residual).square().mean(0)).sum()
    assert saliencies(net, x, y, CLASSIFICATION)["fisher"] == pytest.approx(float(expected), rel=1e-5)


def test_synaptic_flow_is_conserved_from_layer_to_layer():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5, bias=False)
    )
    net[1].weight.data.fill_(7.0)  # batch norm is left out
    first, second = net[0].weight.detach().abs()[:, :, 0, 0].sum(1), net[4].weight.detach().abs().sum(0)
    total = float((first.repeat_interleave(4) * second).sum())
    assert synflow(net, (2, 2, 2)) == pytest.approx(2 * total, rel=1e-6)


def test_naswot_counts_equal_bits():
    x = torch.tensor([[1.0, -1.0, 2.0], [3.0, 1.0, -0.5]])[:, :, None, None]
    assert naswot(nn.Sequential(nn.ReLU(), nn.Flatten()), x) == pytest.approx(math.log(3 * 3 - 1 * 1))
    two_layers = nn.Sequential(nn.ReLU(), nn.Hardswish(), nn.Flatten())
    assert naswot(two_layers, x) == pytest.approx(math.log(6 * 6 - 2 * 2))
    assert naswot(nn.ReLU(), torch.cat([x, x[:1]])) == -math.inf  # two equal images


def test_equal_jacobians_correlate_fully():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    k, n = 1e-5, 4
    expected = -((n - 1) * (math.log(k) + 1 / k) + math.log(n + k) + 1 / (n + k))
    assert jacob_cov(net, torch.randn(n, 6, 1, 1)) == pytest.approx(expected, rel=1e-3)


def test_the_tangent_kernel_of_a_linear_network_is_that_of_its_inputs():
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    x = torch.randn(4, 6, 1, 1, generator=torch.Generator().manual_seed(3))
    gram = x.flatten(1).double() @ x.flatten(1).double().T
    assert ntk_condition(net, x, repeats=2) == pytest.approx(float(torch.linalg.cond(gram)), rel=1e-4)
    assert ntk_condition(net, x[[0, 0]]) > 1e6  # two equal images


def test_the_tangent_kernel_sees_the_weights_of_batch_norms_and_no_biases():
    """By differences, on a network whose weights are those that the proxy draws."""
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    x = torch.randn(4, 2, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        drawn = copy.deepcopy(net).train()
        for layer in (drawn[0], drawn[4]):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            layer.bias.zero_()
        columns = []
        for weight in (drawn[0].weight, drawn[1].weight, drawn[4].weight):
            for i in range(weight.numel()):
                ends = []
                for step in (1e-6, -1e-6):
                    weight.view(-1)[i] += step
                    ends.append(drawn(x).sum(1))
                    weight.view(-1)[i] -= step
                columns.append((ends[0] - ends[1]) / 2e-6)
    jacobian = torch.stack(columns, 1)
    expected = float(torch.linalg.cond(jacobian @ jacobian.T))
    assert ntk_condition(net, x, seed=7, repeats=1) == pytest.approx(expected, rel=1e-3)
    several = [ntk_condition(net, x, seed=7 + i, repeats=1) for i in range(3)]
    assert ntk_condition(net, x, seed=7) == pytest.approx(sum(several) / 3)


def test_the_tangent_kernel_takes_the_images_and_draws_of_the_paper_unless_told_otherwise(make_net, splits):
    net = make_net()
    arch = net.space.smallest()
    case = ProxyCase.of(SubnetEvaluator(net, splits, EvaluationConfig(proxy_images=4), seed=1).case(arch))
    assert (len(case.images), len(case.ntk_images), case.ntk_initialisations) == (4, min(72, len(splits.train)), 3)
    config = EvaluationConfig(ntk_images=5, ntk_initialisations=2)
    case = ProxyCase.of(SubnetEvaluator(net, splits, config, seed=1).case(arch))
    wanted = ntk_condition(case.network, case.ntk_images, case.seed, 2)
    assert len(case.ntk_images) == 5
    assert PROXIES["ntk_condition"].value(case) == wanted
    assert "ntk_images" not in EvaluationConfig().model_dump()  # hashes of older runs stay
    assert config.model_dump()["ntk_images"] == 5


def test_zico_of_softmax_regression(softmax):
    net, x, y, _, inputs, _, _, residual = softmax
    batches = [(x[:2], y[:2]), (x[2:4], y[2:4])]
    first, second = (residual[i : i + 2].T @ inputs[i : i + 2] / 2 for i in (0, 2))
    mean, std = (np.abs(first) + np.abs(second)) / 2, np.abs(first - second) / 2
    assert zico(net, batches, CLASSIFICATION) == pytest.approx(math.log((mean / std).sum()), rel=1e-4)
    assert zico(net, [batches[0], batches[0]], CLASSIFICATION) == -math.inf  # nothing varies


def test_zico_adds_up_over_layers_and_takes_all_batches(layout):
    arch = layout.space.largest()
    torch.manual_seed(0)
    net = layout.build_subnet(arch)
    x, y = torch.randn(70, *layout.input_shape(arch)), torch.arange(70) % 7
    case = ProxyCase(net, layout.blocks(arch), x, y, CLASSIFICATION)
    train = copy.deepcopy(net).train()
    for m in train.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    gradients = []
    for rows in (slice(0, 32), slice(32, 64)):  # the rest is no whole batch
        train.zero_grad()
        F.cross_entropy(train(x[rows]), y[rows]).backward()
        gradients.append([m.weight.grad.double().numpy().copy() for m in train.modules()
                          if isinstance(m, nn.Conv2d | nn.Linear)])  # fmt: skip
    total = 0.0
    for of_layer in zip(*gradients, strict=True):
        g = np.stack([a.ravel() for a in of_layer])
        varies = g.std(0) > 0
        total += math.log((np.abs(g).mean(0)[varies] / g.std(0)[varies]).sum())
    assert PROXIES["zico"].value(case) == pytest.approx(total, rel=1e-6)


def test_linear_regions_are_distinct_patterns():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    net[0].weight.data[:, 0, 0, 0] = torch.tensor([1.0, 1.0])
    net[0].bias.data[:] = torch.tensor([0.0, -1.0])
    x = torch.tensor([-2.0, -1.0, 0.5, 0.7, 3.0])[:, None, None, None]
    assert linear_regions(net, x) == 3  # below 0, between 0 and 1, above 1


def test_zen_undoes_what_batch_norm_scales():
    plain = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        weight = nn.init.normal_(torch.empty(1, 1, 1, 1)).abs().item()
    expected = math.log(0.01 * weight * 100 * math.sqrt(2 / math.pi))  # mean of |normal|, 10 x 10 pixels
    found = zen(plain, (1, 10, 10), seed=5, repeats=1, batch_size=400)
    assert found == pytest.approx(expected, abs=0.02)
    normed = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    assert zen(normed, (1, 10, 10), seed=5, repeats=1, batch_size=400) == pytest.approx(found, abs=0.02)


@pytest.mark.parametrize(
    "spec",
    [
        MBConvSpec(8, 8, 9, 16, True, 3, 1, False, "relu", True),
        ConvSpec(8, 8, 9, 1, 1, "relu", True),
        BottleneckSpec(8, 16, 9, 8, 2, True),
        ReductionSpec(8, 16, 9),
    ],
    ids=lambda spec: spec.kind,
)
def test_zen_looks_at_a_network_without_residual_links(spec):
    block = spec.build()
    shape, names = (8, 9, 9), [n for n, _ in block.named_modules()]
    plain = copy.deepcopy(block)
    if isinstance(spec, MBConvSpec):
        plain = nn.Sequential(*[getattr(plain, n) for n in ("expand", "depthwise", "project")])
    elif isinstance(spec, ConvSpec):
        plain = plain.conv
    elif isinstance(spec, BottleneckSpec):
        plain = nn.Sequential(plain.reduce, plain.spatial, plain.expand, nn.ReLU())
    else:
        plain = nn.Sequential(plain.first, plain.second)
    assert len(names) > len(list(plain.modules())) or isinstance(spec, MBConvSpec)
    x = torch.randn(4, *shape)
    with torch.no_grad():
        alone = without_residual_links(copy.deepcopy(block).train())(x)
        torch.testing.assert_close(alone, plain.train()(x))
        assert not torch.allclose(alone, block.train()(x))
    if not isinstance(spec, BottleneckSpec | ReductionSpec):  # with other layers it would draw other weights
        assert zen(block, shape, seed=1, repeats=1) == pytest.approx(zen(plain, shape, seed=1, repeats=1), rel=1e-5)
    assert block.residual


def test_zen_leaves_dense_skips_out():
    skip = SkipAddSpec(4, 4, 5, 2).build()
    x = torch.ones(1, 4, 5, 5)
    assert torch.equal(skip.combine(x, [x, x, x]), 3 * x)
    assert torch.equal(without_residual_links(skip).combine(x, [x, x, x]), x)


def test_flatness_of_a_loss_that_no_noise_changes():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 7)

    x, y = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2])
    assert flatness(Constant(), x, y, CLASSIFICATION, [x]) == pytest.approx(1 / (math.log(7) / 0.001 + 1e-5), rel=1e-6)


def test_flatness_adds_noise_to_noise():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.randn(6, 4, 1, 1), torch.tensor([0, 1, 2, 0, 1, 2])
    moved, losses = copy.deepcopy(net), []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(9)
        for sigma in (0.001, 0.003, 0.006):
            moved[1].weight += torch.randn(3, 4) * sigma
            moved[1].bias += torch.randn(3) * sigma
            losses.append(float(F.cross_entropy(moved(x), y)))
    slopes = abs(losses[0] / 0.001) + abs(losses[1] - losses[0]) / 0.002 + abs(losses[2] - losses[1]) / 0.003
    assert flatness(net, x, y, CLASSIFICATION, [x], seed=9) == pytest.approx(1 / (slopes + 1e-5), rel=1e-6)


def test_a_thin_cell_has_one_two_and_four_channels():
    layout = make_layout(load_recipe("nasbench201").supernet)
    net = thin_network(layout.blocks(layout.space.largest()))
    assert "stem" not in dict(net.named_children())
    widths = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert widths[0] == 1
    assert sorted(set(widths)) == [1, 2, 4]
    assert net(torch.zeros(2, 1, 3, 3)).shape == (2, 10)


def test_a_thin_network_keeps_its_skips_within_their_stages():
    overrides = ["supernet.dense_skips=true", "supernet.early_exits=false", "supernet.parallel=false"]
    layout = make_layout(load_recipe("mnist-ofav2", overrides).supernet)
    arch = layout.space.largest()
    images = torch.randn(4, *layout.input_shape(arch))
    targets = torch.zeros(4, dtype=torch.long)
    case = ProxyCase(layout.build_subnet(arch), layout.blocks(arch), images, targets, CLASSIFICATION)
    assert PROXIES["linear_regions"].value(case) > 1


def test_crops_are_windows_of_the_images():
    images = torch.arange(2 * 3 * 5 * 6).view(2, 3, 5, 6)
    crops = random_crops(images, 40, 2, seed=0)
    assert crops.shape == (40, 2, 3, 3)
    assert (crops[..., 1:] - crops[..., :-1] == 1).all()
    assert (crops[..., 1:, :] - crops[..., :-1, :] == 6).all()
    assert len(torch.unique(crops[:, 0, 0, 0])) > 10


@pytest.fixture
def made_case(layout):
    """A network, and what a proxy sees of it on a device."""
    arch = layout.space.largest()
    torch.manual_seed(0)
    net = layout.build_subnet(arch)
    x, y = torch.randn(6, *layout.input_shape(arch)), torch.arange(6)

    def case(device="cpu"):
        there = copy.deepcopy(net).to(device) if device != "cpu" else net
        images, targets = x.to(device), y.to(device)
        trained = (there, images, targets, [images])
        return ProxyCase(net, layout.blocks(arch), images, targets, CLASSIFICATION, lambda: trained, seed=3)

    return net, case


@pytest.mark.parametrize("name", sorted(PROXIES))
def test_a_proxy_leaves_the_network_and_the_generator_alone(name, made_case):
    net, case = made_case
    before, state = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    first = PROXIES[name].value(case())
    assert math.isfinite(first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())
    assert PROXIES[name].value(case()) == first


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", sorted(PROXIES))
def test_a_proxy_is_the_same_on_a_gpu(name, made_case):
    _, case = made_case
    assert PROXIES[name].value(case("cuda")) == pytest.approx(PROXIES[name].value(case()), rel=1e-2)


def test_networks_without_a_value_give_nan():
    layout = make_layout(load_recipe("nasbench201", ["supernet.cells_per_stage=1", "supernet.stem_width=8"]).supernet)
    arch = layout.space.smallest()  # nothing reaches the classifier
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    case = ProxyCase(layout.build_subnet(arch), layout.blocks(arch), x, y, CLASSIFICATION)
    assert PROXIES["snip"].value(case) == 0
    assert all(math.isnan(PROXIES[name].value(case)) for name in ("naswot", "synflow", "ntk_condition", "flatness"))


def test_proxies_of_subnets_repeat(make_net, splits):
    net = make_net()
    one, same, other = (SubnetEvaluator(net, splits, EvaluationConfig(proxy_images=8), seed=s) for s in (1, 1, 2))
    arch = net.space.smallest()
    names = ["naswot", "flatness"]
    found = one.score(arch, names)
    assert same.score(arch, names) == found
    changed = other.score(arch, names)
    assert all(changed[name] != found[name] for name in names)
    assert changed["top1_percent"] == found["top1_percent"]


def test_a_proxy_alone_needs_no_evaluation(make_net, splits, monkeypatch):
    net = make_net()
    evaluator = SubnetEvaluator(net, splits, EvaluationConfig(proxy_images=8), seed=1)
    wanted = evaluator.score(net.space.smallest(), ["naswot"])["naswot"]
    monkeypatch.setattr(SubnetEvaluator, "subnet", None)  # nothing is extracted
    assert PROXIES["naswot"].value(ProxyCase.of(evaluator.case(net.space.smallest()))) == wanted
