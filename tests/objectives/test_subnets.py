"""Scores of subnets, and parameters and multiply-adds of a whole space against fvcore and the module itself."""

import math
import warnings

import numpy as np
import pytest
import torch

from hwnas.data import as_input
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.exact import entropy_of_space, macs_of_space, params_of_space
from hwnas.objectives.introspectability import introspectability
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import calibrate_bn, count_params, extract_subnet, make_layout
from hwnas.train import scores


def test_params_of_a_space_are_those_of_the_extracted_subnets(make_net, rng):
    net = make_net()
    archs = [net.space.smallest(), net.space.largest(), *net.space.sample(rng, 20)]
    wanted = [count_params(extract_subnet(net, a)) for a in archs]
    np.testing.assert_array_equal(params_of_space(net.layout).of_archs(archs), wanted)
    assert len(set(wanted)) > 10


def test_macs_of_a_space_are_those_of_fvcore(layout, rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        archs = [layout.space.smallest(), layout.space.largest(), *layout.space.sample(rng, 10)]
        wanted = []
        for arch in archs:
            x = torch.zeros(1, *layout.input_shape(arch))
            analysis = FlopCountAnalysis(layout.build_subnet(arch).eval(), x)
            found = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
            wanted.append(found["conv"] + found["linear"])
    np.testing.assert_array_equal(macs_of_space(layout).of_archs(archs), wanted)


def test_entropy_of_a_chain_is_that_of_its_convolutions(layout, rng):
    """Squeeze-and-excitation works on one pixel, so it adds nothing, and a residual has no convolution."""
    archs = [layout.space.smallest(), layout.space.largest(), *layout.space.sample(rng, 10)]
    wanted = []
    for arch in archs:
        fan_in: list[int] = []

        def note(conv, _, out, fan_in=fan_in):
            if out.shape[-1] > 1:
                fan_in.append(conv.weight[0].numel())

        subnet = layout.build_subnet(arch).eval()
        for module in subnet.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(note)
        subnet(torch.zeros(1, *layout.input_shape(arch)))
        wanted.append(sum(math.log(math.sqrt(n)) for n in fan_in))
    np.testing.assert_allclose(entropy_of_space(layout).of_archs(archs), wanted)
    assert len({round(w, 6) for w in wanted}) > 5


def test_of_branches_within_a_block_the_longest_counts():
    layout = make_layout(load_recipe("nasbench201").supernet)
    edges = [c.name for c in layout.space.choices if c.name != "resolution"]
    stem, reductions = [3 * 9], [16 * 9, 32 * 9, 32 * 9, 64 * 9]  # two 3x3, and 1x1 in the shortcut beside them
    nothing = sum(0.5 * math.log(n) for n in stem + reductions)

    def entropy(**operators):
        arch = layout.space.arch({"resolution": 32, **dict.fromkeys(edges, "none"), **operators})
        return float(entropy_of_space(layout).of_archs([arch])[0])

    assert entropy() == pytest.approx(nothing)
    per_cell = sum(0.5 * math.log(9 * c) for c in (16, 32, 64))
    assert entropy(edge0to3="nor_conv_3x3") == pytest.approx(nothing + 5 * per_cell)
    assert entropy(edge0to3="skip_connect") == pytest.approx(nothing)


def test_a_score_by_hand(make_net, splits):
    net = make_net()
    config = EvaluationConfig(calibration_images=29, calibration_batch_size=11)
    evaluator = SubnetEvaluator(net, splits, config)
    for arch in (net.space.smallest(), net.space.largest()):
        subnet = extract_subnet(net, arch)
        px = arch["resolution"]
        images = as_input(splits.train.images[:29], px, *splits.mean_std)
        calibrate_bn(subnet, [images[:11], images[11:22], images[22:]])
        inputs = as_input(splits.validation.images, px, *splits.mean_std)
        found = evaluator.score(arch, ["introspectability"])
        assert set(found) == {"top1_percent", "top1_stderr_percent", "introspectability"}
        wanted = scores(subnet, inputs, splits.validation.labels, splits.task)
        assert found["top1_percent"] == wanted["top1_percent"]
        assert found["introspectability"] == pytest.approx(introspectability(subnet, inputs), rel=1e-12)
        share = found["top1_percent"] / 100
        error = 100 * math.sqrt(max(share * (1 - share), 0.25 / 17) / 17)
        assert found["top1_stderr_percent"] == pytest.approx(error)
        assert evaluator.score(arch, ["introspectability"]) == found


def test_fewer_validation_images_are_the_first_ones(make_net, splits):
    net = make_net()
    arch = net.space.smallest()
    evaluator = SubnetEvaluator(net, splits, EvaluationConfig(validation_images=5))
    inputs = as_input(splits.validation.images[:5], 11, *splits.mean_std)
    wanted = scores(evaluator.subnet(arch), inputs, splits.validation.labels[:5], splits.task)
    assert evaluator.score(arch) == wanted
    fewer = scores(evaluator.subnet(arch), inputs[:3], splits.validation.labels[:3], splits.task)
    assert evaluator.score(arch, images=3) == fewer


def test_an_evaluation_changes_neither_supernet_nor_test_images(make_net, splits):
    net = make_net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    SubnetEvaluator(net, splits, EvaluationConfig()).score(net.space.largest())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_weights_that_are_not_finite_are_a_failed_evaluation(make_net, splits):
    net = make_net()
    net.parts["head"].classifier.weight.data[0, 0] = math.nan
    found = SubnetEvaluator(net, splits, EvaluationConfig()).score(net.space.smallest(), ["introspectability"])
    assert set(found) == {"top1_percent", "top1_stderr_percent", "introspectability"}
    assert all(map(math.isnan, found.values()))


def test_calibration_repairs_statistics_that_subnets_do_not_share(make_net, splits):
    """Shared statistics far off the subnet's own cost nearly everything; calibration makes them irrelevant."""
    net, other = make_net(), make_net()
    for name, tensor in other.state_dict().items():
        if name.endswith("running_mean"):
            tensor.add_(5.0)
    arch = net.space.smallest()
    a = SubnetEvaluator(net, splits, EvaluationConfig()).score(arch)
    b = SubnetEvaluator(other, splits, EvaluationConfig()).score(arch)
    assert a == b
