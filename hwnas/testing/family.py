"""Does a family of supernets keep what training, search, latency tables and export expect of it?"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from hwnas.export.bundle import load_model, write_bundle
from hwnas.export.graph import trace
from hwnas.objectives.exact import macs_of_space, params_of_space
from hwnas.space import Arch
from hwnas.supernet import (
    FAMILIES,
    Layout,
    SuperNet,
    SupernetConfig,
    build_supernet,
    count_params,
    extract_subnet,
    make_layout,
)
from hwnas.supernet.families.family import FamilyConfig
from hwnas.supernet.slot_sum import distinct_blocks
from hwnas.supernet.weights.once_for_all import ofa_names
from hwnas.train.checkpoint import load_supernet, save_supernet

N_ARCHS = 6
"""Archs that are drawn besides the smallest and the largest."""


class FamilyTests:
    """Tests of a family; derive from it and override `make`."""

    def make(self) -> dict[str, Any]:
        """Return plain settings of a small supernet, as under ``supernet`` in a recipe.

        Small means that a network is computed in milliseconds; give two resolutions, an odd one among them, and let
        every part of the family occur.
        """
        raise NotImplementedError

    def config(self) -> FamilyConfig:
        """Return the settings, read as a recipe's are."""
        found: FamilyConfig = TypeAdapter(SupernetConfig).validate_python(self.make())
        return found

    def supernet(self) -> SuperNet:
        """Return a supernet in eval mode whose every tensor is random, so that a mix-up shows."""
        net = build_supernet(self.config(), seed=1)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, tensor in net.state_dict().items():
                if tensor.is_floating_point():
                    noise = torch.randn(tensor.shape, generator=generator)
                    tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else tensor + 0.1 * noise)
        return net.eval()

    def archs(self, layout: Layout) -> list[Arch]:
        """Return the smallest arch, the largest one and some in between."""
        space = layout.space
        return [space.smallest(), space.largest(), *space.sample(np.random.default_rng(3), N_ARCHS)]

    def images(self, layout: Layout, arch: Arch, n: int = 3) -> Tensor:
        """Return ``(n, C, resolution, resolution)`` random images."""
        x = torch.randn(n, *layout.input_shape(arch), generator=torch.Generator().manual_seed(4))
        return x.contiguous(memory_format=torch.channels_last)

    # -- settings --------------------------------------------------------------------------------------

    def test_settings_are_those_of_the_family(self) -> None:
        """The value of ``family`` leads to the family, and to its settings."""
        config = self.config()
        assert type(config) is FAMILIES.get(self.make()["family"]).config
        assert config.family == self.make()["family"]

    def test_settings_are_json_and_come_back(self) -> None:
        """Checkpoints, bundles and run folders hold the settings as JSON."""
        config = self.config()
        text = json.dumps(config.model_dump(mode="json"))
        again = TypeAdapter(SupernetConfig).validate_python(json.loads(text))
        assert again == config
        assert hash(again) == hash(config)
        assert json.dumps(again.model_dump(mode="json")) == text

    def test_settings_without_meaning_are_refused(self) -> None:
        """A misspelt setting is a mistake, not ignored."""
        found: list[Any] = []
        try:
            TypeAdapter(SupernetConfig).validate_python({**self.make(), "misspelt_setting": 1})
        except ValidationError as error:
            found = [e["loc"] for e in error.errors()]
        assert found == [("misspelt_setting",)]

    # -- space and slots -------------------------------------------------------------------------------

    def test_equal_settings_give_equal_networks(self) -> None:
        """A layout follows from the settings alone."""
        one, other = make_layout(self.config()), make_layout(self.config())
        assert one.space == other.space
        for arch in self.archs(one):
            assert one.blocks(arch) == other.blocks(arch)

    def test_genomes_and_json_become_the_same_arch_again(self) -> None:
        """Archs are kept as genomes by searchers, as JSON by archives."""
        space = make_layout(self.config()).space
        archs = self.archs(make_layout(self.config()))
        assert space.decode_many(space.encode_many(archs)) == archs
        assert [space.arch(json.loads(json.dumps(a.as_dict()))) for a in archs] == archs

    def test_networks_begin_with_images_and_end_with_classes(self) -> None:
        """Images have the arch's resolution, and there is one logit for each class."""
        config = self.config()
        layout = make_layout(config)
        assert layout.space["resolution"].options == config.resolutions
        for arch in self.archs(layout):
            blocks = [spec for _, spec in layout.blocks(arch)]
            assert layout.input_shape(arch) == (config.in_channels, arch["resolution"], arch["resolution"])
            assert blocks[-1].out_channels == config.classes

    def test_slots_and_stages_are_consistent(self) -> None:
        """Names are unique, stages follow one another, and choices belong to stages that exist."""
        layout = make_layout(self.config())
        for names in ([s.name for s in layout.slots], [s.module_name for s in layout.slots]):
            assert len(set(names)) == len(names), "two slots have the same name"
        stages = [s.stage for s in layout.slots if s.stage is not None]
        assert stages == sorted(stages), "stages are numbered from input to output"
        assert all(s.stage for s in layout.slots if s.begins_stage), "only a stage from 1 on begins"
        of_choices = {layout.stage_of_choice(c.name) for c in layout.space.choices} - {None}
        assert of_choices <= set(stages)
        assert layout.stage_of_choice("resolution") is None
        assert all(name in layout.space for name in layout.cell_edges or ())

    def test_the_last_options_make_the_largest_network(self) -> None:
        """The largest network teaches the others, so it should not be the smallest."""
        layout = make_layout(self.config())
        ends = [layout.space.smallest(), layout.space.largest()]
        for sums in (params_of_space(layout), macs_of_space(layout)):
            smallest, largest = sums.of_archs(ends)
            assert smallest <= largest

    # -- weights ---------------------------------------------------------------------------------------

    def test_a_subnet_computes_bit_for_bit_what_the_supernet_computes(self) -> None:
        """What was searched is what is exported."""
        net = self.supernet()
        for arch in self.archs(net.layout):
            x = self.images(net.layout, arch)
            with torch.inference_mode():
                logits = net(x, arch)
                assert logits.shape == (len(x), net.config.classes)
                assert bool(logits.isfinite().all())
                assert torch.equal(extract_subnet(net, arch)(x), logits), arch

    def test_a_subnet_has_every_weight_from_the_supernet(self) -> None:
        """Extraction leaves nothing as it was in memory, and draws no random numbers."""
        net = self.supernet()
        for arch in self.archs(net.layout):
            state = torch.random.get_rng_state()
            subnet = extract_subnet(net, arch)
            assert torch.equal(torch.random.get_rng_state(), state), "the caller's random state has moved"
            for tensor in subnet.state_dict().values():
                tensor.fill_(0)  # memory that the next network may get
            first, again = (extract_subnet(net, arch).state_dict() for _ in range(2))
            assert all(torch.equal(first[name], again[name]) for name in first)

    def test_every_exit_computes_what_the_subnet_that_ends_there_computes(self) -> None:
        """Training takes all exits in one pass."""
        net = self.supernet()
        arch = net.space.largest()
        x = self.images(net.layout, arch)
        exits = net.space["exit"].options if "exit" in net.space else (None,)
        with torch.inference_mode():
            together = net.exits(x, arch)
            assert len(together) == len(exits)
            for logits, exit_ in zip(together, exits, strict=True):
                ends = {} if exit_ is None else {"exit": exit_}
                assert torch.equal(logits, net(x, net.space.arch({**arch.as_dict(), **ends})))

    def test_sorting_channels_leaves_the_largest_network_as_it_is(self) -> None:
        """Sorting moves what matters most to where narrow subnets find it; nothing else."""
        net = self.supernet()
        arch = net.space.largest()
        x = self.images(net.layout, arch)
        with torch.inference_mode():
            before = net(x, arch)
            net.sort_channels()
            torch.testing.assert_close(net(x, arch), before, rtol=1e-4, atol=1e-5)

    def test_subnets_can_be_trained(self) -> None:
        """Gradients reach weights, and are finite."""
        net = self.supernet().train()
        for arch in self.archs(net.layout)[:3]:
            net.zero_grad(set_to_none=True)
            net(self.images(net.layout, arch), arch).square().mean().backward()
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            assert gradients
            assert all(bool(g.isfinite().all()) for g in gradients)

    def test_published_names_are_complete_and_unique(self) -> None:
        """Where once-for-all has published such networks, every tensor has one name of its own there."""
        net = self.supernet()
        if net.layout.ofa_names is not None:
            names = ofa_names(net)
            assert set(names) == set(net.state_dict())
            assert len(set(names.values())) == len(names)

    # -- counts and files ------------------------------------------------------------------------------

    def test_params_and_macs_are_sums_over_blocks(self) -> None:
        """Searchers look values up block by block; they are those of everything that the extracted network computes."""
        net = self.supernet()
        params, macs = params_of_space(net.layout), macs_of_space(net.layout)
        for arch in self.archs(net.layout):
            subnet = extract_subnet(net, arch)
            assert params.of_archs([arch])[0] == count_params(subnet), arch
            assert macs.of_archs([arch])[0] == _computed_macs(subnet, self.images(net.layout, arch, 1)), arch

    def test_every_block_is_made_of_known_operators(self) -> None:
        """Latency tables time blocks from the same trace that export writes; its shapes are those of the specs."""
        layout = make_layout(self.config())
        for spec in distinct_blocks(layout):
            graph = trace(spec.build())
            shapes = graph.shapes(spec.in_channels, spec.in_size_px)
            assert shapes[len(graph.nodes) - 1][0] == spec.out_channels, spec
            x = torch.zeros(1, spec.in_channels, spec.in_size_px, spec.in_size_px)
            with torch.inference_mode():
                assert spec.build().eval()(x).shape[1] == spec.out_channels, spec

    def test_a_checkpoint_comes_back(self) -> None:
        """Settings and every tensor."""
        net = self.supernet()
        with tempfile.TemporaryDirectory() as folder:
            save_supernet(net, Path(folder))
            again = load_supernet(folder)
        assert again.config == net.config
        tensors, read = net.state_dict(), again.state_dict()
        assert list(read) == list(tensors)
        assert all(torch.equal(read[name], tensors[name]) for name in tensors)

    def test_a_bundle_comes_back_and_its_onnx_file_agrees(self) -> None:
        """A model that is handed over needs neither the supernet nor the run."""
        net = self.supernet()
        for arch in self.archs(net.layout)[:3]:
            subnet, x = extract_subnet(net, arch), self.images(net.layout, arch)
            classes = [str(i) for i in range(net.config.classes)]
            means = [0.5] * net.config.in_channels
            with tempfile.TemporaryDirectory() as folder:
                # Writing compares the ONNX file with the network, and raises where they differ.
                bundle = write_bundle(Path(folder) / "model", subnet, arch, net.config, classes, (means, means), {}, x)
                again = load_model(bundle.folder)
            with torch.inference_mode():
                assert torch.equal(again(x), subnet(x))


def _computed_macs(network: nn.Module, image: Tensor) -> int:
    """Multiply-adds of the convolutions and linear layers that a network runs for one image, ``(1, C, H, W)``.

    A trace would leave out what does not reach the output, such as dead edges of a cell.
    """
    counts: list[int] = []

    def count(layer: Any, _: Any, out: Tensor) -> None:
        counts.append(out.numel() * layer.weight[0].numel())

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        network(image)
    for handle in handles:
        handle.remove()
    return sum(counts)
