"""Files of weights: exact, named, never pickled; what is damaged or foreign is told apart."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from hwnas.errors import CheckpointError
from hwnas.train.checkpoint import (
    load_supernet,
    load_tensors,
    load_weights,
    save_supernet,
    save_tensors,
    weights_version,
)


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {
        "a": torch.randn(3, 5).T,
        "b": torch.randn(2, 3, 5, 7).contiguous(memory_format=torch.channels_last),
        "n": torch.tensor(7),
    }
    save_tensors(tmp_path / "x.safetensors", tensors, {"step": 3, "nested": {"list": [1, 2.5, None]}})
    found, metadata = load_tensors(tmp_path / "x.safetensors")
    assert metadata == {"step": 3, "nested": {"list": [1, 2.5, None]}}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], tensors[k]) for k in tensors)
    assert load_file(tmp_path / "x.safetensors").keys() == tensors.keys()


def test_a_supernet_comes_back_bit_for_bit(make_net, images, tmp_path):
    net = make_net()
    path = save_supernet(net, tmp_path, {"images": "abc"})
    assert path == tmp_path / "supernet.safetensors"
    x = images(3, 13)
    for given in (tmp_path, path, str(tmp_path)):
        found = load_supernet(given)
        assert found.config == net.config
        assert not found.training
        arch = found.space.restrict({"resolution": [13]}).smallest()
        with torch.no_grad():
            assert torch.equal(found(x, arch), net(x, arch))


def test_the_version_changes_with_any_weight(make_net, tmp_path):
    net = make_net()
    path = save_supernet(net, tmp_path)
    before = weights_version(path)
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert weights_version(save_supernet(net, tmp_path)) == before
    with torch.no_grad():
        net.parts["head"].classifier.bias[3] += 1e-3
    assert weights_version(save_supernet(net, tmp_path)) != before
    with pytest.raises(CheckpointError, match="train first"):
        weights_version(tmp_path / "none.safetensors")


def test_a_missing_file_names_the_next_step(tmp_path):
    with pytest.raises(CheckpointError, match=r"supernet\.safetensors does not exist; train first"):
        load_supernet(tmp_path)


def test_a_family_that_is_not_installed_is_named(make_net, tmp_path):
    net = make_net()
    save_tensors(
        tmp_path / "supernet.safetensors", net.state_dict(),
        {"supernet": {**net.config.model_dump(mode="json"), "family": "their_package.nets:PLAIN"}, "info": {}},
    )  # fmt: skip
    with pytest.raises(
        CheckpointError, match=r"not known here, supernet\.family: .*their_package.*; install the package"
    ):
        load_supernet(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_file_that_is_cut_short_is_damaged(make_net, tmp_path, keep):
    path = save_supernet(make_net(), tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="it is damaged, restore or remove it"):
        load_supernet(tmp_path)


def test_a_file_that_is_no_safetensors_is_damaged(tmp_path):
    (tmp_path / "supernet.safetensors").write_bytes(b"\x80\x04 this was a pickle once" * 9)
    with pytest.raises(CheckpointError, match="damaged"):
        load_supernet(tmp_path)


def test_a_file_of_others_is_not_ours(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "supernet.safetensors")
    with pytest.raises(CheckpointError, match="is not a file of hwnas"):
        load_supernet(tmp_path)
    save_file({"a": torch.zeros(3)}, tmp_path / "supernet.safetensors", {"hwnas": '{"format": "99"}'})
    with pytest.raises(CheckpointError, match="format '99', expected '1'"):
        load_supernet(tmp_path)


def test_our_file_without_a_supernet_is_told(tmp_path):
    save_tensors(tmp_path / "supernet.safetensors", {"a": torch.zeros(3)}, {"arch": 1})
    with pytest.raises(CheckpointError, match="holds no supernet"):
        load_supernet(tmp_path)


def test_settings_that_this_version_does_not_know_are_told(make_net, tmp_path):
    net = make_net()
    settings = {**net.config.model_dump(mode="json"), "family": "later"}
    save_tensors(tmp_path / "supernet.safetensors", net.state_dict(), {"supernet": settings})
    with pytest.raises(CheckpointError, match="family"):
        load_supernet(tmp_path)


def test_metadata_that_is_no_json_is_damage(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "supernet.safetensors", {"hwnas": '{"supernet": '})
    with pytest.raises(CheckpointError, match="damaged"):
        load_supernet(tmp_path)


def test_weights_of_another_network_name_their_tensors(make_net, tiny_with, tmp_path):
    small, large = make_net(), make_net(config=tiny_with(expand_width=48, first_block=False))
    tensors = small.state_dict()
    with pytest.raises(CheckpointError) as caught:
        load_weights(large, tensors, "here.safetensors")
    message = str(caught.value)
    assert message.startswith("here.safetensors is of another network: 12 unknown: parts.first_block.")
    assert "parts.final_expand.conv.weight (40, 16, 1, 1) instead of (48, 16, 1, 1)" in message
    assert "use the recipe it was made with" in message
    with pytest.raises(CheckpointError, match=r"12 missing: parts\.first_block\."):
        load_weights(small, large.state_dict(), "here")


def test_a_missing_tensor_changes_nothing(make_net):
    net = make_net(0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    others = dict(make_net(1).state_dict())
    others.pop("parts.head.classifier.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: parts\.head\.classifier\.bias"):
        load_weights(net, others, "here")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_single_bit_is_enough(make_net, tmp_path):
    path = save_supernet(make_net(), tmp_path)
    before = path.read_bytes()
    size = int.from_bytes(before[:8], "little")
    for at in (9, size // 2, size + 7, size + 8, size + 1000, len(before) - 1):
        path.unlink()
        path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        for read in (load_supernet, weights_version):
            with pytest.raises(CheckpointError, match=r"restore or remove it|is of another network"):
                read(path)
    path.unlink()
    path.write_bytes(before)
    load_supernet(path)


def test_a_file_of_an_older_version_has_no_digest_and_is_read(make_net, tmp_path):
    net = make_net()
    about = json.dumps({"supernet": net.config.model_dump(mode="json"), "info": {}, "format": "1"}, sort_keys=True)
    tensors = {k: v.contiguous() for k, v in net.state_dict().items()}
    save_file(tensors, tmp_path / "supernet.safetensors", {"hwnas": about})
    assert load_supernet(tmp_path).config == net.config
    weights_version(tmp_path / "supernet.safetensors")


def test_equal_weights_are_equal_files(make_net, tmp_path):
    first = save_supernet(make_net(), tmp_path / "a", {"images": "x"})
    second = save_supernet(make_net(), tmp_path / "b", {"images": "x"})
    assert first.read_bytes() == second.read_bytes()
