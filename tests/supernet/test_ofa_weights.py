"""Do published Once-For-All weights compute here what they compute in the original package?"""

from __future__ import annotations

import random
import sys
import types

import numpy as np
import pytest
import torch

import hwnas
from hwnas.errors import CheckpointError
from hwnas.objectives.exact import macs_of_space, params_of_space
from hwnas.runs.published import import_ofa
from hwnas.space.dialects.once_for_all import format_ofa, parse_ofa
from hwnas.supernet import build_supernet, extract_subnet
from hwnas.supernet.weights.ofa_names import fold
from hwnas.supernet.weights.once_for_all import load_ofa_weights, ofa_names, read_ofa_checkpoint

N_SUBNETS = {"ofa-mbv3-w1.0": 30, "ofa-proxyless": 30, "ofa-resnet50d": 12}
RESOLUTIONS = (128, 160)


@pytest.fixture(scope="module")
def ofa_networks():
    """The original networks; a stand-in satisfies their import of torchvision, which they do not need."""
    pytest.importorskip("ofa", reason="the original package `ofa` is part of the dev extra")
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets")
    before = {name: sys.modules.get(name) for name in names}
    modules = {name: types.ModuleType(name) for name in names}
    modules["torchvision"].transforms = modules["torchvision.transforms"]
    modules["torchvision"].datasets = modules["torchvision.datasets"]
    modules["torchvision.transforms"].functional = modules["torchvision.transforms.functional"]
    for name in ("RandomResizedCrop", "Compose"):
        setattr(modules["torchvision.transforms"], name, type(name, (), {}))
    sys.modules.update(modules)
    from ofa.imagenet_classification.elastic_nn import networks

    yield networks
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module


FAMILIES = {
    "ofa-mbv3-w1.0": (
        "OFAMobileNetV3",
        {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]},
    ),
    "ofa-proxyless": (
        "OFAProxylessNASNets",
        {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4], "width_mult": 1.3},
    ),
    "ofa-resnet50d": (
        "OFAResNets",
        {"depth_list": [0, 1, 2], "expand_ratio_list": [0.2, 0.25, 0.35], "width_mult_list": [0.65, 0.8, 1.0]},
    ),
}


def original(networks, name):
    """The original supernet with random weights everywhere, kernel maps and BN statistics included."""
    class_name, arguments = FAMILIES[name]
    torch.manual_seed(0)
    net = getattr(networks, class_name)(**arguments)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in net.named_parameters():
            if "matrix" in parameter_name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.running_mean.copy_(0.1 * torch.randn(m.running_mean.shape, generator=generator))
                m.running_var.copy_(1 + 0.2 * torch.rand(m.running_var.shape, generator=generator))
                m.weight.copy_(0.8 + 0.4 * torch.rand(m.weight.shape, generator=generator))
                m.bias.copy_(0.1 * torch.randn(m.bias.shape, generator=generator))
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(FAMILIES))
def test_random_subnets_give_the_same_logits(ofa_networks, recipe, tmp_path):
    theirs = original(ofa_networks, recipe)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "checkpoint.pth")
    ours = build_supernet(hwnas.load_recipe(recipe).supernet)
    load_ofa_weights(ours, read_ofa_checkpoint(tmp_path / "checkpoint.pth"), "checkpoint")
    ours.eval()
    macs, params = macs_of_space(ours.layout), params_of_space(ours.layout)
    random.seed(0)
    worst = 0.0
    for i in range(N_SUBNETS[recipe]):
        resolution = RESOLUTIONS[i % 2]
        config = {**theirs.sample_active_subnet(), "r": resolution}
        arch = parse_ofa(config, ours.space)
        assert parse_ofa(format_ofa(arch, ours.space), ours.space) == arch
        x = torch.randn(1, 3, resolution, resolution, generator=torch.Generator().manual_seed(i))
        channels_last = x.to(memory_format=torch.channels_last)
        plain = theirs.get_active_subnet().eval()
        with torch.inference_mode():
            elastic_difference = (theirs(x) - ours(channels_last, arch)).abs().max()
            extracted_difference = (plain(x) - extract_subnet(ours, arch)(channels_last)).abs().max()
        worst = max(worst, float(elastic_difference), float(extracted_difference))
        assert params.of_archs([arch])[0] == sum(p.numel() for p in plain.parameters())
        if i < 5:
            assert macs.of_archs([arch])[0] == conv_and_linear_macs(plain, x)
    assert worst <= 1e-5


def conv_and_linear_macs(net, x):
    """Multiply-adds by hooks on the original's own layers."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        if isinstance(layer, torch.nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()
        else:
            total += layer.weight.numel()

    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    handles = [m.register_forward_hook(count) for m in layers]
    with torch.inference_mode():
        net(x)
    for handle in handles:
        handle.remove()
    return total


def test_names_are_folded_like_every_published_spelling():
    assert fold("module.blocks.1.mobile_inverted_conv.depth_conv.bn.bn.weight") == "blocks.1.conv.depth_conv.bn.weight"
    assert fold("blocks.1.conv.depth_conv.conv.conv.weight") == "blocks.1.conv.depth_conv.conv.weight"
    assert fold("blocks.1.conv.depth_conv.conv.7to5_matrix") == "blocks.1.conv.depth_conv.conv.7to5_matrix"
    assert fold("classifier.linear.linear.bias") == "classifier.linear.bias"


@pytest.fixture
def small():
    overrides = ["supernet.classes=7", "supernet.expand_width=48", "supernet.feature_width=64"]
    return build_supernet(hwnas.load_recipe("ofa-mbv3-w1.0", overrides).supernet)


def published_form(supernet):
    """A checkpoint that fits ``supernet``."""
    names = ofa_names(supernet)
    return {names[k]: v.clone() for k, v in supernet.state_dict().items()}


def test_missing_extra_and_misshapen_tensors_are_named_and_nothing_changes(small):
    tensors = published_form(small)
    before = {k: v.clone() for k, v in small.state_dict().items()}
    del tensors["blocks.3.conv.point_linear.conv.weight"]
    tensors["blocks.99.conv.weight"] = torch.zeros(1)
    tensors["classifier.linear.weight"] = torch.zeros(3, 5)
    with pytest.raises(CheckpointError) as error:
        load_ofa_weights(small, tensors, "here")
    message = str(error.value)
    for part in ("1 missing (blocks.3.conv.point_linear", "1 extra (blocks.99", "1 misshapen (classifier", "(3, 5)"):
        assert part in message
    assert all(torch.equal(v, before[k]) for k, v in small.state_dict().items())


def test_bare_state_dicts_and_wrapped_ones_are_read(small, tmp_path):
    tensors = published_form(small)
    torch.save(tensors, tmp_path / "bare.pth")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "wrapped.pth")
    bare, wrapped = (read_ofa_checkpoint(tmp_path / f"{n}.pth") for n in ("bare", "wrapped"))
    assert bare.keys() == wrapped.keys() == tensors.keys()


def test_code_and_damage_are_refused(tmp_path):
    torch.save({"state_dict": types.SimpleNamespace(a=1)}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="refused"):
        read_ofa_checkpoint(tmp_path / "code.pth")
    torch.save({"w": torch.zeros(1000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:500])
    with pytest.raises(CheckpointError, match="cut short"):
        read_ofa_checkpoint(tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_ofa_checkpoint(tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_ofa_checkpoint(tmp_path / "none.pth")


def test_kernel_maps_are_read_under_their_published_names(small):
    rng = np.random.default_rng(0)
    tensors = published_form(small)
    name = "blocks.2.conv.depth_conv.conv.7to5_matrix"
    tensors[name] = torch.from_numpy(rng.standard_normal((25, 25)).astype(np.float32))
    load_ofa_weights(small, tensors, "here")
    assert torch.equal(small.parts["stage1_block2"].depthwise.maps["7to5"], tensors[name])


@pytest.mark.slow
def test_a_checkpoint_of_other_classes_gives_all_but_the_head(small, tmp_path):
    changes = ["supernet.classes=4", "supernet.expand_width=48", "supernet.feature_width=64"]
    tensors = published_form(small)
    torch.save({"state_dict": tensors}, tmp_path / "seven.pth")
    told = []
    import_ofa(tmp_path / "seven.pth", "ofa-mbv3-w1.0", tmp_path / "out", changes, lambda *values: told.append(values))
    assert told[0][3].startswith(
        "the head is new, for 4 instead of 7 classes; all other weights are inherited; it is to"
    )
    made = hwnas.load_supernet(tmp_path / "out")
    names = ofa_names(made)
    for name, tensor in made.state_dict().items():
        if ".classifier." in name:
            assert tensor.shape[0] == 4
        else:
            assert torch.equal(tensor, tensors[names[name]]), name
    with pytest.raises(CheckpointError, match=r"does not fit recipe 'ofa-mbv3-w1\.0': \d+ misshapen"):
        import_ofa(tmp_path / "seven.pth", "ofa-mbv3-w1.0", tmp_path / "other", changes[:1])


def names_of(recipe):
    return ofa_names(build_supernet(hwnas.load_recipe(recipe, ["supernet.classes=3"]).supernet))


def test_tensors_have_the_names_that_once_for_all_gives_them():
    mobile, resnet = names_of("ofa-proxyless"), names_of("ofa-resnet50d")
    wanted = {
        "parts.stem.conv.weight": "first_conv.conv.weight",
        "parts.first_block.depthwise.weight": "blocks.0.conv.depth_conv.conv.weight",
        "parts.stage1_block1.project.weight": "blocks.1.conv.point_linear.conv.weight",
        "parts.feature_mix.bn.bias": "feature_mix_layer.bn.bias",
        "parts.head.classifier.bias": "classifier.linear.bias",
    }
    assert {own: mobile[own] for own in wanted} == wanted
    wanted = {
        "parts.stem_second.bn.weight": "input_stem.1.conv.bn.weight",
        "parts.stage1_block1.shortcut_conv.weight": "blocks.0.downsample.conv.weight",
    }
    published = hwnas.load_recipe("ofa-resnet50d").supernet
    first = published.stages[0].base_depth + max(published.extra_depths)
    wanted["parts.stage2_block1.spatial_bn.weight"] = f"blocks.{first}.conv2.bn.weight"
    assert {own: resnet[own] for own in wanted} == wanted


def test_networks_that_once_for_all_has_not_are_refused_with_those_that_it_has(tmp_path):
    with pytest.raises(CheckpointError, match=r"'mnist-hurricane' is of family 'hurricane'.*recipes .*ofa-mbv3-w1\.0"):
        import_ofa(tmp_path / "any.pth", "mnist-hurricane", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"no networks of family 'nasbench201'"):
        names_of("nasbench201")
