"""Networks with several exits: cut out, trained together, pruned, run as a cascade, and written as ONNX."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

import hwnas
from hwnas.data import AugmentConfig, TrainBatches, as_input
from hwnas.errors import ArgumentError, SpaceError
from hwnas.export.exits import export_cascade, export_exits, export_joint_exits
from hwnas.export.onnx_check import run_onnx, session
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.finetune.exits import cascade, choose_cascades, exit_answers, prune_exits
from hwnas.latency.exits import exit_latencies_ms
from hwnas.supernet import SupernetConfig, build_supernet, calibrate_bn, extract_subnet
from hwnas.supernet.exits import extract_exits
from hwnas.train import PhaseConfig, scores
from hwnas.train.step import learning_rate, make_optimiser

STAGE = {"width": 8, "stride": 1, "depths": [1, 3], "kernel_sizes": [3, 5], "expand_ratios": [2, 3], "act": "hswish"}
CONFIG = {
    "family": "ofav2", "in_channels": 5, "classes": 7, "resolutions": [11, 13], "stem_stride": 1, "stem_width": 8,
    "expand_width": 48, "feature_width": 64, "dense_skips": True, "early_exits": True, "dropout_percent": 0,
    "stages": [STAGE, {**STAGE, "width": 16, "stride": 2, "se": True}, {**STAGE, "width": 16}],
}  # fmt: skip


@pytest.fixture(scope="module")
def supernet():
    net = build_supernet(TypeAdapter(SupernetConfig).validate_python(CONFIG), seed=1).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if "running" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=g) + 0.5)
    return net


@pytest.fixture
def arch(supernet):
    return supernet.space.restrict({"resolution": [11], "exit": [3]}).largest()


@pytest.fixture
def network(supernet, arch, splits):
    made = extract_exits(supernet, arch)
    calibrate_bn(made, [as_input(splits.train.images, 11, *splits.mean_std)])
    return made


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("end", [1, 2, 3])
def test_its_exits_are_those_of_the_supernet_bit_for_bit(parallel, end, images):
    config = TypeAdapter(SupernetConfig).validate_python({**CONFIG, "parallel": parallel})
    net = build_supernet(config, seed=2).eval()
    for arch in net.space.restrict({"exit": [end]}).sample(np.random.default_rng(0), 4):
        made, x = extract_exits(net, net.space.arch(arch.as_dict())), images(3, arch["resolution"])
        with torch.no_grad():
            wanted = net.exits(x, net.space.arch(arch.as_dict()))
            found = made.exits(x)
            assert len(found) == len(wanted) == end
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
            torch.testing.assert_close(made(x), sum(wanted) / end)


def test_exits_are_weighed_as_the_ordering_says(supernet, arch, images):
    x = images(2, 11)
    for ordering, loss, output in (
        ("uniform", [1 / 3] * 3, [1 / 3] * 3), ("ascending", [1 / 6, 2 / 6, 3 / 6], [1 / 6, 2 / 6, 3 / 6]),
        ("descending", [3 / 6, 2 / 6, 1 / 6], [3 / 6, 2 / 6, 1 / 6]),
        ("mix", [3 / 6, 2 / 6, 1 / 6], [1 / 6, 2 / 6, 3 / 6]),
    ):  # fmt: skip
        made = extract_exits(supernet, arch, ordering)
        assert made.loss_weights == pytest.approx(loss)
        assert made.output_weights == pytest.approx(output)
        with torch.no_grad():
            torch.testing.assert_close(made(x), sum(w * z for w, z in zip(output, made.exits(x), strict=True)))


def test_a_network_without_exits_has_none_to_cut_out(make_net):
    net = make_net()
    with pytest.raises(SpaceError, match="only supernets with early exits"):
        extract_exits(net, net.space.smallest())


def test_exits_learn_the_weighted_sum_of_their_losses(supernet, arch, splits, monkeypatch):
    values = iter([1.0, 2.0])  # the epoch is kept
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": next(values)})
    config = FinetuneConfig(epochs=1, lr=0.05, batch_size=8, distill_ratio=0)
    network = extract_exits(supernet, arch, "mix")
    result = finetune(network, 11, splits, config)
    by_hand = copy.deepcopy(network).train()
    optimiser, batches = (
        make_optimiser(by_hand, config),
        TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(), 0),
    )
    schedule = PhaseConfig(name="by hand", epochs=1, lr=0.05)
    for step in range(batches.per_epoch):
        x, y = batches.batch(step, 11)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(schedule, step, batches.per_epoch, batches.per_epoch)
        optimiser.zero_grad()
        first, second, third = (F.cross_entropy(z, y, label_smoothing=0.1) for z in by_hand.exits(x))
        (first * (3 / 6) + second * (2 / 6) + third * (1 / 6)).backward()
        optimiser.step()
    found, wanted = result.network.state_dict(), by_hand.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_subset_of_exits_that_scores_best_is_kept(network, splits):
    x, y = as_input(splits.validation.images, 11, *splits.mean_std), splits.validation.labels
    found = prune_exits(network, x, y, splits.task)
    with torch.no_grad():
        outputs = dict(zip((1, 2, 3), network.exits(x), strict=True))
    for n in (1, 2, 3):
        for subset in itertools.combinations((1, 2, 3), n):
            said = sum(outputs[e] / n for e in subset).argmax(1)
            assert found.scores[subset] == pytest.approx(100 * float((said == y).float().mean()))
    kept = tuple(found.network.names.values())
    best = max(found.scores.values())
    assert found.scores[kept] == best
    assert all(len(s) >= len(kept) for s, v in found.scores.items() if v == best)
    assert scores(found.network, x, y, splits.task)["top1_percent"] == best


def test_a_network_ends_at_its_last_exit(network, images):
    x = images(2, 11)
    with torch.no_grad():
        first, second, _ = network.exits(x)
        kept = network.with_exits([1, 2])
        assert len(kept.segments) == 2
        assert all(torch.equal(a, b) for a, b in zip(kept.exits(x), (first, second), strict=True))
        assert torch.equal(network.with_exits([2])(x), second * 1.0)
        assert len(network.with_exits([2]).heads) == 1
        assert len(network.exits(x)) == 3
    with pytest.raises(SpaceError, match=r"exits \[4\] are to be kept; there are \[1, 2, 3\]"):
        network.with_exits([4])


def test_an_exit_answers_after_its_trunk_and_all_heads_before(supernet, arch, network):
    device = hwnas.load_device("hexagon-dsp")
    found = exit_latencies_ms(device, network)
    alone, heads = [], []
    for end in (1, 2, 3):
        one = supernet.space.arch({**arch.as_dict(), "exit": end})
        alone.append(float(device.compile(supernet.layout).of_archs([one])[0]))
        heads.append(sum(device.block_ms(s) for n, s in supernet.layout.blocks(one) if n.startswith(f"exit{end}.")))
    assert found == pytest.approx([alone[0], alone[1] + heads[0], alone[2] + heads[0] + heads[1]])
    assert exit_latencies_ms(device, network.with_exits([2, 3])) == pytest.approx([alone[1], alone[2] + heads[1]])


def test_an_image_leaves_at_the_first_exit_that_is_sure_enough():
    confidences = np.array([[0.9, 0.2, 0.5], [0.6, 0.8, 0.5], [0.1, 0.1, 0.5], [0.7, 0.9, 0.4]])
    correct = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]], dtype=bool)
    found = cascade(confidences, correct, [1.0, 2.0, 4.0], [0.8, 0.8])
    assert found.shares == (0.25, 0.5, 0.25)
    assert found.top1_percent == 100.0
    assert found.expected_ms == pytest.approx(0.25 * 1 + 0.5 * 2 + 0.25 * 4)
    assert cascade(confidences, correct, [1.0, 2.0, 4.0], [0.0, 0.0]).expected_ms == 1.0
    assert cascade(confidences, correct, [1.0, 2.0, 4.0], [np.inf, np.inf]).top1_percent == 50.0
    with pytest.raises(ArgumentError, match="3 exits need 2 thresholds and 3 latencies, got 1 and 3"):
        cascade(confidences, correct, [1.0, 2.0, 4.0], [0.5])


def test_chosen_thresholds_are_beaten_by_none_that_were_tried(rng):
    confidences = rng.random((200, 3))
    correct = rng.random((200, 3)) < confidences
    found = choose_cascades(confidences, correct, [1.0, 2.0, 4.0])
    assert found[0].expected_ms == 1.0
    points = [(c.expected_ms, c.top1_percent) for c in found]
    assert points == sorted(points)
    assert [t for _, t in points] == sorted({t for _, t in points})
    for a, b in itertools.product(
        np.quantile(confidences[:, 0], [0.2, 0.5]), np.quantile(confidences[:, 1], [0.3, 0.7])
    ):
        tried = cascade(confidences, correct, [1.0, 2.0, 4.0], [a, b])
        assert any(c.expected_ms <= tried.expected_ms and c.top1_percent >= tried.top1_percent for c in found)


def test_one_file_has_all_exits(network, images, tmp_path):
    export_exits(network, 5, 11, tmp_path / "exits.onnx")
    runner = session(tmp_path / "exits.onnx")
    assert [o.name for o in runner.get_outputs()] == ["exit1", "exit2", "exit3"]
    for n in (1, 4):
        x = images(n, 11)
        with torch.no_grad():
            wanted = network.exits(x)
        for got, z in zip(runner.run(None, {"input": x.contiguous().numpy()}), wanted, strict=True):
            np.testing.assert_allclose(got, z.numpy(), atol=1e-4 * float(z.abs().max()))
    assert not any(m.training for m in network.modules()), "it is left as it was"
    export_exits(network.with_exits([2]), 5, 11, tmp_path / "one.onnx")
    assert [o.name for o in session(tmp_path / "one.onnx").get_outputs()] == ["exit2"]


@pytest.mark.parametrize("kept", [[1, 2, 3], [1, 3], [3]])
def test_a_cascade_of_files_gives_every_answer_and_stops_when_asked(network, images, tmp_path, kept):
    made = network.with_exits(kept)
    paths = export_cascade(made, 5, 11, tmp_path / "cascade")
    assert [p.name for p in paths] == [f"part{i}.onnx" for i in range(1, len(kept) + 1)]
    x = images(4, 11)
    sure, said = exit_answers(made, x)
    with torch.no_grad():
        wanted = made.exits(x)
    values = x.contiguous().numpy()
    for i, path in enumerate(paths):
        runner = session(path)
        logits, *rest = runner.run(None, {"input": values})
        np.testing.assert_allclose(logits, wanted[i].numpy(), atol=1e-4 * float(wanted[i].abs().max()))
        assert logits.argmax(1).tolist() == said[:, i].tolist()
        np.testing.assert_allclose(torch.from_numpy(logits).softmax(1).max(1).values.numpy(), sure[:, i], atol=1e-4)
        assert len(rest) == (i < len(paths) - 1)
        values = rest[0] if rest else values


@pytest.mark.parametrize("kept", [[3], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("ordering", ["uniform", "mix"])
def test_one_file_answers_as_all_exits_do_together(supernet, arch, images, tmp_path, kept, ordering):
    network, x = extract_exits(supernet, arch, ordering).with_exits(kept), images(4, 11)
    export_joint_exits(network, 5, 11, tmp_path / "all.onnx")
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(tmp_path / "all.onnx", x), network(x), atol=1e-4, rtol=1e-4)


def test_a_network_with_one_output_is_exported_as_before(supernet, arch, tmp_path):
    subnet = extract_subnet(supernet, arch)
    hwnas.to_onnx(subnet, 5, 11, tmp_path / "model.onnx")
    assert [o.name for o in session(tmp_path / "model.onnx").get_outputs()] == ["logits"]
