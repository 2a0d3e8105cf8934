"""Introspectability: by hand, and against an implementation that keeps every activation of every image."""

import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from hwnas.errors import SpaceError
from hwnas.objectives import class_profiles as class_profiles_module
from hwnas.objectives import introspectability as module
from hwnas.objectives.class_profiles import ACTIVATIONS, ClassProfiles, Division, divide, watched_layers
from hwnas.objectives.config import EvaluationConfig, IntrospectabilityConfig
from hwnas.objectives.introspectability import introspectability
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.supernet import extract_subnet


def brute_force(net, inputs, reduce):
    """The definition, image by image in float64: mean cosine distance of the predicted classes' mean activations."""
    sums = {}
    for x in inputs:
        seen = []
        handles = [
            m.register_forward_hook(lambda layer, given, out, seen=seen: seen.append(out[0].double().numpy()))
            for m in net.modules()
            if isinstance(m, (nn.Conv2d, *ACTIVATIONS))
        ]
        with torch.no_grad():
            label = int(net(x[None])[0].argmax())
        for handle in handles:
            handle.remove()
        if reduce == "channel_mean":
            seen = [a.mean((1, 2)) if a.ndim == 3 else a for a in seen]
        profile = np.concatenate([a.ravel() for a in seen])
        count, total = sums.get(label, (0, 0.0))
        sums[label] = count + 1, total + profile
    means = [total / count for count, total in sums.values()]
    pairs = [1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in itertools.combinations(means, 2)]
    return float(np.mean(pairs)) if pairs else 0.0


@pytest.mark.parametrize("reduce", ["none", "channel_mean"])
def test_it_is_the_brute_force_score(make_net, images, rng, reduce):
    for seed, arch in enumerate(make_net().space.sample(rng, 4)):
        net = extract_subnet(make_net(seed), arch)
        inputs = images(31, arch["resolution"], seed)
        with torch.no_grad():
            net[-1].classifier.bias -= net(inputs).mean(0)  # so that every class is predicted for some
            assert len(net(inputs).argmax(1).unique()) > 3
        wanted = brute_force(net, inputs, reduce)
        assert introspectability(net, inputs, reduce) == pytest.approx(wanted, rel=1e-5, abs=1e-7)
        assert 0 < wanted < 2


@pytest.mark.parametrize("batch_size", [1, 7, 31])
def test_the_batch_size_does_not_matter(make_net, images, batch_size):
    net = extract_subnet(make_net(), make_net().space.smallest())
    inputs = images(31, 11)
    with torch.no_grad():
        net[-1].classifier.bias -= net(inputs).mean(0)
    wanted = introspectability(net, inputs, batch_size=100)
    assert wanted > 0
    assert introspectability(net, inputs, batch_size=batch_size) == pytest.approx(wanted, rel=1e-6)


class Channels(nn.Module):
    """One convolution that copies its channels; the class is the channel with the largest sum."""

    def __init__(self, weight):
        super().__init__()
        weight = torch.tensor(weight, dtype=torch.float32)
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
        self.conv.weight.data = weight[:, :, None, None]
        self.n_classes = weight.shape[1]

    def forward(self, x):
        self.conv(x)
        return x.sum((2, 3))


def one_class_each(n):
    """Image i has ones in channel i only, and so is of class i."""
    return torch.eye(n)[:, :, None, None].expand(n, n, 3, 5).contiguous()


def test_two_classes_without_a_common_unit_are_one_apart():
    assert introspectability(Channels([[1, 0], [0, 1]]), one_class_each(2)) == pytest.approx(1.0)


def test_two_classes_of_opposite_units_are_two_apart():
    assert introspectability(Channels([[1, -1]]), one_class_each(2)) == pytest.approx(2.0)


def test_two_classes_of_equal_units_are_nothing_apart():
    assert introspectability(Channels([[1, 3]]), one_class_each(2)) == pytest.approx(0.0, abs=1e-7)


def test_three_classes_by_hand():
    # Profiles (1, 0), (1, 1), (0, 1): cosines 1/sqrt 2, 0, 1/sqrt 2.
    net = Channels([[1, 1, 0], [0, 1, 1]])
    wanted = ((1 - 1 / math.sqrt(2)) * 2 + 1) / 3
    assert introspectability(net, one_class_each(3)) == pytest.approx(wanted)


def test_a_profile_is_the_mean_of_its_images():
    """Many images of one class count as much as one of the other."""
    net = Channels([[1, 1], [0, 2]])
    inputs = one_class_each(2)[[0, 0, 0, 1]]
    assert introspectability(net, inputs) == pytest.approx(1 - 1 / math.sqrt(5))


def test_a_network_that_predicts_one_class_scores_nothing():
    assert introspectability(Channels([[1, 0], [0, 1]]), one_class_each(2)[[0, 0]]) == 0.0


def test_a_class_that_activates_nothing_has_no_direction():
    net = Channels([[0, 1, 0], [0, 0, 1]])
    assert introspectability(net, one_class_each(3)) == pytest.approx(1.0)  # only the last two form a pair
    assert math.isnan(introspectability(Channels([[0, 1]]), one_class_each(2)))


def test_nothing_seen_is_no_score():
    with ClassProfiles(Channels([[1, 0], [0, 1]])) as profiles:
        pass
    assert math.isnan(profiles.introspectability())


def test_hooks_are_gone_afterwards(make_net, images):
    net = extract_subnet(make_net(), make_net().space.smallest())
    introspectability(net, images(3, 11))
    with pytest.raises(SpaceError), ClassProfiles(net):
        make_net()(images(3, 13), make_net().space.smallest())
    assert not any(m._forward_hooks for m in net.modules())


def test_watched_layers_are_convolutions_and_activations_only(make_net):
    net = extract_subnet(make_net(), make_net().space.largest())
    watched = set(ClassProfiles(net)._layers)
    kinds = {type(m).__name__ for n, m in net.named_modules() if n in watched}
    assert kinds == {"Conv2d", "DepthwiseConv2d", "PixelConv2d", "ReLU", "Hardswish", "Hardsigmoid"}
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == sum(
        isinstance(net.get_submodule(n), nn.Conv2d) for n in watched
    )


def test_settings_are_strict():
    with pytest.raises(ValidationError):
        IntrospectabilityConfig(reduce="sum")


@pytest.mark.parametrize("reduce", ["none", "channel_mean"])
@pytest.mark.parametrize("most_bytes", [8 * 10, 8 * 10 * 333, 8 * 10 * 5000])
def test_several_passes_give_the_score_of_one(make_net, images, monkeypatch, reduce, most_bytes):
    net = extract_subnet(make_net(), make_net().space.largest())
    inputs = images(31, 11)
    with torch.no_grad():
        net[-1].classifier.bias -= net(inputs).mean(0)
    wanted = introspectability(net, inputs, reduce)
    divided, classes = divide(net, inputs[:1], reduce, most_bytes).passes, net(inputs[:1]).shape[1]
    features = {name: [] for name in watched_layers(net)}
    for part in divided:
        assert sum(f.last - f.first for f in part) * 8 * classes <= max(most_bytes, 8 * classes)
        for f in part:
            features[f.layer] += range(f.first, f.last)
    whole = {f.layer: f.last for part in divide(net, inputs[:1], reduce).passes for f in part}
    assert {name: len(found) for name, found in features.items()} == whole
    assert all(found == [*range(len(found))] for found in features.values())
    if len(divided) < 200:
        monkeypatch.setattr(module, "divide", lambda *arguments: Division(divided, 10**6))
        assert introspectability(net, inputs, reduce) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("n_images", [None, 7])
def test_an_objective_takes_as_many_passes_as_memory_wants(make_net, splits, monkeypatch, n_images):
    evaluator = SubnetEvaluator(make_net(), splits, EvaluationConfig())
    arch, names = evaluator.supernet.space.largest(), ["introspectability"]
    net = evaluator.subnet(arch)
    with torch.no_grad():
        net[-1].classifier.bias -= net(evaluator.inputs(splits.validation, arch)).mean(0)
    real, n_passes, batch = module.divide, [], 5  # one batch size for both: kernels of others round otherwise

    def one_pass(net, one, reduce):
        return Division(real(net, one, reduce).passes, batch)

    monkeypatch.setattr(module, "divide", one_pass)
    wanted = evaluator.score_network(net, arch, names, n_images)

    def few(net, one, reduce):
        n_passes.append(real(net, one, reduce, 8 * 10 * 900).passes)
        return Division(n_passes[-1], batch)

    monkeypatch.setattr(module, "divide", few)
    found = evaluator.score_network(net, arch, names, n_images)
    assert len(n_passes[0]) > 2
    assert found == pytest.approx(wanted, rel=1e-9)
    assert found["introspectability"] != 0


def test_what_is_held_of_a_batch_is_bounded(make_net, splits, monkeypatch):
    evaluator = SubnetEvaluator(make_net(), splits, EvaluationConfig())
    arch = evaluator.supernet.space.largest()
    net = evaluator.subnet(arch)
    inputs = evaluator.inputs(splits.validation, arch)
    of_one = 4 * sum(output.numel() for output in outputs_of(net, inputs[:1]))
    monkeypatch.setattr(class_profiles_module, "HELD_BYTES", 3 * of_one)
    sizes, real = set(), ClassProfiles.add
    monkeypatch.setattr(ClassProfiles, "add", lambda self, x, *rest: (sizes.add(len(x)), real(self, x, *rest))[1])
    evaluator.score_network(net, arch, ["introspectability"])
    assert max(sizes) == 3
    sizes.clear()
    introspectability(net, inputs)
    assert max(sizes) == 3


def outputs_of(net, inputs):
    """Outputs of all watched layers."""
    found = []
    handles = [m.register_forward_hook(lambda m, i, o: found.append(o)) for m in watched_layers(net).values()]
    with torch.no_grad():
        net(inputs)
    for handle in handles:
        handle.remove()
    return found
