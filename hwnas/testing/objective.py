"""Does an objective keep to `hwnas.objectives.plugin`? Inherit the class of its sort in your tests, override `make`."""

from __future__ import annotations

import math

import numpy as np
import torch

from hwnas.data import ImageSet, Splits
from hwnas.latency.table import Device, load_device
from hwnas.objectives.case import SubnetCase
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.plugin import EvaluatedObjective, ExactObjective
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.space import Arch
from hwnas.supernet import Layout, build_supernet, make_layout
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.task import DEFAULT_TASK, TASKS, Task

CLASSES, CHANNELS, PX = 4, 3, 10


def tiny_config() -> MBV3Config:
    """Return the settings of a supernet of one stage, for images of 8 or 10 pixels and four classes."""
    stage = {"width": 8, "stride": 2, "depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [1, 2]}
    return MBV3Config.model_validate({
        "family": "mbv3", "in_channels": CHANNELS, "classes": CLASSES, "resolutions": [8, PX], "stem_width": 8,
        "stem_stride": 1, "first_block": False, "stages": [stage], "expand_width": 16, "feature_width": 16,
    })  # fmt: skip


class _ObjectiveTests:
    def test_it_says_what_it_is(self) -> None:
        """A name of letters, digits and underscores, since limits such as ``name<=5`` are made of it."""
        objective = self._objective()
        assert objective.name.isidentifier()
        assert objective.title.strip()
        assert objective.direction in ("min", "max")

    def _objective(self) -> ExactObjective | EvaluatedObjective:
        raise NotImplementedError


class ExactObjectiveTests(_ObjectiveTests):
    """What every exact objective does."""

    def make(self) -> ExactObjective:
        """Return the objective to test."""
        raise NotImplementedError("override make() to return the objective that is tested")

    def device(self) -> Device:
        """Return a device to compile it for; it can time every block of `layout`."""
        return load_device("hexagon-dsp")

    def layout(self) -> Layout:
        """Return a space to compile it for."""
        return make_layout(tiny_config())

    def test_it_costs_nothing(self) -> None:
        """It is of the sort that needs no network."""
        assert self.make().cost == "exact"

    def test_genomes_and_archs_have_the_same_values(self) -> None:
        """Finite, one for each, whatever stands beside it in a population."""
        layout = self.layout()
        values = self.make().compile(layout, self.device())
        archs = self._archs(layout)
        genomes = layout.space.encode_many(archs)
        found = values.of_genomes(genomes)
        assert found.shape == (len(archs),)
        assert np.isfinite(found).all()
        assert np.array_equal(values.of_archs(archs), found)
        assert np.array_equal(values.of_genomes(genomes[::-1].copy()), found[::-1])
        assert values.of_genomes(genomes[:1])[0] == found[0]

    def test_nobody_is_nobody(self) -> None:
        """No archs have no values."""
        layout = self.layout()
        values = self.make().compile(layout, self.device())
        assert values.of_archs([]).shape == (0,)

    def test_archs_differ(self) -> None:
        """An objective that is the same for every arch cannot be searched."""
        layout = self.layout()
        assert len(set(self.make().compile(layout, self.device()).of_archs(self._archs(layout)))) > 1

    def _objective(self) -> ExactObjective:
        return self.make()

    @staticmethod
    def _archs(layout: Layout) -> list[Arch]:
        space = layout.space
        return [space.smallest(), space.largest(), *space.sample(np.random.default_rng(0), 20)]


class EvaluatedObjectiveTests(_ObjectiveTests):
    """What every evaluated objective does, on an untrained supernet and random images."""

    def make(self) -> EvaluatedObjective:
        """Return the objective to test."""
        raise NotImplementedError("override make() to return the objective that is tested")

    def task(self) -> Task:
        """Return a task that it has a meaning for; `splits` has its targets."""
        return TASKS.get(DEFAULT_TASK)

    def splits(self) -> Splits:
        """Return images of 3 channels and 10 pixels, with targets of `task` for four outputs."""
        g = torch.Generator().manual_seed(0)
        train, validation, test = (
            ImageSet(
                torch.randint(0, 256, (n, CHANNELS, PX, PX), generator=g, dtype=torch.uint8),
                torch.randint(0, CLASSES, (n,), generator=g),
            )
            for n in (30, 20, 10)
        )
        return Splits("random", tuple("abcd"), train, validation, test, self.task())

    def test_it_is_evaluated_and_has_a_meaning(self) -> None:
        """`check` accepts the task."""
        objective = self.make()
        assert objective.cost == "evaluated"
        objective.check(self.task())

    def test_it_gives_its_value_by_its_name(self) -> None:
        """A finite float, the same whenever the same subnet is evaluated."""
        found = self._observed(self._case())
        assert isinstance(found[self.make().name], float)
        assert math.isfinite(found[self.make().name])
        again = self._observed(self._case())
        assert found == again or all(found[k] == again[k] or math.isnan(found[k]) for k in found)

    def test_it_is_one_of_an_evaluations_values(self) -> None:
        """Computed in one pass with the others, it is what it is alone."""
        objective, case = self.make(), self._case()
        with objective.observer(case) as observer, torch.inference_mode():
            inputs, targets = case.validation
            observer.add(case.network(inputs), targets)
        assert math.isfinite(self._observed(self._case())[objective.name])

    def test_it_leaves_networks_images_and_random_numbers_alone(self) -> None:
        """Objectives share a case; nobody may notice whether another one was asked for."""
        case = self._case()
        inputs, targets = case.validation
        kept = [t.clone() for t in (inputs, targets, *case.training)]
        weights = {k: v.clone() for k, v in case.network.state_dict().items()}
        fresh = {k: v.clone() for k, v in case.fresh_network.state_dict().items()}
        state = torch.random.get_rng_state()
        self._observed(case)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(torch.equal(a, b) for a, b in zip((*case.validation, *case.training), kept, strict=True))
        assert all(torch.equal(v, weights[k]) for k, v in case.network.state_dict().items())
        assert all(torch.equal(v, fresh[k]) for k, v in case.fresh_network.state_dict().items())
        assert not case.network.training
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.network.modules())

    def _objective(self) -> EvaluatedObjective:
        return self.make()

    def _case(self) -> SubnetCase:
        net = build_supernet(tiny_config(), 0).eval()
        evaluator = SubnetEvaluator(net, self.splits(), EvaluationConfig(proxy_images=8), seed=1)
        return evaluator.case(net.space.largest())

    def _observed(self, case: SubnetCase) -> dict[str, float]:
        inputs, targets = case.validation
        network = case.network
        with self.make().observer(case) as observer:
            with torch.inference_mode():
                for x, y in zip(inputs.split(8), targets.split(8), strict=True):
                    observer.add(network(x), y)
            return observer.values()
